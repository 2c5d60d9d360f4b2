"""A half-sweep over one rank's rows: the other side's rows are fetched block by block from the ranks that have them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec import ops
from tfrec.models.als_blocks import Block, Blocks
from tfrec.ops.als import preconditioner, row_regularization, solve_equations
from tfrec.ranks import Ranks

#: Rows of a long row's piece whose products are added up at once.
_PIECE_ROWS = 4_096
#: Numbers of a table that are looked at together: 16 MiB in float32.
_CHUNK = 1 << 22


@dataclass
class Traffic:
    """What one rank has fetched.

    Args:
        rows: of the other tables, its own among them.
        bytes: of rows and their numbers that came from other ranks or went to them.
    """

    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Half:
    """One side's rows of a rank, and what is the same on all ranks.

    Args:
        blocks: of the rank's rows.
        steps: the most blocks that a rank has: all make as many exchanges.
        num_fixed: M, rows of the whole other table.
        mean_length: stored entries per row over all ranks' rows.
        ranks: who takes part.
        traffic: is added to.
    """

    blocks: Blocks
    steps: int
    num_fixed: int
    mean_length: float
    ranks: Ranks
    traffic: Traffic

    @classmethod
    def of(
        cls,
        matrix: scipy.sparse.csr_matrix,
        most: int,
        num_rows: int,
        entries: float,
        ranks: Ranks,
        traffic: Traffic,
    ) -> Half:
        """Cut a rank's rows into blocks. Every rank must call it.

        Args:
            matrix: ``[B, M]``, see `Blocks`.
            most: rows that a block may need.
            num_rows: N over all ranks.
            entries: stored over all ranks.
            ranks: who takes part.
            traffic: is added to.
        """
        blocks = Blocks(matrix, most, ranks)
        steps = int(largest(ranks, len(blocks.own)))
        return cls(blocks, steps, matrix.shape[1], entries / max(1, num_rows), ranks, traffic)

    def fetched(self, table: tf.Variable) -> Iterator[tuple[Block | None, tf.Tensor]]:
        """Each block with the rows that it needs, ``[C, F]``; without a block while other ranks have more of them."""
        for step in range(self.steps):
            block = self.blocks.own[step] if step < len(self.blocks.own) else None
            if block is None:
                none = np.zeros(0, np.int32), np.zeros(self.ranks.size, np.int32)
                yield None, fetch(table, *none, self.ranks, self.traffic)
            else:
                yield block, fetch(table, block.needed, block.counts, self.ranks, self.traffic)

    def entries(self, block: Block) -> ops.Entries:
        """The block's rows as the operations take them."""
        return ops.Entries(self._rows(block), num_fixed=self.num_fixed, mean_length=self.mean_length)

    def _rows(self, block: Block) -> scipy.sparse.csr_matrix:
        matrix = self.blocks.matrix
        indptr = np.clip(matrix.indptr[block.first : block.last + 1], block.begin, block.end) - block.begin
        part = slice(block.begin, block.end)
        found = _empty(block.num_rows, max(1, len(block.needed)))
        # Set one by one: SciPy would copy them, and look at every entry.
        found.indptr, found.indices, found.data = indptr, matrix.indices[part], matrix.data[part]
        return found


def _empty(rows: int, columns: int) -> scipy.sparse.csr_matrix:
    offsets, none = np.zeros(rows + 1, np.int32), np.zeros(0, np.int32)
    return scipy.sparse.csr_matrix((np.zeros(0, np.float32), none, offsets), shape=(rows, columns))


def largest(ranks: Ranks, value: int) -> int:
    """The largest of the ranks' values."""
    return int(np.max(ranks.gather_rows(tf.constant([value], tf.int64)).numpy()))


def fetch(table: tf.Variable, needed: np.ndarray, counts: np.ndarray, ranks: Ranks, traffic: Traffic) -> tf.Tensor:
    """Rows of a table that is spread over the ranks. Every rank must call it.

    Args:
        table: this rank's part.
        needed: int32 ``[C]``, by the rank that has them.
        counts: int32 ``[size]``.
        ranks: who takes part.
        traffic: is added to.

    Returns:
        ``[C, F]``.
    """
    wanted, wanted_counts = ranks.exchange(tf.constant(needed // ranks.size), tf.constant(counts))
    rows, _ = ranks.exchange(tf.gather(table, wanted), wanted_counts)
    others = len(needed) - int(counts[ranks.rank]), len(wanted) - int(counts[ranks.rank])
    traffic.rows += len(needed)
    traffic.bytes += sum(others) * (4 + table.shape[1] * table.dtype.size)
    return rows


def row_chunks(table: tf.Variable) -> Iterator[tuple[int, tf.Tensor]]:
    """The first row's number and the rows ``[n, F]`` of each of a table's chunks.

    By gather: a slice, or the whole value, would copy a variable into which rows were scattered.
    """
    step = max(1, _CHUNK // int(table.shape[1]))
    for first in range(0, int(table.shape[0]), step):
        yield first, tf.gather(table, tf.range(first, min(first + step, int(table.shape[0]))))


def half_sweep(half: Half, target: tf.Variable, fixed: tf.Variable, gram: tf.Tensor, sweep: ops.Sweep) -> int:
    """Solve for the rank's rows, in place. Every rank must call it.

    Args:
        half: the rows.
        target: ``[B, F]``, this rank's part of the table that is solved for.
        fixed: this rank's part of the other one.
        gram: float32 ``[F, F]``, of the whole other table.
        sweep: the objective and the solver.

    Returns:
        the first row of ``target`` that is not finite, or -1.
    """
    conditioned = None
    if sweep.solver == "cg":
        none = ops.Entries(_empty(0, 1), num_fixed=half.num_fixed, mean_length=half.mean_length)
        conditioned = preconditioner(none, gram, sweep)
    bad, long_row = -1, _LongRow(half, gram, sweep, conditioned)
    for block, rows in half.fetched(fixed):
        if block is None:
            continue
        if block.piece:
            solved = long_row.add(block, rows, target)
            if solved is not None:
                bad = bad if bad >= 0 or np.isfinite(solved).all() else block.first
                target.scatter_nd_update([[block.first]], solved.astype(target.dtype.as_numpy_dtype))
            continue
        if len(block.needed) == 0:
            # Rows without entries.
            rows = tf.zeros([1, target.shape[1]], target.dtype)
        found, _ = ops.half_sweep_in_place(
            half.entries(block), rows, gram, target, block.first, sweep, 0, block.num_rows, conditioned
        )
        bad = block.first + found if bad < 0 <= found else bad
    return bad


class _LongRow:
    """The equations of a row that comes in pieces."""

    def __init__(
        self, half: Half, gram: tf.Tensor, sweep: ops.Sweep, conditioned: tuple[np.ndarray, float] | None
    ) -> None:
        self._half, self._sweep = half, sweep
        self._gram = gram
        self._matrix = np.zeros([0, 0], np.float32)
        self._right = np.zeros(0, np.float32)
        self._inverse = None if conditioned is None else tf.constant(conditioned[0])

    def add(self, block: Block, rows: tf.Tensor, target: tf.Variable) -> np.ndarray | None:
        """Add a piece; returns the solution ``[1, F]`` after the row's last one."""
        matrix, sweep = self._half.blocks.matrix, self._sweep
        begin, end = int(matrix.indptr[block.first]), int(matrix.indptr[block.first + 1])
        if block.begin == begin:
            self._matrix = sweep.unobserved_weight * self._gram.numpy()
            self._right = np.zeros(len(self._matrix), np.float32)
        for at in range(block.begin, block.end, _PIECE_ROWS):
            part = slice(at, min(at + _PIECE_ROWS, block.end))
            y = tf.cast(tf.gather(rows, matrix.indices[part]), tf.float32).numpy()
            value = matrix.data[part]
            confidence = np.float32(sweep.alpha) * np.abs(value)
            self._matrix += (y * (confidence - np.float32(sweep.unobserved_weight))[:, None]).T @ y
            self._right += np.where(value > 0, confidence, np.float32(0)) @ y
        if block.end < end:
            return None
        scale = row_regularization(sweep, np.array([end - begin]), self._half.num_fixed)[0]
        system = self._matrix + np.float32(scale) * np.eye(len(self._matrix), dtype=np.float32)
        start = tf.zeros([1, len(system)]) if matrix.data[begin:end].max() <= 0 else tf.gather(target, [block.first])
        return self._solve(system, start)

    def _solve(self, system: np.ndarray, start: tf.Tensor) -> np.ndarray:
        try:
            solved = solve_equations(
                tf.constant(system[None]), tf.constant(self._right[None]), start, self._sweep, self._inverse
            )
        except tf.errors.InvalidArgumentError:  # no Cholesky factor
            return np.full([1, len(system)], np.nan, np.float32)
        return solved.numpy()


def losses(half: Half, own: tf.Variable, fixed: tf.Variable, gram: tf.Tensor, sweep: ops.Sweep) -> float:
    """The sum of `tfrec.ops.losses` over the rank's rows. Every rank must call it."""
    total = 0.0
    for block, rows in half.fetched(fixed):
        if block is None or len(block.needed) == 0:
            continue
        matrix = half.blocks.matrix
        x = tf.gather(own, tf.range(block.first, block.last))
        if block.piece and block.begin > matrix.indptr[block.first]:
            # What does not depend on the entries is counted with the first piece.
            gram_of_block: Any = tf.zeros_like(gram)
        else:
            gram_of_block = gram
        total += float(ops.losses(half.entries(block), rows, gram_of_block, x, sweep).sum())
    return total
