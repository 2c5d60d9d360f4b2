"""Where in the catalogue hits and lists fall: what an evaluation can keep next to its metrics, at no further pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tfrec.metrics import Exposure

#: Cutoffs of the lists that are counted, as far as the ranking is known to that depth.
LIST_CUTOFFS = (10, 20, 50, 100)


@dataclass(frozen=True)
class Details:
    """Of T targets and I items, over all users.

    Args:
        k: the cutoff of ``found``.
        items: int64 ``[T]``, each target's item.
        found: float64 ``[T]``, the probability that the target is among its user's first ``k`` candidates: 0 or 1,
            and between them only where the tie rule is ``expected`` and the target is tied across the cutoff.
        exposure: cutoff K -> how often each item is among users' first K. Empty where candidates were sampled: such
            a ranking shows nothing of the catalogue.
    """

    k: int
    items: np.ndarray
    found: np.ndarray
    exposure: Mapping[int, Exposure] = field(default_factory=dict)
