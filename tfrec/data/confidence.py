"""How much an interaction counts: weights of the entries of a users x items matrix.

The formulas are those of information retrieval with items as documents and users as terms, as in the Last.fm example
of the implicit package: the more items a user has, the less
each counts, and so does a play of an item that is played a lot.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse

from tfrec.errors import InputError


def bm25(user_items: scipy.sparse.csr_matrix, k1: float = 100.0, b: float = 0.8) -> scipy.sparse.csr_matrix:
    """``idf(u) v (k1 + 1) / (k1 (1 - b + b L_i / mean L) + v)`` with L_i the sum of item i's values.

    ``idf(u) = log(I) - log(1 + n_u)``, n_u the number of u's items. Robertson and Zaragoza, "The Probabilistic
    Relevance Framework: BM25 and Beyond", 2009.

    Args:
        user_items: ``[U, I]``, values from 0.
        k1: how late more plays stop to count, above 0.
        b: how much an item's popularity counts against it, in [0, 1].

    Raises:
        InputError: negative values, or an argument out of range.
    """
    if not 0 < k1 < float("inf") or not 0 <= b <= 1:
        raise InputError(f"`k1` must be above 0 and `b` in [0, 1].\nReceived: k1={k1}, b={b}.")
    matrix = _positive(user_items)
    length = np.asarray(matrix.sum(axis=0), np.float64).ravel()
    norm = 1.0 - b + b * length / max(length.mean(), np.finfo(float).tiny)
    v = matrix.data.astype(np.float64)
    weight = v * (k1 + 1.0) / (k1 * norm[matrix.indices] + v) * _idf(matrix)
    return _with_values(matrix, weight)


def tf_idf(user_items: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """``sqrt(v) (log(I) - log(1 + n_u))``.

    Args:
        user_items: ``[U, I]``, values from 0.

    Raises:
        InputError: negative values.
    """
    matrix = _positive(user_items)
    return _with_values(matrix, np.sqrt(matrix.data.astype(np.float64)) * _idf(matrix))


def log(user_items: scipy.sparse.csr_matrix, epsilon: float = 1.0) -> scipy.sparse.csr_matrix:
    """``log(1 + v / epsilon)``: Hu, Koren, Volinsky 2008, section 6, without its factor alpha, which is the model's.

    Args:
        user_items: ``[U, I]``, values from 0.
        epsilon: above 0.

    Raises:
        InputError: negative values, or ``epsilon`` out of range.
    """
    if not 0 < epsilon < float("inf"):
        raise InputError(f"`epsilon` must be above 0.\nReceived: epsilon={epsilon}.")
    matrix = _positive(user_items)
    return _with_values(matrix, np.log1p(matrix.data.astype(np.float64) / epsilon))


def _idf(matrix: scipy.sparse.csr_matrix) -> np.ndarray:
    """float64 ``[nnz]``; 0 for a user who has (nearly) everything, where the formula would turn negative."""
    count = np.diff(matrix.indptr)
    idf = np.maximum(np.log(max(matrix.shape[1], 1)) - np.log1p(count), 0.0)
    return np.repeat(idf, count)


def _positive(user_items: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    matrix = scipy.sparse.csr_matrix(user_items)
    if matrix.nnz and not matrix.data.min() >= 0:
        raise InputError(
            f"Values that are weighted must be at least 0.\nReceived: {matrix.data.min()}.\n"
            "Weight what is liked, and add disliked entries with negative values afterwards."
        )
    return matrix


def _with_values(matrix: scipy.sparse.csr_matrix, values: np.ndarray) -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix((values.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
