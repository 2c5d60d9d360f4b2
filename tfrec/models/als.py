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
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec import ops
from tfrec.errors import InputError
from tfrec.layers import ALSFactors
from tfrec.layers.als_factors import check_factors, check_rows
from tfrec.models.als_fit import Callback, check_confidences, entries_of_rank, objective, sweep_in_turn
from tfrec.models.als_rows import explain_row, fold_in, liked_sums, solve_rows
from tfrec.models.best import answer, similar_rows
from tfrec.models.carry import Side
from tfrec.models.matrices import sparse_matrix
from tfrec.models.queries import are_histories, history_tensor, user_tensor
from tfrec.models.questions import Choice, count, row_number, row_numbers
from tfrec.models.recommends import Numbers, Recommends
from tfrec.ranks import ALONE, Ranks


@keras.saving.register_keras_serializable(package="tfrec")
class ALS(Recommends, keras.Model):
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

    takes_histories = True

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
        ranks: Ranks = ALONE,
        initial_iteration: int = 0,
    ) -> keras.callbacks.History:
        """Solve for users and items in turn, ``iterations`` times, from the factors as they are.

        Args:
            user_items: ``[U, I]`` SciPy matrix or tf.SparseTensor: confidences, negative for disliked.
            callback: called after each iteration with its number, seconds and loss.
            verbose: 1: a progress bar (on rank 0); 0: silent.
            calculate_training_loss: compute `training_loss` after each iteration, for ``callback`` and the history.
            ranks: who shares the work, `tfrec.distributed.everyone()`; each passes the whole matrix.
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
        return sweep_in_turn(self, matrix, callback, verbose, calculate_training_loss, ranks, initial_iteration)

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
        return objective(self, entries_of_rank(self, matrix), matrix, self.items.gramian(), ALONE)

    # ---- new and changed rows --------------------------------------------------------------------------------------

    def recalculate_users(self, user_items: Any) -> np.ndarray:
        """Factors that users with these rows would have, exact whatever the solver.

        Args:
            user_items: ``[B, I]``, or ``[I]`` for one.

        Returns:
            ``[B, F]``; zeros for a row without entries, or with dislikes only.
        """
        return fold_in(self.checked_rows(user_items, "user_items"), self.items, self.sweep, "user")

    def recalculate_items(self, item_users: Any) -> np.ndarray:
        """The same for items: ``[B, U]`` -> ``[B, F]``."""
        return fold_in(self._rows_of_items(item_users), self.users, self.sweep, "item")

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

    def checked_rows(self, rows: Any, name: str, num_rows: int | None = None) -> scipy.sparse.csr_matrix:
        """As `Recommends.checked_rows`; rows may be as narrow as at ``fit``, and are confidences."""
        self._require_fitted()
        matrix = sparse_matrix(rows, name, num_rows, self.num_items, self._fitted_shape[1])
        check_confidences(matrix, name, self.sweep)
        return matrix

    def _rows_of_items(self, given: Any) -> scipy.sparse.csr_matrix:
        """``[B, U]``, checked."""
        self._require_fitted()
        matrix = sparse_matrix(given, "item_users", None, self.num_users, self._fitted_shape[0])
        check_confidences(matrix, "item_users", self.sweep)
        return matrix

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
        users: Any,
        user_items: Any = None,
        k: int = 10,
        filter_seen: bool = True,
        filter_items: Sequence[int] | np.ndarray | None = None,
        items: Sequence[int] | np.ndarray | None = None,
        linked: bool = False,
        recalculate: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Recommends.recommend`; nothing is recommended to a user with factors of zero.

        Args:
            users: numbers, or histories, which are folded in.
            user_items: needed by ``recalculate`` too.
            k: as there.
            filter_seen: as there.
            filter_items: as there.
            items: as there.
            linked: as there.
            recalculate: take the users' factors from ``user_items`` and not from the model; users may then be new.
        """
        self._require_fitted()
        if not recalculate:
            return super().recommend(users, user_items, k, filter_seen, filter_items, items, linked)
        numbers = row_numbers(users, "users", None)
        if user_items is None:
            raise InputError(
                "`recalculate` needs `user_items`, the rows of these users.\nReceived: None.\n"
                "Give user_items=matrix[users], or recalculate=False."
            )
        rows = self.checked_rows(user_items, "user_items", len(numbers))
        choice = self.item_choice(items, filter_items)
        return answer(*self.best_items(rows, count(k), rows if filter_seen else None, choice), np.ndim(users) == 0)

    def similar_items(
        self,
        items: Numbers,
        k: int = 10,
        filter_items: Sequence[int] | np.ndarray | None = None,
        among: Sequence[int] | np.ndarray | None = None,
        recalculate: bool = False,
        item_users: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Recommends.similar_items`; nothing is similar to an item with factors of zero.

        Args:
            items: as there.
            k: as there.
            filter_items: as there.
            among: as there.
            recalculate: take the items' factors from ``item_users`` ``[B, U]``; they may then be new.
            item_users: see there.
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
        matrix = self.checked_rows(user_items, "user_items")
        k, item = count(k), row_number(item, "item", self.items.num_rows)
        row = matrix[row_number(user, "user", matrix.shape[0])]
        return explain_row(row, item, k, self.items, self.sweep)

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
        found = similar_rows(tf.convert_to_tensor(side.table.value), numbers, count(k), choice, new)
        return answer(*found, np.ndim(wanted) == 0)

    # ---- as a Keras model ------------------------------------------------------------------------------------------

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Scores of pairs, or of all items for sparse rows of new users (their exact factors, in TensorFlow alone)."""
        self._require_fitted()
        if isinstance(inputs, tf.SparseTensor):
            return self.scores(inputs)
        if not isinstance(inputs, tuple | list) or len(inputs) != 2:
            raise InputError(
                "ALS is called with (users, items), or with sparse rows of users.\n"
                f"Received: {reprlib.repr(inputs)}.\nMake rows by tf.sparse.from_dense(rows)."
            )
        users, items = inputs
        if len(users.shape) != len(items.shape) or not tf.TensorShape(users.shape).is_compatible_with(items.shape):
            raise InputError(
                "`users` and `items` must have the same shape, a pair in each place.\n"
                f"Received shapes: {users.shape} and {items.shape}.\nFor several items of each user use scores()."
            )
        return tf.reduce_sum(self.users(users) * self.items(items), axis=-1)

    def query_vectors(self, queries: Any) -> tf.Tensor:
        """Factors ``[B, F]`` of users, in the table's type; or of histories, which are folded in: a SciPy matrix
        exactly as `recalculate_users`, a SparseTensor in TensorFlow alone and float32."""
        self._require_fitted()
        if isinstance(queries, tf.SparseTensor):
            return self._solve(queries)
        if are_histories(queries):
            return tf.constant(self.recalculate_users(queries))
        table = tf.convert_to_tensor(self.users.table.value)
        if isinstance(queries, np.ndarray) and np.array_equal(queries, np.arange(self.users.num_rows)):
            return table  # not a copy of all of it
        return tf.gather(table, user_tensor(queries))

    def item_vectors(self) -> tuple[tf.Tensor, None]:
        """Factors ``[I, F]``, in the table's type, and no bias."""
        self._require_fitted()
        return tf.convert_to_tensor(self.items.table.value), None

    def scores(self, queries: Any, items: Any = None) -> tf.Tensor:
        """``x.y``, near 1 for what a user is sure to like; see `Recommends.scores`. 0 where `answerable` is False."""
        x = tf.cast(self.query_vectors(queries), tf.float32)
        if items is None:
            return tf.matmul(x, tf.cast(self.items.table.value, tf.float32), transpose_b=True)
        return tf.linalg.matvec(self.items(items), x)

    def answerable(self, queries: Any) -> tf.Tensor:
        """bool ``[B]``: False for factors of zero, which score every item alike."""
        self._require_fitted()
        if not are_histories(queries):
            return tf.reduce_any(self.query_vectors(queries) != 0, axis=1)
        if not isinstance(queries, tf.SparseTensor):
            queries = history_tensor(self.checked_rows(queries, "queries"), self.items.num_rows)
        # The factors are zero where this sum is, which is cheaper.
        return tf.reduce_any(liked_sums(queries, self.items) != 0, axis=1)

    def row_axes(self) -> list[tuple[keras.Variable, Side, int]]:
        """Both tables."""
        self._require_fitted()
        return [(self.users.table, "user", 0), (self.items.table, "item", 0)]

    def _solve(self, rows: tf.SparseTensor) -> tf.Tensor:
        """The factors ``[B, F]`` of users with these rows, float32, in TensorFlow alone."""
        return solve_rows(rows, self.items, self._fitted_shape[1], self.sweep)

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


def _rows_of(side: ALSFactors, numbers: np.ndarray) -> tf.Tensor:
    table = tf.convert_to_tensor(side.table.value)
    everything = len(numbers) == side.num_rows and np.array_equal(numbers, np.arange(side.num_rows))
    return table if everything else tf.gather(table, numbers)
