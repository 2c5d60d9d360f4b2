"""Alternating least squares on implicit feedback: the objective of `tfrec.ops.als`, users and items in turn.

Sources: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008; Takacs, Pilaszy,
Tikk, "Applications of the Conjugate Gradient Method for Implicit Feedback Collaborative Filtering", RecSys 2011
(``cg``);
Rendle, Krichene, Zhang, Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks", RecSys 2022
(``frequency_exponent``, ``unobserved_weight``); the same, "iALS++: Speeding up Matrix Factorization with Subspace
Optimization", 2021 (``block``).
"""

from __future__ import annotations

import dataclasses
import reprlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec import ops
from tfrec.errors import InputError
from tfrec.layers import ALSFactors
from tfrec.layers.als_factors import check_factors, check_rows
from tfrec.models.als_inputs import Choice, check_confidences, count, row_number, row_numbers, sparse_matrix
from tfrec.ops.als import reference_solve, row_regularization

#: (iteration from 1, seconds of it, training loss or None)
Callback = Callable[[int, float, float | None], Any]


class Ranks(Protocol):
    """How several processes share a fit, see `tfrec.distributed.RowExchange`."""

    rank: int
    size: int

    def gather_rows(self, rows: tf.Tensor) -> tf.Tensor:
        """The ranks' rows one after another."""

    def sum(self, values: tf.Tensor) -> tf.Tensor:
        """The sum over the ranks."""


@keras.saving.register_keras_serializable(package="tfrec")
class ALS(keras.Model):
    """Matrix factorization for implicit feedback, with the recommendations people ask of it.

    Args:
        factors: F, 1 to 1,024.
        regularization: lambda, from 0.
        alpha: confidence of an entry per unit of its value, above 0.
        iterations: sweeps over users and items that ``fit`` makes, from 1.
        unobserved_weight: weight of every entry that is not stored, from 0.
        frequency_exponent: nu in ``lambda_u = lambda (n_u + unobserved_weight I)^nu``; 0: lambda for all, 1: iALS.
        solver: ``cg`` (preconditioned, from the row's last factors), ``cholesky`` (exact) or ``block``, see
            `tfrec.ops.Sweep`.
        cg_steps: conjugate gradient steps per half-sweep, from 1.
        block_size: coordinates that ``block`` solves for at once, from 1.
        factor_dtype: ``float16`` or ``float32``, how the factors are stored; sums are float32.
        seed: of the first factors.
        num_users: U, and
        num_items: I; both are told by ``fit`` where they are None.

    The values of the matrix given to ``fit`` are confidences per unit of ``alpha``; a negative one says *disliked*,
    with the confidence of its size, and a stored zero says nothing, as one that is not stored. A user or item without
    entries, or with dislikes only, gets zeros: nothing is recommended to such a user, and nothing is similar to such
    an item.

    Matrices and rows are SciPy's, of any format and number type, or tf.SparseTensors; one dimension (``A[3]`` of a
    SciPy array) is one row. After ``partial_fit_users`` with new users, rows of items may still be as wide as the
    table was at ``fit``: the new users have nothing in them. Likewise rows of users after ``partial_fit_items``.

    Input shape: integers ``(users [B], items [B])``, or sparse rows ``[B, I]`` of new users (a SparseTensor).
    Output shape: float32 ``[B]``, or ``[B, I]``, whatever the dtype policy.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> import scipy.sparse
        >>> plays = scipy.sparse.csr_matrix([[3, 1, 0, 0], [2, 4, 0, 0], [0, 0, 5, 1], [0, 0, 1, 2.0]])
        >>> model = ALS(factors=2, iterations=5)
        >>> _ = model.fit(plays, verbose=0)
        >>> ids, scores = model.recommend(0, k=1, filter_seen=False)
        >>> int(ids[0]) in (0, 1)
        True
    """

    def __init__(
        self,
        factors: int = 128,
        regularization: float = 0.01,
        alpha: float = 1.0,
        iterations: int = 15,
        unobserved_weight: float = 1.0,
        frequency_exponent: float = 0.0,
        solver: ops.als.Solver = "cg",
        cg_steps: int = 3,
        block_size: int = 64,
        factor_dtype: str = "float32",
        seed: int = 0,
        num_users: int | None = None,
        num_items: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Values of rows are confidences, and stay float32 in mixed precision.
        super().__init__(autocast=False, **kwargs)
        check_factors(factors, factor_dtype)
        self.sweep = ops.Sweep(
            alpha, regularization, unobserved_weight, frequency_exponent, solver, cg_steps, block_size
        )
        iterations = count(iterations, "iterations")
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
            raise InputError(f"`seed` must be a whole number from 0.\nReceived: {seed!r}.")
        if (num_users is None) != (num_items is None):
            raise InputError(
                "Give both `num_users` and `num_items`, or neither: `fit` then takes them from its matrix.\n"
                f"Received: num_users={num_users}, num_items={num_items}."
            )
        self.factors, self.iterations, self.factor_dtype, self.seed = int(factors), iterations, factor_dtype, int(seed)
        self.num_users: int | None = None
        self.num_items: int | None = None
        #: U and I without what partial fits have added: the least width of rows.
        self._fitted_shape = (0, 0)
        self.supports_jit = False
        #: Seconds that each thread computed in the last half-sweep of users and of items.
        self.thread_seconds: tuple[np.ndarray, np.ndarray] = (np.zeros(0), np.zeros(0))
        if num_users is not None and num_items is not None:
            self.prepare(num_users, num_items)

    def prepare(self, num_users: int, num_items: int) -> None:
        """Make the tables, unless they are there; `fit` does it by itself."""
        if self.num_users is not None:
            return
        num_users, num_items = count(num_users, "num_users"), count(num_items, "num_items")
        for rows in (num_users, num_items):
            check_rows(rows, self.factors, self.factor_dtype)
        self._fitted_shape = self.num_users, self.num_items = num_users, num_items
        # Keras locks a model that was loaded, or called in vain, before it has its tables.
        self._tracker.unlock()
        seeds = np.random.SeedSequence(self.seed).generate_state(2)
        self.users = ALSFactors(num_users, self.factors, self.factor_dtype, int(seeds[0]), name="users")
        self.items = ALSFactors(num_items, self.factors, self.factor_dtype, int(seeds[1]), name="items")
        self.users.build()
        self.items.build()
        self.built = True

    def build(self, input_shape: Any = None) -> None:
        """Tables are made in the constructor, or by ``fit``."""

    @property
    def user_factors(self) -> np.ndarray:
        """``[U, F]``, a copy."""
        self._require_fitted()
        return self.users.table.numpy()

    @property
    def item_factors(self) -> np.ndarray:
        """``[I, F]``, a copy."""
        self._require_fitted()
        return self.items.table.numpy()

    # ---- training --------------------------------------------------------------------------------------------------

    def fit(
        self,
        user_items: Any,
        callback: Callback | None = None,
        verbose: int = 1,
        calculate_training_loss: bool = False,
        ranks: Ranks | None = None,
        initial_iteration: int = 0,
    ) -> keras.callbacks.History:
        """Solve for users and items in turn, ``iterations`` times, from the factors as they are.

        Args:
            user_items: ``[U, I]`` SciPy matrix or tf.SparseTensor: confidences, negative for disliked.
            callback: called after each iteration with its number, seconds and loss.
            verbose: 1: a progress bar (on rank 0); 0: silent.
            calculate_training_loss: compute `training_loss` after each iteration, for ``callback`` and the history.
            ranks: when several processes share the work; each passes the whole matrix.
            initial_iteration: iterations made by an earlier fit, whose factors the model has.

        Returns:
            history with ``seconds`` and, if asked for, ``loss`` per iteration.

        Raises:
            InputError: a matrix without entries, NaN or infinite values, confidences that float32 cannot hold, an
                entry that occurs twice, another shape than the model's, or factors that became infinite or NaN.
        """
        matrix = sparse_matrix(user_items, "user_items")
        if matrix.nnz == 0:
            raise InputError(f"`user_items` must have entries.\nReceived: an empty matrix of shape {matrix.shape}.")
        check_confidences(matrix, "user_items", self.sweep)
        self.prepare(*matrix.shape)
        if matrix.shape != (self.num_users, self.num_items):
            raise InputError(
                f"`user_items` must be of the model's shape, {(self.num_users, self.num_items)}.\n"
                f"Received: shape {matrix.shape}.\nMake a new model, or use partial_fit_users and partial_fit_items."
            )
        self._fitted_shape = matrix.shape
        rank, size = (ranks.rank, ranks.size) if ranks is not None else (0, 1)
        by_user = self._entries(matrix, rank, size)
        by_item = self._entries(_transposed(matrix), rank, size)
        history = keras.callbacks.History()
        history.set_model(self)
        history.on_train_begin()
        bar = keras.utils.Progbar(self.iterations, unit_name="iteration") if verbose and rank == 0 else None
        gram = self.items.gramian()
        for iteration in range(initial_iteration + 1, self.iterations + 1):
            started = time.perf_counter()
            gram, user_seconds = self._solve(self.users, by_user, self.items, gram, ranks, "user")
            user_gram = gram
            gram, item_seconds = self._solve(self.items, by_item, self.users, gram, ranks, "item")
            self.thread_seconds = (user_seconds, item_seconds)
            seconds = time.perf_counter() - started
            logs: dict[str, Any] = {"seconds": seconds}
            loss = None
            if calculate_training_loss:
                del user_gram
                loss = self._loss(by_user, matrix, gram, ranks)
                logs["loss"] = loss
            history.on_epoch_end(iteration - 1, logs)
            if bar is not None:
                shown = [("loss", loss)] if loss is not None else []
                bar.update(iteration, shown, finalize=iteration == self.iterations)
            if callback is not None:
                callback(iteration, seconds, loss)
        return history

    def _entries(self, matrix: scipy.sparse.csr_matrix, rank: int, size: int) -> ops.Entries:
        """This rank's rows: ranges of about equal work."""
        first, last = balanced_range(np.diff(matrix.indptr), self.factors, self.sweep, rank, size)
        return ops.Entries(matrix, first, last)

    def _solve(
        self,
        side: ALSFactors,
        entries: ops.Entries,
        other: ALSFactors,
        gram: tf.Tensor,
        ranks: Ranks | None,
        what: str,
    ) -> tuple[tf.Tensor, np.ndarray]:
        """One half-sweep; returns the Gramian of what was solved for, and the threads' seconds."""
        fixed = tf.convert_to_tensor(other.table.value)
        bad, seconds = side.half_sweep(entries, fixed, gram, self.sweep)
        del fixed
        if ranks is not None and ranks.size > 1:
            # A rank that failed tells the others, so that all stop.
            bad = int(np.max(ranks.gather_rows(tf.constant([bad], tf.int64)).numpy()))
        if bad >= 0:
            raise InputError(
                f"The factors of {what} {bad} are not finite{self._range_hint()}.\n"
                "Lower `alpha` or the confidences, or raise `regularization`."
            )
        if ranks is None or ranks.size == 1:
            return side.gramian(), seconds
        mine = tf.convert_to_tensor(side.table.value[entries.first : entries.last])
        gram = ranks.sum(ops.gramian(mine))
        side.table.assign(ranks.gather_rows(mine))
        return gram, seconds

    def _range_hint(self) -> str:
        return ", or beyond float16's 65,504" if self.factor_dtype == "float16" else ""

    def training_loss(self, user_items: Any) -> float:
        """The objective per unit of weight, exact, as the implicit package normalises it:

            [ sum over stored c (p - x.y)^2 + w0 sum over the others (x.y)^2
              + sum over u lambda_u |x_u|^2 + sum over i lambda_i |y_i|^2 ] / [ sum over stored c + w0 (U I - stored) ]

        Args:
            user_items: ``[U, I]``, as for ``fit``.
        """
        self._require_fitted()
        matrix = sparse_matrix(user_items, "user_items", self.num_users, self.num_items)
        check_confidences(matrix, "user_items", self.sweep)
        return self._loss(self._entries(matrix, 0, 1), matrix, self.items.gramian(), None)

    def _loss(
        self, by_user: ops.Entries, matrix: scipy.sparse.csr_matrix, gram: tf.Tensor, ranks: Ranks | None
    ) -> float:
        rows = tf.convert_to_tensor(self.users.table.value[by_user.first : by_user.last])
        total = ops.losses(by_user, tf.convert_to_tensor(self.items.table.value), gram, rows, self.sweep).sum()
        if ranks is not None and ranks.size > 1:
            total = float(ranks.sum(tf.constant(total, tf.float64)))
        users, items = matrix.shape
        for table, lengths, others in (
            (self.users, np.diff(matrix.indptr), items),
            (self.items, np.bincount(matrix.indices, minlength=items), users),
        ):
            squares = tf.reduce_sum(tf.cast(table.table.value, tf.float64) ** 2, axis=1).numpy()
            total += float(row_regularization(self.sweep, lengths, others) @ squares)
        weight = self.sweep.alpha * float(np.abs(matrix.data, dtype=np.float64).sum())
        return float(total / (weight + self.sweep.unobserved_weight * (users * items - matrix.nnz)))

    # ---- new and changed rows --------------------------------------------------------------------------------------

    def recalculate_users(self, user_items: Any) -> np.ndarray:
        """Factors that users with these rows would have, exact whatever the solver.

        Args:
            user_items: ``[B, I]``, or ``[I]`` for one.

        Returns:
            ``[B, F]``; zeros for a row without entries, or with dislikes only.
        """
        return self._fold_in(self._rows_of_users(user_items), self.items, "user")

    def recalculate_items(self, item_users: Any) -> np.ndarray:
        """The same for items: ``[B, U]`` -> ``[B, F]``."""
        return self._fold_in(self._rows_of_items(item_users), self.users, "item")

    def partial_fit_users(self, users: int | Sequence[int] | np.ndarray, user_items: Any) -> None:
        """Set the factors of some users, old or new, from their rows; the items' stay as they are.

        The table is made longer where it has to be, in place: the model keeps its layers, and a saved file the size
        of its tables. Functions that were traced with the shorter table have to be traced again.

        Args:
            users: ``[B]``, each once; numbers from U on make the table longer (users between get zeros).
            user_items: ``[B, I]``, a row for each.

        Raises:
            InputError: numbers that are negative or occur twice, another number of rows, or a table that would not
                fit this machine's memory.
        """
        rows = self.recalculate_users(user_items)
        self._set_rows(self.users, users, "users", rows)
        self.num_users = self.users.num_rows

    def partial_fit_items(self, items: int | Sequence[int] | np.ndarray, item_users: Any) -> None:
        """The same for items: ``[B]`` and ``[B, U]``."""
        rows = self.recalculate_items(item_users)
        self._set_rows(self.items, items, "items", rows)
        self.num_items = self.items.num_rows

    def _rows_of_users(self, given: Any, rows: int | None = None) -> scipy.sparse.csr_matrix:
        """``[B, I]``, checked."""
        self._require_fitted()
        matrix = sparse_matrix(given, "user_items", rows, self.num_items, self._fitted_shape[1])
        check_confidences(matrix, "user_items", self.sweep)
        return matrix

    def _rows_of_items(self, given: Any) -> scipy.sparse.csr_matrix:
        """``[B, U]``, checked."""
        self._require_fitted()
        matrix = sparse_matrix(given, "item_users", None, self.num_users, self._fitted_shape[0])
        check_confidences(matrix, "item_users", self.sweep)
        return matrix

    def _fold_in(self, matrix: scipy.sparse.csr_matrix, other: ALSFactors, what: str) -> np.ndarray:
        exact = dataclasses.replace(self.sweep, solver="cholesky")
        fixed = tf.convert_to_tensor(other.table.value)
        empty = tf.zeros([matrix.shape[0], self.factors], fixed.dtype)
        if matrix.shape[0] == 0:
            return empty.numpy()
        solved, bad, _ = ops.half_sweep(ops.Entries(matrix), fixed, other.gramian(), empty, exact, 0, matrix.shape[0])
        if bad >= 0:
            raise InputError(
                f"The factors of {what} row {bad} are not finite{self._range_hint()}.\n"
                "Lower the confidences, or make the model with a larger `regularization`."
            )
        return solved.numpy()

    def _set_rows(self, side: ALSFactors, given: Any, what: str, rows: np.ndarray) -> None:
        numbers = row_numbers(given, what, None)
        if len(numbers) != len(rows):
            raise InputError(f"A row is needed for each of `{what}`.\nReceived: {len(numbers)} and {len(rows)} rows.")
        if len(np.unique(numbers)) != len(numbers):
            raise InputError(f"Each of `{what}` may occur once.\nReceived: {numbers.tolist()[:10]}.")
        if len(numbers):
            side.set_rows(numbers, rows)
            # Keras keeps the traced function, and with it the old table.
            self.predict_function = None

    # ---- what people ask -------------------------------------------------------------------------------------------

    def recommend(
        self,
        users: int | Sequence[int] | np.ndarray,
        user_items: Any = None,
        k: int = 10,
        filter_seen: bool = True,
        filter_items: Sequence[int] | np.ndarray | None = None,
        items: Sequence[int] | np.ndarray | None = None,
        recalculate: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The items with the highest scores ``x_u.y_i``; equal scores by lower number first.

        Args:
            users: a user's number, or ``[B]`` of them.
            user_items: the rows of these users, ``[B, I]`` (``[1, I]`` or ``[I]`` for one); needed by ``filter_seen``
                and ``recalculate``.
            k: how many, from 1; no more than there are items, or ``items``.
            filter_seen: leave out what a user has in ``user_items``, dislikes too.
            filter_items: items to leave out for everybody.
            items: choose among these only.
            recalculate: take the users' factors from ``user_items`` and not from the model; users may then be new.

        Returns:
            item numbers and scores: int32 and float32 ``[k]`` for one user, shorter where fewer are left; ``[B, k]``
            for several, filled up with -1 and -infinity. Nothing is recommended to a user with factors of zero.

        Raises:
            InputError: unknown users or items, ``user_items`` missing or with another number of rows, or both
                ``items`` and ``filter_items``.
        """
        self._require_fitted()
        numbers = row_numbers(users, "users", None if recalculate else self.num_users)
        k, rows = count(k), None
        if filter_seen or recalculate:
            if user_items is None:
                raise InputError(
                    "`filter_seen` and `recalculate` need `user_items`, the rows of these users.\nReceived: None.\n"
                    "Give user_items=matrix[users], or filter_seen=False."
                )
            rows = self._rows_of_users(user_items, len(numbers))
        queries = tf.constant(self.recalculate_users(rows)) if recalculate else _rows_of(self.users, numbers)
        seen = rows if filter_seen else None
        choice = Choice.of(self.items.num_rows, ("items", items), ("filter_items", filter_items))
        ids, scores = self._best(queries, tf.convert_to_tensor(self.items.table.value), k, seen, choice)
        return _answer(ids, scores, np.ndim(users) == 0)

    def similar_items(
        self,
        items: int | Sequence[int] | np.ndarray,
        k: int = 10,
        filter_items: Sequence[int] | np.ndarray | None = None,
        among: Sequence[int] | np.ndarray | None = None,
        recalculate: bool = False,
        item_users: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The items with the highest cosine ``y_i.y_j / |y_i| |y_j|``, the item itself first.

        Args:
            items: an item's number, or ``[B]`` of them.
            k: how many, from 1; no more than there are items, or ``among``.
            filter_items: items to leave out.
            among: choose among these only.
            recalculate: take the items' factors from ``item_users`` ``[B, U]``; they may then be new.
            item_users: see there.

        Returns:
            as `recommend`. Nothing is similar to an item with factors of zero.
        """
        self._require_fitted()
        new = self.recalculate_items(item_users) if recalculate and item_users is not None else None
        choice = Choice.of(self.items.num_rows, ("among", among), ("filter_items", filter_items))
        return self._similar(self.items, items, k, choice, recalculate, new, "items")

    def similar_users(
        self,
        users: int | Sequence[int] | np.ndarray,
        k: int = 10,
        filter_users: Sequence[int] | np.ndarray | None = None,
        among: Sequence[int] | np.ndarray | None = None,
        recalculate: bool = False,
        user_items: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same for users; ``user_items`` is ``[B, I]``."""
        self._require_fitted()
        new = self.recalculate_users(user_items) if recalculate and user_items is not None else None
        choice = Choice.of(self.users.num_rows, ("among", among), ("filter_users", filter_users))
        return self._similar(self.users, users, k, choice, recalculate, new, "users")

    def rank_items(self, users: int | Sequence[int] | np.ndarray, items: Sequence[int] | np.ndarray) -> Any:
        """All of ``items`` by falling score: ``recommend(users, items=items, k=len(items), filter_seen=False)``."""
        return self.recommend(users, k=max(1, len(np.atleast_1d(items))), items=items, filter_seen=False)

    def explain(self, user_items: Any, item: int, k: int = 10, user: int = 0) -> tuple[float, np.ndarray, np.ndarray]:
        """Which of a user's items speak for an item: ``y_i.x = sum over j of c_j y_i' A^-1 y_j``, A the user's matrix.

        Args:
            user_items: the user's row, ``[1, I]`` or ``[I]``, or all rows ``[U, I]``.
            item: the item to explain.
            k: how many contributions, from 1.
            user: which row of ``user_items``.

        Returns:
            the score that the row gives the item; the items that the user likes with the largest contributions,
            int32; and these contributions, float32, whose sum over all liked items is the score. Disliked items
            contribute to A only, and are not listed.

        Raises:
            InputError: a number out of range, or a row without a solution.
        """
        matrix = self._rows_of_users(user_items)
        k, item = count(k), row_number(item, "item", self.items.num_rows)
        row = matrix[row_number(user, "user", matrix.shape[0])]
        liked = row.data > 0
        if not liked.any():
            return 0.0, np.zeros(0, np.int32), np.zeros(0, np.float32)
        table = self.items.table.value
        y = tf.cast(tf.gather(table, row.indices), tf.float64).numpy()
        confidence = self.sweep.alpha * np.abs(row.data.astype(np.float64))
        gram = self.items.gramian().numpy().astype(np.float64)
        scale = row_regularization(self.sweep, np.array([row.nnz]), self.items.num_rows)[0]
        a = self.sweep.unobserved_weight * gram + (y * (confidence - self.sweep.unobserved_weight)[:, None]).T @ y
        a += scale * np.eye(self.factors)
        wanted = tf.cast(table[item], tf.float64).numpy()
        try:
            parts = ((y @ np.linalg.solve(a, wanted)) * confidence)[liked]
        except np.linalg.LinAlgError as error:
            raise InputError(
                "This row's factors are not determined, as the model has no regularization.\n"
                f"Received: regularization={self.sweep.regularization}.\nTrain with a larger one."
            ) from error
        order = np.argsort(-parts, kind="stable")[:k]
        return float(parts.sum()), row.indices[liked][order].astype(np.int32), parts[order].astype(np.float32)

    def _similar(
        self,
        side: ALSFactors,
        wanted: Any,
        k: int,
        choice: Choice,
        recalculate: bool,
        new: np.ndarray | None,
        what: str,
    ) -> tuple[np.ndarray, np.ndarray]:
        numbers = row_numbers(wanted, what, None if recalculate else side.num_rows)
        if recalculate and new is None:
            other = "item_users" if what == "items" else "user_items"
            raise InputError(f"`recalculate` needs `{other}`, the rows of these {what}.\nReceived: None.")
        if new is not None and len(new) != len(numbers):
            raise InputError(f"A row is needed for each of `{what}`.\nReceived: {len(numbers)} and {len(new)} rows.")
        table = tf.convert_to_tensor(side.table.value)
        unit = _unit(table)
        everything = new is None and np.array_equal(numbers, np.arange(side.num_rows))
        queries = unit if everything else _unit(tf.constant(new) if new is not None else tf.gather(table, numbers))
        ids, scores = self._best(queries, unit, count(k), None, choice)
        return _answer(ids, scores, np.ndim(wanted) == 0)

    def _best(
        self,
        queries: tf.Tensor,
        table: tf.Tensor,
        k: int,
        seen: scipy.sparse.csr_matrix | None,
        choice: Choice,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best k rows of a table, without those seen; where fewer are left, -1 and -infinity."""
        offsets, columns, chosen, k = None, np.zeros(0, np.int32), choice.rows, min(k, choice.most)
        if chosen is not None:
            table = tf.gather(table, chosen)
        if seen is not None:
            if chosen is not None:
                seen = scipy.sparse.csr_matrix(seen[:, chosen])
                seen.sort_indices()
            offsets, columns = seen.indptr.astype(np.int64), seen.indices
        if 0 in (queries.shape[0], table.shape[0], k):
            shape = (queries.shape[0], k)
            return np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32)
        ids, scores = ops.dot_top_k(queries, table, k, offsets, columns)
        if chosen is not None:
            ids = np.where(ids >= 0, chosen[ids], -1).astype(np.int32)
        zero = ~np.any(queries.numpy(), axis=1)
        if zero.any():
            ids[zero], scores[zero] = -1, -np.inf
        return ids, scores

    # ---- as a Keras model ------------------------------------------------------------------------------------------

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Scores of pairs, or of all items for sparse rows of new users (their exact factors, in TensorFlow alone)."""
        self._require_fitted()
        if isinstance(inputs, tf.SparseTensor):
            x, y = self._solve_rows(inputs)
            return tf.matmul(x, y, transpose_b=True)
        if not isinstance(inputs, tuple | list) or len(inputs) != 2:
            raise InputError(
                "ALS is called with (users, items), or with sparse rows of users.\n"
                f"Received: {reprlib.repr(inputs)}.\nMake rows by tf.sparse.from_dense(rows)."
            )
        users, items = inputs
        if len(users.shape) != len(items.shape) or not tf.TensorShape(users.shape).is_compatible_with(items.shape):
            raise InputError(
                "`users` and `items` must have the same shape, a pair in each place.\n"
                f"Received shapes: {users.shape} and {items.shape}.\nFor several items of each user use score()."
            )
        return tf.reduce_sum(self.users(users) * self.items(items), axis=-1)

    def score(self, users: tf.Tensor, items: tf.Tensor | None = None) -> tf.Tensor:
        """Scores of candidates, float32 ``[B, C]``.

        Args:
            users: integer ``[B]``.
            items: integer ``[B, C]``; None: all items.
        """
        x = self.users(users)
        if items is None:
            return tf.matmul(x, tf.cast(self.items.table.value, tf.float32), transpose_b=True)
        return tf.linalg.matvec(self.items(items), x)

    def preference(self, users: tf.Tensor, items: tf.Tensor | None = None) -> tf.Tensor:
        """What is served: the score itself, near 1 for what a user is sure to like.

        Of all items a user with factors of zero is served none: the scores are -infinity, and not 0 for each.
        """
        scores = self.score(users, items)
        return scores if items is not None else _none_for_zeros(self.users(users), scores)

    def probabilities(self, rows: tf.SparseTensor) -> tf.Tensor:
        """What is served for histories: the scores, float32 ``[B, I]``; -infinity where the factors are zero."""
        x, y = self._solve_rows(rows)
        return _none_for_zeros(x, tf.matmul(x, y, transpose_b=True))

    def _solve_rows(self, rows: tf.SparseTensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The factors ``[B, F]`` of users with these rows, and those of the items, float32."""
        width, least = self.items.num_rows, self._fitted_shape[1]
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
        table = tf.convert_to_tensor(self.items.table.value)
        y = tf.cast(table, tf.float32)
        gram = tf.matmul(y, y, transpose_a=True)
        exact = dataclasses.replace(self.sweep, solver="cholesky")
        columns, values = rows.indices[:, 1], tf.cast(rows.values, tf.float32)
        x = reference_solve(starts, lengths, columns, values, table, gram, None, exact)
        x = tf.debugging.check_numerics(tf.cast(x, tf.float32), f"A row's factors are not finite{self._range_hint()}")
        return x, y

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write a SavedModel that scores pairs, without tfrec: ``serve(users [B], items [B])`` -> float32 ``[B]``.

        For recommendations in place of scores use ``python -m tfrec.export``.

        Args:
            filepath: the folder.
            format: see `keras.Model.export`.
            verbose: the same.
            input_signature: of another call; None: int64 users and items, any number of pairs.
            **kwargs: see `keras.Model.export`.

        Raises:
            InputError: nothing was fitted.
        """
        self._require_fitted()
        if input_signature is None:
            input_signature = [tuple(tf.TensorSpec([None], tf.int64, name=name) for name in ("users", "items"))]
        super().export(filepath, format, verbose, input_signature, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {
            **super().get_config(),
            **dataclasses.asdict(self.sweep),
            "factors": self.factors,
            "iterations": self.iterations,
            "factor_dtype": self.factor_dtype,
            "seed": self.seed,
            "num_users": self.num_users,
            "num_items": self.num_items,
            "fitted_shape": list(self._fitted_shape),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ALS:
        """A model with tables of the size that the config says; what its rows were at ``fit`` is no argument."""
        config = dict(config)
        fitted_shape = config.pop("fitted_shape", None)
        model = super().from_config(config)
        if fitted_shape is not None:
            model._fitted_shape = tuple(fitted_shape)
        return model

    def _require_fitted(self) -> None:
        if self.num_users is None:
            raise InputError("The model knows no users and items yet.\nCall fit(user_items) first.")


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


def _rows_of(side: ALSFactors, numbers: np.ndarray) -> tf.Tensor:
    table = tf.convert_to_tensor(side.table.value)
    everything = len(numbers) == side.num_rows and np.array_equal(numbers, np.arange(side.num_rows))
    return table if everything else tf.gather(table, numbers)


def _none_for_zeros(x: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reduce_any(x != 0, axis=1, keepdims=True), scores, -np.inf)


def _unit(rows: tf.Tensor) -> tf.Tensor:
    """Rows of length 1 in float32. A row of zeros has no direction: it becomes NaN, and is similar to nothing."""
    rows = tf.cast(rows, tf.float32)
    # The squares of very large or very small numbers would not be finite, or zero.
    rows = rows / tf.reduce_max(tf.abs(rows), axis=1, keepdims=True)
    return rows / tf.norm(rows, axis=1, keepdims=True)


def _answer(ids: np.ndarray, scores: np.ndarray, one: bool) -> tuple[np.ndarray, np.ndarray]:
    if not one:
        return ids, scores
    there = ids[0] >= 0
    return ids[0][there], scores[0][there]
