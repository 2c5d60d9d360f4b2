"""Average precision, whose mean over users is MAP."""

from __future__ import annotations

import numpy as np

from tfrec.metrics.registry import ranking_metric
from tfrec.metrics.tied_ranks import TiedRanks


@ranking_metric("map")
def average_precision(ranks: TiedRanks, k: int) -> np.ndarray:
    """Mean of the precisions at the targets among the first K; its mean over users is MAP@K.

    ``sum over t in R with rank(t) <= K of precision@rank(t) / min(K, |R|)``.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> from tfrec.metrics import tied_ranks
        >>> ranks = tied_ranks(np.array([[3.0, 2.0, 1.0]]), scipy.sparse.csr_matrix([[1, 0, 1]]))
        >>> average_precision(ranks, 3).round(4).tolist()  # (1/1 + 2/3) / 2
        [0.8333]
    """
    ranks.check(k)
    groups = ranks.groups
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, k + 1))])
    low = np.minimum(groups.higher, k)
    high = np.minimum(groups.higher + groups.tied, k)
    inverse = harmonic[high] - harmonic[low]  # sum of 1 / rank over the places within K
    # At place j of e in the group, (m - 1)(j - 1)/(e - 1) other targets of the group are expected before it, and
    # (j - 1) / (higher + j) = 1 - (higher + 1) / (higher + j).
    before = (high - low) - (groups.higher + 1) * inverse
    spread = np.where(groups.tied > 1, (groups.relevant - 1) / np.maximum(groups.tied - 1, 1), 0.0)
    value = groups.relevant / groups.tied * ((1 + groups.relevant_above) * inverse + spread * before)
    return ranks.per_user(groups.user, value) / np.maximum(np.minimum(k, ranks.num_targets), 1)
