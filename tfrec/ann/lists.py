"""A model's lists from an index of its item vectors, in place of all scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from tfrec.ann.index import AnnIndex
from tfrec.models.best import best_by_vectors
from tfrec.models.questions import Choice

#: Queries whose vectors are made and searched at once.
_BLOCK = 1_024


class IndexedLists:
    """Answers for a model as its `recommend` does, but for the items that the index misses.

    Args:
        model: with the questions of `tfrec.models.recommends.Recommends`; its scores are inner products.
        index: of the vectors that its `inner_products` gives.
    """

    def __init__(self, model: Any, index: AnnIndex) -> None:
        self._model, self.index = model, index
        self._vectors = model.inner_products()[0]

    def best(
        self,
        queries: Any,
        seen: scipy.sparse.csr_matrix,
        k: int,
        without: np.ndarray | None = None,
        among: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best items of each query, best first.

        Args:
            queries: numbers of users, int ``[B]``; or histories, CSR ``[B, I]``.
            seen: ``[B, I]``, what each query must not be answered with.
            k: from 1 to I.
            without: items that no query is answered with, ascending.
            among: choose among these: all of them are scored, without the index.

        Returns:
            numbers int32 and inner products float32, ``[B, k]``; -1 and -infinity where fewer are left, and for a query
            that the model has no answer to.
        """
        num = queries.shape[0]
        ids, scores = np.full((num, k), -1, np.int32), np.full((num, k), -np.inf, np.float32)
        for first in range(0, num, _BLOCK):
            part = slice(first, first + _BLOCK)
            vectors = self._vectors(queries[part])
            if among is None:
                found = self.index.search(vectors.numpy(), k, *exclusions(seen[part]), without=without)
            else:
                choice = Choice.of(seen.shape[1], ("among", among), ("without", None))
                found = best_by_vectors(vectors, self.index.table, k, seen[part], choice)
            silent = ~self._model.answerable(queries[part]).numpy()
            found[0][silent], found[1][silent] = -1, -np.inf
            width = found[0].shape[1]
            ids[part, :width], scores[part, :width] = found
        return ids, scores


def exclusions(seen: scipy.sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Offsets ``[B + 1]`` and items, ascending within a row, as `AnnIndex.search` takes them."""
    rows = seen.copy()
    rows.sort_indices()
    return rows.indptr.astype(np.int64), rows.indices.astype(np.int32)
