"""Hit rate: whether any target is found."""

from __future__ import annotations

import numpy as np

from tfrec.metrics.registry import ranking_metric
from tfrec.metrics.tied_ranks import TiedRanks


@ranking_metric("hit_rate")
def hit_rate(ranks: TiedRanks, k: int) -> np.ndarray:
    """1 when some target is among the first K, else 0; with ties the probability of it.

    With m targets among e tied candidates of which the first s are within K, no target is with probability
    ``C(e - m, s) / C(e, s)``.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> from tfrec.metrics import tied_ranks
        >>> ranks = tied_ranks(np.array([[1.0, 1.0, 1.0, 1.0]]), scipy.sparse.csr_matrix([[1, 0, 1, 0]]))
        >>> hit_rate(ranks, 2).round(4).tolist()  # 1 - (2/4)(1/3)
        [0.8333]
    """
    ranks.check(k)
    groups = ranks.groups
    within = np.clip(k - groups.higher, 0, groups.tied)
    miss = np.where(within == 0, 1.0, 0.0)
    for i in np.flatnonzero((within > 0) & (within < groups.tied)):
        e, m, s = int(groups.tied[i]), int(groups.relevant[i]), int(within[i])
        steps = np.arange(min(m, s))
        # C(e-m, s) / C(e, s), as a product over the smaller of m and s: both forms are the same number.
        top = e - max(m, s) - steps
        miss[i] = np.prod(np.maximum(top, 0) / (e - steps))
    hit = np.ones(len(ranks.num_targets))
    np.multiply.at(hit, groups.user, miss)
    hit = 1.0 - hit
    hit[ranks.num_targets == 0] = np.nan
    return hit
