"""Rows of a tensor-train table: the native operations, and the same in plain TensorFlow.

A table ``[N, D]`` is held as T cores ``G_k [p_k, r_{k-1}, q_k, r_k]`` with N <= p_1 ... p_T, D = q_1 ... q_T and
r_0 = r_T = 1. Row n, of the digits i_1 ... i_T in the mixed radix p (i_1 the most significant), is the product

    row = G_1[i_1] G_2[i_2] ... G_T[i_T],

each factor taken as a matrix ``[r_{k-1}, q_k r_k]``, with the q_k moved to the rows after it is applied. Oseledets,
"Tensor-Train Decomposition", SIAM J. Sci. Comput. 2011, (1.2); Yin, Acun, Wu, Liu, "TT-Rec", MLSys 2021, (2).

The operations compute each distinct id, and each product G_1[i_1] G_2[i_2] that ids share, once (as Wang et al.,
"EL-Rec", SC 2022), and sum in float32 whatever the type of the cores. An id out of range raises on a CPU; a GPU reads
zeros.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from tfrec.errors import InputError
from tfrec.ops.native import library

#: What the kernels take: kMaxCores, kMaxRank and kMaxWidth in custom_ops/tt_embedding/tt_embedding.h.
MAX_CORES, MAX_RANK, MAX_WIDTH = 5, 1_024, 1 << 16
#: kMaxTables and kMaxCore there.
MAX_TABLES, MAX_CORE = (1 << 31) - 1, 1 << 56
#: Types of cores that the operations take.
DTYPES = ("float32", "float16", "bfloat16")
Fused = Literal["sgd", "adagrad", "adam"]
#: Slots that each optimizer has per core.
SLOTS: dict[Fused, int] = {"sgd": 0, "adagrad": 1, "adam": 2}


@dataclass(frozen=True)
class TTShape:
    """Which table the cores stand for.

    Args:
        num_rows: N, from 1.
        row_factors: p, 2 to 5 numbers from 1 whose product is at least N.
        column_factors: q, as many, 1 to 1,024; their product is D.
        ranks: r_1 ... r_{T-1}, 1 to 1,024.
        num_tables: M tables of this shape in one array per core, up to 2^31 - 1; row n of table m has the id m N + n.

    Raises:
        InputError: an argument out of range.
    """

    num_rows: int
    row_factors: tuple[int, ...]
    column_factors: tuple[int, ...]
    ranks: tuple[int, ...]
    num_tables: int = 1

    def __post_init__(self) -> None:
        p, q, r = (tuple(int(f) for f in x) for x in (self.row_factors, self.column_factors, self.ranks))
        for name, value in (("row_factors", p), ("column_factors", q), ("ranks", r)):
            object.__setattr__(self, name, value)
        if not 2 <= len(p) <= MAX_CORES:
            raise InputError(f"`row_factors` must have 2 to {MAX_CORES} numbers.\nReceived: row_factors={p}.")
        if len(q) != len(p) or len(r) != len(p) - 1:
            raise InputError(
                f"`column_factors` must have as many numbers as `row_factors`, {len(p)}, and `ranks` one less.\n"
                f"Received: column_factors={q}, ranks={r}."
            )
        for name, value, high in (("row_factors", p, 1 << 61), ("column_factors", q, MAX_RANK), ("ranks", r, MAX_RANK)):
            if not all(1 <= v <= high for v in value):
                raise InputError(f"`{name}` must be whole numbers from 1 to {high}.\nReceived: {name}={value}.")
        if self.num_rows < 1 or self.num_tables < 1:
            raise InputError(
                "`num_rows` and `num_tables` must be at least 1.\n"
                f"Received: num_rows={self.num_rows}, num_tables={self.num_tables}."
            )
        if self.num_tables > MAX_TABLES:
            raise InputError(f"`num_tables` must be at most {MAX_TABLES}.\nReceived: num_tables={self.num_tables}.")
        if math.prod(p) < self.num_rows:
            raise InputError(
                f"`row_factors` must multiply to at least the number of rows.\n"
                f"Received: row_factors={p} (product {math.prod(p)}), for {self.num_rows} rows.\n"
                f"Try row_factors=tfrec.layers.suggest_factors({self.num_rows}, {len(p)})."
            )
        if math.prod(p) * self.num_tables >= 1 << 62:
            raise InputError(f"`row_factors` times the tables must be below 2^62.\nReceived: row_factors={p}.")
        widest = max(math.prod(q[: k + 1]) * rank for k, rank in enumerate((*r, 1)))
        if widest > MAX_WIDTH:
            raise InputError(
                f"`column_factors` up to a core times its rank must not exceed {MAX_WIDTH}.\n"
                f"Received: column_factors={q}, ranks={r} (largest {widest})."
            )
        for k, shape in enumerate(self.core_shapes):
            if math.prod(shape) > MAX_CORE:
                raise InputError(f"A core must have at most {MAX_CORE} numbers.\nReceived: core {k} of shape {shape}.")

    @property
    def width(self) -> int:
        """D."""
        return math.prod(self.column_factors)

    @property
    def core_shapes(self) -> list[tuple[int, int, int, int]]:
        """``[M p_k, r_{k-1}, q_k, r_k]`` for each core."""
        ranks = (1, *self.ranks, 1)
        return [
            (self.num_tables * p, ranks[k], q, ranks[k + 1])
            for k, (p, q) in enumerate(zip(self.row_factors, self.column_factors, strict=True))
        ]

    @property
    def num_parameters(self) -> int:
        """Numbers in all cores."""
        return sum(math.prod(shape) for shape in self.core_shapes)

    def attributes(self) -> dict[str, Any]:
        """As the native operations take it."""
        return {
            "num_rows": self.num_rows,
            "num_tables": self.num_tables,
            "row_factors": list(self.row_factors),
            "column_factors": list(self.column_factors),
            "ranks": list(self.ranks),
        }


def tt_lookup(ids: tf.Tensor, cores: Sequence[tf.Tensor], shape: TTShape) -> tf.Tensor:
    """Rows of the table, with a gradient for the cores.

    Memory of the native operation on a CPU, besides ids and rows: at most 48 + 8 T bytes per id, for sorting, and
    padded copies of the cores; nothing of ids x rank. Its gradient: the same, and a sum of the cores' size for each
    thread.

    Args:
        ids: int ``[...]``, each in ``[0, num_tables * num_rows)``.
        cores: of ``shape.core_shapes``, float32, float16 or bfloat16, all of one type.
        shape: the table.

    Returns:
        ``[..., D]`` in the type of the cores.

    Raises:
        InvalidArgumentError: an id out of range, on a CPU.
    """
    native = library()
    if native is None:
        return tt_lookup_reference(ids, cores, shape)
    flat = tf.cast(tf.reshape(ids, [-1]), tf.int64)
    rows = native.tfrec_tt_lookup(ids=flat, cores=list(cores), **shape.attributes())
    return _in_shape_of(ids, rows, shape)


def tt_lookup_reference(ids: tf.Tensor, cores: Sequence[tf.Tensor], shape: TTShape) -> tf.Tensor:
    """`tt_lookup` in plain TensorFlow: the reference, what runs without the native library, and what XLA compiles.

    It holds ``Q_k r_k`` float32 numbers per id at once, Q_k = q_1 ... q_k. Where a GPU is visible, and under XLA, an
    id out of range reads zeros.
    """
    flat = tf.cast(tf.reshape(ids, [-1]), tf.int64)
    inside = (flat >= 0) & (flat < shape.num_tables * shape.num_rows)
    if not tf.config.list_logical_devices("GPU"):
        message = f"`ids` must lie in 0 to {shape.num_tables * shape.num_rows - 1}. Received:"
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(inside), [message, flat])]):
            flat = tf.identity(flat)
    flat = tf.where(inside, flat, 0)
    table, left = flat // shape.num_rows, flat % shape.num_rows
    digits: list[tf.Tensor] = []
    for p in reversed(shape.row_factors):
        digits.insert(0, table * p + left % p)
        left = left // p
    product = tf.ones([tf.size(flat), 1, 1])
    for digit, core, (_, rank, q, after) in zip(digits, cores, shape.core_shapes, strict=True):
        # Cast and reshaped before it is gathered from, so that the gradient is dense, and summed in float32.
        table_of_core = tf.reshape(tf.cast(core, tf.float32), [-1, rank, q * after])
        matrix = tf.gather(table_of_core, digit)
        lines = product.shape[1]
        product = tf.reshape(tf.matmul(product, matrix), [-1, lines * q, after])
    rows = tf.where(inside[:, None], product[:, :, 0], 0.0)
    return _in_shape_of(ids, tf.cast(rows, cores[0].dtype), shape)


def _in_shape_of(ids: tf.Tensor, rows: tf.Tensor, shape: TTShape) -> tf.Tensor:
    found = tf.reshape(rows, tf.concat([tf.shape(ids), [shape.width]], axis=0))
    return tf.ensure_shape(found, [*ids.shape, shape.width]) if ids.shape.rank is not None else found


@tf.RegisterGradient("TfrecTtLookup")
def _tt_lookup_gradient(op: Any, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    ids, *cores = op.inputs
    names = ("num_rows", "num_tables", "row_factors", "column_factors", "ranks")
    native = library()
    assert native is not None
    found = native.tfrec_tt_lookup_grad(ids=ids, upstream=upstream, cores=cores, **{n: op.get_attr(n) for n in names})
    return [None, *[tf.cast(g, core.dtype) for g, core in zip(found, cores, strict=True)]]


def tt_gradients(ids: tf.Tensor, upstream: tf.Tensor, cores: Sequence[tf.Tensor], shape: TTShape) -> list[tf.Tensor]:
    """The gradient of ``sum(upstream * tt_lookup(ids, cores, shape))`` for each core, dense.

    Equal calls give equal bits (on a CPU: with the same number of threads): no sum depends on which thread was faster.

    Args:
        ids: int ``[...]``.
        upstream: ``[..., D]``.
        cores: as for `tt_lookup`.
        shape: the table.

    Returns:
        float32, of ``shape.core_shapes``.
    """
    flat = tf.cast(tf.reshape(ids, [-1]), tf.int64)
    upstream = tf.reshape(upstream, [-1, shape.width])
    native = library()
    if native is not None:
        return native.tfrec_tt_lookup_grad(ids=flat, upstream=upstream, cores=list(cores), **shape.attributes())
    wide = [tf.cast(core, tf.float32) for core in cores]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(wide)
        rows = tt_lookup_reference(flat, wide, shape)
    return [tf.convert_to_tensor(g) for g in tape.gradient(rows, wide, tf.cast(upstream, tf.float32))]


@functools.cache
def _has_gpu_kernels() -> bool:
    from tensorflow.python.framework import kernels

    return any(k.device_type == "GPU" for k in kernels.get_registered_kernels_for_op("TfrecTtUpdate").kernel)


def tt_update(
    ids: tf.Tensor,
    upstream: tf.Tensor,
    cores: Sequence[tf.Variable],
    slots: Sequence[tf.Variable],
    rate: tf.Tensor,
    shape: TTShape,
    optimizer: Fused,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> None:
    """One optimizer step on the cores from the gradient of their rows, in one operation.

    With g the gradient of `tt_gradients`: ``sgd`` w -= lr g; ``adagrad`` a += g^2, w -= lr g / sqrt(a + epsilon);
    ``adam`` m += (g - m)(1 - beta_1), v += (g^2 - v)(1 - beta_2), w -= lr m / (sqrt(v) + epsilon). These are the steps
    of Keras's optimizers of the same names with that dense gradient.

    Args:
        ids: int ``[...]``.
        upstream: ``[..., D]``, the gradient of the loss for ``tt_lookup(ids, ...)``.
        cores: updated.
        slots: float32, updated: for ``adagrad`` a of each core; for ``adam`` m of each core, then v of each core.
        rate: lr; for ``adam`` times ``sqrt(1 - beta_2^t) / (1 - beta_1^t)``, t the step, from 1.
        shape: the table.
        optimizer: which.
        beta_1: of ``adam``.
        beta_2: of ``adam``.
        epsilon: of ``adagrad`` and ``adam``.
    """
    native = library()
    dtype = cores[0].dtype
    upstream = tf.cast(tf.reshape(upstream, [-1, shape.width]), dtype)
    rate = tf.cast(rate, tf.float32)
    # A library without CUDA kernels cannot update variables of a GPU; there the same steps follow the gradient.
    if native is not None and (_has_gpu_kernels() or not tf.config.list_logical_devices("GPU")):
        native.tfrec_tt_update(
            ids=tf.cast(tf.reshape(ids, [-1]), tf.int64),
            upstream=upstream,
            rate=rate,
            cores=[c.handle for c in cores],
            slots=[s.handle for s in slots],
            optimizer=optimizer,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            **shape.attributes(),
        )
        return
    gradients = tt_gradients(ids, upstream, [tf.convert_to_tensor(c) for c in cores], shape)
    apply_gradients(gradients, cores, slots, rate, optimizer, beta_1, beta_2, epsilon)


def apply_gradients(
    gradients: Sequence[tf.Tensor],
    cores: Sequence[tf.Variable],
    slots: Sequence[tf.Variable],
    rate: tf.Tensor,
    optimizer: Fused,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> None:
    """The step of `tt_update` with given gradients, as after a sum over ranks; arguments as there."""
    count = len(cores)
    for k, (g, core) in enumerate(zip(gradients, cores, strict=True)):
        step: tf.Tensor
        if optimizer == "sgd":
            step = g
        elif optimizer == "adagrad":
            step = g / tf.sqrt(slots[k].assign_add(g * g) + epsilon)
        else:
            m = slots[k].assign_add((g - slots[k]) * (1.0 - beta_1))
            v = slots[count + k].assign_add((g * g - slots[count + k]) * (1.0 - beta_2))
            step = m / (tf.sqrt(v) + epsilon)
        core.assign(tf.cast(tf.cast(core, tf.float32) - rate * step, core.dtype))
