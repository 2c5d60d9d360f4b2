"""Reciprocal rank of the first target, whose mean over users is MRR."""

from __future__ import annotations

import numpy as np

from tfrec.errors import InputError
from tfrec.metrics.registry import ranking_metric
from tfrec.metrics.tied_ranks import TiedRanks


@ranking_metric("mrr", cutoff="optional")
def reciprocal_rank(ranks: TiedRanks, k: int | None = None) -> np.ndarray:
    """``1 / rank`` of the first target, 0 when it is beyond K; its mean over users is MRR(@K).

    With m targets among e tied candidates the first is at place j with probability ``C(e - j, m - 1) / C(e, m)``.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> from tfrec.metrics import tied_ranks
        >>> ranks = tied_ranks(np.array([[3.0, 2.0, 1.0]]), scipy.sparse.csr_matrix([[0, 1, 1]]))
        >>> reciprocal_rank(ranks).tolist()
        [0.5]
    """
    if k is not None:
        ranks.check(k)
    elif ranks.depth is not None:
        raise InputError(
            f"`k` must be at most {ranks.depth}, the depth to which ranks were computed.\nReceived: k=None (no cutoff)."
        )
    groups = ranks.groups
    first = groups.relevant_above == 0
    value = np.zeros(len(groups.user))
    single = first & (groups.tied == groups.relevant)
    value[single] = 1.0 / (groups.higher[single] + 1)
    if k is not None:
        value[single & (groups.higher >= k)] = 0.0
    for i in np.flatnonzero(first & ~single):
        g, e, m = int(groups.higher[i]), int(groups.tied[i]), int(groups.relevant[i])
        places = e - m + 1 if k is None else min(e - m + 1, max(k - g, 0))
        if places == 0:
            continue
        j = np.arange(1, places)
        chance = m / e * np.concatenate([[1.0], np.cumprod((e - j - m + 1) / (e - j))])
        value[i] = np.sum(chance / (g + np.arange(1, places + 1)))
    return ranks.per_user(groups.user, value)
