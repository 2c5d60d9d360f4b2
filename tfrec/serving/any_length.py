"""Lists of any length for users and histories by number, for a server that puts different questions into one batch.

Signatures of an export have lists of fixed lengths. Here k is an input: a batch is asked for its longest list, and each
question takes the first places of its own row, which are the same as if it had been asked alone.
"""

from __future__ import annotations

import tensorflow as tf

from tfrec.serving.served import Pairs, Served

_PAIRS = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.int64)]
_K = tf.TensorSpec([], tf.int32)


class AnyLength(tf.Module):
    """What `tfrec.serving.served.Served` answers, with k as a tensor and filters as pairs of row and item number.

    All functions give ``numbers [B, k]`` of items, ``scores [B, k]``, ``counts [B]`` and ``known [B]``.

    Args:
        served: whose model and ids.
    """

    def __init__(self, served: Served) -> None:
        super().__init__(name="any_length")
        self._served = served
        limited = tf.TensorSpec([None], tf.bool)
        users = tf.TensorSpec([None], tf.int64)
        #: ``by_user(users [B], seen row, seen item, among row, among item, limited [B], k)``; user -1: unknown. Only
        #: what ``among`` has is recommended in the rows that are ``limited``.
        self.by_user = tf.function(
            self._by_user, input_signature=[users, *_PAIRS, *_PAIRS, limited, _K], autograph=False
        )
        #: ``by_history(row, item, value, seen row, seen item, among row, among item, limited [B], k)``; entries by row
        #: and item, none of value 0.
        self.by_history = tf.function(
            self._by_history,
            input_signature=[*_PAIRS, tf.TensorSpec([None], tf.float32), *_PAIRS, *_PAIRS, limited, _K],
            autograph=False,
        )
        #: ``similar(items [B], seen row, seen item, among row, among item, limited [B], k)``: by cosine.
        self.similar = tf.function(
            self._similar, input_signature=[users, *_PAIRS, *_PAIRS, limited, _K], autograph=False
        )

    @property
    def answers_users(self) -> bool:
        """Whether the model knows users by number."""
        return bool(self._served.model.num_users)

    def _by_user(
        self,
        users: tf.Tensor,
        seen_row: tf.Tensor,
        seen_item: tf.Tensor,
        among_row: tf.Tensor,
        among_item: tf.Tensor,
        limited: tf.Tensor,
        k: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        served, known = self._served, users >= 0
        user = tf.where(known, users, 0)
        of_model = served.model.scores(user)
        silent = known & ~served.model.answerable(user)
        scores = tf.where(known[:, None], of_model, served.share[None, :])
        scores = _allowed(scores, (among_row, among_item), limited)
        return served.numbered_lists(scores, of_model, known, silent, (seen_row, seen_item), k, None, None)

    def _by_history(
        self,
        row: tf.Tensor,
        item: tf.Tensor,
        value: tf.Tensor,
        seen_row: tf.Tensor,
        seen_item: tf.Tensor,
        among_row: tf.Tensor,
        among_item: tf.Tensor,
        limited: tf.Tensor,
        k: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        served = self._served
        batch = tf.size(limited, out_type=tf.int64)
        shape = tf.stack([batch, tf.constant(served.num_items, tf.int64)])
        history = tf.SparseTensor(tf.stack([row, item], axis=1), value, shape)
        # In float32: a GPU has no sum of int64 by segments.
        known = tf.math.unsorted_segment_sum(tf.ones_like(value), row, batch) > 0
        of_model = served.model.scores(history)
        silent = known & ~served.model.answerable(history)
        scores = tf.where(known[:, None], of_model, served.share[None, :])
        scores = _allowed(scores, (among_row, among_item), limited)
        return served.numbered_lists(scores, of_model, known, silent, (seen_row, seen_item), k, None, None)

    def _similar(
        self,
        items: tf.Tensor,
        seen_row: tf.Tensor,
        seen_item: tf.Tensor,
        among_row: tf.Tensor,
        among_item: tf.Tensor,
        limited: tf.Tensor,
        k: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        similar = self._served.similarities(items)
        none = tf.zeros_like(items, tf.bool)
        scores = _allowed(similar, (among_row, among_item), limited)
        return self._served.numbered_lists(scores, similar, none, none, (seen_row, seen_item), k, None, None)


def _allowed(scores: tf.Tensor, among: Pairs, limited: tf.Tensor) -> tf.Tensor:
    """``scores``, -inf for what a limited row does not have in ``among``."""
    row, item = among
    shape = tf.shape(scores, out_type=tf.int64)
    allowed = tf.scatter_nd(tf.stack([row, item], axis=1), tf.ones_like(row, tf.float32), shape)
    return tf.where(~limited[:, None] | (allowed > 0), scores, float("-inf"))
