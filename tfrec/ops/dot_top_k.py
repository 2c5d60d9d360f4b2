"""Exact top-k by inner product, with items left out per query."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.ops.native import library

#: Scores that are held at once where they come in blocks.
BLOCK_SCORES = 1 << 24
#: A list may be longer than there are items, up to this: kMaxPadding in custom_ops/dot_top_k/dot_top_k.h.
MAX_PADDING = 65_536


def dot_top_k(
    queries: tf.Tensor,
    items: tf.Tensor,
    k: int,
    excluded_offsets: np.ndarray | None = None,
    excluded: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k items of highest inner product for each query, best first; equal ones by lower number first.

    Half tables are multiplied and summed in float32.

    Args:
        queries: half or float ``[B, F]``.
        items: ``[I, F]``, of the same type.
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
            scores, ids = native.tfrec_dot_top_k(
                queries=queries, items=items, excluded_offsets=excluded_offsets, excluded=excluded, k=k
            )
        return ids.numpy(), scores.numpy()
    table = tf.cast(items, tf.float32)
    return best_of_scores(
        lambda first, last: tf.matmul(tf.cast(queries[first:last], tf.float32), table, transpose_b=True),
        items.shape[0],
        k,
        excluded_offsets,
        excluded,
    )


def check_k(k: int, num_items: int) -> None:
    """Refuses a length of the lists that the operations refuse too; both devices and the twins then agree.

    Raises:
        InputError: k out of range.
    """
    longest = max(num_items, MAX_PADDING)
    if not 1 <= k <= longest:
        raise InputError(
            f"`k` must be from 1 to {longest}, the larger of the number of items, {num_items}, and {MAX_PADDING}.\n"
            f"Received: k={k}."
        )


def exclusions(
    num_queries: int, offsets: np.ndarray | None, excluded: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The lists of excluded items as the operations take them; without lists, nothing is excluded."""
    if offsets is None or excluded is None:
        return np.zeros(num_queries + 1, np.int64), np.zeros(0, np.int32)
    return np.asarray(offsets, np.int64), np.asarray(excluded, np.int32)


def best_of_scores(
    scores: Callable[[int, int], tf.Tensor],
    num_items: int,
    k: int,
    offsets: np.ndarray,
    excluded: np.ndarray,
    width: int | None = None,
    shown: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best k of ``scores(first, last)``, float32 ``[last - first, I]``, in blocks of bounded size.

    Args:
        scores: of a block of queries.
        num_items: I.
        k: from 1.
        offsets: int64 ``[B + 1]``, and
        excluded: as `dot_top_k` has them.
        width: scores that ``scores`` computes for each query, where these are more than I.
        shown: what is given in place of the best scores ``[last - first, k]`` of a block, called after ``scores``.
    """
    batch = len(offsets) - 1
    ids = np.full([batch, k], -1, np.int32)
    kept = np.full([batch, k], -np.inf, np.float32)
    most = min(k, num_items)
    block = max(1, BLOCK_SCORES // max(1, width or num_items))
    for first in range(0, batch if most else 0, block):
        last = min(first + block, batch)
        found = scores(first, last).numpy()
        if shown is not None:
            found = found.copy()  # it looks at the scores too
        row = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1]))
        column = excluded[offsets[first] : offsets[last]]
        inside = column < num_items
        found[row[inside], column[inside]] = -np.inf
        found[np.isnan(found)] = -np.inf
        best, number = (t.numpy() for t in tf.math.top_k(found, most))
        there = best > -np.inf
        ids[first:last, :most] = np.where(there, number, -1)
        kept[first:last, :most] = best if shown is None else np.where(there, shown(tf.constant(best)), -np.inf)
    return ids, kept
