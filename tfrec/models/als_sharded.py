"""ALS whose tables, and whose matrix, are spread over ranks: no rank holds more than its share of either."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.layers.als_factors import check_rows, first_factors, write_rows
from tfrec.models.als import ALS
from tfrec.models.als_fit import MAX_CONFIDENCE, Callback, range_hint
from tfrec.models.als_sharded_scores import ShardedScores
from tfrec.models.als_sharded_sweep import Half, Traffic, half_sweep, largest, losses, row_chunks
from tfrec.models.carry import numbers_in_old, other_class, other_form
from tfrec.models.questions import count
from tfrec.ops.als import row_regularization
from tfrec.ranks import Ranks

_MIB = 1 << 20


class RowsOfRank(Protocol):
    """A rank's rows of a matrix, as `tfrec.data.ShardedMatrix` holds them."""

    @property
    def shape(self) -> tuple[int, int]:
        """U and I."""

    @property
    def by_user(self) -> scipy.sparse.csr_matrix:
        """``[this rank's users, I]``."""

    @property
    def by_item(self) -> scipy.sparse.csr_matrix:
        """``[this rank's items, U]``."""

    @property
    def num_entries(self) -> int:
        """Over all ranks."""


class ShardedALS(ShardedScores):
    """The fit of `tfrec.models.ALS` for tables that one process could not hold.

    Row r of a table is on rank ``r % size``. To solve its rows a rank fetches the rows of the other table that they
    need, each once, in blocks of ``block_mib``. A rank needs

        (U + I) F bytes / size  for the factors,
        about 20 bytes per entry / size  for the matrix in both directions and what its blocks need,
        2 block_mib  for the rows that it has fetched and those that it sends meanwhile,

    and a few F x F matrices. The factors are those of one process up to the order of sums.

    Args:
        settings: an `ALS` without tables: its factors, solver, seed and so on.
        ranks: who takes part, `tfrec.distributed.everyone()`. Every rank calls the same methods.
        block_mib: MiB of rows that a block may fetch. With less than the other table each row is fetched more than
            once per half-sweep, see ``traffic``.

    Attributes:
        traffic: rows and bytes that this rank has fetched and served.

    Raises:
        InputError: a model that has tables already, or a `block_mib` below 1.

    Example:
        >>> import scipy.sparse
        >>> from tfrec.data.sharded_matrix import ShardedMatrix
        >>> from tfrec.ranks import ALONE
        >>> plays = scipy.sparse.csr_matrix([[3, 1, 0, 0], [2, 4, 0, 0], [0, 0, 5, 1], [0, 0, 1, 2.0]])
        >>> model = ShardedALS(ALS(factors=2, iterations=5), ALONE)
        >>> _ = model.fit(ShardedMatrix.of_matrix(plays.astype("float32")))
        >>> whole = model.gathered()
        >>> int(whole.recommend(0, k=1, filter_seen=False)[0][0]) in (0, 1)
        True
    """

    name = "sharded_als"

    def __init__(self, settings: ALS, ranks: Ranks, block_mib: int = 64) -> None:
        if settings.num_users is not None:
            raise InputError(
                f"`settings` must be an ALS without tables.\nReceived: one of {settings.num_users} users.\n"
                "Make it without num_users and num_items."
            )
        self.settings, self.ranks, self.sweep = settings, ranks, settings.sweep
        self.block_mib = count(block_mib, "block_mib")
        self.factors, self.factor_dtype = settings.factors, settings.factor_dtype
        self.iterations = settings.iterations
        self.num_users: int | None = None
        self.num_items: int | None = None
        self.traffic = Traffic()
        self.users: keras.Variable
        self.items: keras.Variable

    @property
    def weights(self) -> list[keras.Variable]:
        """This rank's rows of the users and of the items."""
        return [] if self.num_users is None else [self.users, self.items]

    @property
    def block_rows(self) -> int:
        """Rows that a block may fetch."""
        return max(1, self.block_mib * _MIB // (self.factors * np.dtype(self.factor_dtype).itemsize))

    def prepare(self, num_users: int, num_items: int) -> None:
        """Make this rank's part of the tables, with the first factors that one process would have, unless it exists.

        All first factors are drawn on every rank, about 10 ns each, and a rank keeps its own.
        """
        if self.num_users is not None:
            return
        num_users, num_items = count(num_users, "num_users"), count(num_items, "num_items")
        local = [len(range(self.ranks.rank, rows, self.ranks.size)) for rows in (num_users, num_items)]
        check_rows(max(1, sum(local)), self.factors, self.factor_dtype)
        if max(num_users, num_items) >= 2**31:
            raise InputError(f"Numbers of rows end at {2**31 - 1:,}.\nReceived: {max(num_users, num_items):,} rows.")
        self.num_users, self.num_items = num_users, num_items
        seeds = np.random.SeedSequence(self.settings.seed).generate_state(2)
        self.users = self._table(num_users, int(seeds[0]), "users")
        self.items = self._table(num_items, int(seeds[1]), "items")

    def _table(self, num_rows: int, seed: int, name: str) -> keras.Variable:
        rank, size = self.ranks.rank, self.ranks.size
        shape = (len(range(rank, num_rows, size)), self.factors)
        table = keras.Variable(tf.zeros(shape, self.factor_dtype), dtype=self.factor_dtype, trainable=False, name=name)
        for begin, piece in first_factors(num_rows, self.factors, self.factor_dtype, seed):
            first = begin + (rank - begin) % size
            write_rows(table, first // size, piece[first - begin :: size])
        return table

    # ---- training --------------------------------------------------------------------------------------------------

    def fit(
        self,
        matrix: RowsOfRank,
        callback: Callback | None = None,
        calculate_training_loss: bool = False,
        initial_iteration: int = 0,
    ) -> list[float | None]:
        """Solve for users and items alternately, as `ALS.fit`. Every rank must call it.

        Args:
            matrix: this rank's rows. While it runs the columns of the matrix are numbers within blocks.
            callback: called on each rank after each iteration with its number, seconds and loss.
            calculate_training_loss: compute the loss after each iteration.
            initial_iteration: iterations that were made before.

        Returns:
            the loss after each iteration, or None.

        Raises:
            InputError: on every rank: a matrix without entries or of another shape, confidences that float32 cannot
                hold, or factors that are not finite.
        """
        self.prepare(*matrix.shape)
        self._check(matrix)
        most, ranks = self.block_rows, self.ranks
        users, items = (
            Half.of(rows, most, num_rows, matrix.num_entries, ranks, self.traffic)
            for rows, num_rows in zip((matrix.by_user, matrix.by_item), matrix.shape, strict=True)
        )
        found: list[float | None] = []
        try:
            gram = self.gramian(self.items)
            for iteration in range(initial_iteration + 1, self.iterations + 1):
                started = time.perf_counter()
                self._solve(users, self.users, self.items, gram, "user")
                gram = self.gramian(self.users)
                self._solve(items, self.items, self.users, gram, "item")
                gram = self.gramian(self.items)
                seconds = time.perf_counter() - started
                found.append(self._loss(users, matrix, gram) if calculate_training_loss else None)
                if callback is not None:
                    callback(iteration, seconds, found[-1])
        finally:
            users.blocks.close()
            items.blocks.close()
        return found

    def _check(self, matrix: RowsOfRank) -> None:
        if matrix.shape != (self.num_users, self.num_items):
            raise InputError(
                f"`matrix` must be of the model's shape, {(self.num_users, self.num_items)}.\n"
                f"Received: shape {matrix.shape}."
            )
        if matrix.num_entries == 0:
            raise InputError(f"`matrix` must have entries.\nReceived: an empty matrix of shape {matrix.shape}.")
        values = matrix.by_user.data
        size = max(float(values.max()), -float(values.min())) if len(values) else 0.0
        sizes = self.ranks.gather_rows(tf.constant([self.sweep.alpha * size], tf.float64)).numpy()
        weight, most = self.sweep.unobserved_weight, float(sizes.max())
        if most > MAX_CONFIDENCE or (weight > 0 and most / weight > MAX_CONFIDENCE):
            raise InputError(
                f"Confidences, alpha * |value|, may reach {MAX_CONFIDENCE:.0e}, and as often `unobserved_weight`.\n"
                f"Received: up to {most:.3g}, with unobserved_weight={weight}.\nLower `alpha` or the values."
            )

    def _solve(self, half: Half, target: keras.Variable, fixed: keras.Variable, gram: tf.Tensor, what: str) -> None:
        bad = half_sweep(half, target.value, fixed.value, gram, self.sweep)
        # A rank that failed tells the others, so that all stop.
        bad = largest(self.ranks, bad * self.ranks.size + self.ranks.rank if bad >= 0 else -1)
        if bad >= 0:
            raise InputError(
                f"The factors of {what} {bad} are not finite{range_hint(self.factor_dtype)}.\n"
                "Lower `alpha` or the confidences, or raise `regularization`."
            )

    def _loss(self, users: Half, matrix: RowsOfRank, gram: tf.Tensor) -> float:
        total = losses(users, self.users.value, self.items.value, gram, self.sweep)
        for table, rows, others in (
            (self.users, matrix.by_user, matrix.shape[1]),
            (self.items, matrix.by_item, matrix.shape[0]),
        ):
            scale = row_regularization(self.sweep, np.diff(rows.indptr), others)
            for first, chunk in row_chunks(table.value):
                squares = tf.reduce_sum(tf.cast(chunk, tf.float64) ** 2, axis=1).numpy()
                total += float(scale[first : first + len(squares)] @ squares)
        confidence = self.sweep.alpha * float(np.abs(matrix.by_user.data, dtype=np.float64).sum())
        total, confidence = self.ranks.sum(np.array([total, confidence]))
        pairs = matrix.shape[0] * matrix.shape[1]
        return float(total / (confidence + self.sweep.unobserved_weight * (pairs - matrix.num_entries)))

    # ---- from and to one model -------------------------------------------------------------------------------------

    def carry_over(self, old: ALS, users: np.ndarray, items: np.ndarray) -> None:
        """As `ALS.carry_over`: each rank copies the rows that it holds. No collective.

        Args:
            old: an `ALS`, whole.
            users: int ``[U]``: each user's number in ``old``, -1 for a new one.
            items: int ``[I]``: the same for items.

        Raises:
            InputError: a model of another class, width or type, or numbers that it does not have.
        """
        if not isinstance(old, ALS):
            raise other_class(self.settings, old)
        if (old.factors, old.factor_dtype) != (self.factors, self.factor_dtype):
            raise other_form((self.factors, self.factor_dtype), (old.factors, old.factor_dtype), "factors of")
        assert self.num_users is not None
        assert self.num_items is not None
        sides = [
            (self.users, old.users, numbers_in_old(users, "users", self.num_users, old.num_users)),
            (self.items, old.items, numbers_in_old(items, "items", self.num_items, old.num_items)),
        ]
        for table, source, numbers in sides:
            mine = numbers[self.ranks.rank :: self.ranks.size]
            known = np.flatnonzero(mine >= 0)
            for begin in range(0, len(known), self.block_rows):
                some = known[begin : begin + self.block_rows]
                table.value.scatter_nd_update(some[:, None], tf.gather(source.table.value, mine[some]))

    def pieces(self, table: keras.Variable, num_rows: int, everywhere: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A table of all ranks' parts, a block at a time: numbers and rows. Every rank must take all of them.

        Args:
            table: `users` or `items`.
            num_rows: of the whole table.
            everywhere: every rank gets the rows; else rank 0, and others none.
        """
        size, local = self.ranks.size, int(table.shape[0])
        most = -(-num_rows // size)
        step = max(1, self.block_rows // size)
        for first in range(0, most, step):
            last = min(first + step, most)
            mine = tf.gather(table.value, tf.range(min(first, local), min(last, local)))
            if everywhere:
                rows = self.ranks.gather_rows(mine)
            else:
                counts = np.zeros(size, np.int32)
                counts[0] = mine.shape[0]
                rows, _ = self.ranks.exchange(mine, tf.constant(counts))
            numbers = [np.arange(rank + size * first, min(num_rows, size * last), size) for rank in range(size)]
            yield np.concatenate(numbers)[: len(rows)], rows.numpy()

    def gathered(self, everywhere: bool = False) -> ALS:
        """An ordinary model with all factors, on rank 0; others get one without tables. Every rank must call it.

        Args:
            everywhere: on every rank.
        """
        assert self.num_users is not None
        assert self.num_items is not None
        whole = ALS.from_config(self.settings.get_config())
        holds = everywhere or self.ranks.rank == 0
        if holds:
            whole.prepare(self.num_users, self.num_items)
        for table, num_rows, side in ((self.users, self.num_users, "users"), (self.items, self.num_items, "items")):
            for numbers, rows in self.pieces(table, num_rows, everywhere):
                if holds:
                    getattr(whole, side).table.value.scatter_nd_update(numbers[:, None], rows)
        return whole
