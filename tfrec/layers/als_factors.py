"""A table of factors that is solved for, not descended to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec import ops
from tfrec.errors import InputError
from tfrec.layers.memory import free_bytes
from tfrec.ops.als import MAX_FACTORS


@keras.saving.register_keras_serializable(package="tfrec")
class ALSFactors(keras.layers.Layer):
    """Factors of users, or of items, and the half-sweep that solves for them with the other side's held fixed.

    Args:
        num_rows: N, from 1.
        factors: F, 1 to 1,024.
        factor_dtype: of the table, ``float16`` or ``float32``; all sums are float32.
        seed: of the first factors, normal with standard deviation .1 / sqrt(F).

    Input shape: integer ``[...]``, row numbers.
    Output shape: float32 ``[..., F]``, whatever the dtype policy.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> layer = ALSFactors(num_rows=3, factors=2)
        >>> layer(tf.constant([0, 2])).shape
        TensorShape([2, 2])
    """

    def __init__(
        self, num_rows: int, factors: int, factor_dtype: str = "float32", seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_factors(factors, factor_dtype)
        check_rows(num_rows, factors, factor_dtype)
        self.num_rows, self.factors, self.factor_dtype, self.seed = num_rows, factors, factor_dtype, seed
        # No XLA kernel for the native half-sweep.
        self.supports_jit = False
        self.table = self._add_table()
        for begin, piece in first_factors(num_rows, factors, factor_dtype, seed):
            write_rows(self.table, begin, piece)

    def _add_table(self) -> keras.Variable:
        return self.add_weight(
            name="table",
            shape=(self.num_rows, self.factors),
            dtype=self.factor_dtype,
            autocast=False,
            trainable=False,  # by gradients
            initializer="zeros",
        )

    def build(self, input_shape: Any = None) -> None:
        """Nothing to build: the table is there from the start."""
        self.built = True

    def call(self, rows: tf.Tensor) -> tf.Tensor:
        """The rows' factors."""
        return tf.cast(tf.gather(self.table.value, rows), tf.float32)

    def gramian(self, first: int = 0, last: int | None = None) -> tf.Tensor:
        """``table' table`` over rows ``[first, last)``, float32 ``[F, F]``."""
        whole = first == 0 and last in (None, self.num_rows)
        return ops.gramian(tf.convert_to_tensor(self.table.value if whole else self.table.value[first:last]))

    def set_rows(self, numbers: np.ndarray, rows: np.ndarray) -> None:
        """Write some rows. Numbers from N on make the table longer, with zeros in rows that are not given.

        Args:
            numbers: int64 ``[B]``, from 0, each once.
            rows: ``[B, F]``, of the table's type.

        Raises:
            InputError: a table that does not fit this machine's memory.
        """
        longer, old = max(self.num_rows, int(numbers.max()) + 1), self.table
        if longer > self.num_rows:
            check_rows(longer, self.factors, self.factor_dtype)
            # The variable is replaced and not the layer, so that whoever holds the layer sees the new rows, and a
            # saved model has one table.
            kept, self.num_rows = self.num_rows, longer
            self._untrack_variable(old)
            locked = self._tracker.locked
            self._tracker.unlock()
            self.table = self._add_table()
            if locked:
                self._tracker.lock()
            self.table.value[:kept].assign(tf.convert_to_tensor(old.value))
        self.table.value.scatter_nd_update(numbers[:, None], rows)

    def half_sweep(
        self, entries: ops.Entries, fixed: tf.Tensor, gram: tf.Tensor, sweep: ops.Sweep
    ) -> tuple[int, np.ndarray]:
        """Solve for the rows that ``entries`` holds, in place.

        Args:
            entries: rows ``[entries.first, entries.last)``.
            fixed: ``[M, F]``, of the table's type.
            gram: float32 ``[F, F]``, of ``fixed``.
            sweep: the objective and the solver.

        Returns:
            the first row that is not finite, or -1, and the seconds that each thread computed.
        """
        bad, seconds = ops.half_sweep_in_place(
            entries, fixed, gram, self.table.value, entries.first, sweep, 0, entries.num_rows
        )
        return (entries.first + bad if bad >= 0 else -1), seconds

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """``[..., F]``."""
        return (*input_shape, self.factors)

    def compute_output_spec(self, rows: Any) -> keras.KerasTensor:
        """float32 ``[..., F]``, whatever the dtype policy."""
        return keras.KerasTensor(self.compute_output_shape(rows.shape), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {
            **super().get_config(),
            "num_rows": self.num_rows,
            "factors": self.factors,
            "factor_dtype": self.factor_dtype,
            "seed": self.seed,
        }


def first_factors(num_rows: int, factors: int, factor_dtype: str, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """The first factors of a table, piece by piece, each with the number of its first row.

    Drawn at once, there would be three tables for a while.
    """
    random = np.random.default_rng(seed)
    for begin in range(0, num_rows, 4_096):
        piece = random.standard_normal((min(4_096, num_rows - begin), factors), np.float32)
        yield begin, (piece * np.float32(0.1 / np.sqrt(factors))).astype(factor_dtype)


def write_rows(table: keras.Variable, first: int, rows: np.ndarray) -> None:
    """Overwrite rows ``first ...`` of a table, in place."""
    if len(rows):
        tf.raw_ops.ResourceStridedSliceAssign(
            ref=table.value.handle, begin=[first], end=[first + len(rows)], strides=[1], value=rows
        )


def check_factors(factors: int, factor_dtype: str) -> None:
    """Raise InputError for a width or a type that no kernel takes."""
    if isinstance(factors, bool) or not isinstance(factors, int | np.integer) or not 1 <= factors <= MAX_FACTORS:
        raise InputError(f"`factors` must be a whole number from 1 to {MAX_FACTORS}.\nReceived: factors={factors}.")
    if factor_dtype not in ("float16", "float32"):
        raise InputError(f"`factor_dtype` must be 'float16' or 'float32'.\nReceived: {factor_dtype!r}.")


def check_rows(num_rows: int, factors: int, factor_dtype: str) -> None:
    """Raise InputError for a number of rows that no table can have here, before it is tried."""
    if isinstance(num_rows, bool) or not isinstance(num_rows, int | np.integer) or num_rows < 1:
        raise InputError(f"`num_rows` must be a whole number, at least 1.\nReceived: {num_rows}.")
    memory, size = free_bytes(), int(num_rows) * int(factors) * np.dtype(factor_dtype).itemsize
    if num_rows >= 2**31 or size > memory:
        raise InputError(
            f"A table of {num_rows:,} rows takes {size / 2**30:,.1f} GiB, this machine has {memory / 2**30:,.1f} free, "
            f"and numbers of rows end at {2**31 - 1:,}.\nReceived: factors={factors}, factor_dtype={factor_dtype!r}.\n"
            "Number users and items from 0 on without gaps, as tfrec.data.Interactions does, in place of raw ids."
        )
