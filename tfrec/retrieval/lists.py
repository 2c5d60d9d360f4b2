"""What an index finds, as scores of all items, so that it is measured as any model is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from tfrec.errors import InputError

#: The k best of rows: (rows ``[B]``, k) -> numbers of items, -1 for none, and scores, ``[B, up to k]``.
Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ListScores:
    """Scores ``[B, I]`` from lists that are long enough: until what is tied at the cutoff is in them.

    An item that the index does not find comes after all that it finds, and a target among those last of all.

    Args:
        search: asks the index.
        targets: ``[V, I]``, a row for each that is asked for.
        depth: the deepest cutoff; I for a metric without one.
        needs_whole: the metric that is not defined for a list shorter than ``depth``, for the message; None: none is.
    """

    search: Search
    targets: scipy.sparse.csr_matrix
    depth: int
    needs_whole: str | None

    def __call__(self, rows: np.ndarray, seen: scipy.sparse.csr_matrix) -> np.ndarray:
        """Scores of all items for a block of rows; see `tfrec.evaluation.full_ranking.Scorer`.

        Raises:
            InputError: an index that does not find enough.
        """
        num_items = seen.shape[1]
        hidden = seen.toarray() != 0
        wanted = np.minimum(self.depth, num_items - hidden.sum(axis=1))
        k = min(num_items, self.depth + int(hidden.sum(axis=1).max(initial=0)))
        while True:
            scores, found = self._found(rows, k, num_items)
            lowest = np.min(scores, axis=1, where=found, initial=np.inf)
            # What is tied with the last that was found may be missing.
            short = _at(np.where(hidden, -np.inf, scores), wanted) <= lowest
            # An index that gave fewer than k has no more.
            if k == num_items or not (short & (found.sum(axis=1) >= k)).any():
                break
            k = min(num_items, 2 * k)
        self._check((found & ~hidden).sum(axis=1), wanted, rows, num_items - hidden.sum(axis=1))
        below = np.nextafter(np.where(np.isfinite(lowest), lowest, 0), np.float32(-np.inf))[:, None]
        last = np.nextafter(below, np.float32(-np.inf))
        is_target = self.targets[rows].toarray() > 0
        return np.where(found, scores, np.where(is_target, last, below))

    def _found(self, rows: np.ndarray, k: int, num_items: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores ``[B, I]``, -infinity for what is not found, and what is."""
        numbers, given = self.search(rows, k)
        scores = np.full((len(rows), num_items), -np.inf, np.float32)
        row, place = np.nonzero((numbers >= 0) & (given != -np.inf))
        scores[row, numbers[row, place]] = given[row, place]
        found = np.zeros(scores.shape, bool)
        found[row, numbers[row, place]] = True
        return scores, found

    def _check(self, have: np.ndarray, wanted: np.ndarray, rows: np.ndarray, candidates: np.ndarray) -> None:
        """Raise InputError where a list is so short that a metric is not defined."""
        targets = np.diff(self.targets[rows].indptr)
        # Behind so few others a target that is not found would still be within the cutoff.
        undefined = (have < wanted) & ((self.needs_whole is not None) | (candidates - targets < self.depth))
        if undefined.any():
            row = int(np.flatnonzero(undefined)[0])
            metric = self.needs_whole or f"a cutoff of {self.depth}"
            raise InputError(
                f"The index must find {wanted[row]} items that a user does not have, for {metric}.\n"
                f"Received: {have[row]}.\nName a metric with a lower cutoff, or let the index find more."
            )


def _at(scores: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The ``place``-th highest of each row ``[B]``, the highest for place 1."""
    ordered = -np.sort(-scores, axis=1)
    return np.take_along_axis(ordered, np.maximum(place, 1)[:, None] - 1, axis=1)[:, 0]
