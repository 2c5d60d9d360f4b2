"""The multinomial likelihood of a softmax over all items, fused with the layer that makes its logits.

    nll_b = n_b * logsumexp(h_b W + c) - sum over i of x_bi (h_b W + c)_i ,    n_b = sum over i of x_bi

(Liang et al., 2018, equation 2, without the constant.) Written with ordinary operations the step holds several
``[B, I]`` tensors at once: logits, log-probabilities, the dense target, and a gradient for each. Here

- the target stays sparse: logits are gathered at its non-zeros;
- the gradient ``g = n softmax - x`` is made in the forward pass, right after the logits, and at once multiplied
  into the gradients of h, W and c, so that nothing of size ``[B, I]`` waits for the backward pass;
- users go through in chunks, so that no tensor is larger than ``chunk_bytes``.

The matrix products are the same three as before (logits, and the gradients of h and W); nothing is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from tfrec.layers.aligned_dense import pad_to_multiple

#: Logits are computed for so many bytes (float32) at a time.
CHUNK_BYTES = 64 << 20


def multinomial_nll(
    hidden: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    target: tf.SparseTensor,
    *,
    training: bool,
    chunk_bytes: int = CHUNK_BYTES,
) -> tf.Tensor:
    """Sum over users of the negative log-likelihood, float32 scalar.

    Softmax, sums and the result are float32 whatever the dtype of ``hidden``, whose dtype the products have.

    Args:
        hidden: ``[B, D]``.
        kernel: float32 ``[D, I]``.
        bias: float32 ``[I]``.
        target: ``[B, I]``, counts, rows in order.
        training: whether gradients will be asked for; they are computed together with the value.
        chunk_bytes: size of the largest intermediate tensor, about.

    Example:
        >>> nll = multinomial_nll(tf.zeros([1, 2]), tf.zeros([2, 4]), tf.zeros([4]),
        ...                       tf.sparse.from_dense([[1.0, 0, 0, 1.0]]), training=False)
        >>> round(float(nll), 4)  # 2 log 4
        2.7726
    """
    dtype = hidden.dtype
    num_items = kernel.shape[1]
    chunk_rows = max(1, chunk_bytes // (4 * num_items))
    counts = tf.cast(target.values, tf.float32)
    batch = tf.shape(hidden)[0]
    chunks = tf.maximum((batch + chunk_rows - 1) // chunk_rows, 1)  # no user is one empty chunk
    # Even chunks: 1,100 rows at 1,000 a chunk are 550 + 550.
    rows = (batch + chunks - 1) // chunks
    starts = tf.minimum(tf.range(chunks + 1) * rows, batch)
    first_entry = tf.searchsorted(target.indices[:, 0], tf.cast(starts, tf.int64))
    # In 16 bits the gradient of W, a sum over users, must not overflow, nor its terms underflow: scale by a power
    # of two near 1/sqrt(B), and back in float32.
    scale = tf.constant(1.0)
    if dtype != tf.float32:
        scale = tf.pow(2.0, -tf.round(tf.math.log(tf.cast(tf.maximum(batch, 1), tf.float32)) / math.log(4.0)))

    @tf.custom_gradient
    def fused(
        hidden: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
        weights = tf.cast(kernel, dtype)
        offset = bias
        if dtype != tf.float32:
            weights = pad_to_multiple(weights, (1,))
            padding = weights.shape[1] - num_items
            # exp(-inf) = 0: the padded columns take no share of the softmax, and their gradient is 0.
            offset = tf.pad(bias, [[0, padding]], constant_values=float("-inf")) if padding else bias

        def forward(c: tf.Tensor) -> tuple[tf.Tensor, ...]:
            low, high = starts[c], starts[c + 1]
            part = hidden[low:high]
            entries = slice(first_entry[c], first_entry[c + 1])
            positions = target.indices[entries] - tf.stack([tf.cast(low, tf.int64), 0])[None, :]
            count = counts[entries]
            total = tf.math.unsorted_segment_sum(count, positions[:, 0], high - low)
            if dtype == tf.float32:
                logits = tf.nn.bias_add(tf.matmul(part, weights), offset)
            else:
                logits = tf.cast(tf.matmul(part, weights), tf.float32) + offset
            gathered = tf.reduce_sum(tf.gather_nd(logits, positions) * count)
            top = tf.reduce_max(logits, axis=1, keepdims=True)
            exps = tf.exp(logits - top)
            mass = tf.reduce_sum(exps, axis=1)
            nll = tf.reduce_sum(total * (tf.math.log(mass) + top[:, 0])) - gathered
            return nll, part, positions, count, exps, total / mass

        def value_only(c: tf.Tensor, nll: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return c + 1, nll + forward(c)[0]

        def value_and_gradients(
            c: tf.Tensor, nll: tf.Tensor, d_hidden: tf.TensorArray, d_kernel: tf.Tensor, d_bias: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray, tf.Tensor, tf.Tensor]:
            value, part, positions, count, exps, share = forward(c)
            g = tf.tensor_scatter_nd_sub(exps * share[:, None], positions, count)
            d_bias = d_bias + tf.reduce_sum(g, axis=0)
            if dtype != tf.float32:
                g = tf.cast(g * scale, dtype)
            d_hidden = d_hidden.write(c, tf.cast(tf.matmul(g, weights, transpose_b=True), tf.float32))
            d_kernel = d_kernel + tf.cast(tf.matmul(part, g, transpose_a=True), tf.float32)
            return c + 1, nll + value, d_hidden, d_kernel, d_bias

        if not training:
            _, nll = tf.while_loop(
                lambda c, _: c < chunks, value_only, (tf.constant(0), tf.constant(0.0)), parallel_iterations=1
            )
            return nll, lambda upstream: (None, None, None)

        shape = tf.shape(weights)
        _, nll, d_hidden, d_kernel, d_bias = tf.while_loop(
            lambda c, *_: c < chunks,
            value_and_gradients,
            (
                tf.constant(0),
                tf.constant(0.0),
                tf.TensorArray(tf.float32, size=chunks, infer_shape=False, element_shape=[None, hidden.shape[1]]),
                tf.zeros(shape),
                tf.zeros(shape[1:]),
            ),
            parallel_iterations=1,
        )
        d_hidden = tf.ensure_shape(d_hidden.concat(), [None, hidden.shape[1]])

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            factor = upstream / scale
            return (
                tf.cast(d_hidden * factor, dtype),
                (d_kernel * factor)[:, :num_items],
                (d_bias * upstream)[:num_items],
            )

        return nll, gradient

    return fused(hidden, kernel, bias)
