"""A SavedModel for a model of users and items: scores of candidates, and recommendations to a user.

Signatures ``recommend`` and, for each length that was asked for, ``top_K``, which servers can batch:

    user_ids    int64 (or string) [B]

    ids         int64 (or string) [B, k]  best first, nothing that the user has
    scores      float32 [B, k]            NeuMF: probability that the user chooses the item when offered it; ALS: x.y
    counts      int32 [B]                 how many of the k places are filled; the others have id -1 (or ""), score 0
    known       bool [B]                  False for an unknown user, who gets the most popular items

``recommend_filtered`` and ``top_K_filtered`` take besides:

    exclude_ids int64 (or string) [B, M]  not recommended; rows are filled up with -1 (or "")
    among_ids   int64 (or string) [B, N]  chosen among; a row without an id chooses among all

``serving_default`` takes ``user_ids`` and any ``k``, int32 ``[]``. ``score``:

    user_ids    int64 (or string) [B]
    item_ids    int64 (or string) [B, C]  candidates

    scores      float32 [B, C]            as above, in the order of the candidates
    known       bool [B, C]               False, with score 0, where the user or the item is unknown

``similar_items`` takes ``item_ids [B]`` and gives lists as ``recommend``, by cosine. Where the model answers new users,
too, ``recommend_to`` and ``recommend_to_filtered`` take histories, see `tfrec.serving.histories`. ``vocabulary`` takes
nothing and gives the ``ids`` and ``labels`` of all I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.data.device_integers import DeviceIntegers
from tfrec.errors import InputError
from tfrec.serving.ids import IdTable
from tfrec.serving.served import Served


class ServedUsers(Served):
    """Users in, recommendations or scores of candidates out, around a model with users by number.

    Args:
        model: one with ``num_users`` and ``num_items``, see `tfrec.serving.served.Served`.
        user_ids: ``[U]`` raw ids, int64 or text, in the model's order.
        item_ids: ``[I]`` raw ids, int64 or text, in the model's order.
        labels: ``[I]`` titles.
        popularity: ``[I]`` number of training users.
        seen: ``[U, I]``, each user's history; these are not recommended to them.
        raw_ids: raw ids in and out; False: the model's numbers, from 0.
        weights: ``[I]`` what an item counts in a history; None: 1.
        ks: lengths of the lists of ``top_K``, the first being that of ``recommend``; None: 10.

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
        *,
        weights: np.ndarray | None = None,
        ks: Sequence[int] | None = None,
    ) -> None:
        num_users, num_items = model.num_users, model.num_items
        for name, size, expected in (
            ("user_ids", len(user_ids), num_users),
            ("seen", seen.shape, (num_users, num_items)),
        ):
            if size != expected:
                raise InputError(f"`{name}` must be of size {expected}.\nReceived: {size}.")
        super().__init__(model, item_ids, labels, popularity, weights, raw_ids, ks)
        self._users = IdTable(user_ids, raw_ids, padded=False)
        # As these scores are not probabilities over items, popular items get their share of the users.
        self._popularity = tf.constant(popularity / max(float(num_users), 1.0), tf.float32)
        self._offsets = tf.constant(seen.indptr.astype(np.int64))
        self._columns = DeviceIntegers(seen.indices)
        users = tf.TensorSpec([None], self._users.dtype, name="user_ids")
        self.recommend = tf.function(self._recommend, input_signature=[users, tf.TensorSpec([], tf.int32, name="k")])
        self.score = tf.function(self._score, input_signature=[users, self.padded("item_ids")])
        self.functions = {
            "serving_default": self.recommend,
            **self.with_filters(self._of_users, users, "recommend"),
            **(
                self.with_filters(self.of_padded, self.padded("item_ids"), "recommend_to")
                if model.takes_histories
                else {}
            ),
            "score": self.score,
            **self.similar_signatures(),
            "vocabulary": self.vocabulary,
        }

    @property
    def users(self) -> IdTable:
        """The ids of the users."""
        return self._users

    def _recommend(self, user_ids: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._of_users(user_ids, self.check_k(k), None, None)

    def _of_users(
        self, user_ids: tf.Tensor, k: Any, exclude: tf.Tensor | None, among: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        user, known = self._users.number(user_ids)
        of_model = self.model.scores(user)
        # Nothing, and not the first items of the catalogue with equal scores.
        silent = known & ~self.model.answerable(user)
        scores = tf.where(known[:, None], of_model, self._popularity[None, :])
        return self.lists(scores, of_model, known, silent, self._seen(user, known), k, exclude, among)

    def _seen(self, user: tf.Tensor, known: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Row and item of everything that these users have."""
        starts = tf.gather(self._offsets, user)
        # An unknown user has nothing.
        lengths = tf.where(known, tf.gather(self._offsets, user + 1) - starts, 0)
        ends = tf.cumsum(lengths)
        entry = tf.range(tf.reduce_sum(lengths), dtype=tf.int64)
        row = tf.searchsorted(ends, entry, side="right", out_type=tf.int64)
        return row, self._columns.gather(entry + tf.gather(starts - (ends - lengths), row))

    def _score(self, user_ids: tf.Tensor, item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        check = tf.debugging.Assert(
            tf.shape(item_ids)[0] == tf.size(user_ids),
            ["`item_ids` must have a row for each of `user_ids`. Received:", tf.shape(item_ids), tf.shape(user_ids)],
        )
        with tf.control_dependencies([check]):
            user, user_known = self._users.number(user_ids)
            item, item_known = self._items.number(item_ids)
        known = user_known[:, None] & item_known
        scores = self.model.scores(user, item)
        return {"scores": tf.where(known, self.model.link(scores, scores), 0.0), "known": known}
