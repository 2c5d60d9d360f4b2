"""Rank the whole catalogue for held-out users and measure where their targets stand.

Users go through in blocks; every rank takes every size-th block. What is summed across ranks are per-user values,
so the result is the same number for any number of ranks, and for any block size as far as the scores are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.evaluation.counts import true_in_row
from tfrec.evaluation.details import LIST_CUTOFFS, Details
from tfrec.metrics import TIES, Exposure, Metric, TiedRanks, Ties, tied_ranks
from tfrec.ranks import ALONE, Ranks

#: Scores the items for a block of users: (rows ``[B]``, what they have seen ``[B, I]``) -> ``[B, I]``.
Scorer = Callable[[np.ndarray, scipy.sparse.csr_matrix], Any]


#: What a target is worth to NDCG: 1, its value, or ``2^value - 1``.
Gains = Literal["binary", "linear", "exponential"]


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Args:
        metrics: name -> mean over the users with targets.
        users: how many these are.
        users_without_targets: how many were left out because there is nothing to predict for them.
        per_user: name -> float64 ``[U]``, NaN for users left out.
        ties: the tie rule.
        details: where hits and lists fall, if that was asked for.
    """

    metrics: dict[str, float]
    users: int
    users_without_targets: int
    per_user: dict[str, np.ndarray]
    ties: Ties
    details: Details | None = None

    def to_json(self) -> dict[str, Any]:
        """Metrics and counts, without the values per user."""
        return {
            **self.metrics,
            "users": self.users,
            "users_without_targets": self.users_without_targets,
            "ties": self.ties,
        }


def evaluate_full_ranking(
    score: Scorer,
    seen: scipy.sparse.csr_matrix,
    targets: scipy.sparse.csr_matrix,
    metrics: Sequence[str] = ("recall@20", "recall@50", "ndcg@100"),
    *,
    train: scipy.sparse.csr_matrix | None = None,
    ties: Ties = "expected",
    gains: Gains | None = None,
    block_users: int = 512,
    details_at: int | None = None,
    ranks: Ranks = ALONE,
    together: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Metrics of a scorer, the mean over the users who have targets.

    Candidates are all items a user has not seen. Metrics of the catalogue, such as ``coverage@K``, are of each user's
    first K, tied items in order of index.

    Args:
        score: scores a block of users.
        seen: ``[U, I]``, the input; what has a value other than 0 is no candidate.
        targets: ``[U, I]``; the items to predict are those with a value above 0, none of them seen. An item with a
            negative value (disliked) is a candidate like any other.
        metrics: names, see `tfrec.metrics.Metric`.
        train: ``[U_train, I]``, for metrics that ask how popular an item is: how many have a value above 0 for it.
        ties: ``expected``, ``pessimistic`` or ``optimistic``.
        gains: what a target is worth to NDCG; None: all the same, and targets of different values are an error.
        block_users: users scored at once.
        details_at: keep `Details` of the first this many, too; None: keep none.
        ranks: who shares the work; each takes every size-th block of users.
        together: whether scoring is a collective, so that every rank must do it equally often: a rank that runs out of
            users then scores none of them.
        progress: called with the number of users done.

    Raises:
        InputError: shapes that differ, a cutoff beyond the catalogue, a target that is also seen, no user with
            targets, targets of different values without ``gains``, or scores that are not finite.
    """
    wanted = [Metric.parse(m) for m in metrics]
    seen, targets = _nonzero(seen), _targets(targets, gains)
    _check(seen, targets, wanted, ties, block_users)
    _check_train(train, targets.shape[1], wanted)
    num_users, num_items = targets.shape
    cutoffs = [m.k for m in wanted if m.k is not None]
    depth = max([*cutoffs, min(details_at or 1, num_items)])
    all_ranks = any(m.needs_all_ranks for m in wanted)
    ranking = [m for m in wanted if not m.of_catalogue]
    values = np.zeros((len(ranking), num_users))
    lists = {m.k for m in wanted if m.of_catalogue and m.k is not None}
    if details_at is not None:
        lists |= {k for k in (min(details_at, num_items), *LIST_CUTOFFS) if k <= depth}
    shown = {k: np.zeros(num_items) for k in sorted(lists)}
    found_at = np.zeros(targets.nnz if details_at is not None else 0)
    error: InputError | None = None
    for block in ranks.blocks(-(-num_users // block_users)):
        rows = np.arange(block * block_users, min((block + 1) * block_users, num_users))
        if len(rows) == 0 or error is not None:
            if together:
                score(rows[:0], seen[:0])
            continue
        try:
            placed, top = _block(
                score, rows, seen[rows[0] : rows[-1] + 1], targets[rows[0] : rows[-1] + 1], depth, all_ranks
            )
        except InputError as caught:
            # The other ranks are on their way to the sum below: meet them there, then stop together.
            error = caught
            continue
        resolved = placed.resolve(ties)
        if details_at is not None:
            of_block = slice(targets.indptr[rows[0]], targets.indptr[rows[-1] + 1])
            found_at[of_block] = resolved.chance_within(min(details_at, num_items))
        if gains in ("linear", "exponential"):
            worth = targets[rows[0] : rows[-1] + 1].data.astype(np.float64)
            resolved = replace(placed, gain=worth).resolve(ties)
        for i, metric in enumerate(ranking):
            values[i, rows] = np.nan_to_num(metric(resolved), nan=_ABSENT)
        for k, times in shown.items():
            first = top[:, :k]
            times += np.bincount(first[first >= 0], minlength=num_items)
        if progress is not None:
            progress(int(rows[-1]) + 1)
    failed = ranks.sum(np.array([float(error is not None)]))[0]
    if error is not None:
        raise error
    if failed:
        raise InputError("The evaluation failed on another rank.\nSee that rank's output.")
    values = ranks.sum(values)
    per_user = {str(m): np.where(values[i] == _ABSENT, np.nan, values[i]) for i, m in enumerate(ranking)}
    with_targets = int((np.diff(targets.indptr) > 0).sum())
    found = {name: float(np.nanmean(value)) for name, value in per_user.items()}
    popularity, num_train = _popularity(train)
    exposure = {k: Exposure(ranks.sum(times).astype(np.int64), popularity, num_train) for k, times in shown.items()}
    details = None
    if details_at is not None:
        # Each target is of one rank, so their sum is exact.
        found_at = ranks.sum(found_at)
        of_user = np.repeat(np.arange(num_users), np.diff(targets.indptr))
        details = Details(min(details_at, num_items), targets.indices.astype(np.int64), of_user, found_at, exposure)
    found |= {str(m): m.of(exposure[m.k]) for m in wanted if m.of_catalogue and m.k is not None}
    return Report(
        metrics={str(m): found[str(m)] for m in wanted},
        users=with_targets,
        users_without_targets=num_users - with_targets,
        per_user=per_user,
        ties=ties,
        details=details,
    )


def _nonzero(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """The same without stored zeros, which say nothing."""
    matrix = scipy.sparse.csr_matrix(matrix)
    if matrix.nnz and not matrix.data.all():
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    return matrix


def _targets(matrix: scipy.sparse.csr_matrix, gains: Gains | None) -> scipy.sparse.csr_matrix:
    """The entries above 0, with what each is worth as its value."""
    if gains is not None and gains not in get_args(Gains):
        raise InputError(f"`gains` must be one of {', '.join(get_args(Gains))}.\nReceived: {gains!r}.")
    matrix = scipy.sparse.csr_matrix(matrix)
    if not np.isfinite(matrix.data).all():
        raise InputError("`targets` must be finite.\nReceived: NaN or infinite values.")
    if matrix.nnz and not (matrix.data > 0).all():
        matrix = matrix.copy()
        matrix.data[matrix.data < 0] = 0
        matrix.eliminate_zeros()
    if gains is None and matrix.nnz and matrix.data.min() != matrix.data.max():
        raise InputError(
            f"The targets have different values, and their worth is not stated.\nReceived: values from "
            f"{matrix.data.min():g} to {matrix.data.max():g}.\ngains='binary' counts each as 1; 'linear' by its value, "
            "and 'exponential' by 2^value - 1, in NDCG."
        )
    if gains == "exponential":
        matrix = matrix.astype(np.float64)
        matrix.data = np.exp2(matrix.data) - 1
    return matrix


#: Stands for NaN while values are summed across ranks; no metric is negative.
_ABSENT = -1.0


def _check(
    seen: scipy.sparse.csr_matrix,
    targets: scipy.sparse.csr_matrix,
    wanted: list[Metric],
    ties: Ties,
    block_users: int,
) -> None:
    if seen.shape != targets.shape:
        raise InputError(f"`seen` and `targets` must have the same shape.\nReceived: {seen.shape} and {targets.shape}.")
    if ties not in TIES:
        raise InputError(f"`ties` must be one of {', '.join(TIES)}.\nReceived: {ties!r}.")
    if block_users < 1:
        raise InputError(f"`block_users` must be at least 1.\nReceived: {block_users}.")
    for metric in wanted:
        if metric.k is not None and metric.k > targets.shape[1]:
            raise InputError(
                f"A cutoff must not exceed the number of items.\nReceived: {metric} for {targets.shape[1]} items.\n"
                f"Lower it, on the command line --evaluation.metrics."
            )
    if targets.nnz == 0:
        raise InputError("`targets` must have an item for at least one user.\nReceived: empty `targets`.")
    both = seen.astype(bool).multiply(targets.astype(bool))
    if both.nnz:
        raise InputError(f"An item must not be both seen and a target.\nReceived: {both.nnz} such user-item pairs.")


def _check_train(train: scipy.sparse.csr_matrix | None, num_items: int, wanted: list[Metric]) -> None:
    asking = [str(m) for m in wanted if m.needs_popularity]
    if train is None and asking:
        raise InputError(
            f"{asking[0]} needs `train`, to count how popular items are.\nReceived: train=None.\n"
            "Give the training matrix."
        )
    if train is not None and (train.shape[1] != num_items or train.shape[0] < 1):
        raise InputError(
            f"`train` must have a row for each training user and a column for each of {num_items} items.\n"
            f"Received: shape {train.shape}."
        )


def _popularity(train: scipy.sparse.csr_matrix | None) -> tuple[np.ndarray | None, int]:
    """How many training users have each item, int64 ``[I]``, and how many there are."""
    if train is None:
        return None, 0
    return np.bincount(train.indices[train.data > 0], minlength=train.shape[1]), train.shape[0]


def _block(
    score: Scorer,
    rows: np.ndarray,
    seen: scipy.sparse.csr_matrix,
    targets: scipy.sparse.csr_matrix,
    depth: int,
    all_ranks: bool,
) -> tuple[TiedRanks, np.ndarray]:
    """Ranks of the block's targets and each user's first ``depth`` items, -1 where fewer are left."""
    scores = score(rows, seen)
    seen_pairs, target_pairs = _pairs(seen), _pairs(targets)
    higher, tied, top, finite = _top_ranks(
        tf.cast(scores, tf.float32), tf.constant(seen_pairs), tf.constant(target_pairs), tf.constant(depth)
    )
    if not finite:
        raise InputError(
            "Scores must be finite.\nReceived: NaN or infinite ones. The model diverged: lower its learning rate."
        )
    if all_ranks:
        return tied_ranks(np.asarray(scores), targets, seen), top.numpy()
    user, higher, tied = target_pairs[:, 0], higher.numpy(), tied.numpy()
    beyond = higher == depth
    tied[beyond] = np.bincount(user[beyond], minlength=len(rows))[user[beyond]]
    ranks = TiedRanks(
        user=user,
        higher=higher,
        tied=tied,
        num_targets=np.diff(targets.indptr).astype(np.int64),
        num_candidates=targets.shape[1] - np.diff(seen.indptr).astype(np.int64),
        depth=depth,
    )
    return ranks, top.numpy()


def _pairs(matrix: scipy.sparse.csr_matrix) -> np.ndarray:
    """int64 ``[nnz, 2]``: row and column of each entry."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return np.stack([rows, matrix.indices.astype(np.int64)], axis=1)


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None], tf.float32),
        tf.TensorSpec([None, 2], tf.int64),
        tf.TensorSpec([None, 2], tf.int64),
        tf.TensorSpec([], tf.int32),
    ]
)
def _top_ranks(
    scores: tf.Tensor, seen: tf.Tensor, targets: tf.Tensor, depth: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Exact ``higher`` and ``tied`` of the targets within the first ``depth`` candidates, on the device.

    Only the lowest of the first ``depth`` scores can be tied with candidates beyond them, so that one score is
    counted in the whole row; all other ties are inside the list.
    """
    finite = tf.reduce_all(tf.math.is_finite(scores))
    absent = tf.fill(tf.shape(seen)[:1], tf.constant(-np.inf, tf.float32))
    scores = tf.tensor_scatter_nd_update(scores, seen, absent)
    best, items = tf.math.top_k(scores, k=depth)
    lowest = best[:, -1:]
    tied_with_lowest = true_in_row(scores == lowest)
    score = tf.gather_nd(scores, targets)
    row = targets[:, 0]
    listed = tf.gather(best, row)
    higher = true_in_row(listed > score[:, None])
    tied = true_in_row(listed == score[:, None])
    lowest_of_row = tf.gather(lowest[:, 0], row)
    tied = tf.where(score == lowest_of_row, tf.gather(tied_with_lowest, row), tied)
    beyond = score < lowest_of_row
    higher = tf.where(beyond, tf.cast(depth, tf.int64), higher)
    tied = tf.where(beyond, tf.ones_like(tied), tied)
    items = tf.where(best > -np.inf, items, -1)
    return higher, tied, items, finite
