"""Who takes part: how the processes of a run share work, as an argument. One process is the default everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfrec.errors import InputError


@dataclass(frozen=True)
class Ranks:
    """One process of several; this class itself for those that exchange nothing.

    `tfrec.distributed.everyone` gives the processes of a launcher. Every process calls the collectives equally often.

    Args:
        rank: of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise InputError(f"`rank` must lie in [0, size).\nReceived: rank={self.rank}, size={self.size}.")

    def sum(self, values: Any) -> Any:
        """The sum of an array (in float64) or a tensor over the processes, the same on each."""
        return values

    def blocks(self, count: int) -> range:
        """This process's blocks of work out of ``count``, each size-th; as many on every process, so that some may get
        one more than there is, of a number from ``count``."""
        return range(self.rank, -(-count // self.size) * self.size, self.size)

    def gather_rows(self, rows: Any) -> Any:
        """The processes' rows, a tensor, one after another; they may have different numbers of rows."""
        return rows

    def exchange(self, rows: Any, counts: Any) -> tuple[Any, Any]:
        """Send each process its part of the rows, and receive what each has for this one.

        Args:
            rows: a tensor ``[B, ...]``, first the rows for rank 0, then those for rank 1, and so on.
            counts: int32 ``[size]``: how many are for each.

        Returns:
            the rows received, in order of the rank that sent them, and int32 ``[size]``: how many came from each.
        """
        return rows, counts


#: One process.
ALONE = Ranks()
