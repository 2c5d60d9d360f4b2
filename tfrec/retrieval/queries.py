"""Raw ids to the vectors that a model asks an index with, in TensorFlow alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.data.device_integers import DeviceIntegers
from tfrec.errors import InputError
from tfrec.layers.reference import plain_operations
from tfrec.recommender import Recommender
from tfrec.serving.ids import IdTable
from tfrec.serving.served import history_rows

#: What a query is.
By = Literal["users", "histories"]


class _Rows(tf.Module):
    """Rows of a sparse matrix ``[V, I]``, read in a graph."""

    def __init__(self, matrix: scipy.sparse.csr_matrix) -> None:
        super().__init__()
        matrix = matrix.sorted_indices()
        self._offsets = tf.constant(matrix.indptr.astype(np.int64))
        self._columns = DeviceIntegers(matrix.indices)
        self._values = tf.constant(matrix.data.astype(np.float32))
        self._width = matrix.shape[1]

    def gather(self, numbers: tf.Tensor, known: tf.Tensor) -> tf.SparseTensor:
        """Rows ``[B, I]``, empty where ``known`` is False."""
        starts = tf.gather(self._offsets, numbers)
        lengths = tf.where(known, tf.gather(self._offsets, numbers + 1) - starts, 0)
        ends = tf.cumsum(lengths)
        entry = tf.range(tf.reduce_sum(lengths), dtype=tf.int64)
        row = tf.searchsorted(ends, entry, side="right", out_type=tf.int64)
        place = entry + tf.gather(starts - (ends - lengths), row)
        shape = tf.stack([tf.size(numbers, tf.int64), tf.constant(self._width, tf.int64)])
        columns = tf.cast(self._columns.gather(place), tf.int64)
        return tf.SparseTensor(tf.stack([row, columns], axis=1), tf.gather(self._values, place), shape)


class Queries(tf.Module):
    """Vectors of users, or of histories, as `tfrec.Recommender.query_vectors`: a query model of an index.

    Input: raw ids of users, int64 or string ``[B]``; or of the items of each history ``[B, L]``, filled up with -1 or
    ``""``. Unknown ones are ignored.
    Output: float32 ``[B, G + 1]``.

    Args:
        recommender: whose model, ids and histories these are.
        by: ``users`` or ``histories``.

    Raises:
        InputError: a model whose scores are no inner products, or that takes no histories; an item with the id that
            fills rows up.
    """

    def __init__(self, recommender: Recommender, by: By = "users") -> None:
        super().__init__(name="queries")
        if by not in get_args(By):
            raise InputError(f"`by` must be one of {', '.join(get_args(By))}.\nReceived: {by!r}.")
        model, vocabulary = recommender.model, recommender.vocabulary
        if by == "histories":
            recommender.check_takes_histories()
        vectors, _ = model.inner_products()
        # A SavedModel that saw Keras's variables and TensorFlow's inside them would store each weight twice.
        self._vectors: Callable[[Any], tf.Tensor] = vectors
        self._num_items: int = model.num_items
        self._num_users: int = getattr(model, "num_users", None) or 0
        weights = vocabulary.weights
        self._entry_weights = None if weights is None else tf.constant(weights, tf.float32)
        self.items = IdTable(vocabulary.item_ids, raw=True)
        self.users = IdTable(vocabulary.user_ids, raw=True, padded=False)
        histories = scipy.sparse.csr_matrix(vocabulary.histories)
        self._seen = _Rows(
            scipy.sparse.csr_matrix((np.ones_like(histories.data), *_places(histories)), histories.shape)
        )
        liked = histories.copy()
        liked.eliminate_zeros()
        # Where the model knows everybody by number, no history is asked.
        some_by_history = not self._num_users or self._num_users < len(vocabulary.user_ids)
        by_history = by == "users" and bool(model.takes_histories) and some_by_history
        self._liked = _Rows(liked) if by_history else None
        ids = self.users.dtype if by == "users" else self.items.dtype
        self.signature = tf.TensorSpec([None] if by == "users" else [None, None], ids, name=f"{by[:-1]}_ids")
        answer = self._of_users if by == "users" else self._of_histories
        self._answer = tf.function(answer, input_signature=[self.signature], autograph=False)
        with plain_operations(list(model._flatten_layers())):
            # What the answer needs of the model, so that it is saved with it.
            self._weights = list(self._answer.get_concrete_function().graph.variables)

    def __call__(self, queries: Any) -> tf.Tensor:
        """Their vectors."""
        return self._answer(queries)

    def exclusions(self, users: Any, width: int | None = None) -> tf.Tensor:
        """What users have, by raw id, for ``query_with_exclusions``.

        Args:
            users: raw ids ``[B]``.
            width: M, which a graph must know; None: the most that one of them has.

        Returns:
            raw ids of items ``[B, M]``, filled up with -1 or ``""``. A user with more than ``width`` is an error.
        """
        rows = self._seen.gather(*self.users.number(tf.convert_to_tensor(users, self.users.dtype)))
        row = rows.indices[:, 0]
        place = tf.range(tf.size(row, tf.int64)) - tf.searchsorted(row, row, side="left", out_type=tf.int64)
        most = tf.reduce_max(tf.concat([place + 1, tf.zeros([1], tf.int64)], 0))
        columns = most if width is None else tf.constant(width, tf.int64)
        check = tf.debugging.Assert(most <= columns, ["`width` must be at least what a user has:", most, columns])
        with tf.control_dependencies([check]):
            shape = tf.stack([rows.dense_shape[0], columns])
        none = tf.fill(shape, tf.constant(self._num_items, tf.int64))
        numbers = tf.tensor_scatter_nd_update(none, tf.stack([row, place], axis=1), rows.indices[:, 1])
        return tf.ensure_shape(self.items.ids(numbers), [None, width])

    def _of_users(self, user_ids: tf.Tensor) -> tf.Tensor:
        number, known = self.users.number(user_ids)
        by_number = known & (number < self._num_users)
        if self._liked is None:
            return self._with_popularity(self._vectors(tf.where(by_number, number, 0)), by_number)
        rows = self._liked.gather(number, known & ~by_number)
        vectors, by_history = self._vectors(rows), _has_entries(rows)
        if self._num_users:
            of_number = self._vectors(tf.where(by_number, number, 0))
            vectors = tf.where(by_number[:, None], of_number, vectors)
        return self._with_popularity(vectors, by_number | by_history)

    def _of_histories(self, item_ids: tf.Tensor) -> tf.Tensor:
        pairs, batch = self.items.pairs(item_ids), tf.shape(item_ids, tf.int64)[0]
        rows, known, _ = history_rows(pairs, batch, self._num_items, self._entry_weights)
        return self._with_popularity(self._vectors(rows), known)

    def _with_popularity(self, vectors: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        vectors = tf.where(known[:, None], vectors, 0.0)
        return tf.concat([vectors, tf.cast(~known, tf.float32)[:, None]], axis=1)


def _has_entries(rows: tf.SparseTensor) -> tf.Tensor:
    count = tf.math.unsorted_segment_sum(tf.ones_like(rows.values), rows.indices[:, 0], rows.dense_shape[0])
    return count > 0


def _places(matrix: scipy.sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    return matrix.indices, matrix.indptr
