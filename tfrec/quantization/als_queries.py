"""What an ALS is asked with once its item vectors are integers: its users' factors, and its fold-in."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec import ops
from tfrec.models import ALS
from tfrec.models.als_fit import check_confidences
from tfrec.models.als_rows import explain_row, fold_in, liked_sums, solve_rows
from tfrec.models.queries import are_histories, history_tensor, user_tensor
from tfrec.quantization.rows import Int8Rows


class _Fixed:
    """Item vectors in the place of a trained table of factors, which ALS's fold-in reads.

    Args:
        value: float32 ``[I, F]``.
    """

    factor_dtype = "float32"

    def __init__(self, value: tf.Tensor) -> None:
        self.value = value
        self.num_rows: int = value.shape[0]
        self.factors: int = value.shape[1]

    @classmethod
    def of(cls, items: Int8Rows) -> _Fixed:
        """Those that integers stand for."""
        return cls(items.dequantize()[0])

    @property
    def table(self) -> _Fixed:
        """Where ``value`` is looked for."""
        return self

    def gramian(self) -> tf.Tensor:
        """float32 ``[F, F]``."""
        return ops.gramian(self.value)


@keras.saving.register_keras_serializable(package="tfrec")
class ALSQueries(keras.layers.Layer):
    """Users' factors as they are; histories are folded in against the vectors that the integers stand for.

    Args:
        num_users: U.
        factors: F.
        factor_dtype: of the users' factors.
        sweep: the objective, `tfrec.ops.Sweep` or its fields.
        fitted_items: how many items a row had at ``fit``, the least width of rows.
    """

    def __init__(
        self,
        num_users: int,
        factors: int,
        factor_dtype: str,
        sweep: ops.Sweep | dict[str, Any],
        fitted_items: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"trainable": False, **kwargs})
        self.num_users, self.factors, self.factor_dtype = num_users, factors, factor_dtype
        self.sweep = ops.Sweep(**sweep) if isinstance(sweep, dict) else sweep
        self.fitted_items = fitted_items
        self.users = self.add_weight(
            name="users", shape=(num_users, factors), dtype=factor_dtype, initializer="zeros", autocast=False
        )
        self.built = True

    @classmethod
    def of(cls, model: ALS) -> ALSQueries:
        """Those of a fitted model."""
        users = model.user_factors
        made = cls(len(users), model.factors, model.factor_dtype, model.sweep, model.fitted_shape[1])
        made.users.assign(users)
        return made

    def least_items(self, num_items: int) -> int:
        """Columns that a row must have: items of a partial fit may be missing."""
        return self.fitted_items

    def check(self, rows: scipy.sparse.csr_matrix, name: str) -> None:
        """Raise InputError for rows that are no confidences."""
        check_confidences(rows, name, self.sweep)

    def vectors(self, queries: Any, items: Int8Rows) -> tf.Tensor:
        """float32 ``[B, F]`` of users or histories, with these items."""
        if isinstance(queries, tf.SparseTensor):
            return solve_rows(queries, _Fixed.of(items), self.fitted_items, self.sweep)
        if are_histories(queries):
            return tf.constant(fold_in(queries, _Fixed.of(items), self.sweep, "user"))
        return tf.cast(tf.gather(self.users.value, user_tensor(queries)), tf.float32)

    def answerable(self, queries: Any, items: Int8Rows) -> tf.Tensor:
        """bool ``[B]``: False for factors of zero."""
        if not are_histories(queries):
            return tf.reduce_any(self.vectors(queries, items) != 0, axis=1)
        # The factors are zero where this sum is, which is cheaper.
        table = _Fixed.of(items)
        return tf.reduce_any(liked_sums(history_tensor(queries, table.num_rows), table) != 0, axis=1)

    def link(self, best: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """The scores themselves."""
        return best

    def contributions(
        self, row: scipy.sparse.csr_matrix, item: int, k: int, items: Int8Rows
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `tfrec.models.ALS.explain`."""
        return explain_row(row, item, k, _Fixed.of(items), self.sweep)[1:]

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {
            **super().get_config(),
            "num_users": self.num_users,
            "factors": self.factors,
            "factor_dtype": self.factor_dtype,
            "sweep": dataclasses.asdict(self.sweep),
            "fitted_items": self.fitted_items,
        }
