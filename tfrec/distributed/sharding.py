"""Which rows of a table are on which rank, and the mark of a variable that holds one rank's part.

Row r of a table lies on rank ``r % size``, there at place ``r // size``. So ids that are sorted by popularity spread
evenly, every rank's part differs by at most one row, and the rule needs no table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrec.distributed import ranks

_MARK = "_tfrec_shard"


@dataclass(frozen=True)
class Shard:
    """One rank's part of a table's rows.

    Args:
        rows: of the whole table, from 1.
        rank: whose part.
        size: number of ranks.
    """

    rows: int
    rank: int
    size: int

    @classmethod
    def mine(cls, rows: int) -> Shard:
        """This rank's part of a table of ``rows`` rows."""
        return cls(rows, ranks.rank(), ranks.size())

    @property
    def local_rows(self) -> int:
        """Rows of the part; 0 where there are fewer rows than ranks."""
        return len(range(self.rank, self.rows, self.size))

    def ids(self) -> np.ndarray:
        """The table's rows in the order of the part, int64 ``[local_rows]``."""
        return np.arange(self.rank, self.rows, self.size, dtype=np.int64)


def mark(variable: Any, shard: Shard) -> None:
    """Say that ``variable`` holds the rows ``shard`` of a table: its first axis is the part's rows.

    A marked variable is not summed over the ranks, not sent from rank 0 and not compared between ranks; checkpoints
    hold it in a file per rank.
    """
    setattr(variable, _MARK, shard)


def shard_of(variable: Any) -> Shard | None:
    """The part of a table that a variable holds, or None where every rank holds all of it."""
    return getattr(variable, _MARK, None)
