"""Raw ids to a model's numbers and back, inside a SavedModel."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


class IdTable(tf.Module):
    """Ids of one kind.

    Args:
        ids: ``[N]`` raw ids, int64 or text, in the model's order.
        raw: raw ids in and out; False: the numbers ``0 ... N - 1``.
    """

    def __init__(self, ids: np.ndarray, raw: bool) -> None:
        super().__init__()
        text = raw and ids.dtype == object
        self.dtype = tf.string if text else tf.int64
        #: For messages: before the shape of what is taken and given.
        self.words = "raw " if raw else ""
        self._count = len(ids)
        numbers = np.arange(len(ids), dtype=np.int64)
        values = tf.constant([str(i) for i in ids]) if text else tf.constant(ids if raw else numbers, tf.int64)
        # One more, for a place that nothing fills.
        self._ids = tf.concat([values, tf.constant([""] if text else [-1], self.dtype)], 0)
        self._table = (
            tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(values, tf.constant(numbers)), -1)
            if raw
            else None
        )

    def number(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Numbers, int64 in the shape of ``ids``, and whether each is known; an unknown one has number 0."""
        number = self._table.lookup(ids) if self._table is not None else ids
        known = (number >= 0) & (number < self._count)
        return tf.where(known, number, 0), known

    def ids(self, numbers: tf.Tensor) -> tf.Tensor:
        """The ids of ``numbers``; that of N stands for none."""
        return tf.gather(self._ids, numbers)

    def all_ids(self) -> tf.Tensor:
        """All N ids in order."""
        return self._ids[:-1]
