"""What `tfrec.models.ALS` is asked, given its tables of factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec import ops
from tfrec.errors import InputError
from tfrec.layers import ALSFactors
from tfrec.models.als_fit import check_confidences
from tfrec.models.als_rows import explain_row, fold_in, liked_sums, solve_rows
from tfrec.models.best import answer, similar_rows
from tfrec.models.carry import Side
from tfrec.models.matrices import sparse_matrix
from tfrec.models.queries import are_histories, history_tensor, user_tensor
from tfrec.models.questions import Choice, count, row_numbers
from tfrec.models.recommends import Numbers, Recommends


class ALSQuestions(Recommends):
    """The questions to a model with factors of users and items.

    Attributes:
        users: the users' table.
        items: the items' table.
        sweep: the objective.
        fitted_shape: U and I at ``fit``, the least width of rows: partial fits have added to the tables since.
    """

    takes_histories = True
    users: ALSFactors
    items: ALSFactors
    sweep: ops.Sweep
    fitted_shape: tuple[int, int]

    def query_vectors(self, queries: Any) -> tf.Tensor:
        """Factors ``[B, F]`` of users, in the table's type; or of histories, which are folded in: a SciPy matrix
        exactly as `recalculate_users`, a SparseTensor in TensorFlow alone and float32."""
        self.require_fitted()
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
        self.require_fitted()
        return tf.convert_to_tensor(self.items.table.value), None

    def scores(self, queries: Any, items: Any = None) -> tf.Tensor:
        """``x.y``, near 1 for what a user is sure to like; see `Recommends.scores`. 0 where `answerable` is False."""
        x = tf.cast(self.query_vectors(queries), tf.float32)
        if items is None:
            return tf.matmul(x, tf.cast(self.items.table.value, tf.float32), transpose_b=True)
        return tf.linalg.matvec(self.items(items), x)

    def answerable(self, queries: Any) -> tf.Tensor:
        """bool ``[B]``: False for factors of zero, which score every item alike."""
        self.require_fitted()
        if not are_histories(queries):
            return tf.reduce_any(self.query_vectors(queries) != 0, axis=1)
        if not isinstance(queries, tf.SparseTensor):
            queries = history_tensor(self.checked_rows(queries, "queries"), self.items.num_rows)
        # The factors are zero where this sum is, which is cheaper.
        return tf.reduce_any(liked_sums(queries, self.items) != 0, axis=1)

    def row_axes(self) -> list[tuple[keras.Variable, Side, int]]:
        """Both tables."""
        self.require_fitted()
        return [(self.users.table, "user", 0), (self.items.table, "item", 0)]

    def _solve(self, rows: tf.SparseTensor) -> tf.Tensor:
        """The factors ``[B, F]`` of users with these rows, float32, in TensorFlow alone."""
        return solve_rows(rows, self.items, self.fitted_shape[1], self.sweep)

    # ---- rows that are folded in

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
        return fold_in(self.rows_of_items(item_users), self.users, self.sweep, "item")

    def checked_rows(self, rows: Any, name: str, num_rows: int | None = None) -> scipy.sparse.csr_matrix:
        """As `Recommends.checked_rows`; rows may be as narrow as at ``fit``, and are confidences."""
        self.require_fitted()
        matrix = sparse_matrix(rows, name, num_rows, self.num_items, self.fitted_shape[1])
        check_confidences(matrix, name, self.sweep)
        return matrix

    def rows_of_items(self, given: Any) -> scipy.sparse.csr_matrix:
        """``[B, U]``, checked."""
        self.require_fitted()
        matrix = sparse_matrix(given, "item_users", None, self.num_users, self.fitted_shape[0])
        check_confidences(matrix, "item_users", self.sweep)
        return matrix

    # ---- what people ask

    def recommend(
        self,
        users: Any,
        user_items: Any = None,
        k: int = 10,
        filter_seen: bool = True,
        filter_items: Sequence[int] | np.ndarray | None = None,
        items: Sequence[int] | np.ndarray | None = None,
        recalculate: bool = False,
        *,
        linked: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Recommends.recommend`; nothing is recommended to a user with factors of zero.

        Args:
            users: numbers, or histories, which are folded in.
            user_items: needed by ``recalculate`` too.
            k: as there.
            filter_seen: as there.
            filter_items: as there.
            items: as there.
            recalculate: take the users' factors from ``user_items`` and not from the model; users may then be new.
            linked: as there.
        """
        self.require_fitted()
        if not recalculate:
            return super().recommend(users, user_items, k, filter_seen, filter_items, items, linked=linked)
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
        self.require_fitted()
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
        self.require_fitted()
        new = self.recalculate_users(user_items) if recalculate and user_items is not None else None
        choice = Choice.of(self.users.num_rows, ("among", among), ("filter_users", filter_users))
        return self._similar(self.users, users, k, choice, recalculate, new, "users")

    def rank_items(self, users: int | Sequence[int] | np.ndarray, items: Sequence[int] | np.ndarray) -> Any:
        """All of ``items`` by falling score: ``recommend(users, items=items, k=len(items), filter_seen=False)``."""
        return self.recommend(users, k=max(1, len(np.atleast_1d(items))), items=items, filter_seen=False)

    def reasons(self, row: Any, item: int, k: int) -> tuple[float, np.ndarray, np.ndarray]:
        """``y_i.x = sum over j of c_j y_i' A^-1 y_j``, A the user's matrix: the summands of the items that are liked.

        All of them add up to the score. Disliked items contribute to A only, and are not listed.

        Raises:
            InputError: a row without a solution.
        """
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

    def require_fitted(self) -> None:
        """Raise InputError where there are no tables yet."""
        if self.num_users is None:
            raise InputError("The model has no users and items yet.\nCall fit(user_items) first.")


def _rows_of(side: ALSFactors, numbers: np.ndarray) -> tf.Tensor:
    table = tf.convert_to_tensor(side.table.value)
    everything = len(numbers) == side.num_rows and np.array_equal(numbers, np.arange(side.num_rows))
    return table if everything else tf.gather(table, numbers)
