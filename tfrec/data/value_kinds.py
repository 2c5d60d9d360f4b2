"""What a column of values means: ratings, counts or votes. Decided by a stated rule, or named.

The rule, in order:

1. Values below 0: *votes* where all are -1, 0 or 1. Anything else is not guessed: dislikes, returned goods and "no
   rating" (-1) all look alike.
2. *Ratings*, where the values lie on a scale (steps of one half, from 0 to at most 10, not all the same) and either
   the column has such a name (rating, stars, score, grade), or there are halves and hardly any row repeats a pair of
   user and item. A column named quantity, plays, clicks or the like is never one of ratings.
3. *Counts*, otherwise. So counts are never taken for ratings because they are small.
"""

from __future__ import annotations

import math
import re

import numpy as np

from tfrec.data.interactions import Interactions, ValueKind
from tfrec.data.problems import Problem
from tfrec.errors import InputError

_GRADES = re.compile(r"rating|stars?\b|score|grade|rated", re.IGNORECASE)
_AMOUNTS = re.compile(
    r"qty|quantit|count|plays?\b|clicks?|views?|listens?|purchases?|orders?|units?|amount|number|num_|freq|times",
    re.IGNORECASE,
)
#: More rows than this share that repeat a pair say that values without a name for it are counts.
_REPEATED = 0.1


def unclear_values(column: str, values: np.ndarray) -> Problem | None:
    """The problem of values below 0 that are not -1, 0 and 1; None: there is none.

    Args:
        column: its name.
        values: float32 ``[N]``, finite.
    """
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low >= 0 or (low == -1 and high <= 1 and np.isin(values, (-1, 0, 1)).all()):
        return None
    likely = "counts" if _AMOUNTS.search(column) else "ratings" if _GRADES.search(column) else "votes"
    return Problem(
        f"values below 0 in column `{column}` may mean several things",
        f"{int((values < 0).sum()):,} of {len(values):,}, the lowest {low:g}, the highest {high:g}",
        "Name which. Returned goods, to be subtracted: --data.value-kind counts. Dislikes: --data.value-kind votes. "
        "Grades, or -1 for no rating: --data.value-kind ratings, which leaves out what is not above --data.min-rating. "
        "(In Python: value_kind=...)",
        (("value_kind", likely),),
    )


def value_kind(column: str, values: np.ndarray, repeated: float) -> tuple[ValueKind, str]:
    """The kind of ``values``, and why.

    Args:
        column: its name.
        values: float32 ``[N]``, finite.
        repeated: the share of rows that repeat a pair of user and item.
    """
    if len(values) == 0:
        return "counts", f"column `{column}` has no values"
    low, high = float(values.min()), float(values.max())
    span = f"column `{column}`, values from {low:g} to {high:g}"
    if low < 0:
        return "votes", f"column `{column}` has nothing but -1, 0 and 1"
    on_scale = 0 < high <= 10 and low < high and bool((values * 2 == np.floor(values * 2)).all())
    if on_scale and not _AMOUNTS.search(column):
        if _GRADES.search(column):
            return "ratings", f"{span}, in a column named so"
        if not (values == np.floor(values)).all() and repeated <= _REPEATED:
            return "ratings", f"{span} in steps of one half"
    return "counts", span


def threshold(events: Interactions, min_rating: float | str | None = "auto") -> float:
    """Above which value a pair of ``events`` is positive.

    Args:
        events: of any kind.
        min_rating: a number from 0; None or ``all``: 0; ``auto``: for ratings 7 tenths of the scale, which is 3.5 where
            the highest is at most 5, else .7 of the highest, rounded up to a whole number first; 0 for everything else.
            For events without values it is always 0.

    Raises:
        InputError: something else.
    """
    if min_rating is None or min_rating == "all" or events.kind == "events":
        return 0.0
    if min_rating == "auto":
        if events.kind != "ratings" or len(events) == 0:
            return 0.0
        high = float(events.values.max())
        return 3.5 if high <= 5 else round(0.7 * math.ceil(high), 6)
    if isinstance(min_rating, str) or not 0 <= min_rating < math.inf:
        raise InputError(
            f"The threshold of positive values must be a number from 0, auto or all.\nReceived: {min_rating!r}.\n"
            "Set `min_rating`, --data.min-rating."
        )
    return float(min_rating)
