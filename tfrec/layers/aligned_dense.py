"""A dense layer whose matrix product has sizes that tensor cores like."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

#: Tensor cores work on 16-bit tiles of 8.
ALIGNMENT = 8


def pad_to_multiple(x: tf.Tensor, axes: tuple[int, ...], multiple: int = ALIGNMENT) -> tf.Tensor:
    """``x`` with zeros appended along ``axes``, whose lengths are known, up to the next multiple; ``x`` itself when
    nothing is missing."""
    paddings = [[0, 0] for _ in x.shape]
    for axis in axes:
        paddings[axis][1] = -x.shape[axis] % multiple
    return tf.pad(x, paddings) if any(p[1] for p in paddings) else x


@keras.saving.register_keras_serializable(package="tfrec")
class AlignedDense(keras.layers.Dense):
    """`keras.layers.Dense` that pads its matrix product to multiples of 8 when computing in 16 bits.

    The zeros add nothing to a sum, and the columns they make are cut off again: same result, same weights, same
    checkpoints for every precision.

    Input shape: ``[B, ..., D_in]``, dense or a SparseTensor.
    Output shape: ``[B, ..., D]``.
    """

    def call(self, inputs: tf.Tensor | tf.SparseTensor, training: bool | None = None) -> Any:
        """``[B, ..., D_in]`` -> ``[B, ..., D]``."""
        low = keras.backend.standardize_dtype(self.compute_dtype) in ("float16", "bfloat16")
        if not low or isinstance(inputs, tf.SparseTensor):
            return super().call(inputs, training=training)
        width = self.kernel.shape[0]
        kernel = pad_to_multiple(tf.convert_to_tensor(self.kernel), (0, 1))
        # As many rows as there are positions: a product of two matrices, whatever the rank of the inputs.
        rows = pad_to_multiple(tf.reshape(inputs, [-1, width]), (1,))
        product = tf.matmul(rows, kernel)[:, : self.units]
        if self.use_bias:
            product = product + tf.convert_to_tensor(self.bias)
        product = tf.reshape(product, tf.concat([tf.shape(inputs)[:-1], [self.units]], axis=0))
        product = tf.ensure_shape(product, [*inputs.shape[:-1], self.units])
        return self.activation(product) if self.activation is not None else product
