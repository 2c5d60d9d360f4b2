"""Embedding tables held as a few small cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfrec import ops
from tfrec.errors import InputError
from tfrec.layers.tt_factors import clip_ranks, decompose, initial_cores, suggest_column_factors, suggest_factors
from tfrec.ops.tt_embedding import DTYPES, SLOTS, Fused, apply_gradients

Initializer = Literal["approx_normal", "approx_uniform", "normal", "uniform"]
#: Numbers of the full table that `full_table` and `row_norms` compute at once.
_BLOCK = 1 << 22


@keras.saving.register_keras_serializable(package="tfrec")
class TTEmbedding(keras.layers.Layer):
    """A table of N rows of D numbers in the memory of a few small cores; rows are computed when they are asked for.

    In the place of `keras.layers.Embedding`. Row n is ``G_1[i_1] ... G_T[i_T]``, with i the digits of n in the mixed
    radix ``row_factors``; see `tfrec.ops.tt_lookup`. Source: Yin, Acun, Wu, Liu, "TT-Rec: Tensor Train Compression for
    Deep Learning Recommendation Models", MLSys 2021.

    Args:
        num_embeddings: N, from 1.
        embedding_dim: D, from 1.
        ranks: r, one number for all or T - 1 numbers, from 1; none larger than any table needs (clipped, with a warning
            where each is given).
        row_factors: p, 2 to 5 numbers whose product is at least N; None: three of about equal size.
        column_factors: q, as many, whose product is D; None: as equal as D's prime factors allow.
        embeddings_initializer: ``approx_normal``, ``approx_uniform``: the numbers of the full table are normal or
            uniform; ``normal``, ``uniform``: those of the cores are, see `tfrec.layers.tt_factors.initial_cores`. A
            `keras.initializers.RandomNormal` or ``RandomUniform`` around 0 stands for the first two with its scale.
        embeddings_scale: standard deviation of the table's numbers, or half the width of their interval; above 0.
        num_tables: M tables of this shape in one lookup.
        fused_optimizer: None: the cores are weights like others. ``sgd``, ``adagrad``, ``adam``: the layer updates them
            itself, in the operation that computes their gradient, by the step of the Keras optimizer of that name with
            Keras's other settings; the model's optimizer does not see them. Once per backward pass of a lookup. Not
            with float16, whose loss scale the layer would not know.
        fused_learning_rate: for it; the variable ``learning_rate`` of the layer changes it later.
        mask_zero: as in `keras.layers.Embedding`: id 0 is padding, which a mask tells the layers that follow.
        seed: of the first values; None: drawn from NumPy, so `keras.utils.set_random_seed` holds for it.
        reference: compute in plain TensorFlow, which XLA compiles too.

    Input shape: int ``[...]``, ids in ``[0, N)``; with M > 1 tables ``[..., M]``, a column for each. Whole numbers of a
    float type are taken too, as Keras's `Input` is float32 by default. Of one table a `tf.RaggedTensor`, or a
    `tf.SparseTensor`, whose missing entries are id 0.
    Output shape: ``[..., D]`` (``[..., M, D]``) in the compute dtype, ragged for ragged ids. An id out of range raises
    on a CPU; a GPU gives zeros.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> layer = TTEmbedding(1_000, 16, ranks=4, seed=0)
        >>> layer(tf.constant([[0, 999]])).shape
        TensorShape([1, 2, 16])
        >>> round(layer.compression_ratio, 1)
        28.6
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        ranks: int | Sequence[int] = 32,
        row_factors: Sequence[int] | None = None,
        column_factors: Sequence[int] | None = None,
        embeddings_initializer: Any = "approx_normal",
        embeddings_scale: float = 0.05,
        num_tables: int = 1,
        fused_optimizer: Fused | None = None,
        fused_learning_rate: float = 0.01,
        mask_zero: bool = False,
        seed: int | None = None,
        reference: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_embeddings < 1:
            raise InputError(f"`num_embeddings` must be at least 1.\nReceived: num_embeddings={num_embeddings}.")
        count = (
            len(row_factors) if row_factors is not None else len(column_factors) if column_factors is not None else 3
        )
        if row_factors is None:
            row_factors = suggest_factors(num_embeddings, count)
        if column_factors is None:
            column_factors = suggest_column_factors(embedding_dim, count)
        if len(row_factors) != len(column_factors):
            raise InputError(
                "`row_factors` and `column_factors` must have as many numbers.\n"
                f"Received: row_factors={tuple(row_factors)}, column_factors={tuple(column_factors)}."
            )
        if math.prod(column_factors) != embedding_dim:
            raise InputError(
                "`column_factors` must multiply to `embedding_dim`.\n"
                f"Received: column_factors={tuple(column_factors)} (product {math.prod(column_factors)}), "
                f"embedding_dim={embedding_dim}.\nTry column_factors={suggest_column_factors(embedding_dim, count)}."
            )
        self.shape = ops.TTShape(
            num_embeddings,
            tuple(row_factors),
            tuple(column_factors),
            clip_ranks(ranks, row_factors, column_factors),
            num_tables,
        )
        kind, scale = _initializer(embeddings_initializer, embeddings_scale)
        for what in (self.compute_dtype, self.variable_dtype):
            if what not in DTYPES:
                raise InputError(f"`dtype` must be of {', '.join(DTYPES)}.\nReceived: {what}.")
        if fused_optimizer is not None:
            if fused_optimizer not in SLOTS:
                raise InputError(
                    f"`fused_optimizer` must be one of {', '.join(SLOTS)}, or None.\nReceived: {fused_optimizer!r}."
                )
            if self.compute_dtype == "float16":
                raise InputError(
                    "`fused_optimizer` does not go with float16: the loss scale belongs to the model's optimizer.\n"
                    "Use mixed_bfloat16, or leave `fused_optimizer` out."
                )
            if not fused_learning_rate > 0:
                raise InputError(f"`fused_learning_rate` must be above 0.\nReceived: {fused_learning_rate}.")
        self.num_embeddings, self.embedding_dim, self.num_tables = num_embeddings, embedding_dim, num_tables
        self.embeddings_initializer, self.embeddings_scale = kind, scale
        self.fused_optimizer, self.fused_learning_rate = fused_optimizer, fused_learning_rate
        self.mask_zero, self.seed, self.reference = mask_zero, seed, reference
        self.supports_masking = mask_zero
        # Keras would cast ids of a float type to the compute dtype, and float16 holds no odd number above 2,048.
        self.autocast = False
        # The native operations have no XLA kernel.
        self.supports_jit = reference
        #: Relative error of `from_dense`, or None.
        self.approximation_error: float | None = None
        #: Sums gradients over ranks before the fused update: gradients -> gradients.
        self.reduce_gradients: Callable[[list[tf.Tensor]], list[tf.Tensor]] | None = None

    def build(self, input_shape: Any = None) -> None:
        """Create the cores."""
        if hasattr(self, "cores"):
            return
        seed = int(np.random.randint(2**31)) if self.seed is None else self.seed
        first = initial_cores(
            self.embeddings_initializer, self.embeddings_scale, self.shape, np.random.default_rng(seed)
        )
        fused = self.fused_optimizer is not None
        self.cores = [
            self.add_weight(
                name=f"core_{k}",
                shape=value.shape,
                initializer=_given(value),
                trainable=not fused,
                autocast=False,  # so that a model can read them in float32; cast in `_lookup`
            )
            for k, value in enumerate(first, start=1)
        ]
        if self.fused_optimizer is not None:
            accumulator = 0.1 if self.fused_optimizer == "adagrad" else 0.0  # Keras's
            self.slots = [
                self.add_weight(
                    name=f"slot_{s}_{k}",
                    shape=core.shape,
                    dtype="float32",
                    initializer=keras.initializers.Constant(accumulator),
                    trainable=False,
                    autocast=False,
                )
                for s in range(SLOTS[self.fused_optimizer])
                for k, core in enumerate(self.cores, start=1)
            ]
            options = {"shape": (), "dtype": "float32", "autocast": False}
            self.learning_rate = self.add_weight(
                name="learning_rate",
                initializer=keras.initializers.Constant(self.fused_learning_rate),
                trainable=False,
                **options,
            )
            self.updates = self.add_weight(name="updates", initializer="zeros", trainable=False, **options)
            # What a model differentiates by, so that the backward pass comes here. It stays 0.
            self.hook = self.add_weight(name="hook", initializer="zeros", **options)
        self.built = True

    def call(self, ids: tf.Tensor | tf.RaggedTensor | tf.SparseTensor) -> tf.Tensor | tf.RaggedTensor:
        """Rows of the table."""
        if isinstance(ids, tf.RaggedTensor):
            self._check_one_table(ids)
            return ids.with_flat_values(self._lookup(self._numbered(ids.flat_values)))
        return self._lookup(self._numbered(self._dense(ids)))

    def _dense(self, ids: Any) -> tf.Tensor:
        """Ids as a tensor."""
        if isinstance(ids, tf.SparseTensor):
            self._check_one_table(ids)
            return tf.sparse.to_dense(ids)
        return tf.convert_to_tensor(ids)

    def _check_one_table(self, ids: Any) -> None:
        if self.num_tables != 1:
            raise InputError(
                f"Ids of several tables must be a dense tensor [..., {self.num_tables}].\n"
                f"Received: a {type(ids).__name__}.\nTake a layer for each table."
            )

    def _numbered(self, ids: tf.Tensor) -> tf.Tensor:
        """Ids over all tables, int64."""
        ids = tf.cast(ids, tf.int64)
        if self.num_tables == 1:
            return ids
        if ids.shape.rank == 0 or ids.shape[-1] != self.num_tables:
            raise InputError(
                f"ids must have a last axis of {self.num_tables}, a column per table.\nReceived shape: {ids.shape}."
            )
        inside = (ids >= 0) & (ids < self.num_embeddings)
        numbered = ids + self.num_embeddings * tf.range(self.num_tables, dtype=tf.int64)
        return tf.where(inside, numbered, -1)  # never a row of another table

    def _lookup(self, ids: tf.Tensor) -> tf.Tensor:
        cores = [tf.convert_to_tensor(core) for core in self.cores]
        lookup = ops.tt_lookup_reference if self.reference else ops.tt_lookup
        if self.fused_optimizer is None:
            return lookup(ids, [tf.cast(core, self.compute_dtype) for core in cores], self.shape)

        @tf.custom_gradient
        def fused(hook: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            def update(upstream: tf.Tensor) -> tf.Tensor:
                self._step(ids, upstream)
                return tf.zeros_like(hook)

            return lookup(ids, cores, self.shape), update

        return tf.cast(fused(tf.convert_to_tensor(self.hook)), self.compute_dtype)

    def _step(self, ids: tf.Tensor, upstream: tf.Tensor) -> None:
        """The fused update."""
        assert self.fused_optimizer is not None
        rate = tf.convert_to_tensor(self.learning_rate)
        step = self.updates.value.assign_add(1.0)
        if self.fused_optimizer == "adam":
            rate *= tf.sqrt(1.0 - tf.pow(0.999, step)) / (1.0 - tf.pow(0.9, step))
        cores, slots = [c.value for c in self.cores], [s.value for s in self.slots]
        upstream = tf.cast(upstream, cores[0].dtype)
        if self.reduce_gradients is None:
            ops.tt_update(ids, upstream, cores, slots, rate, self.shape, self.fused_optimizer)
            return
        found = ops.tt_gradients(ids, upstream, [tf.convert_to_tensor(c) for c in cores], self.shape)
        apply_gradients(self.reduce_gradients(list(found)), cores, slots, rate, self.fused_optimizer)

    def compute_mask(self, ids: Any, mask: Any = None) -> Any:
        """As `keras.layers.Embedding`: False where the id is 0."""
        if not self.mask_zero:
            return None
        if isinstance(ids, tf.RaggedTensor):
            return ids.with_flat_values(tf.not_equal(ids.flat_values, 0))
        # Keras's operation also takes the symbolic tensors of a Functional model.
        return keras.ops.not_equal(tf.sparse.to_dense(ids) if isinstance(ids, tf.SparseTensor) else ids, 0)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """``[..., D]``."""
        return (*input_shape, self.embedding_dim)

    def compute_output_spec(self, ids: Any, training: bool | None = None) -> keras.KerasTensor:
        """As `keras.layers.Embedding`: ragged for ragged ids."""
        shape = self.compute_output_shape(ids.shape)
        return keras.KerasTensor(shape, dtype=self.compute_dtype, ragged=getattr(ids, "ragged", False))

    # ---- the table

    @property
    def compression_ratio(self) -> float:
        """Numbers of the dense tables for each number of the cores."""
        return self.num_tables * self.num_embeddings * self.embedding_dim / self.shape.num_parameters

    def full_table(self) -> np.ndarray:
        """The dense table, float32 ``[N, D]``, or ``[M N, D]`` of M tables one after another."""
        rows = self.num_tables * self.num_embeddings
        found = np.empty((rows, self.embedding_dim), np.float32)
        for first, part in self._blocks():
            found[first : first + len(part)] = part
        return found

    def row_norms(self) -> np.ndarray:
        """The Euclidean norm of each row, float32 ``[N]`` (``[M N]``); never holds the table."""
        return np.concatenate([np.sqrt(np.square(part).sum(axis=1)) for _, part in self._blocks()])

    def _blocks(self) -> Any:
        self.build()
        rows, step = self.num_tables * self.num_embeddings, max(1, _BLOCK // self.embedding_dim)
        cores = [tf.cast(core.value, tf.float32) for core in self.cores]
        lookup = ops.tt_lookup_reference if self.reference else ops.tt_lookup
        for first in range(0, rows, step):
            ids = tf.range(first, min(first + step, rows), dtype=tf.int64)
            yield first, lookup(ids, cores, self.shape).numpy()

    @classmethod
    def from_dense(
        cls,
        table: np.ndarray,
        ranks: int | Sequence[int] | None = None,
        max_error: float | None = None,
        row_factors: Sequence[int] | None = None,
        column_factors: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> TTEmbedding:
        """A layer whose table is near a dense one, by TT-SVD (Oseledets 2011, algorithm 1).

        The error is within a factor sqrt(T - 1) of the least that these ranks allow.

        Args:
            table: ``[N, D]``, finite.
            ranks: the most that is kept.
            max_error: or what must not be exceeded: relative to the table, Frobenius norms, in ``[0, 1)``. The ranks
                follow from it.
            row_factors: as in the class.
            column_factors: as in the class.
            **kwargs: as in the class.

        Returns:
            The layer, built; ``approximation_error`` is the relative error as measured.

        Raises:
            InputError: not a finite matrix; not exactly one of ``ranks`` and ``max_error``.
        """
        table = np.asarray(table)
        if table.ndim != 2 or 0 in table.shape or not np.isfinite(table.astype(np.float32)).all():
            raise InputError(f"`table` must be a finite matrix with rows.\nReceived shape: {table.shape}.")
        if (ranks is None) == (max_error is None):
            raise InputError(f"Give `ranks` or `max_error`.\nReceived: ranks={ranks}, max_error={max_error}.")
        if max_error is not None and not 0 <= max_error < 1:
            raise InputError(f"`max_error` must lie in [0, 1).\nReceived: max_error={max_error}.")
        plan = cls(len(table), table.shape[1], 1 if ranks is None else ranks, row_factors, column_factors, **kwargs)
        if plan.num_tables != 1:
            raise InputError("`from_dense` makes one table.\nLeave `num_tables` out.")
        p, q = plan.shape.row_factors, plan.shape.column_factors
        cores, error = decompose(table, p, q, None if ranks is None else plan.shape.ranks, max_error)
        layer = cls(len(table), table.shape[1], [c.shape[3] for c in cores[:-1]], p, q, **kwargs)
        layer.build()
        for core, value in zip(layer.cores, cores, strict=True):
            core.assign(value)
        layer.approximation_error = error
        return layer

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {
            **super().get_config(),
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "ranks": list(self.shape.ranks),
            "row_factors": list(self.shape.row_factors),
            "column_factors": list(self.shape.column_factors),
            "embeddings_initializer": self.embeddings_initializer,
            "embeddings_scale": self.embeddings_scale,
            "num_tables": self.num_tables,
            "fused_optimizer": self.fused_optimizer,
            "fused_learning_rate": self.fused_learning_rate,
            "mask_zero": self.mask_zero,
            "seed": self.seed,
            "reference": self.reference,
        }


def _initializer(given: Any, scale: float) -> tuple[Initializer, float]:
    """The kind of first values, and their scale."""
    if isinstance(given, dict):
        given = keras.initializers.get(given)
    if isinstance(given, keras.initializers.RandomNormal) and given.mean == 0.0:
        given, scale = "approx_normal", float(given.stddev)
    elif isinstance(given, keras.initializers.RandomUniform) and given.minval == -given.maxval:
        given, scale = "approx_uniform", float(given.maxval)
    if given not in ("approx_normal", "approx_uniform", "normal", "uniform"):
        raise InputError(
            "`embeddings_initializer` must be approx_normal, approx_uniform, normal or uniform, or Keras's "
            f"RandomNormal or RandomUniform around 0.\nReceived: {given!r}."
        )
    if not 0 < scale < float("inf"):
        raise InputError(f"`embeddings_scale` must be above 0, and finite.\nReceived: embeddings_scale={scale}.")
    return given, scale


def _given(value: np.ndarray) -> Callable[..., Any]:
    def initializer(shape: Any, dtype: Any = None) -> Any:
        return tf.cast(tf.constant(value), dtype)

    return initializer
