"""What all exports share: lists of items from scores, filters, similar items, the vocabulary.

Every signature but ``serving_default`` and ``vocabulary`` has the batch B as first dimension of each input and output,
so that a server can put requests together. Rows of unequal length are filled up with the id that stands for none, -1
or ``""``; so are lists for which fewer items are left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.evaluation.counts import true_in_row
from tfrec.serving.ids import IdTable

#: Row and item of each of N pairs, int64 ``[N]``.
Pairs = tuple[tf.Tensor, tf.Tensor]

_NONE = float("-inf")


class Served(tf.Module):
    """A model with its ids and titles.

    Args:
        model: see `tfrec.models.recommends.Recommends`. Items are ranked by its ``scores``, as in evaluation; shown
            with the winners is what its ``link`` makes of them; and where it is not ``answerable``, the row is empty.
        item_ids: ``[I]`` raw ids, int64 or text, in the model's order.
        labels: ``[I]`` titles.
        popularity: ``[I]`` number of training users.
        weights: ``[I]`` what an item counts in a history; None: 1.
        raw_ids: raw ids in and out; False: the model's numbers, from 0.
        ks: lengths of the lists of the signatures with a fixed length; None: 10, or all items where there are fewer.

    Raises:
        InputError: sizes that do not fit the model, or lists longer than the catalogue.
    """

    functions: dict[str, Any]

    def __init__(
        self,
        model: keras.Model,
        item_ids: np.ndarray,
        labels: np.ndarray,
        popularity: np.ndarray,
        weights: np.ndarray | None,
        raw_ids: bool,
        ks: Sequence[int] | None,
    ) -> None:
        super().__init__(name="recommender")
        num_items = model.num_items
        sizes = [("item_ids", item_ids), ("labels", labels), ("popularity", popularity)]
        for name, array in sizes if weights is None else [*sizes, ("weights", weights)]:
            if len(array) != num_items:
                raise InputError(f"`{name}` must have {num_items} entries.\nReceived: {len(array)}.")
        #: Lengths of lists, the first being that of the signatures without one in their name.
        self.ks = tuple(_length(k, num_items) for k in (ks or [min(10, num_items)]))
        # A SavedModel that saw Keras's variables and TensorFlow's inside them would store each weight twice. So the
        # model itself stays out of sight, and its TensorFlow variables are shown.
        self._model_of: Callable[[], Any] = lambda: model
        self._weights = [v.value for v in model.variables]
        self._num_items = num_items
        self._items = IdTable(item_ids, raw_ids)
        self._labels = tf.constant([str(label) for label in labels])
        self._share = tf.constant(popularity / max(float(popularity.sum()), 1.0), tf.float32)
        self._entry_weights = None if weights is None else tf.constant(weights, tf.float32)
        self._lengths = _inverse_lengths(model.item_vectors()[0]) if model.has_item_vectors() else None
        self.vocabulary = tf.function(
            lambda: {"ids": self._items.all_ids(), "labels": tf.identity(self._labels)}, input_signature=[]
        )

    @property
    def model(self) -> Any:
        """The model that answers."""
        return self._model_of()

    @property
    def num_items(self) -> int:
        """I."""
        return self._num_items

    @property
    def items(self) -> IdTable:
        """The ids of the items."""
        return self._items

    @property
    def share(self) -> tf.Tensor:
        """Each item's part of all interactions, float32 ``[I]``: what is popular."""
        return self._share

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """All layers of the model, for `export`."""
        return list(self.model._flatten_layers())

    @property
    def signatures(self) -> dict[str, Any]:
        """Name -> function, for `export`."""
        return dict(self.functions)

    # ---- signatures ------------------------------------------------------------------------------------------------

    def padded(self, name: str) -> tf.TensorSpec:
        """The type of ``[B, L]`` item ids."""
        return tf.TensorSpec([None, None], self._items.dtype, name=name)

    def with_filters(self, answer: Callable[..., Any], query: tf.TensorSpec, prefix: str) -> dict[str, Any]:
        """Signatures of lists with a fixed length, with and without filters.

        Args:
            answer: ``answer(query, k, exclude, among)`` gives the lists.
            query: the type of the query.
            prefix: the name of the one of the first length.
        """
        exclude, among = self.padded("exclude_ids"), self.padded("among_ids")
        made: dict[str, Any] = {}
        for k in self.ks:

            def plain(q: tf.Tensor, k: int = k) -> dict[str, tf.Tensor]:
                return answer(q, k, None, None)

            def filtered(q: tf.Tensor, e: tf.Tensor, a: tf.Tensor, k: int = k) -> dict[str, tf.Tensor]:
                return answer(q, k, e, a)

            functions = {
                "": tf.function(plain, input_signature=[query], autograph=False),
                "_filtered": tf.function(filtered, input_signature=[query, exclude, among], autograph=False),
            }
            for suffix, function in functions.items():
                if k == self.ks[0]:
                    made[f"{prefix}{suffix}"] = function
                if prefix == "recommend":
                    made[f"top_{k}{suffix}"] = function
        return made

    def similar_signatures(self) -> dict[str, Any]:
        """``similar_items``, where the model compares items."""
        if not self.model.compares_items():
            return {}
        spec = tf.TensorSpec([None], self._items.dtype, name="item_ids")
        return {"similar_items": tf.function(self._similar, input_signature=[spec], autograph=False)}

    # ---- answers ---------------------------------------------------------------------------------------------------

    def check_k(self, k: tf.Tensor) -> tf.Tensor:
        """``k``, once it is known to lie within the catalogue."""
        check = tf.debugging.Assert(
            (k >= 1) & (k <= self._num_items), [f"`k` must lie in [1, {self._num_items}]. Received:", k]
        )
        with tf.control_dependencies([check]):
            return tf.identity(k)

    def of_histories(
        self, pairs: Pairs, batch: tf.Tensor, k: Any, exclude: tf.Tensor | None, among: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        """Lists for people by their items; one without a known item gets what is popular."""
        history, known, pairs = self.history(pairs, batch)
        of_model = self.model.scores(history)
        # Nothing, and not the first items of the catalogue with equal scores.
        silent = known & ~self.model.answerable(history)
        scores = tf.where(known[:, None], of_model, self._share[None, :])
        return self.lists(scores, of_model, known, silent, pairs, k, exclude, among)

    def of_padded(
        self, item_ids: tf.Tensor, k: int, exclude: tf.Tensor | None, among: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        """As `of_histories`, of rows ``[B, L]`` of ids."""
        batch = tf.shape(item_ids, out_type=tf.int64)[0]
        return self.of_histories(self._items.pairs(item_ids), batch, k, exclude, among)

    def history(self, pairs: Pairs, batch: tf.Tensor) -> tuple[tf.SparseTensor, tf.Tensor, Pairs]:
        """Rows ``[B, I]`` as the model takes them, which of them have an entry, and the entries, each once."""
        return history_rows(pairs, batch, self._num_items, self._entry_weights)

    def lists(self, *arguments: Any) -> dict[str, tf.Tensor]:
        """`numbered_lists` with ``ids`` in place of numbers."""
        found = self.numbered_lists(*arguments)
        return {"ids": self._items.ids(found.pop("numbers")), **found}

    def numbered_lists(
        self,
        scores: tf.Tensor,
        of_model: tf.Tensor,
        known: tf.Tensor,
        silent: tf.Tensor,
        seen: Pairs,
        k: Any,
        exclude: tf.Tensor | None,
        among: tf.Tensor | None,
    ) -> dict[str, tf.Tensor]:
        """The k best of each row, as ``numbers [B, k]``, I in a place that nothing fills.

        Args:
            scores: float32 ``[B, I]``, to rank by.
            of_model: those of them that the model gave, for its link.
            known: bool ``[B]``: whose scores are the model's.
            silent: bool ``[B]``: who gets nothing.
            seen: what is not recommended.
            k: how many, at most I.
            exclude: ids ``[B, M]`` that are not recommended either; None: none.
            among: ids ``[B, N]`` to choose among; all where a row has none; None: all.
        """
        scores = tf.where(silent[:, None] | tf.math.is_nan(scores), _NONE, scores)
        if among is not None:
            among = self.one_row_each(among, scores, "among_ids")
            row, item = self._items.pairs(among)
            places, shape = tf.stack([row, item], axis=1), tf.shape(scores, out_type=tf.int64)
            allowed = tf.scatter_nd(places, tf.ones_like(row, tf.float32), shape)
            all_allowed = tf.reduce_all(tf.equal(among, self._items.padding), axis=1)
            scores = tf.where(all_allowed[:, None] | (allowed > 0), scores, _NONE)
        row, item = seen
        if exclude is not None:
            more = self._items.pairs(self.one_row_each(exclude, scores, "exclude_ids"))
            row, item = tf.concat([row, more[0]], 0), tf.concat([item, more[1]], 0)
        nothing = tf.fill(tf.shape(row), _NONE)
        best, number = tf.math.top_k(tf.tensor_scatter_nd_update(scores, tf.stack([row, item], axis=1), nothing), k)
        there = best > _NONE
        # The few that won, after ranking: as probabilities different scores may round to one number.
        shown = tf.where(known[:, None], self.model.link(best, of_model), best)
        return {
            "numbers": tf.where(there, number, self._num_items),
            "scores": tf.where(there, shown, 0.0),
            "counts": tf.cast(true_in_row(there), tf.int32),
            "known": known,
        }

    def one_row_each(self, ids: tf.Tensor, queries: tf.Tensor, name: str) -> tf.Tensor:
        """``ids``, once it is known that they have a row for each query."""
        rows, wanted = tf.shape(ids)[0], tf.shape(queries)[0]
        check = tf.debugging.Assert(
            rows == wanted, [f"`{name}` must have a row for each query. Received rows and queries:", rows, wanted]
        )
        with tf.control_dependencies([check]):
            return tf.identity(ids)

    def similarities(self, number: tf.Tensor) -> tf.Tensor:
        """Cosine of items by number with all items, float32 ``[B, I]``."""
        if self._lengths is None:
            return self.model.similarities(number)
        table = tf.cast(self.model.item_vectors()[0], tf.float32)
        similar = tf.matmul(tf.gather(table, number), table, transpose_b=True)
        return similar * self._lengths[None, :] * tf.gather(self._lengths, number)[:, None]

    def _similar(self, item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        number, known = self._items.number(item_ids)
        similar = self.similarities(number)
        itself = (tf.range(tf.size(number, out_type=tf.int64)), number)
        found = self.lists(similar, similar, tf.zeros_like(known), ~known, itself, self.ks[0], None, None)
        return {**found, "known": known}


def history_rows(
    pairs: Pairs, batch: tf.Tensor, num_items: int, weights: tf.Tensor | None
) -> tuple[tf.SparseTensor, tf.Tensor, Pairs]:
    """Rows ``[batch, num_items]`` as a model takes them, which have an entry, and the entries, each once.

    Args:
        pairs: row and item of each entry, in any order.
        batch: B, int64.
        num_items: I.
        weights: ``[I]``, the value of an item's entry; None: 1.
    """
    row, item = pairs
    # In order of row and item: what a SparseTensor has to be.
    unique, _ = tf.unique(tf.sort(row * num_items + item))
    row, item = unique // num_items, unique % num_items
    values = tf.ones_like(row, tf.float32) if weights is None else tf.gather(weights, item)
    rows = tf.SparseTensor(tf.stack([row, item], axis=1), values, tf.stack([batch, tf.constant(num_items, tf.int64)]))
    # In float32: a GPU has no sum of int64 by segments.
    count = tf.math.unsorted_segment_sum(tf.ones_like(row, tf.float32), row, batch)
    return rows, count > 0, (row, item)


def _inverse_lengths(table: tf.Tensor) -> tf.Tensor:
    """1 / length of each row, float32 ``[I]``; NaN for one of zeros, which has no direction."""
    rows = tf.cast(table, tf.float32)
    # The squares of very large or very small numbers would not be finite, or zero.
    largest = tf.reduce_max(tf.abs(rows), axis=1)
    length = largest * tf.norm(rows / largest[:, None], axis=1)
    return tf.constant((1 / length).numpy())


def _length(k: int, num_items: int) -> int:
    if not 1 <= k <= num_items:
        raise InputError(f"`k` must lie in [1, {num_items}], the number of items.\nReceived: {k}.\nName shorter lists.")
    return int(k)
