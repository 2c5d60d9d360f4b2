"""The Gini index: how unequally items are shown."""

from __future__ import annotations

import numpy as np

from tfrec.metrics.exposure import Exposure
from tfrec.metrics.registry import catalogue_metric


@catalogue_metric("gini")
def gini(exposure: Exposure) -> float:
    """How unequally users' first K are spread over the catalogue: 0, all items alike, to 1, always the same item.

    ``sum for j = 1 ... I of (2j - I - 1) p(j) / (I - 1)``, where p(j) is the share of all filled places that the item
    has which is j-th from below (Shani and Gunawardana, "Evaluating Recommendation Systems", 2011). The denominator
    I - 1 makes one item that is shown alone exactly 1; with K items shown alike to everybody it is (I - K) / (I - 1).
    Ties: equal scores by lower number first. 0 where nothing is shown, or there is one item.

    Example:
        >>> gini(Exposure(np.array([0, 6, 0]))), gini(Exposure(np.array([2, 2, 2])))
        (1.0, 0.0)
        >>> gini(Exposure(np.array([3, 1, 0])))  # (-2 * 0 + 0 * 1/4 + 2 * 3/4) / 2
        0.75
    """
    shown = np.sort(exposure.shown).astype(np.int64)
    num_items, total = len(shown), int(shown.sum())
    if num_items < 2 or total == 0:
        return 0.0
    return int((2 * np.arange(1, num_items + 1) - num_items - 1) @ shown) / (total * (num_items - 1))
