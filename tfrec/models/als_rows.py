"""Rows that are folded into the factors of `tfrec.models.ALS`: what new users and items get, and why."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec import ops
from tfrec.errors import InputError
from tfrec.models.als_fit import range_hint
from tfrec.ops.als import reference_solve, row_regularization


class FixedFactors(Protocol):
    """What rows are solved against: `tfrec.layers.ALSFactors`, or vectors in their place."""

    @property
    def table(self) -> Any:
        """With ``value``, ``[N, F]``."""

    @property
    def num_rows(self) -> int:
        """N."""

    @property
    def factors(self) -> int:
        """F."""

    @property
    def factor_dtype(self) -> str:
        """Of the table."""

    def gramian(self) -> tf.Tensor:
        """``table' table``, float32 ``[F, F]``."""


def fold_in(matrix: scipy.sparse.csr_matrix, other: FixedFactors, sweep: ops.Sweep, what: str) -> np.ndarray:
    """The exact factors ``[B, F]`` of rows ``[B, N]`` over the table ``other``, in its type, whatever the solver.

    Raises:
        InputError: factors that are not finite.
    """
    exact = dataclasses.replace(sweep, solver="cholesky")
    fixed = tf.convert_to_tensor(other.table.value)
    empty = tf.zeros([matrix.shape[0], other.factors], fixed.dtype)
    if matrix.shape[0] == 0:
        return empty.numpy()
    solved, bad, _ = ops.half_sweep(ops.Entries(matrix), fixed, other.gramian(), empty, exact, 0, matrix.shape[0])
    if bad >= 0:
        raise InputError(
            f"The factors of {what} row {bad} are not finite{range_hint(other.factor_dtype)}.\n"
            "Lower the confidences, or make the model with a larger `regularization`."
        )
    return solved.numpy()


def solve_rows(rows: tf.SparseTensor, items: FixedFactors, least: int, sweep: ops.Sweep) -> tf.Tensor:
    """The same in TensorFlow alone, also inside a `tf.function`.

    Args:
        rows: ``[B, from least to I]``, in any order.
        items: the table of I items.
        least: of the rows' width.
        sweep: the objective.

    Returns:
        float32 ``[B, F]``.
    """
    width = items.num_rows
    message = f"Rows must have {width} columns, one for each item."
    if rows.shape.rank != 2 or (rows.shape[1] is not None and not least <= rows.shape[1] <= width):
        raise InputError(f"{message}\nReceived: shape {rows.shape}.")
    columns = rows.dense_shape[1]
    check = tf.debugging.Assert((columns >= least) & (columns <= width), [f"{message} Received:", columns])
    with tf.control_dependencies([check]):
        batch = tf.identity(rows.dense_shape[0])
    # A stored zero is no entry, and those of a row must stand together.
    rows = tf.sparse.reorder(tf.sparse.retain(rows, rows.values != tf.zeros([], rows.dtype)))
    offsets = tf.searchsorted(rows.indices[:, 0], tf.range(batch + 1), out_type=tf.int64)
    starts, lengths = offsets[:-1], offsets[1:] - offsets[:-1]
    table = tf.convert_to_tensor(items.table.value)
    y = tf.cast(table, tf.float32)
    gram = tf.matmul(y, y, transpose_a=True)
    exact = dataclasses.replace(sweep, solver="cholesky")
    columns, values = rows.indices[:, 1], tf.cast(rows.values, tf.float32)
    x = reference_solve(starts, lengths, columns, values, table, gram, None, exact)
    x = tf.debugging.check_numerics(
        tf.cast(x, tf.float32), f"A row's factors are not finite{range_hint(items.factor_dtype)}"
    )
    return x


def liked_sums(rows: tf.SparseTensor, items: FixedFactors) -> tf.Tensor:
    """Each row's sum of the factors of what it likes, by value: the right-hand side of its equations without alpha.

    Args:
        rows: ``[B, up to I]``, in any order.
        items: the table.

    Returns:
        float32 ``[B, F]``; zeros exactly where the row's factors are zeros.
    """
    liked = tf.sparse.retain(rows, rows.values > tf.zeros([], rows.dtype))
    shape = tf.stack([rows.dense_shape[0], tf.constant(items.num_rows, tf.int64)])
    values = tf.SparseTensor(liked.indices, tf.cast(liked.values, tf.float32), shape)
    return tf.sparse.sparse_dense_matmul(values, tf.cast(items.table.value, tf.float32))


def explain_row(
    row: scipy.sparse.csr_matrix, item: int, k: int, items: FixedFactors, sweep: ops.Sweep
) -> tuple[float, np.ndarray, np.ndarray]:
    """What `tfrec.models.ALS.explain` finds for one row ``[1, I]``."""
    liked = row.data > 0
    if not liked.any():
        return 0.0, np.zeros(0, np.int32), np.zeros(0, np.float32)
    table = items.table.value
    y = tf.cast(tf.gather(table, row.indices), tf.float64).numpy()
    confidence = sweep.alpha * np.abs(row.data.astype(np.float64))
    gram = items.gramian().numpy().astype(np.float64)
    scale = row_regularization(sweep, np.array([row.nnz]), items.num_rows)[0]
    a = sweep.unobserved_weight * gram + (y * (confidence - sweep.unobserved_weight)[:, None]).T @ y
    a += scale * np.eye(items.factors)
    wanted = tf.cast(table[item], tf.float64).numpy()
    try:
        parts = ((y @ np.linalg.solve(a, wanted)) * confidence)[liked]
    except np.linalg.LinAlgError as error:
        raise InputError(
            "This row's factors are not determined, as the model has no regularization.\n"
            f"Received: regularization={sweep.regularization}.\nTrain with a larger one."
        ) from error
    order = np.argsort(-parts, kind="stable")[:k]
    return float(parts.sum()), row.indices[liked][order].astype(np.int32), parts[order].astype(np.float32)
