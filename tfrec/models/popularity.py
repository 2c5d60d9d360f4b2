"""The baseline that every report shows."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError


@keras.saving.register_keras_serializable(package="tfrec")
class Popularity(keras.Model):
    """Scores every item by the number of training users who have it, the same for all users.

    Args:
        num_items: I, from 1.

    Input shape: SparseTensor or tensor ``[B, I]``, of which only B matters.
    Output shape: float32 ``[B, I]``.

    Example:
        >>> import scipy.sparse
        >>> model = Popularity(3)
        >>> model.adapt(scipy.sparse.csr_matrix([[1, 0, 1], [0, 0, 1]]))
        >>> model(tf.zeros([1, 3])).numpy().tolist()
        [[1.0, 0.0, 2.0]]
    """

    def __init__(self, num_items: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_items < 1:
            raise InputError(f"`num_items` must be at least 1.\nReceived: {num_items}.")
        self.num_items = num_items
        self.counts = self.add_weight(
            name="counts", shape=(num_items,), initializer="zeros", dtype="float32", trainable=False
        )

    def adapt(self, interactions: scipy.sparse.csr_matrix) -> None:
        """Count the users of each item. ``interactions`` is ``[U, I]``; only entries with a value above 0 count.

        Raises:
            InputError: another number of items.
        """
        if interactions.shape[1] != self.num_items:
            raise InputError(
                f"`interactions` must have {self.num_items} columns.\nReceived: shape {interactions.shape}."
            )
        matrix = scipy.sparse.csr_matrix(interactions)
        present = matrix.indices[matrix.data > 0]
        self.counts.assign(np.bincount(present, minlength=self.num_items).astype(np.float32))

    def build(self, input_shape: Any) -> None:
        """Nothing to build: the counts are there from the start."""
        self.built = True

    def call(self, x: tf.SparseTensor | tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The counts, once per row of ``x``."""
        rows = x.dense_shape[0] if isinstance(x, tf.SparseTensor) else tf.shape(x)[0]
        counts = tf.convert_to_tensor(self.counts)
        return tf.tile(counts[None, :], [tf.cast(rows, tf.int32), 1])

    def probabilities(self, x: tf.SparseTensor | tf.Tensor) -> tf.Tensor:
        """Each item's share of all interactions, float32 ``[B, I]``."""
        counts = self(x)
        return counts / tf.maximum(tf.reduce_sum(counts, axis=1, keepdims=True), 1.0)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """``[B, I]``."""
        return (input_shape[0], self.num_items)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {**super().get_config(), "num_items": self.num_items}
