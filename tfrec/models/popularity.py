"""The baseline that every report shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.models.base import Model
from tfrec.models.carry import Side
from tfrec.models.queries import are_histories, history_tensor, user_tensor
from tfrec.models.questions import row_numbers
from tfrec.models.recommends import Recommends
from tfrec.models.rows import check_width, serve_rows


@keras.saving.register_keras_serializable(package="tfrec")
class Popularity(Recommends, Model):
    """Scores every item by the number of training users who have it, the same for all users.

    Args:
        num_items: I, from 1.

    Input shape: SparseTensor or tensor ``[B, I]``, of whose numbers none matters.
    Output shape: float32 ``[B, I]``, in every precision.

    Raises:
        InputError: an argument out of range, or rows of another width.

    Example:
        >>> import scipy.sparse
        >>> model = Popularity(3)
        >>> model.adapt(scipy.sparse.csr_matrix([[1, 0, 1], [0, 0, 1]]))
        >>> model(tf.zeros([1, 3])).numpy().tolist()
        [[1.0, 0.0, 2.0]]
    """

    takes_histories = True

    def __init__(self, num_items: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_items < 1:
            raise InputError(f"`num_items` must be at least 1.\nReceived: {num_items}.")
        self.num_items = num_items
        self.counts = self.add_weight(
            name="counts", shape=(num_items,), initializer="zeros", dtype="float32", trainable=False, autocast=False
        )
        self.build((None, num_items))

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
        check_width(x.shape, self.num_items, "x")
        rows = x.dense_shape[0] if isinstance(x, tf.SparseTensor) else tf.shape(x)[0]
        counts = tf.convert_to_tensor(self.counts)
        return tf.tile(counts[None, :], [tf.cast(rows, tf.int32), 1])

    def checked_users(self, users: Any) -> np.ndarray:
        """Numbers of users, int64 ``[B]``, as large as they like: all are answered alike."""
        return row_numbers(users, "users", None)

    def scores(self, queries: Any, items: Any = None) -> tf.Tensor:
        """The counts for anybody, float32 ``[B, I]`` or ``[B, C]``; see `Recommends.scores`."""
        if are_histories(queries):
            rows = tf.cast(history_tensor(queries, self.num_items).dense_shape[0], tf.int32)
        else:
            rows = tf.size(user_tensor(queries))
        counts = tf.convert_to_tensor(self.counts)
        return tf.tile(counts[None, :], [rows, 1]) if items is None else tf.gather(counts, items)

    def inner_products(self) -> tuple[Callable[[Any], tf.Tensor], tf.Tensor]:
        """A 1 for anybody, and each item's share of all interactions ``[I, 1]``; see `Recommends.inner_products`."""
        counts = tf.convert_to_tensor(self.counts)
        share = counts / tf.maximum(tf.reduce_sum(counts), 1.0)
        return lambda queries: tf.cast(self.answerable(queries), tf.float32)[:, None], share[:, None]

    def link(self, best: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Each item's share of all interactions, float32 ``[B, k]``."""
        return best / tf.maximum(tf.reduce_sum(scores, axis=1, keepdims=True), 1.0)

    def row_axes(self) -> list[tuple[keras.Variable, Side, int]]:
        """The counts, one for each item; `adapt` counts again."""
        return [(self.counts, "item", 0)]

    def served(self) -> tuple[Callable[[Any], tf.Tensor], list[Any]]:
        """See `Model.served`."""
        return serve_rows(self)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """``[B, I]``."""
        check_width(input_shape, self.num_items, "x")
        return (input_shape[0], self.num_items)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {**super().get_config(), "num_items": self.num_items}
