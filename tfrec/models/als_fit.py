"""The fit of `tfrec.models.ALS`: half-sweeps over users and items alternately, alone or shared by several processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf
from tqdm import tqdm

from tfrec import ops
from tfrec.errors import InputError
from tfrec.layers import ALSFactors
from tfrec.ops.als import row_regularization
from tfrec.ranks import Ranks

#: The largest confidence, and the largest in units of the unobserved weight: float32 has no room for both beyond.
MAX_CONFIDENCE = 1e9
#: (iteration from 1, seconds of it, training loss or None)
Callback = Callable[[int, float, float | None], Any]


def sweep_in_turn(
    model: Any,
    matrix: scipy.sparse.csr_matrix,
    callback: Callback | None,
    verbose: int,
    calculate_training_loss: bool,
    ranks: Ranks,
    initial_iteration: int,
) -> keras.callbacks.History:
    """The iterations of `tfrec.models.ALS.fit` on a matrix that is checked; arguments and result as there."""
    rank, size = ranks.rank, ranks.size
    by_user = entries_of_rank(model, matrix, rank, size)
    by_item = entries_of_rank(model, _transposed(matrix), rank, size)
    history = keras.callbacks.History()
    history.set_model(model)
    history.on_train_begin()
    shown = bool(verbose) and rank == 0
    gram = model.items.gramian()
    bar = tqdm(range(initial_iteration + 1, model.iterations + 1), unit="iteration", disable=not shown)
    for iteration in bar:
        started = time.perf_counter()
        gram, user_seconds = _solve(model, model.users, by_user, model.items, gram, ranks, "user")
        gram, item_seconds = _solve(model, model.items, by_item, model.users, gram, ranks, "item")
        model.thread_seconds = (user_seconds, item_seconds)
        seconds = time.perf_counter() - started
        logs: dict[str, Any] = {"seconds": seconds}
        loss = None
        if calculate_training_loss:
            loss = objective(model, by_user, matrix, gram, ranks)
            logs["loss"] = loss
        history.on_epoch_end(iteration - 1, logs)
        if loss is not None:
            bar.set_postfix(loss=loss)
        if callback is not None:
            callback(iteration, seconds, loss)
    return history


def entries_of_rank(model: Any, matrix: scipy.sparse.csr_matrix, rank: int = 0, size: int = 1) -> ops.Entries:
    """This rank's rows: ranges of about equal work."""
    first, last = balanced_range(np.diff(matrix.indptr), model.factors, model.sweep, rank, size)
    return ops.Entries(matrix, first, last)


def _solve(
    model: Any,
    side: ALSFactors,
    entries: ops.Entries,
    other: ALSFactors,
    gram: tf.Tensor,
    ranks: Ranks,
    what: str,
) -> tuple[tf.Tensor, np.ndarray]:
    """One half-sweep; returns the Gramian of what was solved for, and the threads' seconds."""
    fixed = tf.convert_to_tensor(other.table.value)
    bad, seconds = side.half_sweep(entries, fixed, gram, model.sweep)
    del fixed
    if ranks.size > 1:
        # A rank that failed tells the others, so that all stop.
        bad = int(np.max(ranks.gather_rows(tf.constant([bad], tf.int64)).numpy()))
    if bad >= 0:
        raise InputError(
            f"The factors of {what} {bad} are not finite{range_hint(model.factor_dtype)}.\n"
            "Lower `alpha` or the confidences, or raise `regularization`."
        )
    if ranks.size == 1:
        return side.gramian(), seconds
    mine = tf.convert_to_tensor(side.table.value[entries.first : entries.last])
    gram = ranks.sum(ops.gramian(mine))
    side.table.assign(ranks.gather_rows(mine))
    return gram, seconds


def objective(
    model: Any, by_user: ops.Entries, matrix: scipy.sparse.csr_matrix, gram: tf.Tensor, ranks: Ranks
) -> float:
    """The objective per unit of weight, from each rank's rows ``by_user``; see `tfrec.models.ALS.training_loss`."""
    rows = tf.convert_to_tensor(model.users.table.value[by_user.first : by_user.last])
    total = ops.losses(by_user, tf.convert_to_tensor(model.items.table.value), gram, rows, model.sweep).sum()
    if ranks.size > 1:
        total = float(ranks.sum(tf.constant(total, tf.float64)))
    users, items = matrix.shape
    for table, lengths, others in (
        (model.users, np.diff(matrix.indptr), items),
        (model.items, np.bincount(matrix.indices, minlength=items), users),
    ):
        squares = tf.reduce_sum(tf.cast(table.table.value, tf.float64) ** 2, axis=1).numpy()
        total += float(row_regularization(model.sweep, lengths, others) @ squares)
    weight = model.sweep.alpha * float(np.abs(matrix.data, dtype=np.float64).sum())
    return float(total / (weight + model.sweep.unobserved_weight * (users * items - matrix.nnz)))


def range_hint(factor_dtype: str) -> str:
    """What a message about factors that are not finite adds."""
    return ", or beyond float16's 65,504" if factor_dtype == "float16" else ""


def check_confidences(matrix: scipy.sparse.csr_matrix, name: str, sweep: ops.Sweep) -> None:
    """Raise InputError where float32 sums could not hold the confidences and the unobserved weight."""
    if matrix.nnz == 0:
        return
    largest = sweep.alpha * max(float(matrix.data.max()), -float(matrix.data.min()))
    weight = sweep.unobserved_weight
    if largest > MAX_CONFIDENCE or (weight > 0 and largest / weight > MAX_CONFIDENCE):
        raise InputError(
            f"Confidences, alpha * |value|, may reach {MAX_CONFIDENCE:.0e}, and as often `unobserved_weight`.\n"
            f"Received: up to {largest:.3g} in `{name}`, with unobserved_weight={weight}.\n"
            "Lower `alpha` or the values, for instance by tfrec.data.confidence.log."
        )


def balanced_range(lengths: np.ndarray, factors: int, sweep: ops.Sweep, rank: int, size: int) -> tuple[int, int]:
    """The rows ``[first, last)`` of a rank, so that all ranks have about equal work.

    Args:
        lengths: ``[N]``, entries of each row.
        factors: F.
        sweep: what is done with them.
        rank: of this process.
        size: number of processes.
    """
    if size == 1:
        return 0, len(lengths)
    # Multiply-adds of a row, about.
    if sweep.solver == "cholesky":
        work = lengths * (factors / 2) * factors + factors**3 / 4
    elif sweep.solver == "cg":
        work = (sweep.cg_steps + 1.0) * (factors * factors + 3.0 * lengths * factors)
    else:
        work = lengths * (factors / 2) * sweep.block_size + 2.0 * factors * factors
    total = np.cumsum(np.where(lengths > 0, work, 1.0))
    edges = np.searchsorted(total, total[-1] * np.arange(1, size) / size)
    edges = np.concatenate([[0], edges, [len(lengths)]])
    return int(edges[rank]), int(edges[rank + 1])


def _transposed(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """The transpose as CSR, columns ascending."""
    return matrix.T.tocsr()
