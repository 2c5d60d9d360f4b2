"""Sums and means of rows of a tensor-train table."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.layers.tt_embedding import TTEmbedding

Mode = Literal["sum", "mean", "sqrtn"]


@keras.saving.register_keras_serializable(package="tfrec")
class TTEmbeddingBag(TTEmbedding):
    """One row per bag of ids, as PyTorch's EmbeddingBag and `tf.nn.embedding_lookup_sparse`.

    With e the rows of a bag's ids and w their weights (1 where there are none):

        sum: sum w e,    mean: sum w e / sum w,    sqrtn: sum w e / sqrt(sum w^2)

    An empty bag, and for ``mean`` and ``sqrtn`` one whose divisor is 0, gives zeros. Memory: the rows of all n
    ids, ``[n, D]``.

    Args:
        *args: as in `TTEmbedding`.
        mode: ``sum``, ``mean`` or ``sqrtn``.
        **kwargs: as in `TTEmbedding`; one table. With ``mask_zero`` id 0 is padding and takes no part in its bag.

    Input: a bag for each row of
        a `tf.RaggedTensor` of ids ``[B, None]``;
        a `tf.SparseTensor` of ids ``[B, any]``, in order;
        ids ``[B, L]``, L to each bag; or
        a pair (ids ``[n]``, offsets ``[B]``), bag b being ``ids[offsets[b]:offsets[b + 1]]`` and the last one the rest.
    ``weights``: in the same form (of a pair: ``[n]``), or None.
    Output shape: ``[B, D]`` in the compute dtype.

    Example:
        >>> layer = TTEmbeddingBag(1_000, 16, ranks=4, mode="mean")
        >>> layer(tf.ragged.constant([[5, 7, 7], [], [1]])).shape
        TensorShape([3, 16])
    """

    def __init__(self, *args: Any, mode: Mode = "sum", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if mode not in ("sum", "mean", "sqrtn"):
            raise InputError(f"`mode` must be sum, mean or sqrtn.\nReceived: mode={mode!r}.")
        if self.num_tables != 1:
            raise InputError(f"A bag is of one table.\nReceived: num_tables={self.num_tables}.")
        self.mode = mode

    def call(self, ids: Any, weights: Any = None) -> tf.Tensor:
        """A row per bag."""
        flat, bag, num_bags = _bags(ids)
        num_bags = tf.cast(num_bags, tf.int64)
        if weights is not None:
            weights = tf.cast(_values(weights), tf.float32)
            tf.debugging.assert_equal(
                tf.size(weights), tf.size(flat), message="`weights` must have one number for each id."
            )
        if self.mask_zero:
            kept = tf.not_equal(flat, 0)
            flat, bag = tf.boolean_mask(flat, kept), tf.boolean_mask(bag, kept)
            weights = None if weights is None else tf.boolean_mask(weights, kept)
        rows = tf.cast(self._lookup(self._numbered(flat)), tf.float32)
        if weights is None:
            totals = tf.math.unsorted_segment_sum(tf.ones_like(bag, tf.float32), bag, num_bags)
            squares = totals
        else:
            rows *= weights[:, None]
            totals = tf.math.unsorted_segment_sum(weights, bag, num_bags)
            squares = tf.math.unsorted_segment_sum(tf.square(weights), bag, num_bags)
        sums = tf.math.unsorted_segment_sum(rows, bag, num_bags)
        if self.mode == "mean":
            sums = tf.math.divide_no_nan(sums, totals[:, None])
        elif self.mode == "sqrtn":
            sums = tf.math.divide_no_nan(sums, tf.sqrt(squares)[:, None])
        return tf.cast(tf.ensure_shape(sums, [None, self.embedding_dim]), self.compute_dtype)

    def compute_mask(self, ids: Any, mask: Any = None) -> Any:
        """None: a bag has no mask."""
        return None

    def compute_output_shape(self, input_shape: Any, *args: Any, **kwargs: Any) -> tuple[int | None, ...]:
        """``[B, D]``."""
        shape = input_shape[1] if isinstance(input_shape[0], tuple | list) else input_shape
        return (shape[0], self.embedding_dim)

    def compute_output_spec(self, ids: Any, weights: Any = None) -> keras.KerasTensor:
        """``[B, D]`` in the compute dtype."""
        shape = tuple(ids[1].shape if isinstance(ids, tuple | list) else ids.shape)
        return keras.KerasTensor(self.compute_output_shape(shape), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        config = {**super().get_config(), "mode": self.mode}
        del config["num_tables"]
        return config


def _values(x: Any) -> tf.Tensor:
    if isinstance(x, tf.RaggedTensor):
        return x.flat_values
    if isinstance(x, tf.SparseTensor):
        return x.values
    return tf.reshape(tf.convert_to_tensor(x), [-1])


def _bags(ids: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """All ids, the bag of each, int64, and the number of bags."""
    if isinstance(ids, tf.RaggedTensor):
        if ids.ragged_rank != 1:
            raise InputError(f"Ragged ids must be [B, None].\nReceived: ragged_rank={ids.ragged_rank}.")
        return ids.values, tf.cast(ids.value_rowids(), tf.int64), ids.nrows()
    if isinstance(ids, tf.SparseTensor):
        return ids.values, ids.indices[:, 0], ids.dense_shape[0]
    if isinstance(ids, tuple | list) and len(ids) == 2:
        flat, offsets = (tf.convert_to_tensor(x) for x in ids)
        offsets = tf.cast(offsets, tf.int64)
        n = tf.size(flat, out_type=tf.int64)
        ends = tf.concat([offsets[1:], [n]], axis=0)
        good = tf.reduce_all(ends >= offsets) & (tf.equal(tf.size(offsets), 0) | tf.reduce_all(offsets[:1] == 0))
        with tf.control_dependencies(
            [tf.debugging.Assert(good, ["offsets must begin at 0, not fall, and not exceed the ids:", offsets])]
        ):
            offsets = tf.identity(offsets)
        bag = tf.searchsorted(offsets, tf.range(n), side="right", out_type=tf.int64) - 1
        return flat, bag, tf.size(offsets)
    ids = tf.convert_to_tensor(ids)
    if ids.shape.rank != 2:
        raise InputError(f"Ids must be [B, L], ragged, sparse or a pair (ids, offsets).\nReceived shape: {ids.shape}.")
    num_bags, length = tf.shape(ids, tf.int64)[0], tf.shape(ids, tf.int64)[1]
    return tf.reshape(ids, [-1]), tf.repeat(tf.range(num_bags), length), num_bags
