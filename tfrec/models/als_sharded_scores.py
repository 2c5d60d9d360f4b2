"""Scores of ALS whose tables are spread over ranks: no rank holds a whole table for them.

Each rank scores its own items for the users of all ranks, and sends each rank the scores of its users. For B users of a
rank that is B x I numbers sent and as many received; a rank holds them a few times over, as it would on one process.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec import ops
from tfrec.models.als_sharded_sweep import Traffic, fetch, row_chunks
from tfrec.ops.als import reference_solve
from tfrec.ranks import Ranks


class ShardedScores:
    """The scores of `tfrec.models.als_sharded.ShardedALS`. Every rank must ask equally often, also for no user.

    Attributes:
        num_users: U.
        num_items: I.
        users: this rank's rows of the users.
        items: this rank's rows of the items.
        sweep: the objective.
        ranks: who takes part.
        traffic: rows and bytes that this rank has fetched and served.
    """

    takes_histories = True
    #: Scores are a collective.
    exchanges_rows = True
    num_users: int | None
    num_items: int | None
    users: keras.Variable
    items: keras.Variable
    sweep: ops.Sweep
    ranks: Ranks
    traffic: Traffic

    def scores(self, queries: Any, items: Any = None) -> tf.Tensor:
        """As `tfrec.models.ALS.scores`, inside and outside of graphs.

        Args:
            queries: int ``[B]``, users; or sparse rows ``[B, I]`` of others, who are folded in.
            items: int ``[B, C]``, candidates of each user; None: all.

        Returns:
            float32 ``[B, I]`` or ``[B, C]``.
        """
        sparse = isinstance(queries, tf.SparseTensor)
        asked = [queries.indices, queries.values, queries.dense_shape] if sparse else [tf.convert_to_tensor(queries)]
        given = asked if items is None else [*asked, tf.convert_to_tensor(items)]

        def compute(*tensors: tf.Tensor) -> tf.Tensor:
            of = tensors[: len(asked)]
            vectors = self._folded(tf.SparseTensor(*of)) if sparse else self._rows_of(self.users, of[0].numpy())
            vectors = tf.cast(vectors, tf.float32)
            return self._of_all(vectors) if items is None else self._of_some(vectors, tensors[-1].numpy())

        if tf.executing_eagerly():
            return compute(*given)
        # Names of exchanges are then the same on all ranks, however each has traced its graph.
        found = tf.py_function(compute, given, tf.float32)
        return tf.ensure_shape(found, [None, self.num_items if items is None else items.shape[1]])

    def gramian(self, table: keras.Variable) -> tf.Tensor:
        """``table' table`` over all ranks' rows, float32 ``[F, F]``. Every rank must call it."""
        width = int(table.shape[1])
        total = tf.zeros([width, width])
        for _, rows in row_chunks(table.value):
            total += ops.gramian(rows)
        return self.ranks.sum(total)

    def _of_all(self, vectors: tf.Tensor) -> tf.Tensor:
        """``[B, F]`` -> ``[B, I]``."""
        assert self.num_items is not None
        size = self.ranks.size
        counts = self.ranks.gather_rows(tf.constant([vectors.shape[0]], tf.int32))
        everyone = self.ranks.gather_rows(vectors)
        parts = [
            tf.matmul(everyone, tf.cast(rows, tf.float32), transpose_b=True) for _, rows in row_chunks(self.items.value)
        ]
        # Ranks differ by at most an item: all send as many columns.
        most = -(-self.num_items // size)
        found = tf.concat([*parts, tf.zeros([everyone.shape[0], most - int(self.items.shape[0])])], axis=1)
        del parts
        received, _ = self.ranks.exchange(found, counts)
        by_rank = tf.reshape(received, [size, -1, most])
        return tf.reshape(tf.transpose(by_rank, [1, 2, 0]), [-1, most * size])[:, : self.num_items]

    def _of_some(self, vectors: tf.Tensor, items: np.ndarray) -> tf.Tensor:
        """``[B, F]`` and ``[B, C]`` -> ``[B, C]``."""
        distinct, place = np.unique(items, return_inverse=True)
        rows = tf.cast(self._rows_of(self.items, distinct), tf.float32)
        return tf.linalg.matvec(tf.gather(rows, place.reshape(items.shape)), vectors)

    def _folded(self, rows: tf.SparseTensor) -> tf.Tensor:
        """Factors ``[B, F]`` of users with these rows, exact whatever the solver."""
        # A stored zero is no entry, and those of a row must stand together.
        rows = tf.sparse.reorder(tf.sparse.retain(rows, rows.values != 0))
        row, column = rows.indices[:, 0].numpy(), rows.indices[:, 1].numpy()
        offsets = np.searchsorted(row, np.arange(int(rows.dense_shape[0]) + 1))
        needed, place = np.unique(column, return_inverse=True)
        table = self._rows_of(self.items, needed)
        gram = self.gramian(self.items)
        if len(needed) == 0:
            # A row that nothing points to, for a gather that needs one.
            table = tf.zeros([1, table.shape[1]], table.dtype)
        exact = dataclasses.replace(self.sweep, solver="cholesky")
        starts, lengths = tf.constant(offsets[:-1], tf.int64), tf.constant(np.diff(offsets), tf.int64)
        columns, values = tf.constant(place.reshape(-1), tf.int64), tf.cast(rows.values, tf.float32)
        return reference_solve(starts, lengths, columns, values, table, gram, None, exact, num_fixed=self.num_items)

    def _rows_of(self, table: keras.Variable, numbers: np.ndarray) -> tf.Tensor:
        """Rows of a whole table, ``[n, F]``; a rank fetches each once. Every rank must call it."""
        size = self.ranks.size
        distinct, place = np.unique(numbers, return_inverse=True)
        owner = distinct % size
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=size).astype(np.int32)
        rows = fetch(table.value, distinct[order].astype(np.int32), counts, self.ranks, self.traffic)
        where = np.empty(len(order), np.int64)
        where[order] = np.arange(len(order))
        return tf.gather(rows, where[place.reshape(-1)])
