"""How much each item of a history contributes to a score: by how far it falls when each is left out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse

#: Histories that are scored at once.
BLOCK = 256


def leave_one_out(
    score: Callable[[scipy.sparse.csr_matrix], np.ndarray], row: scipy.sparse.csr_matrix, k: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """The items of ``row`` whose absence costs most.

    Args:
        score: of histories ``[B, I]`` the item's scores, float32 ``[B]``.
        row: ``[1, I]``.
        k: how many, from 1.

    Returns:
        the score of the whole row; the items with the largest falls, int32; and the falls, float32.
    """
    whole = score(row)[0]
    # Row i has everything but the i-th entry.
    falls = [np.zeros(0, np.float32)]
    for first in range(0, row.nnz, BLOCK):
        left_out = np.arange(first, min(first + BLOCK, row.nnz))
        kept = np.arange(row.nnz) != left_out[:, None]
        lines, places = np.nonzero(kept)
        rows = scipy.sparse.csr_matrix((row.data[places], (lines, row.indices[places])), (len(kept), row.shape[1]))
        falls.append(whole - score(rows))
    fall = np.concatenate(falls)
    order = np.argsort(-fall, kind="stable")[:k]
    return float(whole), row.indices[order].astype(np.int32), fall[order]
