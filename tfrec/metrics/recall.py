"""Recall: the share of the targets that are found."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tfrec.errors import InputError
from tfrec.metrics.registry import ranking_metric
from tfrec.metrics.tied_ranks import TiedRanks


@ranking_metric("recall")
def recall(ranks: TiedRanks, k: int, denominator: Literal["min_k", "relevant"] = "min_k") -> np.ndarray:
    """Share of the targets that are among the first K.

    ``|{t in R : rank(t) <= K}| / min(K, |R|)`` with ``min_k`` (Liang et al., 2018), or ``/ |R|`` with ``relevant``.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> from tfrec.metrics import tied_ranks
        >>> targets = scipy.sparse.csr_matrix([[1, 0, 1, 1]])
        >>> ranks = tied_ranks(np.array([[4.0, 3.0, 2.0, 1.0]]), targets)
        >>> recall(ranks, 2).tolist(), recall(ranks, 2, "relevant").round(4).tolist()
        ([0.5], [0.3333])
    """
    ranks.check(k)
    hits = ranks.per_user(ranks.user, ranks.chance_within(k))
    if denominator == "min_k":
        return hits / np.maximum(np.minimum(k, ranks.num_targets), 1)
    if denominator == "relevant":
        return hits / np.maximum(ranks.num_targets, 1)
    raise InputError(f"`denominator` must be 'min_k' or 'relevant'.\nReceived: {denominator!r}.")


@ranking_metric("recall_relevant")
def recall_relevant(ranks: TiedRanks, k: int) -> np.ndarray:
    """`recall` with the denominator ``relevant``."""
    return recall(ranks, k, "relevant")
