"""Alternating least squares on implicit feedback: the objective of `tfrec.ops.als`, users and items alternately.

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
import tensorflow as tf

from tfrec import ops
from tfrec.errors import InputError
from tfrec.layers import ALSFactors
from tfrec.layers.als_factors import check_factors, check_rows
from tfrec.models.als_fit import Callback, check_confidences, entries_of_rank, objective, sweep_in_turn
from tfrec.models.als_questions import ALSQuestions
from tfrec.models.matrices import sparse_matrix
from tfrec.models.questions import count, row_numbers
from tfrec.ranks import ALONE, Ranks


@keras.saving.register_keras_serializable(package="tfrec")
class ALS(ALSQuestions, keras.Model):
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
        num_users: U; None: set by ``fit``.
        num_items: I; None: set by ``fit``.

    The values of the matrix given to ``fit`` are confidences per unit of ``alpha``; a negative one means *disliked*,
    with the confidence of its size, and a stored zero counts as one that is not stored. A user or item without
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
                "Give both `num_users` and `num_items`, or neither: `fit` then reads them from its matrix.\n"
                f"Received: num_users={num_users}, num_items={num_items}."
            )
        self.factors, self.iterations, self.factor_dtype, self.seed = int(factors), iterations, factor_dtype, int(seed)
        self.num_users: int | None = None
        self.num_items: int | None = None
        #: U and I without what partial fits have added: the least width of rows.
        self.fitted_shape = (0, 0)
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
        self.fitted_shape = self.num_users, self.num_items = num_users, num_items
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
        self.require_fitted()
        return self.users.table.numpy()

    @property
    def item_factors(self) -> np.ndarray:
        """``[I, F]``, a copy."""
        self.require_fitted()
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
        """Solve for users and items alternately, ``iterations`` times, from the factors as they are.

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
        self.fitted_shape = matrix.shape
        return sweep_in_turn(self, matrix, callback, verbose, calculate_training_loss, ranks, initial_iteration)

    def training_loss(self, user_items: Any) -> float:
        """The objective per unit of weight, exact, as the implicit package normalises it:

            [ sum over stored c (p - x.y)^2 + w0 sum over the others (x.y)^2
              + sum over u lambda_u |x_u|^2 + sum over i lambda_i |y_i|^2 ] / [ sum over stored c + w0 (U I - stored) ]

        Args:
            user_items: ``[U, I]``, as for ``fit``.
        """
        self.require_fitted()
        matrix = sparse_matrix(user_items, "user_items", self.num_users, self.num_items)
        check_confidences(matrix, "user_items", self.sweep)
        return objective(self, entries_of_rank(self, matrix), matrix, self.items.gramian(), ALONE)

    # ---- new and changed rows --------------------------------------------------------------------------------------

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

    # ---- as a Keras model ------------------------------------------------------------------------------------------

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Scores of pairs, or of all items for sparse rows of new users (their exact factors, in TensorFlow alone)."""
        self.require_fitted()
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

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write a SavedModel that scores pairs, without tfrec: ``serve(users [B], items [B])`` -> float32 ``[B]``.

        For recommendations in place of scores use ``tfrec export``.

        Args:
            filepath: the folder.
            format: see `keras.Model.export`.
            verbose: the same.
            input_signature: of another call; None: int64 users and items, any number of pairs.
            **kwargs: see `keras.Model.export`.

        Raises:
            InputError: nothing was fitted.
        """
        self.require_fitted()
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
            "fitted_shape": list(self.fitted_shape),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ALS:
        """A model with tables of the size in the config; what its rows were at ``fit`` is no argument."""
        config = dict(config)
        fitted_shape = config.pop("fitted_shape", None)
        model = super().from_config(config)
        if fitted_shape is not None:
            model.fitted_shape = tuple(fitted_shape)
        return model
