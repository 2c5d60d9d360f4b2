"""How many rows of a source became interactions, and where the others went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """The account of a source's rows: ``rows = kept + merged + sum of dropped``, always.

    A row that repeats a pair of user and item is *merged*; the others are the pairs, each *kept* or *dropped* for one
    reason. Rows that could not become an event at all (no id, malformed) are dropped, too.

    Args:
        rows: rows of the source, column names and empty lines not counted.
        kept: different pairs of user and item that are left.
        merged: rows beyond the first of their pair.
        dropped: reason -> rows or pairs, in the order in which they were dropped; reasons without any are left out.

    Raises:
        ValueError: the numbers do not add up.

    Example:
        >>> report = Report(rows=10, kept=7, merged=2, dropped={"no user id": 1})
        >>> print(report.drop("below the threshold 3.5 (ratings)", 4))
        10 rows: 3 pairs kept; 2 rows merged; 1 no user id; 4 below the threshold 3.5 (ratings)
    """

    rows: int
    kept: int
    merged: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dropped", {reason: int(n) for reason, n in self.dropped.items() if n})
        numbers = (self.kept, self.merged, *self.dropped.values())
        if min(numbers) < 0 or sum(numbers) != self.rows:
            raise ValueError(
                f"Rows must be kept, merged or dropped.\nReceived: rows={self.rows}, kept={self.kept}, "
                f"merged={self.merged}, dropped={self.dropped}."
            )

    def drop(self, reason: str, pairs: int) -> Report:
        """The account after ``pairs`` of the kept ones were left out for ``reason``."""
        dropped = {**self.dropped, reason: self.dropped.get(reason, 0) + int(pairs)}
        return Report(self.rows, self.kept - int(pairs), self.merged, dropped)

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {"rows": self.rows, "kept": self.kept, "merged": self.merged, "dropped": dict(self.dropped)}

    def __str__(self) -> str:
        parts = [f"{self.rows:,} {_plural('row', self.rows)}: {self.kept:,} {_plural('pair', self.kept)} kept"]
        if self.merged:
            parts.append(f"{self.merged:,} {_plural('row', self.merged)} merged")
        parts += [f"{count:,} {reason}" for reason, count in self.dropped.items()]
        return "; ".join(parts)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else word + "s"
