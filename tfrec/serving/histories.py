"""A SavedModel that takes histories of item ids and gives recommendations, with TensorFlow alone.

Signature ``serving_default``:

    item_ids    int64 (or string) [N]   the histories of B users, one after another
    row_splits  int64 [B + 1]           where each begins; the first is 0, the last N
    k           int32 []                how many items to recommend, 1 to I

    ids         int64 (or string) [B, k]  best first, none of them in the history
    scores      float32 [B, k]            what the model shows for its scores: VAE-CF and popularity: probability of
                                          being the user's next item, among all items; ALS: x.y
    counts      int32 [B]                 how many of a row's k places are filled; the others have id -1 (or ""),
                                          score 0: a user who has seen nearly everything has fewer than k left

An unknown id is ignored, one that occurs twice counts once, and a history without a known id is answered with the
most popular items. Signature ``vocabulary`` takes nothing and gives the ``ids`` and ``labels`` of all I items.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.evaluation.counts import true_in_row
from tfrec.serving.ids import IdTable


class ServedHistories(tf.Module):
    """Histories in, recommendations out, around a model over sparse rows.

    Args:
        model: one with ``num_items`` that answers histories, see `tfrec.models.recommends.Recommends`. Items are ranked
            by its ``scores``, as in evaluation; shown with the winners is what its ``link`` makes of them; and where
            it is not ``answerable``, the row is empty.
        item_ids: ``[I]`` raw ids, int64 or text, in the model's order.
        labels: ``[I]`` titles.
        popularity: ``[I]`` number of training users.
        raw_ids: raw ids in and out; False: the model's item numbers, ``0 ... I - 1``.
    """

    def __init__(
        self, model: keras.Model, item_ids: np.ndarray, labels: np.ndarray, popularity: np.ndarray, raw_ids: bool = True
    ) -> None:
        super().__init__(name="recommender")
        num_items = model.num_items
        for name, array in (("item_ids", item_ids), ("labels", labels), ("popularity", popularity)):
            if len(array) != num_items:
                raise InputError(f"`{name}` must have {num_items} entries.\nReceived: {len(array)}.")
        self._model = model
        # A plain tf.Module finds TensorFlow variables only, so it is shown those inside Keras's.
        self._weights = [v.value for v in model.variables]
        self._num_items = num_items
        self._items = IdTable(item_ids, raw_ids)
        self._labels = tf.constant([str(label) for label in labels])
        share = popularity / max(float(popularity.sum()), 1.0)
        self._popularity = tf.constant(share, tf.float32)
        self.recommend = tf.function(
            self._recommend,
            input_signature=[
                tf.TensorSpec([None], self._items.dtype, name="item_ids"),
                tf.TensorSpec([None], tf.int64, name="row_splits"),
                tf.TensorSpec([], tf.int32, name="k"),
            ],
        )
        self.vocabulary = tf.function(
            lambda: {"ids": self._items.all_ids(), "labels": tf.identity(self._labels)}, input_signature=[]
        )

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """All layers of the model, for `export`."""
        return list(self._model._flatten_layers())

    @property
    def signature_text(self) -> str:
        """The signature in a line."""
        raw = self._items.words
        return (
            f"Signature serving_default: item_ids {raw}[N], row_splits [B + 1], k -> ids [B, k], scores [B, k], "
            "counts [B]."
        )

    @property
    def signatures(self) -> dict[str, Any]:
        """Name -> function, for `export`."""
        return {"serving_default": self.recommend, "vocabulary": self.vocabulary}

    def _recommend(self, item_ids: tf.Tensor, row_splits: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        splits_error = [
            "`row_splits` must start with 0, never fall, and end with the number of item ids. Received:",
            row_splits,
        ]
        with tf.control_dependencies([tf.debugging.Assert(tf.size(row_splits) >= 1, splits_error)]):
            row_splits = tf.identity(row_splits)
        checks = [
            tf.debugging.Assert(
                (k >= 1) & (k <= self._num_items), [f"`k` must lie in [1, {self._num_items}]. Received:", k]
            ),
            tf.debugging.Assert(
                (row_splits[0] == 0)
                & (row_splits[-1] == tf.size(item_ids, out_type=tf.int64))
                & tf.reduce_all(row_splits[1:] >= row_splits[:-1]),
                splits_error,
            ),
        ]
        with tf.control_dependencies(checks):
            batch = tf.size(row_splits, out_type=tf.int64) - 1
            item, known = self._items.number(item_ids)
        row = tf.searchsorted(
            row_splits[1:], tf.range(tf.size(item, out_type=tf.int64)), side="right", out_type=tf.int64
        )
        # In order of row and item, each pair once: what a SparseTensor has to be.
        pairs, _ = tf.unique(tf.sort(tf.boolean_mask(row * self._num_items + item, known)))
        row, item = pairs // self._num_items, pairs % self._num_items
        indices = tf.stack([row, item], axis=1)
        history = tf.SparseTensor(
            indices, tf.ones_like(row, tf.float32), tf.stack([batch, tf.constant(self._num_items, tf.int64)])
        )
        # In float32: a GPU has no sum of int64 by segments.
        seen = tf.math.unsorted_segment_sum(tf.ones_like(row, tf.float32), row, batch)
        known_taste = (seen > 0)[:, None]
        of_model = self._model.scores(history)
        # Nothing, and not the first items of the catalogue with equal scores.
        silent = known_taste & ~self._model.answerable(history)[:, None]
        scores = tf.where(known_taste, of_model, self._popularity[None, :])
        scores = tf.where(silent, float("-inf"), scores)
        scores = tf.tensor_scatter_nd_update(scores, indices, tf.fill(tf.shape(row), float("-inf")))
        best, number = tf.math.top_k(scores, k)
        there = best > float("-inf")
        shown = tf.where(known_taste, self._model.link(best, of_model), best)
        return {
            "ids": self._items.ids(tf.where(there, number, self._num_items)),
            "scores": tf.where(there, shown, 0.0),
            "counts": tf.cast(true_in_row(there), tf.int32),
        }
