"""The best rows of a table for each query, by inner product or by scores of any kind; ties go to the lower number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec import ops
from tfrec.models.questions import Choice
from tfrec.ops.dot_top_k import best_of_scores

#: See `best_by_search`.
Search = Callable[[np.ndarray | None, int, Any, np.ndarray], tuple[np.ndarray, np.ndarray]]


def best_by_vectors(
    queries: tf.Tensor, table: tf.Tensor, k: int, seen: scipy.sparse.csr_matrix | None, choice: Choice
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of highest inner product, without those seen. A query of zeros, whose scores are all 0, gets none.

    Args:
        queries: half or float ``[B, F]``.
        table: ``[I, F]``, of the same type.
        k: at most, from 1.
        seen: ``[B, I]``, what each query must not be answered with; None: nothing.
        choice: which rows may be answers.

    Returns:
        numbers int32 and scores float32, ``[B, min(k, choice.most)]``; -1 and -infinity where fewer are left.
    """

    def search(chosen: np.ndarray | None, k: int, offsets: Any, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return ops.dot_top_k(queries, table if chosen is None else tf.gather(table, chosen), k, offsets, columns)

    ids, scores = best_by_search(search, queries.shape[0], table.shape[0], k, seen, choice)
    zero = ~np.any(queries.numpy(), axis=1)
    ids[zero], scores[zero] = -1, -np.inf
    return ids, scores


def best_by_search(
    search: Search,
    num_queries: int,
    num_items: int,
    k: int,
    seen: scipy.sparse.csr_matrix | None,
    choice: Choice,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows that a search finds, without those seen.

    Args:
        search: ``search(chosen, k, excluded_offsets, excluded)`` gives the places among ``chosen`` (None: all rows) of
            the k best, and their scores; see `tfrec.ops.dot_top_k`.
        num_queries: B.
        num_items: I.
        k: at most, from 1.
        seen: ``[B, I]``, what each query must not be answered with; None: nothing.
        choice: which rows may be answers.

    Returns:
        as `best_by_vectors`.
    """
    k = min(k, choice.most)
    chosen, seen = choice.rows, _among(seen, choice)
    if 0 in (num_queries, num_items if chosen is None else len(chosen), k):
        return _nothing(num_queries, k)
    ids, scores = search(chosen, k, *_excluded(seen))
    return _numbers(ids, choice), scores


def best_by_scores(
    score: Callable[[int, int], tf.Tensor],
    num_queries: int,
    num_items: int,
    k: int,
    seen: scipy.sparse.csr_matrix | None,
    choice: Choice,
    link: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of highest score, without those seen; scores of -infinity and NaN are absent.

    Queries are scored in blocks, so that some 64 MB of scores exist at once, however many queries there are.

    Args:
        score: ``score(first, last)`` gives the scores of these queries, float32 ``[last - first, I]``.
        num_queries: B.
        num_items: I.
        k: at most, from 1.
        seen: ``[B, I]``, what each query must not be answered with; None: nothing.
        choice: which rows may be answers.
        link: makes of a block's best scores ``[b, k]`` and all its scores ``[b, I]`` what is given in their place.

    Returns:
        as `best_by_vectors`.
    """
    k = min(k, choice.most)
    chosen, seen = choice.rows, _among(seen, choice)
    columns_left = num_items if chosen is None else len(chosen)
    if 0 in (num_queries, columns_left, k):
        return _nothing(num_queries, k)

    block: list[tf.Tensor] = [tf.zeros([0, 0])]

    def of_chosen(first: int, last: int) -> tf.Tensor:
        block[0] = scores = score(first, last)
        return scores if chosen is None else tf.gather(scores, chosen, axis=1)

    offsets, columns = _excluded(seen)
    if offsets is None:
        offsets = np.zeros(num_queries + 1, np.int64)
    shown = None if link is None else lambda best: link(best, block[0])
    ids, scores = best_of_scores(of_chosen, columns_left, k, offsets, columns, width=num_items, shown=shown)
    return _numbers(ids, choice), scores


def unit(rows: tf.Tensor) -> tf.Tensor:
    """Rows of length 1 in float32. A row of zeros has no direction: it becomes NaN, and is similar to nothing."""
    rows = tf.cast(rows, tf.float32)
    # The squares of very large or very small numbers would not be finite, or zero.
    rows = rows / tf.reduce_max(tf.abs(rows), axis=1, keepdims=True)
    return rows / tf.norm(rows, axis=1, keepdims=True)


def similar_rows(
    table: tf.Tensor, numbers: np.ndarray, k: int, choice: Choice, new: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of highest cosine, as `best_by_vectors`.

    Args:
        table: ``[I, F]``.
        numbers: int64 ``[B]``, rows of it to compare with all.
        k: at most, from 1.
        choice: which rows may be answers.
        new: ``[B, F]``, to be compared in place of ``numbers``.
    """
    length_one = unit(table)
    if new is not None:
        queries = unit(tf.constant(new))
    elif np.array_equal(numbers, np.arange(table.shape[0])):
        queries = length_one
    else:
        queries = unit(tf.gather(table, numbers))
    return best_by_vectors(queries, length_one, k, None, choice)


def answer(ids: np.ndarray, scores: np.ndarray, one: bool) -> tuple[np.ndarray, np.ndarray]:
    """Lists ``[B, k]``; with ``one``, that of the only query, without its empty places."""
    if not one:
        return ids, scores
    there = ids[0] >= 0
    return ids[0][there], scores[0][there]


def _among(seen: scipy.sparse.csr_matrix | None, choice: Choice) -> scipy.sparse.csr_matrix | None:
    """What was seen, by the place of each row among those chosen."""
    if seen is None or choice.rows is None:
        return seen
    seen = scipy.sparse.csr_matrix(seen[:, choice.rows])
    seen.sort_indices()
    return seen


def _excluded(seen: scipy.sparse.csr_matrix | None) -> tuple[np.ndarray | None, np.ndarray]:
    if seen is None:
        return None, np.zeros(0, np.int32)
    return seen.indptr.astype(np.int64), seen.indices


def _numbers(ids: np.ndarray, choice: Choice) -> np.ndarray:
    """Places among the chosen as numbers of rows."""
    if choice.rows is None:
        return ids
    return np.where(ids >= 0, choice.rows[ids], -1).astype(np.int32)


def _nothing(num_queries: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((num_queries, k), -1, np.int32), np.full((num_queries, k), -np.inf, np.float32)
