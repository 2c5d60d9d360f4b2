"""A dense layer whose matrix product has sizes that tensor cores like."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

#: Tensor cores work on 16-bit tiles of 8.
ALIGNMENT = 8


def pad_to_multiple(x: tf.Tensor, axes: tuple[int, ...], multiple: int = ALIGNMENT) -> tf.Tensor:
    """``x`` with zeros appended along ``axes`` up to the next multiple; ``x`` itself when nothing is missing."""
    paddings = [[0, 0] for _ in x.shape]
    for axis in axes:
        paddings[axis][1] = -x.shape[axis] % multiple
    return tf.pad(x, paddings) if any(p[1] for p in paddings) else x


@keras.saving.register_keras_serializable(package="tfrec")
class AlignedDense(keras.layers.Dense):
    """`keras.layers.Dense` that pads its matrix product to multiples of 8 when computing in 16 bits.

    The zeros add nothing to a sum, and the columns they make are cut off again: same result, same weights, same
    checkpoints for every precision.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> Any:
        """``[B, D_in]`` -> ``[B, D]``."""
        if keras.backend.standardize_dtype(self.compute_dtype) not in ("float16", "bfloat16"):
            return super().call(inputs, training=training)
        kernel = pad_to_multiple(tf.convert_to_tensor(self.kernel), (0, 1))
        product = tf.matmul(pad_to_multiple(inputs, (1,)), kernel)[:, : self.units]
        if self.use_bias:
            product = product + tf.convert_to_tensor(self.bias)
        return self.activation(product) if self.activation is not None else product
