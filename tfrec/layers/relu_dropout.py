"""ReLU and dropout as one operation."""

from __future__ import annotations

import tensorflow as tf

#: The share of kept units is a multiple of 1 / _LEVELS, so that one random byte decides over one unit.
_LEVELS = 256


def kept_share(rate: float) -> float:
    """The share of units that `relu_dropout` keeps: ``1 - rate``, rounded to a multiple of 1/256."""
    return 1.0 - round(rate * _LEVELS) / _LEVELS


def relu_dropout(x: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """``max(x, 0)``, and 0 for a random share ``rate`` of the units. Nothing is scaled.

    Multiply the next layer's kernel by ``1 / kept_share(rate)``: it is much smaller than the activations, so the
    scaling of dropout costs no pass over them, neither here nor in the gradient. A quarter of the usual random numbers
    is drawn, and the gradient reads the result alone: it is 0 exactly where the unit was dropped or below 0.

    Args:
        x: ``[B, D]``.
        rate: in ``[0, 1)``.
        seed: int32 ``[2]``; the same seed drops the same units.

    Returns:
        ``[B, D]``.
    """
    if kept_share(rate) == 1.0:
        return tf.nn.relu(x)
    shape = tf.shape(x)
    units = shape[0] * shape[1]
    words = tf.random.stateless_uniform(
        [(units + 3) // 4], seed, minval=None, maxval=None, dtype=tf.int32, alg=tf.random.Algorithm.PHILOX
    )
    random = tf.reshape(tf.bitcast(words, tf.uint8), [-1])
    if x.shape[1] is None or x.shape[1] % 4:
        random = random[:units]
    kept = tf.reshape(random, shape) < tf.constant(round(kept_share(rate) * _LEVELS), tf.uint8)
    return _masked_relu(x, kept)


@tf.custom_gradient
def _masked_relu(x: tf.Tensor, kept: tf.Tensor):  # type: ignore[no-untyped-def]
    y = tf.where(kept, tf.nn.relu(x), tf.zeros([], x.dtype))
    return y, lambda upstream: (tf.raw_ops.ReluGrad(gradients=upstream, features=y), None)
