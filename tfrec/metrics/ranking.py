"""Ranking metrics with an exact treatment of ties.

A ranking is described by its targets only. For target t of user u, ``higher[t]`` is the number of candidates that
score above it and ``tied[t]`` the number that score the same, itself included: its rank is one of
``higher + 1 ... higher + tied``. By the tie rule:

- ``expected`` (the default): every order of tied candidates is equally likely, and a metric is its expectation
  over them, in closed form (for precision, recall, NDCG and average precision as in McSherry and Najork,
  "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores", 2008);
- ``pessimistic``: among tied candidates the targets come last;
- ``optimistic``: they come first.

Every metric returns one float64 per user, NaN for a user without targets: nothing to predict is not a miss. Below,
R is a user's set of targets, K the cutoff and ``rank(t)`` counts from 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.sparse

from tfrec.errors import InputError

Ties = Literal["expected", "pessimistic", "optimistic"]
#: The tie rules.
TIES: tuple[Ties, ...] = ("expected", "pessimistic", "optimistic")


@dataclass(frozen=True)
class TiedRanks:
    """Where the targets of B users stand among their candidates.

    Args:
        user: int64 ``[T]``, the row of each target's user, ascending.
        higher: int64 ``[T]``, candidates with a higher score.
        tied: int64 ``[T]``, candidates with the same score, the target itself included.
        num_targets: int64 ``[B]``, targets per user.
        num_candidates: int64 ``[B]``, candidates per user, the targets included.
        depth: ranks beyond it are not known: ``higher`` is then ``depth`` and ``tied`` the number of such targets of
            the user. None: all are known.
        gain: float64 ``[T]``, above 0, what each target is worth to NDCG; None: 1. Every other metric asks only whether
            an item is a target.
    """

    user: np.ndarray
    higher: np.ndarray
    tied: np.ndarray
    num_targets: np.ndarray
    num_candidates: np.ndarray
    depth: int | None = None
    gain: np.ndarray | None = None

    def resolve(self, ties: Ties) -> TiedRanks:
        """The same with ties broken by the rule; ``expected`` leaves them for the metrics to average over."""
        if ties == "expected":
            return self
        if ties not in TIES:
            raise InputError(f"`ties` must be one of {', '.join(TIES)}.\nReceived: {ties!r}.")
        if self.gain is not None:
            # Of tied targets the best comes first, or last.
            order = np.lexsort((self.gain if ties == "pessimistic" else -self.gain, self.higher, self.user))
            ranks = replace(
                self, user=self.user[order], higher=self.higher[order], tied=self.tied[order], gain=self.gain[order]
            )
            return replace(ranks, higher=ranks._resolved(ties), tied=np.ones_like(ranks.tied))
        return replace(self, higher=self._resolved(ties), tied=np.ones_like(self.tied))

    def _resolved(self, ties: Ties) -> np.ndarray:
        """``higher`` with ties broken by the rule, those of the targets in the order they are in."""
        groups = self._groups
        place = np.arange(len(self.user)) - groups.first[groups.of_target]
        group = groups.of_target
        skipped = groups.tied[group] - groups.relevant[group] if ties == "pessimistic" else 0
        higher = np.empty_like(self.higher)
        higher[groups.order] = groups.higher[group] + skipped + place
        return higher

    @cached_property
    def _groups(self) -> _Groups:
        order = np.lexsort((self.higher, self.user))
        user, higher = self.user[order], self.higher[order]
        new = np.ones(len(order), bool)
        new[1:] = (user[1:] != user[:-1]) | (higher[1:] != higher[:-1])
        first = np.flatnonzero(new)
        start_of_user = np.searchsorted(user, user[first], side="left")
        return _Groups(
            order=order,
            first=first,
            of_target=np.cumsum(new) - 1,
            user=user[first],
            higher=higher[first],
            tied=self.tied[order][first],
            relevant=np.diff(first, append=len(order)),
            relevant_above=first - start_of_user,
        )

    def per_user(self, user: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Sums of ``value`` by user, ``[B]``; NaN where a user has no targets."""
        total = np.bincount(user, weights=value, minlength=len(self.num_targets)).astype(np.float64)
        total[self.num_targets == 0] = np.nan
        return total

    def check(self, k: int) -> None:
        """Raise InputError unless the ranks up to ``k`` are known."""
        if k < 1:
            raise InputError(f"`k` must be at least 1.\nReceived: {k}.")
        if self.depth is not None and k > self.depth:
            raise InputError(f"These ranks are known to depth {self.depth} only.\nReceived: k={k}.")


@dataclass(frozen=True)
class _Groups:
    """The targets of each user with the same score. G groups, ordered by user and then by rank."""

    order: np.ndarray  # [T], targets sorted by user and rank
    first: np.ndarray  # [G], the first target of each group, in that order
    of_target: np.ndarray  # [T], the group of each target, in that order
    user: np.ndarray  # [G]
    higher: np.ndarray  # [G], candidates above
    tied: np.ndarray  # [G], candidates in it
    relevant: np.ndarray  # [G], targets in it
    relevant_above: np.ndarray  # [G], targets above it


def tied_ranks(
    scores: np.ndarray, targets: scipy.sparse.csr_matrix, seen: scipy.sparse.csr_matrix | None = None
) -> TiedRanks:
    """The ranks of all targets, by sorting each user's scores.

    Args:
        scores: ``[B, I]``.
        targets: ``[B, I]``, above 0 for the items to predict, none of them stored with another value.
        seen: ``[B, I]``, non-zero for items that are no candidates; none of them may be a target.

    Raises:
        InputError: a score that is not a number, or a target that is also seen.
    """
    user = np.repeat(np.arange(targets.shape[0]), np.diff(targets.indptr))
    higher = np.zeros(targets.nnz, np.int64)
    tied = np.zeros(targets.nnz, np.int64)
    candidates = np.full(targets.shape[0], scores.shape[1], np.int64)
    if np.isnan(scores).any():
        raise InputError("Scores must be numbers.\nReceived: NaN. The model diverged, or its input has NaN.")
    for row in range(targets.shape[0]):
        left = np.ones(scores.shape[1], bool)
        if seen is not None:
            left[seen.indices[seen.indptr[row] : seen.indptr[row + 1]]] = False
        span = slice(targets.indptr[row], targets.indptr[row + 1])
        wanted = targets.indices[span]
        if not left[wanted].all():
            raise InputError(f"An item cannot be both seen and a target.\nReceived: user row {row}.")
        ascending = np.sort(scores[row, left])
        above = np.searchsorted(ascending, scores[row, wanted], side="right")
        candidates[row] = len(ascending)
        higher[span] = len(ascending) - above
        tied[span] = above - np.searchsorted(ascending, scores[row, wanted], side="left")
    return TiedRanks(user, higher, tied, np.diff(targets.indptr).astype(np.int64), candidates)


def _chance_within(ranks: TiedRanks, k: int) -> np.ndarray:
    """P(rank <= k) of each target."""
    return np.clip((k - ranks.higher) / ranks.tied, 0.0, 1.0)


def recall(ranks: TiedRanks, k: int, denominator: Literal["min_k", "relevant"] = "min_k") -> np.ndarray:
    """Share of the targets that are among the first K.

    ``|{t in R : rank(t) <= K}| / min(K, |R|)`` with ``min_k`` (Liang et al., 2018), or ``/ |R|`` with ``relevant``.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> targets = scipy.sparse.csr_matrix([[1, 0, 1, 1]])
        >>> ranks = tied_ranks(np.array([[4.0, 3.0, 2.0, 1.0]]), targets)
        >>> recall(ranks, 2).tolist(), recall(ranks, 2, "relevant").round(4).tolist()
        ([0.5], [0.3333])
    """
    ranks.check(k)
    hits = ranks.per_user(ranks.user, _chance_within(ranks, k))
    if denominator == "min_k":
        return hits / np.maximum(np.minimum(k, ranks.num_targets), 1)
    if denominator == "relevant":
        return hits / np.maximum(ranks.num_targets, 1)
    raise InputError(f"`denominator` must be 'min_k' or 'relevant'.\nReceived: {denominator!r}.")


def precision(ranks: TiedRanks, k: int) -> np.ndarray:
    """Share of the first K that are targets: ``|{t in R : rank(t) <= K}| / K``.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> ranks = tied_ranks(np.array([[4.0, 3.0, 2.0]]), scipy.sparse.csr_matrix([[1, 0, 1]]))
        >>> precision(ranks, 2).tolist()
        [0.5]
    """
    ranks.check(k)
    return ranks.per_user(ranks.user, _chance_within(ranks, k)) / k


def hit_rate(ranks: TiedRanks, k: int) -> np.ndarray:
    """1 when some target is among the first K, else 0; with ties the probability of it.

    With m targets among e tied candidates of which the first s are within K, no target is with probability
    ``C(e - m, s) / C(e, s)``.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> ranks = tied_ranks(np.array([[1.0, 1.0, 1.0, 1.0]]), scipy.sparse.csr_matrix([[1, 0, 1, 0]]))
        >>> hit_rate(ranks, 2).round(4).tolist()  # 1 - (2/4)(1/3)
        [0.8333]
    """
    ranks.check(k)
    groups = ranks._groups
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


def ndcg(ranks: TiedRanks, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain.

    ``DCG = sum over t in R with rank(t) <= K of gain(t) / log2(rank(t) + 1)``, divided by the DCG of the best
    ranking, targets by falling gain: ``sum for r = 1 ... min(K, |R|) of gain(t_r) / log2(r + 1)`` (Järvelin and
    Kekäläinen, 2002). gain is 1 (binary relevance) unless the ranks have gains.

    Example:
        >>> import numpy as np, scipy.sparse
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


def average_precision(ranks: TiedRanks, k: int) -> np.ndarray:
    """Mean of the precisions at the targets among the first K; its mean over users is MAP@K.

    ``sum over t in R with rank(t) <= K of precision@rank(t) / min(K, |R|)``.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> ranks = tied_ranks(np.array([[3.0, 2.0, 1.0]]), scipy.sparse.csr_matrix([[1, 0, 1]]))
        >>> average_precision(ranks, 3).round(4).tolist()  # (1/1 + 2/3) / 2
        [0.8333]
    """
    ranks.check(k)
    groups = ranks._groups
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


def reciprocal_rank(ranks: TiedRanks, k: int | None = None) -> np.ndarray:
    """``1 / rank`` of the first target, 0 when it is beyond K; its mean over users is MRR(@K).

    With m targets among e tied candidates the first is at place j with probability ``C(e - j, m - 1) / C(e, m)``.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> ranks = tied_ranks(np.array([[3.0, 2.0, 1.0]]), scipy.sparse.csr_matrix([[0, 1, 1]]))
        >>> reciprocal_rank(ranks).tolist()
        [0.5]
    """
    if k is not None:
        ranks.check(k)
    elif ranks.depth is not None:
        raise InputError(f"These ranks are known to depth {ranks.depth} only.\nReceived: k=None (no cutoff).")
    groups = ranks._groups
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


def auc(ranks: TiedRanks) -> np.ndarray:
    """Probability that a target scores above a candidate that is none; a tie counts half.

    NaN also for a user all of whose candidates are targets.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> ranks = tied_ranks(np.array([[3.0, 2.0, 2.0]]), scipy.sparse.csr_matrix([[0, 1, 0]]))
        >>> auc(ranks).tolist()  # (0 + 1/2) / 2
        [0.25]
    """
    if ranks.depth is not None:
        raise InputError(f"AUC needs all ranks; these are known to depth {ranks.depth} only.")
    groups = ranks._groups
    others = ranks.num_candidates - ranks.num_targets
    above = groups.higher - groups.relevant_above
    level = groups.tied - groups.relevant
    below = others[groups.user] - above - level
    value = ranks.per_user(groups.user, groups.relevant * (below + 0.5 * level))
    pairs = ranks.num_targets * others
    return np.where(pairs > 0, value / np.maximum(pairs, 1), np.nan)


_NAMES = (
    "recall",
    "recall_relevant",
    "precision",
    "hit_rate",
    "ndcg",
    "map",
    "mrr",
    "auc",
    "coverage",
)


@dataclass(frozen=True)
class Metric:
    """A metric by its name in reports, such as ``recall@20`` or ``auc``.

    Args:
        name: ``recall`` (denominator ``min_k``), ``recall_relevant``, ``precision``, ``hit_rate``, ``ndcg``, ``map``,
            ``mrr``, ``auc`` or ``coverage``.
        k: the cutoff; None for ``auc``, and for ``mrr`` without one.
    """

    name: str
    k: int | None

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Read a name such as ``ndcg@100``.

        Raises:
            InputError: an unknown metric, or a cutoff that is missing, out of place or no number.
        """
        match = re.fullmatch(r"([a-z_]+)(?:@([1-9]\d{0,8}))?", text)
        if not match or match[1] not in _NAMES:
            raise InputError(
                f"Unknown metric.\nReceived: {text!r}.\nKnown: {', '.join(_NAMES)}, with a cutoff such as ndcg@100."
            )
        name, k = match[1], int(match[2]) if match[2] else None
        if (name == "auc" and k is not None) or (name not in ("auc", "mrr") and k is None):
            raise InputError(
                f"{name} takes {'no cutoff' if name == 'auc' else 'a cutoff, such as ' + name + '@20'}.\n"
                f"Received: {text!r}."
            )
        return cls(name, k)

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"

    @property
    def needs_all_ranks(self) -> bool:
        """Whether it looks beyond a cutoff."""
        return self.k is None

    def __call__(self, ranks: TiedRanks) -> np.ndarray:
        """The metric per user, float64 ``[B]``."""
        if self.k is None:
            return auc(ranks) if self.name == "auc" else reciprocal_rank(ranks)
        if self.name == "recall_relevant":
            return recall(ranks, self.k, "relevant")
        functions = {
            "recall": recall,
            "precision": precision,
            "hit_rate": hit_rate,
            "ndcg": ndcg,
            "map": average_precision,
            "mrr": reciprocal_rank,
        }
        return functions[self.name](ranks, self.k)
