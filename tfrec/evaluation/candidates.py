"""Rank one held-out item of each user among sampled candidates, or among all items, on the device.

The candidates of a user are a function of (seed, user): the same in every epoch, for every number of ranks and every
block size, and never stored. What comes back from the device is three whole numbers per user: how many candidates score
higher than the held-out item, how many the same, and how many there are.

Protocols:

- ``exact``: n different items that the user has not seen, none of them the held-out one, every such set equally likely;
- ``nvidia``: as NVIDIA's NCF: n draws *with* replacement from the items outside the training data; the held-out one
  may be among them; repeated items count once. (Its PyTorch version ranks ties optimistically, its TensorFlow version
  pessimistically.)
- ``mlperf``: as MLPerf's and Distiller's NCF: the same draws, but repetitions stay: a repeated item counts twice, and
  where the held-out one was drawn it competes with itself, which with pessimistic ties costs it a place (3.7 % of
  users at 999 draws from 26,744 items);
- ``file``: the NCF paper's: negatives from a file, see `tfrec.data.ncf`. Repeated items count once, and the held-out
  one among them does not count against itself: the paper's evaluation keeps one score for each item;
- ``all``: every item that the user has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.data.complement import Complement
from tfrec.data.counter_random import key, permute, uniform
from tfrec.data.device_integers import DeviceIntegers
from tfrec.errors import InputError
from tfrec.evaluation.counts import true_in_row
from tfrec.evaluation.details import Details
from tfrec.evaluation.full_ranking import Report
from tfrec.metrics import REGISTRY, TIES, Metric, TiedRanks, Ties
from tfrec.ranks import ALONE, Ranks

Protocol = Literal["exact", "nvidia", "mlperf", "file", "all"]
#: Scores candidates: (users int64 ``[B]``, items int64 ``[B, C]`` or None for all) -> ``[B, C]``.
CandidateScorer = Callable[[tf.Tensor, tf.Tensor | None], Any]


class Candidates:
    """The candidates that a held-out item of each user is ranked among.

    Args:
        seen: ``[U, I]``, each user's history and what is no candidate.
        positives: int ``[U]``, each user's held-out item, -1 for a user without one.
        num_negatives: n; ignored by ``file`` and ``all``.
        protocol: see the module.
        seed: of the draws.
        negatives: for ``file``: int ``[U, n]``; an item counts once, so the held-out one may fill up a short row.
        keys: int ``[U]``, what a user's draws depend on besides the seed; None: the number of the row.

    Raises:
        InputError: shapes or ids that do not fit, no user with a held-out item, or a user with too few items left to
            draw from.

    Example:
        >>> import scipy.sparse
        >>> candidates = Candidates(scipy.sparse.csr_matrix([[1, 0, 0, 0]]), np.array([2]), 2)
        >>> sorted(candidates.block(tf.constant([0], tf.int64))[0].numpy().tolist())
        [1, 2, 3]
    """

    def __init__(
        self,
        seen: scipy.sparse.csr_matrix,
        positives: np.ndarray,
        num_negatives: int = 99,
        protocol: Protocol = "exact",
        seed: int = 0,
        negatives: np.ndarray | None = None,
        keys: np.ndarray | None = None,
    ) -> None:
        num_users, self.num_items = seen.shape
        positives = np.asarray(positives, np.int64)
        if protocol not in ("exact", "nvidia", "mlperf", "file", "all"):
            raise InputError(f"`protocol` must be one of exact, nvidia, mlperf, file, all.\nReceived: {protocol!r}.")
        if positives.shape != (num_users,) or (num_users and positives.max() >= self.num_items):
            raise InputError(
                f"`positives` must name an item below {self.num_items} (or -1) for each of {num_users} users.\n"
                f"Received: shape {positives.shape}, highest {positives.max() if positives.size else 'none'}."
            )
        self.users = np.flatnonzero(positives >= 0)
        if len(self.users) == 0:
            raise InputError(
                "`positives` must have an item for at least one user.\nReceived: -1 for all.\nHold out an item."
            )
        if (protocol == "file") != (negatives is not None):
            raise InputError(
                f"`negatives` belong to protocol='file', and are needed there.\nReceived: protocol={protocol!r}, "
                "negatives="
                f"{'None' if negatives is None else 'an array'}."
            )
        if negatives is not None:
            if negatives.shape[0] != num_users or negatives.min() < 0 or negatives.max() >= self.num_items:
                raise InputError(
                    f"`negatives` must have a row for each of {num_users} users, of items below {self.num_items}.\n"
                    f"Received: shape {negatives.shape}, {negatives.min()} to {negatives.max()}."
                )
            num_negatives = negatives.shape[1]
        elif protocol != "all" and num_negatives < 1:
            raise InputError(f"`num_negatives` must be at least 1.\nReceived: {num_negatives}.")
        if seed < 0:
            raise InputError(f"`seed` must be at least 0.\nReceived: {seed}.")
        self.protocol, self.seed = protocol, seed
        self.num_candidates = self.num_items if protocol == "all" else num_negatives + 1
        self.positives = tf.constant(positives)
        self._keys = tf.constant(np.arange(num_users) if keys is None else keys, tf.int64)
        self._negatives = None if negatives is None else DeviceIntegers(negatives)
        self._num_negatives = num_negatives
        own = scipy.sparse.csr_matrix(
            (np.ones(len(self.users), np.float32), (self.users, positives[self.users])), shape=seen.shape
        )
        pattern = scipy.sparse.csr_matrix((np.ones(seen.nnz, np.float32), seen.indices, seen.indptr), shape=seen.shape)
        both = pattern.multiply(own)
        if both.nnz and protocol != "file":
            raise InputError(
                f"A held-out item must not be one that the user has seen.\nReceived: {both.nnz} such users."
            )
        excluded = pattern + own if protocol == "exact" else pattern
        excluded.sort_indices()
        left = self.num_items - np.diff(excluded.indptr)[self.users]
        needed = num_negatives if protocol == "exact" else 1
        if protocol != "file" and protocol != "all" and left.min() < needed:
            worst = self.users[left.argmin()]
            raise InputError(
                f"A user needs at least {needed} items to draw negatives from that were not seen.\n"
                f"Received: num_negatives={num_negatives}, and user number {worst} has {left.min()} of "
                f"{self.num_items} items left; {int((left < needed).sum())} users have too few.\n"
                "Draw fewer (--evaluation.negatives), or rank all items (--evaluation.protocol all)."
            )
        self._excluded = excluded
        self._compiled: dict[CandidateScorer, Any] = {}
        self._complement = Complement(excluded) if protocol in ("exact", "nvidia", "mlperf") else None

    def block(self, users: tf.Tensor) -> tf.Tensor:
        """The candidates of ``users`` (int64 ``[B]``), int64 ``[B, 1 + n]``; column 0 is the held-out item."""
        positive = tf.gather(self.positives, users)[:, None]
        if self._negatives is not None:
            return tf.concat([positive, self._negatives.gather(users)], axis=1)
        assert self._complement is not None
        place = tf.zeros_like(positive) + tf.range(self._num_negatives, dtype=tf.int64)
        draw = permute if self.protocol == "exact" else uniform
        number = draw(
            place, self._complement.count(users)[:, None], key(self.seed, tf.gather(self._keys, users))[:, None]
        )
        return tf.concat([positive, self._complement.pick(users, number)], axis=1)

    def compiled(self, score: CandidateScorer) -> Any:
        """`_ranks` of a scorer as one graph, kept for the next evaluation of the same scorer."""
        if score not in self._compiled:
            function = tf.function(lambda users, hidden: self._ranks(score, users, hidden), autograph=False)
            self._compiled[score] = function.get_concrete_function(
                tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 2], tf.int64)
            )
        return self._compiled[score]

    def _ranks(self, score: CandidateScorer, users: tf.Tensor, hidden: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """How many candidates score higher than the held-out item, how many the same (itself included) and how many
        there are, int64 ``[3, B]``; and whether all scores are finite. ``hidden`` is what `not_candidates` found."""
        if self.protocol == "all":
            scores = tf.cast(score(users, None), tf.float32)
            finite = tf.reduce_all(tf.math.is_finite(scores))
            target = tf.gather(scores, tf.gather(self.positives, users)[:, None], batch_dims=1)
            lowest = tf.fill(tf.shape(hidden)[:1], tf.constant(-np.inf, tf.float32))
            scores = tf.tensor_scatter_nd_update(scores, hidden, lowest)
            counts = scores > -np.inf
        else:
            items = self.block(users)
            scores = tf.cast(score(users, items), tf.float32)
            finite = tf.reduce_all(tf.math.is_finite(scores))
            target = scores[:, :1]
            counts = tf.ones_like(scores, tf.bool)
            if self.protocol in ("nvidia", "file"):
                # Of equal items the first counts, and the held-out one is the very first.
                order = tf.argsort(items, axis=1, stable=True)
                items, scores = tf.gather(items, order, batch_dims=1), tf.gather(scores, order, batch_dims=1)
                new = items[:, 1:] != items[:, :-1]
                counts = tf.concat([tf.ones_like(new[:, :1]), new], axis=1)
        higher = true_in_row(counts & (scores > target))
        tied = true_in_row(counts & (scores == target))
        total = true_in_row(counts)
        return tf.stack([higher, tied, total]), finite

    def not_candidates(self, users: np.ndarray) -> np.ndarray:
        """For ``all``: int64 ``[N, 2]``, the row in ``users`` and the item of everything that these have seen."""
        rows = self._excluded[users]
        return np.stack([np.repeat(np.arange(len(users)), np.diff(rows.indptr)), rows.indices], axis=1).astype(np.int64)


def evaluate_candidates(
    score: CandidateScorer,
    candidates: Candidates,
    metrics: Sequence[str] = ("hit_rate@10", "ndcg@10", "mrr@10"),
    *,
    ties: Ties = "pessimistic",
    block_pairs: int = 1 << 19,
    details_at: int | None = None,
    ranks: Ranks = ALONE,
    together: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Metrics of a scorer, the mean over the users with a held-out item.

    With one target HR@K is 1 when its rank is at most K, NDCG@K is then ``1 / log2(rank + 1)``, MRR@K ``1 / rank``.

    Args:
        score: scores candidates; traced into a `tf.function` once.
        candidates: what the held-out items are ranked among.
        metrics: names, see `tfrec.metrics.Metric`; coverage is not defined here.
        ties: ``expected``, ``pessimistic`` or ``optimistic``.
        block_pairs: scores computed at once, about.
        details_at: keep `Details` of the first this many, too; None: keep none.
        ranks: who shares the work; each takes every size-th block of users.
        together: whether scoring is a collective, so that every rank must do it equally often: a rank that runs out of
            users then scores none of them.
        progress: called with the number of users done.

    Raises:
        InputError: an unknown metric or tie rule, a cutoff beyond the candidates, or scores that are not finite.
    """
    wanted = [Metric.parse(m) for m in metrics]
    if ties not in TIES:
        raise InputError(f"`ties` must be one of {', '.join(TIES)}.\nReceived: {ties!r}.")
    for metric in wanted:
        if metric.of_catalogue:
            known = ", ".join(name for name, definition in REGISTRY.items() if not definition.of_catalogue)
            raise InputError(f"{metric} is not defined for sampled candidates.\nUse {known}.")
        if metric.k is not None and metric.k > candidates.num_candidates:
            raise InputError(
                f"A cutoff must not exceed the number of candidates.\nReceived: {metric} for "
                f"{candidates.num_candidates} candidates per user."
            )
    ranks_of = candidates.compiled(score)
    users = candidates.users
    block = max(1, block_pairs // candidates.num_candidates)
    values = np.zeros((3, len(users)))
    finite = True
    for number in ranks.blocks(-(-len(users) // block)):
        start = number * block
        chosen = users[start : start + block]
        if len(chosen) == 0 and not together:
            continue
        hidden = candidates.not_candidates(chosen) if candidates.protocol == "all" else np.zeros((0, 2), np.int64)
        values[:, start : start + block], all_finite = ranks_of(tf.constant(chosen, tf.int64), tf.constant(hidden))
        finite &= bool(all_finite)
        if progress is not None:
            progress(min(start + block, len(users)))
    if ranks.sum(np.array([float(not finite)]))[0]:
        raise InputError(
            "Scores must be finite.\nReceived: NaN or infinite ones. The model diverged: lower its learning rate."
        )
    higher, tied, total = ranks.sum(values).astype(np.int64)
    found = TiedRanks(np.arange(len(users)), higher, tied, np.ones(len(users), np.int64), total).resolve(ties)
    per_user = {}
    for metric in wanted:
        everyone = np.full(len(candidates.positives), np.nan)
        everyone[users] = metric(found)
        per_user[str(metric)] = everyone
    details = None
    if details_at is not None:
        k = min(details_at, candidates.num_candidates)
        details = Details(k, candidates.positives.numpy()[users], users, found.chance_within(k))
    return Report(
        metrics={name: float(np.nanmean(value)) for name, value in per_user.items()},
        users=len(users),
        users_without_targets=len(candidates.positives) - len(users),
        per_user=per_user,
        ties=ties,
        details=details,
    )
