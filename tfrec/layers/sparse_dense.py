"""A dense layer for sparse rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfrec.errors import InputError


@keras.saving.register_keras_serializable(package="tfrec")
class SparseDense(keras.layers.Layer):
    """``activation(x @ kernel + bias)`` for a SparseTensor x, which is never made dense.

    Cost: ``2 D`` operations per non-zero forward and as many backward, where a dense layer has ``2 D I`` per row.

    Args:
        units: D, from 1.
        activation: as in `keras.layers.Dense`.
        kernel_initializer: as in `keras.layers.Dense`.
        kernel_regularizer: as in `keras.layers.Dense`.

    Input shape: SparseTensor ``[B, I]``, I known when the layer is built, entries in order of row. A dense tensor is
    multiplied as `keras.layers.Dense` does it.
    Output shape: ``[B, D]`` in the compute dtype.

    Raises:
        ValueError: an argument out of range, or rows of another width than the layer was built for.

    Example:
        >>> layer = SparseDense(3)
        >>> layer(tf.sparse.from_dense([[0.0, 2.0], [1.0, 0.0]])).shape
        TensorShape([2, 3])
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if units < 1:
            raise InputError(f"`units` must be at least 1.\nReceived: units={units}.")
        self.units = units
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create ``kernel`` ``[I, D]`` and ``bias`` ``[D]``."""
        if input_shape[-1] is None:
            raise InputError(
                f"The number of items must be known to build the layer.\nReceived: input_shape={input_shape}."
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")
        # Rows of another width would be multiplied without a word: entries name rows of the kernel.
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: input_shape[-1]})

    def call(self, x: tf.SparseTensor | tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """``[B, I]`` -> ``[B, D]``."""
        x = tf.cast(x, self.compute_dtype)
        kernel = tf.convert_to_tensor(self.kernel)
        if isinstance(x, tf.SparseTensor):
            product = sparse_matmul(x, kernel, training=training is not False)
        else:
            product = tf.matmul(x, kernel)
        return self.activation(product + tf.convert_to_tensor(self.bias))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """``[B, D]``."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def sparse_matmul(x: tf.SparseTensor, kernel: tf.Tensor, *, training: bool = True) -> tf.Tensor:
    """``x @ kernel`` with a gradient for ``kernel`` only. ``[B, I]`` sparse, ``[I, D]`` -> ``[B, D]``.

    On a GPU this is TensorFlow's sparse product. On CPUs that reads kernel rows at 2.3 GB/s, on one core; sums
    of rows (``SparseSegmentSum``) are 4 to 7 times faster, but accept no weights. A row of a binary matrix has one
    value, also after normalisation and dropout, so its sum is scaled afterwards; a batch in which some row has
    several values takes the sparse product. Both give the same numbers up to rounding.

    TensorFlow's own gradient also computes that of ``x.values``, a gather of two ``[nnz, D]`` tensors that training
    has no use for and that only graph pruning saves it from.

    Args:
        x: entries in order of row.
        kernel: of the dtype of ``x``.
        training: whether gradients will be asked for. False: they are TensorFlow's own, since a graph that was traced
            through `tf.custom_gradient`, and every table it has caught, is kept until the process ends.
    """
    if tf.config.list_logical_devices("GPU"):
        return _product(x, kernel) if training else tf.sparse.sparse_dense_matmul(x, kernel)
    row = x.indices[:, 0]
    largest = tf.math.unsorted_segment_max(x.values, row, x.dense_shape[0])
    one_value_per_row = tf.reduce_all(tf.equal(x.values, tf.gather(largest, row)))
    scale = tf.where(tf.equal(largest, x.values.dtype.min), tf.zeros_like(largest), largest)  # rows without entries

    column, batch = x.indices[:, 1], x.dense_shape[0]
    if not training:
        # TensorFlow's gradient of a sum over no entries at all is not set: one more entry, in a row that is cut off.
        column, row = tf.concat([column, [0]], 0), tf.concat([row, batch[None]], 0)

    def forward(kernel: tf.Tensor) -> tf.Tensor:
        product = tf.cond(
            one_value_per_row,
            lambda: _sums(kernel, column, row, batch if training else batch + 1)[:batch] * scale[:, None],
            lambda: tf.sparse.sparse_dense_matmul(x, kernel),
        )
        return tf.ensure_shape(product, [None, kernel.shape[1]])

    if not training:
        return forward(kernel)

    @tf.custom_gradient
    def multiply(kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            found = tf.cond(
                one_value_per_row,
                lambda: _transposed_sums(x, upstream * scale[:, None]),
                lambda: tf.sparse.sparse_dense_matmul(x, upstream, adjoint_a=True),
            )
            return tf.ensure_shape(found, kernel.shape)

        return forward(kernel), gradient

    return multiply(kernel)


def _product(x: tf.SparseTensor, kernel: tf.Tensor) -> tf.Tensor:
    """TensorFlow's sparse product, without the gradient of the values."""

    @tf.custom_gradient
    def multiply(kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.sparse.sparse_dense_matmul(x, upstream, adjoint_a=True)

        return tf.sparse.sparse_dense_matmul(x, kernel), gradient

    return multiply(kernel)


def _sums(data: tf.Tensor, index: tf.Tensor, segment: tf.Tensor, num_segments: tf.Tensor) -> tf.Tensor:
    """Sums of ``data[index]`` by ``segment`` (ascending); 0 for a segment without entries."""
    return tf.raw_ops.SparseSegmentSumWithNumSegments(
        data=data, indices=index, segment_ids=segment, num_segments=num_segments
    )


def _transposed_sums(x: tf.SparseTensor, upstream: tf.Tensor) -> tf.Tensor:
    """For each column of ``x`` the sum of the rows of ``upstream`` that have an entry there, ``[I, D]``."""
    order = tf.argsort(x.indices[:, 1], stable=True)
    entries = tf.gather(x.indices, order)
    return _sums(upstream, entries[:, 0], entries[:, 1], x.dense_shape[1])
