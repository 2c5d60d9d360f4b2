"""A SavedModel that takes histories of item ids and gives recommendations, with TensorFlow alone.

Signatures ``recommend`` and, for each length that was asked for, ``top_K``, which servers can batch:

    item_ids    int64 (or string) [B, L]  a history in each row, filled up with -1 (or "")

    ids         int64 (or string) [B, k]  best first, none of them in the history
    scores      float32 [B, k]            what the model shows for its scores: VAE-CF and popularity: probability of
                                          being the user's next item, among all items; ALS: x.y
    counts      int32 [B]                 how many of a row's k places are filled; the others have id -1 (or ""),
                                          score 0: a user who has seen nearly everything has fewer than k left
    known       bool [B]                  False for a history without a known id, which gets the most popular items

``recommend_filtered`` and ``top_K_filtered`` take besides:

    exclude_ids int64 (or string) [B, M]  not recommended
    among_ids   int64 (or string) [B, N]  chosen among; a row without an id chooses among all

``serving_default`` gives ``ids``, ``scores`` and ``counts`` for histories without filling and any k:

    item_ids    int64 (or string) [N]     the histories of B users, one after another
    row_splits  int64 [B + 1]             where each begins; the first is 0, the last N
    k           int32 []                  how many items to recommend, 1 to I

``score`` takes ``item_ids [B, L]`` and ``candidate_ids [B, C]``, and gives ``scores`` and ``known`` ``[B, C]``.
``similar_items`` takes ``item_ids [B]`` and gives lists as ``recommend``, by cosine. ``vocabulary`` takes nothing and
gives the ``ids`` and ``labels`` of all I items.

An unknown id is ignored, and one that occurs twice counts once.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfrec.serving.served import Served


class ServedHistories(Served):
    """Histories in, recommendations out, around a model over sparse rows.

    Args:
        model: one with ``num_items`` that answers histories, see `tfrec.serving.served.Served`.
        item_ids: ``[I]`` raw ids, int64 or text, in the model's order.
        labels: ``[I]`` titles.
        popularity: ``[I]`` number of training users.
        raw_ids: raw ids in and out; False: the model's item numbers, ``0 ... I - 1``.
        weights: ``[I]`` what an item counts in a history; None: 1.
        ks: lengths of the lists of ``top_K``, the first being that of ``recommend``; None: 10.
    """

    def __init__(
        self,
        model: keras.Model,
        item_ids: np.ndarray,
        labels: np.ndarray,
        popularity: np.ndarray,
        raw_ids: bool = True,
        *,
        weights: np.ndarray | None = None,
        ks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model, item_ids, labels, popularity, weights, raw_ids, ks)
        self.recommend = tf.function(
            self._recommend,
            input_signature=[
                tf.TensorSpec([None], self._items.dtype, name="item_ids"),
                tf.TensorSpec([None], tf.int64, name="row_splits"),
                tf.TensorSpec([], tf.int32, name="k"),
            ],
        )
        self.functions = {
            "serving_default": self.recommend,
            **self.with_filters(self.of_padded, self.padded("item_ids"), "recommend"),
            "score": tf.function(
                self._score, input_signature=[self.padded("item_ids"), self.padded("candidate_ids")], autograph=False
            ),
            **self.similar_signatures(),
            "vocabulary": self.vocabulary,
        }

    def _recommend(self, item_ids: tf.Tensor, row_splits: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        splits_error = [
            "`row_splits` must start with 0, never fall, and end with the number of item ids. Received:",
            row_splits,
        ]
        with tf.control_dependencies([tf.debugging.Assert(tf.size(row_splits) >= 1, splits_error)]):
            row_splits = tf.identity(row_splits)
        check = tf.debugging.Assert(
            (row_splits[0] == 0)
            & (row_splits[-1] == tf.size(item_ids, out_type=tf.int64))
            & tf.reduce_all(row_splits[1:] >= row_splits[:-1]),
            splits_error,
        )
        k = self.check_k(k)
        with tf.control_dependencies([check]):
            batch = tf.size(row_splits, out_type=tf.int64) - 1
            item, known = self._items.number(item_ids)
        row = tf.searchsorted(
            row_splits[1:], tf.range(tf.size(item, out_type=tf.int64)), side="right", out_type=tf.int64
        )
        pairs = (tf.boolean_mask(row, known), tf.boolean_mask(item, known))
        found = self.of_histories(pairs, batch, k, None, None)
        return {name: found[name] for name in ("ids", "scores", "counts")}

    def _score(self, item_ids: tf.Tensor, candidate_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        candidate_ids = self.one_row_each(candidate_ids, item_ids, "candidate_ids")
        history, known, _ = self.history(self._items.pairs(item_ids), tf.shape(item_ids, out_type=tf.int64)[0])
        item, item_known = self._items.number(candidate_ids)
        # The link of some models needs the scores of all items.
        of_model = self.model.scores(history)
        scores = tf.gather(of_model, item, batch_dims=1)
        found = known[:, None] & item_known
        return {"scores": tf.where(found, self.model.link(scores, of_model), 0.0), "known": found}
