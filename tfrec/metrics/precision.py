"""Precision: the share of what is shown that is a target."""

from __future__ import annotations

import numpy as np

from tfrec.metrics.registry import ranking_metric
from tfrec.metrics.tied_ranks import TiedRanks


@ranking_metric("precision")
def precision(ranks: TiedRanks, k: int) -> np.ndarray:
    """Share of the first K that are targets: ``|{t in R : rank(t) <= K}| / K``.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> from tfrec.metrics import tied_ranks
        >>> ranks = tied_ranks(np.array([[4.0, 3.0, 2.0]]), scipy.sparse.csr_matrix([[1, 0, 1]]))
        >>> precision(ranks, 2).tolist()
        [0.5]
    """
    ranks.check(k)
    return ranks.per_user(ranks.user, ranks.chance_within(k)) / k
