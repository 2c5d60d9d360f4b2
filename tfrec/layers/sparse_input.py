"""What happens to a sparse row before the first layer, on its non-zeros only.

Keras's ``UnitNormalization`` and ``Dropout`` accept no SparseTensor.
"""

from __future__ import annotations

import tensorflow as tf


def l2_normalize_rows(x: tf.SparseTensor) -> tf.SparseTensor:
    """Each row divided by its Euclidean norm; a row of zeros stays one. ``[B, I]`` -> ``[B, I]``."""
    rows = x.indices[:, 0]
    squares = tf.math.unsorted_segment_sum(tf.square(x.values), rows, x.dense_shape[0])
    return x.with_values(x.values * tf.gather(tf.math.rsqrt(tf.maximum(squares, 1e-12)), rows))


def dropout_nonzeros(x: tf.SparseTensor, rate: float, seed: tf.Tensor) -> tf.SparseTensor:
    """Each non-zero kept with probability ``1 - rate`` and then divided by it, as dropout does to a dense row.

    Args:
        x: ``[B, I]``.
        rate: in ``[0, 1)``.
        seed: int32 ``[2]``; the same seed drops the same entries.
    """
    if rate == 0:
        return x
    kept = tf.random.stateless_uniform(tf.shape(x.values), seed) >= rate
    return tf.SparseTensor(
        tf.boolean_mask(x.indices, kept), tf.boolean_mask(x.values, kept) / (1 - rate), x.dense_shape
    )
