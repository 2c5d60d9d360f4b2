"""Exact top-k by inner product of bytes with a scale per row, with items left out per query."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfrec.ops.dot_top_k import best_of_scores, check_k, exclusions
from tfrec.ops.native import library


def int8_dot_top_k(
    queries: tf.Tensor,
    query_scales: tf.Tensor,
    items: tf.Tensor,
    item_scales: tf.Tensor,
    k: int,
    excluded_offsets: np.ndarray | None = None,
    excluded: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k items of highest score for each query, best first; equal ones by lower number first.

    The score is ``float(query . item) * (query_scale * item_scale)``: the inner product exactly, in int32, the rest in
    float32 in this order, so that every processor and the twin give the same bits.

    Args:
        queries: int8 ``[B, F]``, F from 1 to 65536.
        query_scales: float32 ``[B]``.
        items: int8 ``[I, F]``.
        item_scales: float32 ``[I]``.
        k: from 1 to the larger of I and 65,536.
        excluded_offsets: int64 ``[B + 1]``, where each query's excluded items begin; None: none.
        excluded: int32, ascending within a query.

    Scores that are NaN or -infinity are absent.

    Returns:
        ids: int32 ``[B, k]``, -1 where fewer than k items are left.
        scores: float32 ``[B, k]``, -infinity there.

    Raises:
        InputError: k out of range.
        tf.errors.InvalidArgumentError: shapes that do not fit, or ``excluded`` out of order.
    """
    check_k(k, items.shape[0])
    excluded_offsets, excluded = exclusions(queries.shape[0], excluded_offsets, excluded)
    native = library()
    if native is not None:
        with tf.device("CPU"):
            scores, ids = native.tfrec_int8_dot_top_k(
                queries=queries,
                query_scales=query_scales,
                items=items,
                item_scales=item_scales,
                excluded_offsets=excluded_offsets,
                excluded=excluded,
                k=k,
            )
        return ids.numpy(), scores.numpy()
    of_queries, of_items = tf.convert_to_tensor(query_scales), tf.convert_to_tensor(item_scales)
    # Whole numbers that the type holds, so sums are exact.
    exact = tf.float32 if items.shape[1] * 128 * 128 < 1 << 24 else tf.float64
    table = tf.cast(items, exact)

    def scores_of(first: int, last: int) -> tf.Tensor:
        products = tf.matmul(tf.cast(queries[first:last], exact), table, transpose_b=True)
        return tf.cast(products, tf.float32) * (of_queries[first:last, None] * of_items[None])

    return best_of_scores(scores_of, items.shape[0], k, excluded_offsets, excluded)
