"""Coverage: how much of the catalogue anybody sees."""

from __future__ import annotations

import numpy as np

from tfrec.metrics.exposure import Exposure
from tfrec.metrics.registry import catalogue_metric


@catalogue_metric("coverage")
def coverage(exposure: Exposure) -> float:
    """Share of the catalogue that is among some user's first K: ``|{i : shown(i) > 0}| / I``.

    Called catalogue coverage by Ge et al., "Beyond Accuracy: Evaluating Recommender Systems by Coverage and
    Serendipity", 2010. Ties: equal scores by lower number first.

    Example:
        >>> coverage(Exposure(np.array([2, 1, 0, 0])))
        0.5
    """
    return int(np.count_nonzero(exposure.shown)) / len(exposure.shown)
