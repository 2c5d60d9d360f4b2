"""AUC: the chance that a target scores above another candidate."""

from __future__ import annotations

import numpy as np

from tfrec.errors import InputError
from tfrec.metrics.registry import ranking_metric
from tfrec.metrics.tied_ranks import TiedRanks


@ranking_metric("auc", cutoff="none")
def auc(ranks: TiedRanks) -> np.ndarray:
    """Probability that a target scores above a candidate that is none; a tie counts half.

    NaN also for a user all of whose candidates are targets.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> from tfrec.metrics import tied_ranks
        >>> ranks = tied_ranks(np.array([[3.0, 2.0, 2.0]]), scipy.sparse.csr_matrix([[0, 1, 0]]))
        >>> auc(ranks).tolist()  # (0 + 1/2) / 2
        [0.25]
    """
    if ranks.depth is not None:
        raise InputError(f"AUC needs the rank of every target.\nReceived: ranks to depth {ranks.depth}.")
    groups = ranks.groups
    others = ranks.num_candidates - ranks.num_targets
    above = groups.higher - groups.relevant_above
    level = groups.tied - groups.relevant
    below = others[groups.user] - above - level
    value = ranks.per_user(groups.user, groups.relevant * (below + 0.5 * level))
    pairs = ranks.num_targets * others
    return np.where(pairs > 0, value / np.maximum(pairs, 1), np.nan)
