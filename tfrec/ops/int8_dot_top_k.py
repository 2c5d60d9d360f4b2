"""Exact top-k by inner product of bytes with a scale per row, with items left out per query."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfrec.ops.native import library

#: Scores that the twin holds at once.
_SCORES = 1 << 23


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
        k: from 1; may exceed I.
        excluded_offsets: int64 ``[B + 1]``, where each query's excluded items begin; None: none.
        excluded: int32, ascending within a query.

    Scores that are NaN or -infinity are absent.

    Returns:
        ids: int32 ``[B, k]``, -1 where fewer than k items are left.
        scores: float32 ``[B, k]``, -infinity there.

    Raises:
        tf.errors.InvalidArgumentError: shapes that do not fit, or ``excluded`` out of order.
    """
    if excluded_offsets is None or excluded is None:
        excluded_offsets, excluded = np.zeros(queries.shape[0] + 1, np.int64), np.zeros(0, np.int32)
    native = library()
    if native is not None:
        with tf.device("CPU"):
            scores, ids = native.tfrec_int8_dot_top_k(
                queries=queries,
                query_scales=query_scales,
                items=items,
                item_scales=item_scales,
                excluded_offsets=np.asarray(excluded_offsets, np.int64),
                excluded=np.asarray(excluded, np.int32),
                k=k,
            )
        return ids.numpy(), scores.numpy()
    scales = tf.convert_to_tensor(query_scales), tf.convert_to_tensor(item_scales)
    return _reference(queries, items, scales, k, np.asarray(excluded_offsets), np.asarray(excluded))


def _reference(
    queries: tf.Tensor,
    items: tf.Tensor,
    scales: tuple[tf.Tensor, tf.Tensor],
    k: int,
    offsets: np.ndarray,
    excluded: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    batch, num_items = queries.shape[0], items.shape[0]
    # Whole numbers that the type holds, so sums are exact.
    exact = tf.float32 if items.shape[1] * 128 * 128 < 1 << 24 else tf.float64
    table = tf.cast(items, exact)
    ids = np.full([batch, k], -1, np.int32)
    scores = np.full([batch, k], -np.inf, np.float32)
    most = min(k, num_items)
    block = max(1, _SCORES // max(1, num_items))
    for first in range(0, batch if most else 0, block):
        last = min(first + block, batch)
        products = tf.matmul(tf.cast(queries[first:last], exact), table, transpose_b=True)
        found = (tf.cast(products, tf.float32) * (scales[0][first:last, None] * scales[1][None])).numpy()
        row = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1]))
        column = excluded[offsets[first] : offsets[last]]
        inside = column < num_items
        found[row[inside], column[inside]] = -np.inf
        found[np.isnan(found)] = -np.inf
        best, number = (t.numpy() for t in tf.math.top_k(found, most))
        ids[first:last, :most] = np.where(best > -np.inf, number, -1)
        scores[first:last, :most] = best
    return ids, scores
