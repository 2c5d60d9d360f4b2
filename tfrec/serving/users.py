"""A SavedModel for a model of users and items: scores of candidates, and recommendations to a user.

Signature ``serving_default``:

    user_ids    int64 (or string) [B]
    k           int32 []                how many items to recommend, 1 to I

    ids         int64 (or string) [B, k]  best first, nothing that the user has
    scores      float32 [B, k]            NeuMF: probability that the user chooses the item when offered it; ALS: x.y
    counts      int32 [B]                 how many of the k places are filled; the others have id -1 (or ""), score 0
    known       bool [B]                  False for an unknown user, who gets the most popular items

Signature ``score``:

    user_ids    int64 (or string) [B]
    item_ids    int64 (or string) [B, C]  candidates

    scores      float32 [B, C]            as above, in the order of the candidates
    known       bool [B, C]               False, with score 0, where the user or the item is unknown

Signature ``vocabulary`` takes nothing and gives the ``ids`` and ``labels`` of all I items.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.data.device_integers import DeviceIntegers
from tfrec.errors import InputError
from tfrec.evaluation.counts import true_in_row
from tfrec.serving.ids import IdTable


class ServedUsers(tf.Module):
    """Users in, recommendations or scores of candidates out, around a model with users by number.

    Args:
        model: one with ``num_users`` and ``num_items``, see `tfrec.models.recommends.Recommends`. Items are ranked by
            its ``scores``, as in evaluation; shown with the winners is what its ``link`` makes of them; and where it
            is not ``answerable``, the row is empty.
        user_ids: ``[U]`` raw ids, int64 or text, in the model's order.
        item_ids: ``[I]`` raw ids, int64 or text, in the model's order.
        labels: ``[I]`` titles.
        popularity: ``[I]`` number of training users.
        seen: ``[U, I]``, each user's history; these are not recommended to them.
        raw_ids: raw ids in and out; False: the model's numbers, from 0.

    Raises:
        InputError: sizes that do not fit the model.
    """

    def __init__(
        self,
        model: keras.Model,
        user_ids: np.ndarray,
        item_ids: np.ndarray,
        labels: np.ndarray,
        popularity: np.ndarray,
        seen: scipy.sparse.csr_matrix,
        raw_ids: bool = True,
    ) -> None:
        super().__init__(name="recommender")
        num_users, num_items = model.num_users, model.num_items
        for name, size, expected in (
            ("user_ids", len(user_ids), num_users),
            ("item_ids", len(item_ids), num_items),
            ("labels", len(labels), num_items),
            ("popularity", len(popularity), num_items),
            ("seen", seen.shape, (num_users, num_items)),
        ):
            if size != expected:
                raise InputError(f"`{name}` must be of size {expected}.\nReceived: {size}.")
        self._model = model
        # A plain tf.Module finds TensorFlow variables only, so it is shown those inside Keras's.
        self._weights = [v.value for v in model.variables]
        self._num_items = num_items
        self._users = IdTable(user_ids, raw_ids)
        self._items = IdTable(item_ids, raw_ids)
        self._labels = tf.constant([str(label) for label in labels])
        # As these scores are not probabilities over items, popular items get their share of the users.
        self._popularity = tf.constant(popularity / max(float(num_users), 1.0), tf.float32)
        self._offsets = tf.constant(seen.indptr.astype(np.int64))
        self._columns = DeviceIntegers(seen.indices)
        self.recommend = tf.function(
            self._recommend,
            input_signature=[
                tf.TensorSpec([None], self._users.dtype, name="user_ids"),
                tf.TensorSpec([], tf.int32, name="k"),
            ],
        )
        self.score = tf.function(
            self._score,
            input_signature=[
                tf.TensorSpec([None], self._users.dtype, name="user_ids"),
                tf.TensorSpec([None, None], self._items.dtype, name="item_ids"),
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
        """The signatures in two lines."""
        raw = self._items.words
        return (
            f"Signature serving_default: user_ids {raw}[B], k -> ids [B, k], scores [B, k], counts [B], known [B].\n"
            f"Signature score: user_ids {raw}[B], item_ids {raw}[B, C] -> scores [B, C], known [B, C]."
        )

    @property
    def signatures(self) -> dict[str, Any]:
        """Name -> function, for `export`."""
        return {"serving_default": self.recommend, "score": self.score, "vocabulary": self.vocabulary}

    def _recommend(self, user_ids: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        check = tf.debugging.Assert(
            (k >= 1) & (k <= self._num_items), [f"`k` must lie in [1, {self._num_items}]. Received:", k]
        )
        with tf.control_dependencies([check]):
            user, known = self._users.number(user_ids)
        of_model = self._model.scores(user)
        # Nothing, and not the first items of the catalogue with equal scores.
        silent = known & ~self._model.answerable(user)
        scores = tf.where(known[:, None], of_model, self._popularity[None, :])
        scores = tf.where(silent[:, None], float("-inf"), scores)
        starts = tf.gather(self._offsets, user)
        # An unknown user has nothing.
        lengths = tf.where(known, tf.gather(self._offsets, user + 1) - starts, 0)
        ends = tf.cumsum(lengths)
        entry = tf.range(tf.reduce_sum(lengths), dtype=tf.int64)
        row = tf.searchsorted(ends, entry, side="right", out_type=tf.int64)
        column = self._columns.gather(entry + tf.gather(starts - (ends - lengths), row))
        pairs = tf.stack([row, column], axis=1)
        scores = tf.tensor_scatter_nd_update(scores, pairs, tf.fill(tf.shape(row), float("-inf")))
        best, number = tf.math.top_k(scores, k)
        there = best > float("-inf")
        # The few that won, after ranking: as probabilities different scores may round to one number.
        shown = tf.where(known[:, None], self._model.link(best, of_model), best)
        return {
            "ids": self._items.ids(tf.where(there, number, self._num_items)),
            "scores": tf.where(there, shown, 0.0),
            "counts": tf.cast(true_in_row(there), tf.int32),
            "known": known,
        }

    def _score(self, user_ids: tf.Tensor, item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        check = tf.debugging.Assert(
            tf.shape(item_ids)[0] == tf.size(user_ids),
            ["`item_ids` must have a row for each of `user_ids`. Received:", tf.shape(item_ids), tf.shape(user_ids)],
        )
        with tf.control_dependencies([check]):
            user, user_known = self._users.number(user_ids)
            item, item_known = self._items.number(item_ids)
        known = user_known[:, None] & item_known
        scores = self._model.scores(user, item)
        scores = tf.where(known, self._model.link(scores, scores), 0.0)
        return {"scores": scores, "known": known}
