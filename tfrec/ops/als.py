"""Half-sweeps of alternating least squares: the native operations, and the same in plain TensorFlow.

For each row u with stored entries (i, v) and fixed factors y_i, a half-sweep minimises over x

    sum over stored c (p - x.y_i)^2  +  w0 sum over the others (x.y_i)^2  +  lambda_u |x|^2

with c = alpha |v|, p = 1 if v > 0 else 0 and lambda_u = lambda (n_u + w0 M)^nu, that is, it solves

    (w0 Y'Y + sum (c - w0) y y' + lambda_u I) x = sum c p y.

w0 = 1, nu = 0: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", 2008. nu = 1: Rendle et
al., "Revisiting the Performance of iALS on Item Recommendation Benchmarks", 2021; their objective
sum (1 - s)^2 + alpha0 sum over all s^2 is this one with w0 = alpha0 / (1 + alpha0), up to a factor of the scores.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.ops.native import library

Solver = Literal["cg", "cholesky", "block"]
SOLVERS: tuple[Solver, ...] = ("cg", "cholesky", "block")
#: The most factors a kernel takes, and the most steps of CG.
MAX_FACTORS, MAX_STEPS = 1024, 65_536
#: From how many entries on several blocks of a GPU share a row: LongRowEntries in custom_ops/als_half_sweep/als_cuda.h.
_LONG = {"cg": 2_048, "cholesky": 8_192, "block": 8_192}
#: Bytes of gathered factors and matrices that the twin holds at once.
_CALL_BYTES = 1 << 24
#: Below this part of the sum of the eigenvalues, the smallest one is too small for float32 to hold the inverse.
_LEAST_SIZE = 3e-6
#: Then: the smallest eigenvalue over the largest that is taken for a direction of the table.
_LEAST_DIRECTION = 1e-5


@dataclass(frozen=True)
class Sweep:
    """The objective and how it is solved.

    Args:
        alpha: confidence of an entry per unit of its value, above 0.
        regularization: lambda, from 0.
        unobserved_weight: w0, the weight of an entry that is not stored, from 0.
        frequency_exponent: nu, from 0.
        solver: ``cg`` (conjugate gradients from the row's last factors), ``cholesky`` (exact) or ``block`` (exact in
            blocks of coordinates, one after another; iALS++).
        cg_steps: of ``cg``, from 1 to 65,536. It is preconditioned, see `preconditioner`.
        block_size: of ``block``, from 1.
    """

    alpha: float = 1.0
    regularization: float = 0.01
    unobserved_weight: float = 1.0
    frequency_exponent: float = 0.0
    solver: Solver = "cg"
    cg_steps: int = 3
    block_size: int = 64

    def __post_init__(self) -> None:
        whole = ("cg_steps", "block_size")
        for name in ("alpha", "regularization", "unobserved_weight", "frequency_exponent", *whole):
            value, kind = getattr(self, name), numbers.Integral if name in whole else numbers.Real
            if isinstance(value, bool) or not isinstance(value, kind):
                expected = "a whole number" if name in whole else "a number"
                raise InputError(f"`{name}` must be {expected}.\nReceived: {name}={value!r}.")
        for name, low in (("regularization", 0), ("unobserved_weight", 0), ("frequency_exponent", 0)):
            value = getattr(self, name)
            if not low <= value < float("inf"):
                raise InputError(f"`{name}` must be at least {low}, and finite.\nReceived: {name}={value}.")
        if not 0 < self.alpha < float("inf"):
            raise InputError(f"`alpha` must be above 0, and finite.\nReceived: alpha={self.alpha}.")
        if self.solver not in SOLVERS:
            raise InputError(f"`solver` must be one of {', '.join(SOLVERS)}.\nReceived: {self.solver!r}.")
        for name in ("cg_steps", "block_size"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}` must be at least 1.\nReceived: {name}={getattr(self, name)}.")
        if self.cg_steps > MAX_STEPS:
            raise InputError(f"`cg_steps` must be at most {MAX_STEPS}.\nReceived: cg_steps={self.cg_steps}.")


class Entries:
    """Rows ``[first, last)`` of a sparse matrix as the operations take them.

    Args:
        matrix: float32 CSR ``[N, M]``, finite, columns ascending and each once, no zeros stored. Its arrays are lent,
            not copied.
        first: first row.
        last: behind the last row; None: all.
        num_fixed: M where the columns count only some of the M fixed rows, those that these rows need; None: all.
        mean_length: stored entries per row over all rows, where ``matrix`` has only some; None: its own mean.
    """

    def __init__(
        self,
        matrix: scipy.sparse.csr_matrix,
        first: int = 0,
        last: int | None = None,
        *,
        num_fixed: int | None = None,
        mean_length: float | None = None,
    ) -> None:
        last = matrix.shape[0] if last is None else last
        self.first, self.last = first, last
        self.num_fixed = matrix.shape[1] if num_fixed is None else num_fixed
        begin, end = int(matrix.indptr[first]), int(matrix.indptr[last])
        #: Stored entries per row, over all rows of the matrix.
        self.mean_length = matrix.nnz / max(1, matrix.shape[0]) if mean_length is None else mean_length
        self._disliked_only = first + _rows_without_positive(matrix.data[begin:end], matrix.indptr[first : last + 1])
        self._tensors: dict[tuple[int, int], tuple[tf.Tensor, tf.Tensor]] = {}
        self._offsets = matrix.indptr[first : last + 1].astype(np.int64) - begin
        # int32 columns: a catalogue of 2^31 items does not fit a factor table either.
        self.columns = _lent(matrix.indices[begin:end].astype(np.int32, copy=False))
        self.values = _lent(matrix.data[begin:end].astype(np.float32, copy=False))

    @property
    def num_rows(self) -> int:
        """Rows that this holds."""
        return self.last - self.first

    @property
    def lengths(self) -> np.ndarray:
        """int64 ``[N]``: stored entries of each row."""
        return np.diff(self._offsets)

    def offsets(self, first: int, last: int) -> np.ndarray:
        """Where the entries of rows ``[first, last)`` begin and end, int64 ``[last - first + 1]``."""
        return self._offsets[first : last + 1]

    def disliked_only(self, first: int, last: int) -> np.ndarray:
        """Those of rows ``[first, last)``, counted from ``first``, with entries but no positive one: they become 0."""
        rows = self._disliked_only - self.first
        return rows[(rows >= first) & (rows < last)] - first

    def tensors(self, first: int, last: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Offsets of rows ``[first, last)``, and these rows, counted from ``first``, by falling length, both int64.

        For the native operations. Made once, as the columns and values are: TensorFlow keeps the copy of a tensor that
        a GPU has used for as long as the tensor lives, while an array would be copied in every half-sweep.
        """
        if (first, last) not in self._tensors:
            order = np.argsort(-self.lengths[first:last], kind="stable").astype(np.int64)
            self._tensors[first, last] = _lent(self.offsets(first, last)), _lent(order)
        return self._tensors[first, last]


def _rows_without_positive(values: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """Rows that have values, but none above 0."""
    filled = np.flatnonzero(np.diff(indptr))
    if len(filled) == 0:
        return filled
    return filled[np.maximum.reduceat(values, indptr[filled] - indptr[0]) <= 0]


def _lent(array: np.ndarray) -> tf.Tensor:
    """The array as a tensor for the native operations alone, without a copy: a fit then needs one matrix less.

    Other TensorFlow operations must not see it, as they count on memory aligned to 64 bytes.
    """
    if library() is None or not array.flags.writeable or array.size == 0:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def row_regularization(sweep: Sweep, lengths: np.ndarray, num_fixed: int) -> np.ndarray:
    """lambda_u, float64 ``[N]``."""
    size = lengths.astype(np.float64) + sweep.unobserved_weight * num_fixed
    return sweep.regularization * size**sweep.frequency_exponent


def gramian(table: tf.Tensor) -> tf.Tensor:
    """``table' table`` of a half or float ``[M, F]``, summed in float32 ``[F, F]``."""
    native = library()
    if native is not None:
        return native.tfrec_als_gramian(table=table)
    table = tf.cast(table, tf.float32)
    return tf.matmul(table, table, transpose_a=True)


def preconditioner(entries: Entries, gram: tf.Tensor, sweep: Sweep) -> tuple[np.ndarray, float]:
    """What conjugate gradients are preconditioned with: the inverse of P = w0 Y'Y + s I, one for all rows.

    A row's matrix is P and what its entries add (and lambda_u - s). Each y y' is at most Y'Y, so with s = lambda_u and
    c >= w0 the eigenvalues of the preconditioned matrix lie between 1 and max c / w0, however many factors there are
    and whatever they are, where those of the plain one spread over several powers of ten.

    Args:
        entries: the rows, whose mean length decides s.
        gram: float32 ``[F, F]``.
        sweep: the objective.

    Returns:
        float32 ``[F, F]``, and s, the regularization of a row of mean length. Where float32 could not hold the
        inverse, it is that of the directions alone that the table has. Without both (w0 = 0, lambda = 0):
        the identity, and 1.
    """
    base = sweep.unobserved_weight * gram.numpy().astype(np.float64)
    shift = float(np.float32(row_regularization(sweep, np.array([entries.mean_length]), entries.num_fixed)[0]))
    if not np.isfinite(base).all() or not np.isfinite(shift):
        return np.full(base.shape, np.nan, np.float32), 1.0
    if shift == 0 and not base.any():
        return np.eye(len(base), dtype=np.float32), 1.0
    inverse = np.linalg.inv(base + shift * np.eye(len(base))) if shift > 0 else None
    # One over the norm is the smallest eigenvalue, or less.
    if inverse is None or np.linalg.norm(inverse) * np.trace(base) * _LEAST_SIZE > 1:
        # Too little holds a row where the table has no direction, so CG must not go there.
        sizes, directions = np.linalg.eigh(base)
        kept = sizes > _LEAST_DIRECTION * sizes[-1]
        inverse = (directions[:, kept] / (sizes[kept] + shift)) @ directions[:, kept].T
    return ((inverse + inverse.T) / 2).astype(np.float32), shift


def _counted(entries: Entries, fixed: tf.Tensor) -> dict[str, int]:
    """The attribute that tells the native operations M where ``fixed`` has only some of the M rows."""
    return {} if entries.num_fixed == fixed.shape[0] else {"num_counted": entries.num_fixed}


def _preconditioner(entries: Entries, gram: tf.Tensor, sweep: Sweep) -> tuple[np.ndarray, float]:
    """The same, and something small for a solver that does not read it."""
    return preconditioner(entries, gram, sweep) if sweep.solver == "cg" else (np.zeros([0, 0], np.float32), 1.0)


def half_sweep(
    entries: Entries, fixed: tf.Tensor, gram: tf.Tensor, start: tf.Tensor, sweep: Sweep, first: int, last: int
) -> tuple[tf.Tensor, int, np.ndarray]:
    """Solve rows ``[first, last)`` of the entries.

    Args:
        entries: N rows.
        fixed: half or float ``[M, F]``.
        gram: float32 ``[F, F]``, of ``fixed``.
        start: ``[last - first, F]``, the type of ``fixed``: where cg and block begin.
        sweep: the objective and the solver.
        first: first row.
        last: behind the last row.

    Returns:
        the rows ``[last - first, F]``; the first row, counted from ``first``, that is not finite, or -1; and the
        seconds that each thread computed (empty without the native library).
    """
    inverse, shift = _preconditioner(entries, gram, sweep)
    zero = entries.disliked_only(first, last)
    if len(zero):
        # From 0 the iterative solvers stay at 0, the solution; from elsewhere they leave rounding errors.
        start = tf.tensor_scatter_nd_update(start, zero[:, None], tf.zeros([len(zero), start.shape[1]], start.dtype))
    native = library()
    if native is None:
        solved = _reference_rows(entries, entries.offsets(first, last), fixed, gram, start, sweep, inverse)
        finite = tf.reduce_all(tf.math.is_finite(solved), axis=1).numpy()
        return solved, -1 if finite.all() else int(np.flatnonzero(~finite)[0]), np.zeros(0, np.float32)
    row_offsets, row_order = entries.tensors(first, last)
    solved, bad, seconds = native.tfrec_als_half_sweep(
        row_offsets=row_offsets,
        columns=entries.columns,
        values=entries.values,
        row_order=row_order,
        fixed=fixed,
        gramian=gram,
        start=start,
        alpha=sweep.alpha,
        regularization=sweep.regularization,
        unobserved_weight=sweep.unobserved_weight,
        frequency_exponent=sweep.frequency_exponent,
        num_long=int((entries.lengths[first:last] >= _LONG[sweep.solver]).sum()),
        inverse=inverse,
        shift=shift,
        solver=sweep.solver,
        cg_steps=sweep.cg_steps,
        block_size=sweep.block_size,
        **_counted(entries, fixed),
    )
    return solved, int(bad), seconds.numpy()


def half_sweep_in_place(
    entries: Entries,
    fixed: tf.Tensor,
    gram: tf.Tensor,
    table: tf.Variable,
    first_row: int,
    sweep: Sweep,
    first: int,
    last: int,
    conditioned: tuple[np.ndarray, float] | None = None,
) -> tuple[int, np.ndarray]:
    """The same with rows ``first_row ...`` of a variable as the start, which are overwritten.

    On the CPU, with the native library, the table is held only once. Where a row is not finite, others may have their
    new values already.

    Args:
        entries: N rows.
        fixed: half or float ``[M, F]``.
        gram: float32 ``[F, F]``, of ``fixed``.
        table: the rows, of the type of ``fixed``.
        first_row: of ``table``.
        sweep: the objective and the solver.
        first: first row of the entries.
        last: behind the last row.
        conditioned: the `preconditioner` of ``cg``, which all blocks of a half-sweep have in common; None: computed.

    Returns:
        the first row, counted from ``first``, that is not finite, or -1; and the threads' seconds.
    """
    native = library()
    if native is None or "GPU" in table.device:
        end = first_row + last - first
        start = table.read_value()[first_row:end]
        solved, bad, seconds = half_sweep(entries, fixed, gram, start, sweep, first, last)
        if bad < 0:
            table[first_row:end].assign(solved)
        return bad, seconds
    inverse, shift = conditioned or _preconditioner(entries, gram, sweep)
    zero = entries.disliked_only(first, last)
    if len(zero):  # as in `half_sweep`
        table.scatter_nd_update(first_row + zero[:, None], tf.zeros([len(zero), fixed.shape[1]], fixed.dtype))
    row_offsets, row_order = entries.tensors(first, last)
    bad, seconds = native.tfrec_als_half_sweep_in_place(
        row_offsets=row_offsets,
        columns=entries.columns,
        values=entries.values,
        row_order=row_order,
        fixed=fixed,
        gramian=gram,
        table=table.handle,
        first_row=first_row,
        inverse=inverse,
        shift=shift,
        alpha=sweep.alpha,
        regularization=sweep.regularization,
        unobserved_weight=sweep.unobserved_weight,
        frequency_exponent=sweep.frequency_exponent,
        solver=sweep.solver,
        cg_steps=sweep.cg_steps,
        block_size=sweep.block_size,
        **_counted(entries, fixed),
    )
    return int(bad), seconds.numpy()


def losses(entries: Entries, fixed: tf.Tensor, gram: tf.Tensor, rows: tf.Tensor, sweep: Sweep) -> np.ndarray:
    """float64 ``[N]``: each row's objective without its regularization.

    ``sum over stored c (p - x.y)^2 + w0 sum over the others (x.y)^2``, exact up to float32 products.
    """
    offsets = entries.offsets(0, entries.num_rows)
    native = library()
    if native is not None:
        return native.tfrec_als_losses(
            row_offsets=offsets,
            columns=entries.columns,
            values=entries.values,
            fixed=fixed,
            gramian=gram,
            rows=rows,
            alpha=sweep.alpha,
            unobserved_weight=sweep.unobserved_weight,
        ).numpy()
    x = tf.cast(rows, tf.float32)
    total = sweep.unobserved_weight * tf.reduce_sum(tf.cast(tf.matmul(x, gram) * x, tf.float64), axis=1).numpy()
    row = np.repeat(np.arange(entries.num_rows), entries.lengths)
    step = max(1, _CALL_BYTES // (4 * fixed.shape[1]))
    for k in range(0, len(row), step):
        part = slice(k, k + step)
        y = tf.cast(tf.gather(fixed, entries.columns[part]), tf.float32)
        s = tf.cast(tf.reduce_sum(tf.gather(x, row[part]) * y, axis=1), tf.float64).numpy()
        v = entries.values[part].numpy().astype(np.float64)
        c = sweep.alpha * np.abs(v)
        loss = (c - sweep.unobserved_weight) * s * s + np.where(v > 0, c * (1.0 - 2.0 * s), 0.0)
        total += np.bincount(row[part], loss, minlength=entries.num_rows)
    return total


def _reference_rows(
    entries: Entries,
    offsets: np.ndarray,
    fixed: tf.Tensor,
    gram: tf.Tensor,
    start: tf.Tensor,
    sweep: Sweep,
    inverse: np.ndarray,
) -> tf.Tensor:
    """The twin of the native half-sweep, in batches of rows of similar length."""
    factors = fixed.shape[1]
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    solved = np.zeros([len(order), factors], fixed.dtype.as_numpy_dtype)
    at = 0
    while at < len(order):
        bytes_per_row = 4 * factors * (factors + int(lengths[order[at]]))
        rows = order[at : at + max(1, _CALL_BYTES // bytes_per_row)]
        at += len(rows)
        solved[rows] = reference_solve(
            tf.constant(offsets[rows]),
            tf.constant(lengths[rows]),
            entries.columns,
            entries.values,
            fixed,
            gram,
            tf.gather(start, rows),
            sweep,
            tf.constant(inverse),
            entries.num_fixed,
        ).numpy()
    return tf.constant(solved)


def reference_solve(
    starts: tf.Tensor,
    lengths: tf.Tensor,
    columns: tf.Tensor,
    values: tf.Tensor,
    fixed: tf.Tensor,
    gram: tf.Tensor,
    start: tf.Tensor | None,
    sweep: Sweep,
    inverse: tf.Tensor | None = None,
    num_fixed: int | None = None,
) -> tf.Tensor:
    """Solve B rows with their matrices ``[B, F, F]`` held at once; plain TensorFlow, in a graph too.

    Args:
        starts: int64 ``[B]``, where each row's entries begin.
        lengths: int64 ``[B]``.
        columns: int32 or int64 ``[nnz]``; int64 where it is to stay on a GPU.
        values: float32 ``[nnz]``.
        fixed: ``[M, F]``.
        gram: float32 ``[F, F]``.
        start: ``[B, F]``; not needed by ``cholesky``.
        sweep: the objective and the solver.
        inverse: float32 ``[F, F]``, the `preconditioner` of ``cg``.
        num_fixed: M where ``fixed`` has only some of the M rows; None: all.

    Returns:
        ``[B, F]`` of the type of ``fixed``; zeros for a row without entries.
    """
    place = tf.range(tf.reduce_max(tf.concat([lengths, [0]], axis=0)))
    there = place[None, :] < lengths[:, None]
    entry = tf.where(there, starts[:, None] + place[None, :], 0)
    # With one more entry than there is, so that gathering works when there is none.
    v = tf.where(there, tf.gather(tf.concat([values, [0.0]], axis=0), entry), 0.0)
    y = tf.cast(tf.gather(fixed, tf.gather(tf.concat([columns, [0]], axis=0), entry)), tf.float32)
    c = sweep.alpha * tf.abs(v)
    w = tf.where(there, c - sweep.unobserved_weight, 0.0)
    right = tf.linalg.matvec(y, tf.where(v > 0, c, 0.0), transpose_a=True)
    size = tf.cast(lengths, tf.float32) + sweep.unobserved_weight * tf.cast(
        tf.shape(fixed)[0] if num_fixed is None else num_fixed, tf.float32
    )
    scale = sweep.regularization * size**sweep.frequency_exponent
    factors = fixed.shape[1]
    matrix = sweep.unobserved_weight * gram + tf.matmul(y * w[:, :, None], y, transpose_a=True)
    matrix += scale[:, None, None] * tf.eye(factors)
    x = solve_equations(matrix, right, start, sweep, inverse)
    return tf.cast(tf.where((lengths > 0)[:, None], x, 0.0), fixed.dtype)


def solve_equations(
    matrix: tf.Tensor, right: tf.Tensor, start: tf.Tensor | None, sweep: Sweep, inverse: tf.Tensor | None
) -> tf.Tensor:
    """Rows ``[B, F]`` from their matrices ``[B, F, F]`` and right-hand sides ``[B, F]``, all float32, by the solver.

    Args:
        matrix: ``w0 Y'Y + sum (c - w0) y y' + lambda I`` of each row.
        right: ``sum c p y`` of each row.
        start: ``[B, F]``, where cg and block begin; not needed by ``cholesky``.
        sweep: the solver.
        inverse: the `preconditioner` of ``cg``.
    """
    if sweep.solver == "cholesky":
        return _solve_spd(matrix, right)
    assert start is not None
    x = tf.cast(start, tf.float32)
    if sweep.solver == "block":
        return _blocks(matrix, right, x, sweep)
    assert inverse is not None
    return _conjugate(matrix, right, x, inverse, sweep.cg_steps)


def _solve_spd(matrix: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    return tf.linalg.cholesky_solve(tf.linalg.cholesky(matrix), right[..., None])[..., 0]


def _conjugate(matrix: tf.Tensor, right: tf.Tensor, x: tf.Tensor, inverse: tf.Tensor, steps: int) -> tf.Tensor:
    r = right - tf.linalg.matvec(matrix, x)
    p = tf.matmul(r, inverse)
    squared = tf.reduce_sum(r * p, axis=1)
    for _ in range(steps):
        ap = tf.linalg.matvec(matrix, p)
        going = squared >= 1e-20
        step = tf.where(going, tf.math.divide_no_nan(squared, tf.reduce_sum(p * ap, axis=1)), 0.0)[:, None]
        x, r = x + step * p, r - step * ap
        z = tf.matmul(r, inverse)
        after = tf.reduce_sum(r * z, axis=1)
        p = z + tf.math.divide_no_nan(after, squared)[:, None] * p
        squared = tf.where(going, after, squared)
    return x


def _blocks(matrix: tf.Tensor, right: tf.Tensor, x: tf.Tensor, sweep: Sweep) -> tf.Tensor:
    factors = right.shape[1]
    for first in range(0, factors, sweep.block_size):
        part = slice(first, min(first + sweep.block_size, factors))
        gradient = right[:, part] - tf.linalg.matvec(matrix[:, part, :], x)
        change = _solve_spd(matrix[:, part, part], gradient)
        x += tf.pad(change, [[0, 0], [first, factors - part.stop]])
    return x
