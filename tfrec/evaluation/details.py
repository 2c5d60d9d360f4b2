"""Where in the catalogue hits and lists fall: kept by an evaluation besides its metrics, without a further pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tfrec.metrics import Exposure

#: Cutoffs of the lists that are counted besides ``k``, as far as the ranking is known to that depth.
LIST_CUTOFFS = (10, 20, 50, 100)


@dataclass(frozen=True)
class Details:
    """Of T targets and I items, over all users.

    Args:
        k: the cutoff of ``found``.
        items: int64 ``[T]``, each target's item.
        users: int64 ``[T]``, each target's user, as a row of the test.
        found: float64 ``[T]``, the probability that the target is among its user's first ``k`` candidates: 0 or 1,
            and between them only where the tie rule is ``expected`` and the target is tied across the cutoff.
        exposure: cutoff K -> how often each item is among users' first K. Empty where candidates were sampled: such
            a ranking shows nothing of the catalogue.
    """

    k: int
    items: np.ndarray
    users: np.ndarray
    found: np.ndarray
    exposure: Mapping[int, Exposure] = field(default_factory=dict)
