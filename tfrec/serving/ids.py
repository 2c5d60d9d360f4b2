"""Raw ids to a model's numbers and back, inside a SavedModel."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.errors import InputError


class IdTable(tf.Module):
    """Ids of one kind.

    Args:
        ids: ``[N]`` raw ids, int64 or text, in the model's order.
        raw: raw ids in and out; False: the numbers ``0 ... N - 1``.
        padded: whether rows of these ids are filled up with the one that stands for none, -1 or ``""``.

    Raises:
        InputError: that one is among the ids.
    """

    def __init__(self, ids: np.ndarray, raw: bool, padded: bool = True) -> None:
        super().__init__()
        text = raw and ids.dtype == object
        self.dtype = tf.string if text else tf.int64
        #: Stands for no id: what fills rows of unequal length.
        self.padding = "" if text else -1
        #: For messages: before the shape of what is taken and given.
        self.words = "raw " if raw else ""
        self._count = len(ids)
        numbers = np.arange(len(ids), dtype=np.int64)
        python: list[Any] = [str(i) for i in ids] if text else (ids if raw else numbers).tolist()
        if padded and self.padding in set(python):
            raise InputError(
                f"An export fills empty places with the id {self.padding!r}, so no item can have it.\n"
                f"Received: {self.padding!r} at place {python.index(self.padding)}.\n"
                "Name that item otherwise in the data, or export numbers in place of ids (--no-raw-ids)."
            )
        values = tf.constant(python, self.dtype)
        # One more, for a place that nothing fills.
        self._ids = tf.concat([values, tf.constant([self.padding], self.dtype)], 0)
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

    def pairs(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Row and number of each known id of padded rows ``[B, L]``, int64 each, by row."""
        number, known = self.number(ids)
        return tf.where(known)[:, 0], tf.boolean_mask(number, known)

    def ids(self, numbers: tf.Tensor) -> tf.Tensor:
        """The ids of ``numbers``; that of N stands for none."""
        return tf.gather(self._ids, numbers)

    def all_ids(self) -> tf.Tensor:
        """All N ids in order."""
        return self._ids[:-1]
