"""A rank's rows of a sparse matrix, cut into blocks that each need few rows of the other side's table.

Row r of a table is on rank ``r % size``, there at place ``r // size`` (`tfrec.distributed.sharding`). To solve its rows
a rank fetches the rows of the other table that they need, each once per block, as ALX does (Mehta et al., "ALX: Large
Scale Matrix Factorization on TPUs", 2021). A row that alone needs more than a block may hold is cut into pieces, whose
parts of the row's equations are added up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from tfrec.ranks import Ranks

#: Entries that are looked at together, so that planning needs little memory.
_STEP = 1 << 18


@dataclass(frozen=True)
class Block:
    """Rows ``[first, last)`` of the rank's part, or a piece of one row, and what they need.

    Args:
        first: of the rank's rows.
        last: behind the last one.
        begin: of the rank's entries.
        end: behind the last one.
        needed: int32 ``[C]``, rows of the other table, by the rank that has them and then by number.
        counts: int32 ``[size]``: how many of them each rank has.
        piece: whether this is a part of a row and not all of it.
    """

    first: int
    last: int
    begin: int
    end: int
    needed: np.ndarray
    counts: np.ndarray
    piece: bool

    @property
    def num_rows(self) -> int:
        """Rows of the block."""
        return self.last - self.first


class Blocks:
    """The blocks of a rank's rows. While it is open, the matrix's columns count the rows that a block has fetched.

    Args:
        matrix: float32 CSR ``[B, M]``, the rank's rows; its columns are changed in place and put back by `close`.
        most: rows of the other table that a block may need, from 1.
        ranks: who has them.
    """

    def __init__(self, matrix: scipy.sparse.csr_matrix, most: int, ranks: Ranks) -> None:
        self.matrix = matrix
        self._ranks = ranks
        self.own = [self._block(*cut) for cut in _cuts(matrix.indptr, matrix.indices, most)]
        for block in self.own:
            self._number(block)

    def _block(self, first: int, last: int, begin: int, end: int, needed: np.ndarray) -> Block:
        owner = needed % self._ranks.size
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=self._ranks.size).astype(np.int32)
        whole = begin == self.matrix.indptr[first] and end == self.matrix.indptr[last]
        return Block(first, last, begin, end, needed[order].astype(np.int32), counts, not whole)

    def _number(self, block: Block) -> None:
        """Replace the columns of a block by the places of these rows in ``needed``."""
        order = np.argsort(block.needed, kind="stable").astype(np.int32)
        ascending = block.needed[order]
        for part in _steps(block.begin, block.end):
            columns = self.matrix.indices[part]
            columns[:] = order[np.searchsorted(ascending, columns)]

    def close(self) -> None:
        """Put the columns back."""
        for block in self.own:
            for part in _steps(block.begin, block.end):
                columns = self.matrix.indices[part]
                columns[:] = block.needed[columns]
        self.own = []

    @property
    def num_fetched(self) -> int:
        """Rows that are fetched in a half-sweep."""
        return sum(len(block.needed) for block in self.own)

    @property
    def largest(self) -> int:
        """The most rows that a block needs."""
        return max((len(block.needed) for block in self.own), default=0)


def _steps(begin: int, end: int) -> Iterator[slice]:
    for at in range(begin, end, _STEP):
        yield slice(at, min(at + _STEP, end))


def _cuts(indptr: np.ndarray, columns: np.ndarray, most: int) -> Iterator[tuple[int, int, int, int, np.ndarray]]:
    """``(first row, last row, first entry, last entry, columns)`` of each block, each column once and ascending."""
    first, at, num_rows = 0, 0, len(indptr) - 1
    while first < num_rows:
        end, needed = _most_entries(columns, at, int(indptr[num_rows]), most)
        # The rows that end there, with the empty ones behind them; none inside of a long row.
        last = int(np.searchsorted(indptr, end, side="right")) - 1
        if at > indptr[first] or last == first:
            last, cut = first + 1, min(end, int(indptr[first + 1]))
        else:
            cut = int(indptr[last])
        yield first, last, at, cut, needed if cut == end else _distinct(columns, at, cut)
        at = cut
        first = last if cut == indptr[last] else first


def _most_entries(columns: np.ndarray, begin: int, limit: int, most: int) -> tuple[int, np.ndarray]:
    """How far entries from ``begin`` go with at most so many different columns, and these columns, ascending."""
    seen = columns[:0]
    step = min(_STEP, max(1_024, 4 * most))
    for at in range(begin, limit, step):
        here, place = np.unique(columns[at : min(at + step, limit)], return_index=True)
        new = ~np.isin(here, seen, assume_unique=True)
        room = most - len(seen)
        if np.count_nonzero(new) > room:
            places = np.sort(place[new])
            seen = np.union1d(seen, columns[at : at + int(places[room])])
            return at + int(places[room]), seen
        seen = np.union1d(seen, here[new])
    return limit, seen


def _distinct(columns: np.ndarray, begin: int, end: int) -> np.ndarray:
    found = columns[:0]
    for part in _steps(begin, end):
        found = np.union1d(found, columns[part])
    return found
