"""Where targets stand in a ranking, with an exact treatment of ties.

A ranking is described by its targets only. For target t of user u, ``higher[t]`` is the number of candidates that
score above it and ``tied[t]`` the number that score the same, itself included: its rank is one of
``higher + 1 ... higher + tied``. By the tie rule:

- ``expected`` (the default): every order of tied candidates is equally likely, and a metric is its expectation
  over them, in closed form (for precision, recall, NDCG and average precision as in McSherry and Najork,
  "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores", 2008);
- ``pessimistic``: among tied candidates the targets come last;
- ``optimistic``: they come first.

Every metric of a ranking returns one float64 per user, NaN for a user without targets: nothing to predict is not a
miss. In their docstrings R is a user's set of targets, K the cutoff and ``rank(t)`` counts from 1.
"""

from __future__ import annotations

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
        groups = self.groups
        place = np.arange(len(self.user)) - groups.first[groups.of_target]
        group = groups.of_target
        skipped = groups.tied[group] - groups.relevant[group] if ties == "pessimistic" else 0
        higher = np.empty_like(self.higher)
        higher[groups.order] = groups.higher[group] + skipped + place
        return higher

    @cached_property
    def groups(self) -> Groups:
        """The targets by user and score."""
        order = np.lexsort((self.higher, self.user))
        user, higher = self.user[order], self.higher[order]
        new = np.ones(len(order), bool)
        new[1:] = (user[1:] != user[:-1]) | (higher[1:] != higher[:-1])
        first = np.flatnonzero(new)
        start_of_user = np.searchsorted(user, user[first], side="left")
        return Groups(
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

    def chance_within(self, k: int) -> np.ndarray:
        """The probability of rank <= k of each target, float64 ``[T]``."""
        return np.clip((k - self.higher) / self.tied, 0.0, 1.0)

    def check(self, k: int) -> None:
        """Raise InputError unless the ranks up to ``k`` are known."""
        if k < 1:
            raise InputError(f"`k` must be at least 1.\nReceived: {k}.")
        if self.depth is not None and k > self.depth:
            raise InputError(
                f"`k` must be at most {self.depth}, the depth to which ranks were computed.\nReceived: k={k}."
            )


@dataclass(frozen=True)
class Groups:
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
            raise InputError(f"An item must not be both seen and a target.\nReceived: user row {row}.")
        ascending = np.sort(scores[row, left])
        above = np.searchsorted(ascending, scores[row, wanted], side="right")
        candidates[row] = len(ascending)
        higher[span] = len(ascending) - above
        tied[span] = above - np.searchsorted(ascending, scores[row, wanted], side="left")
    return TiedRanks(user, higher, tied, np.diff(targets.indptr).astype(np.int64), candidates)
