"""NDCG: targets count less the further down they are."""

from __future__ import annotations

import numpy as np

from tfrec.metrics.registry import ranking_metric
from tfrec.metrics.tied_ranks import TiedRanks


@ranking_metric("ndcg")
def ndcg(ranks: TiedRanks, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain.

    ``DCG = sum over t in R with rank(t) <= K of gain(t) / log2(rank(t) + 1)``, divided by the DCG of the best
    ranking, targets by falling gain: ``sum for r = 1 ... min(K, |R|) of gain(t_r) / log2(r + 1)`` (Järvelin and
    Kekäläinen, 2002). gain is 1 (binary relevance) unless the ranks have gains.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> from tfrec.metrics import tied_ranks
        >>> ranks = tied_ranks(np.array([[3.0, 2.0, 1.0]]), scipy.sparse.csr_matrix([[0, 1, 0]]))
        >>> ndcg(ranks, 3).round(4).tolist()  # 1 / log2(3)
        [0.6309]
    """
    ranks.check(k)
    gains = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(1, k + 1) + 1.0))])
    low = np.minimum(ranks.higher, k)
    high = np.minimum(ranks.higher + ranks.tied, k)
    discounts = (gains[high] - gains[low]) / ranks.tied
    if ranks.gain is None:
        return ranks.per_user(ranks.user, discounts) / np.maximum(gains[np.minimum(ranks.num_targets, k)], gains[1])
    dcg = ranks.per_user(ranks.user, discounts * ranks.gain)
    order = np.lexsort((-ranks.gain, ranks.user))
    user, best = ranks.user[order], ranks.gain[order]
    place = np.arange(len(user)) - np.searchsorted(user, user, side="left")
    ideal = np.where(place < k, best * np.diff(gains)[np.minimum(place, k - 1)], 0.0)
    return dcg / np.maximum(np.bincount(user, weights=ideal, minlength=len(ranks.num_targets)), np.finfo(float).tiny)
