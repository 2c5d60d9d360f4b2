"""Random calls of every native operation: what is legal gives what the twin gives, all else InvalidArgumentError.

    python -m tests.ops.fuzz --seed 0 --draws 500

Draw n depends on the seed and n alone; it is printed before its call, so the last one printed is what ended a process,
and ``--seed S --first n --draws 1`` is that call again. A draw begins legal; most are damaged then. Whether what comes
out is legal is decided by the rules written down here (``legal_...``), not by those of the operation.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from tfrec import commands

commands.quiet_tensorflow()

import tensorflow as tf  # noqa: E402

from tfrec import ops  # noqa: E402
from tfrec.ops import als, tt_embedding  # noqa: E402

TOP_K = importlib.import_module("tfrec.ops.dot_top_k")
INT8_TOP_K = importlib.import_module("tfrec.ops.int8_dot_top_k")
INT8_SCORE = importlib.import_module("tfrec.ops.int8_score")

TOLERANCE = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}
BFLOAT16 = tf.bfloat16.as_numpy_dtype


@dataclass
class Call:
    """Arrays by name (a list for an input that is one), those that are variables, and attributes."""

    inputs: dict[str, Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    #: Damage of variables: a name and "vector", "unknown" or "same".
    handles: dict[str, str] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)


@contextlib.contextmanager
def twin(*modules: Any) -> Iterator[None]:
    """The operations of these modules in plain TensorFlow."""
    kept = [m.library for m in modules]
    for m in modules:
        m.library = lambda: None
    try:
        yield
    finally:
        for m, library in zip(modules, kept, strict=True):
            m.library = library


def size(random: np.random.Generator, most: int) -> int:
    """From 0, small ones often."""
    return int(min(most, random.choice([0, 1, 2, 3, random.integers(1, 20), random.integers(1, most + 1)])))


def pick(random: np.random.Generator, values: Any) -> Any:
    return values[random.integers(len(values))]


def close(found: Any, wanted: Any, tolerance: float) -> None:
    found, wanted = (np.asarray(tf.cast(x, tf.float64)) for x in (found, wanted))
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    error = np.abs(found - wanted).max(initial=0)
    assert error <= tolerance * np.abs(wanted).max(initial=1e-3), f"differs from the twin by {error}"


def tame(*arrays: Any) -> bool:
    """Finite and small: a comparison with the twin means something."""
    return all(np.abs(np.asarray(a, np.float64)).max(initial=0) < 1e3 for a in arrays)  # false for NaN


# ---- alternating least squares


def entries(random: np.random.Generator, rows: int, fixed: int) -> dict[str, np.ndarray]:
    """A matrix whose offsets may begin behind 0 and end before the last entry."""
    lengths = np.array([size(random, 30) if fixed else 0 for _ in range(rows)], np.int64)
    if rows and fixed and random.random() < 0.2:
        lengths[random.integers(rows)] = random.integers(1_000, 3_000)  # threads share it
    before, behind = (random.integers(0, 4, 2) if fixed else (0, 0)) * (random.random() < 0.3)
    count = int(before + lengths.sum() + behind)
    values = random.random(count) * 3 + 0.1
    return {
        "row_offsets": (before + np.concatenate([[0], np.cumsum(lengths)])).astype(np.int64),
        "columns": random.integers(0, max(1, fixed), count).astype(np.int32),
        "values": np.where(random.random(count) < 0.2, -values, values).astype(np.float32),
    }


def half_sweep(random: np.random.Generator) -> Call:
    dtype = pick(random, [np.float32, np.float16])
    factors, rows, fixed = int(pick(random, [1, 3, 8, 16, 17, 33, 40, 70])), size(random, 40), 1 + size(random, 50)
    table = (random.normal(size=(fixed, factors)) / 2).astype(dtype)
    gram = table.astype(np.float32).T @ table.astype(np.float32)
    weight, shift = np.float32(random.random()), np.float32(0.1 + random.random())
    matrix = entries(random, rows, fixed)
    return Call(
        {
            **matrix,
            "row_order": np.argsort(-np.diff(matrix["row_offsets"]), kind="stable").astype(np.int64),
            "fixed": table,
            "gramian": gram,
            "start": random.normal(size=(rows, factors)).astype(dtype),
            "alpha": np.float32(0.5 + random.random()),
            "regularization": np.float32(0.5 + random.random()),
            "unobserved_weight": weight,
            "frequency_exponent": np.float32(pick(random, [0, 0.5, 1])),
            "num_long": np.int64(random.integers(0, rows + 1)),
            "inverse": np.linalg.inv(weight * gram + shift * np.eye(factors)).astype(np.float32),
            "shift": shift,
        },
        {
            "solver": pick(random, als.SOLVERS),
            "cg_steps": int(random.integers(1, 6)),
            "block_size": int(random.integers(1, 2 * factors + 1)),
            # The fixed rows may be some of more.
            "num_counted": int(pick(random, [0, fixed, 3 * fixed])),
        },
    )


def half_sweep_in_place(random: np.random.Generator) -> Call:
    call = half_sweep(random)
    start = call.inputs.pop("start")
    del call.inputs["num_long"]
    before, behind = size(random, 5), size(random, 5)
    call.variables["table"] = np.concatenate(
        [random.normal(size=(n, start.shape[1])).astype(start.dtype) for n in (before, len(start), behind)]
    )
    call.inputs["first_row"] = np.int64(before)
    return call


def legal_matrix(i: dict[str, Any], rows: int, fixed: int) -> bool:
    offsets, columns = i["row_offsets"], i["columns"]
    if offsets.shape != (rows + 1,) or columns.ndim != 1 or i["values"].shape != columns.shape:
        return False
    if offsets[0] < 0 or offsets[-1] > len(columns) or (offsets[1:] < offsets[:-1]).any():
        return False
    used = columns[offsets[0] : offsets[-1]]
    return bool(((used >= 0) & (used < fixed)).all())


def from_zero(x: np.ndarray) -> bool:
    return bool(x.ndim == 0 and np.isfinite(x) and x >= 0)


def legal_half_sweep(call: Call) -> bool:
    i, a = call.inputs, call.attributes
    fixed, order = i["fixed"], i["row_order"]
    if "table" in call.variables:
        table, first = call.variables["table"], i["first_row"]
        if call.handles or first.ndim or i["row_offsets"].ndim != 1 or not len(i["row_offsets"]):
            return False
        if table.ndim != 2 or table.dtype != fixed.dtype:
            return False
        rows, factors = len(i["row_offsets"]) - 1, table.shape[1]
        if not 0 <= int(first) <= len(table) - rows:
            return False
    else:
        if i["start"].ndim != 2 or i["start"].dtype != fixed.dtype or i["num_long"].ndim:
            return False
        rows, factors = i["start"].shape
        if not 0 <= i["num_long"] <= rows:
            return False
    if fixed.ndim != 2 or fixed.shape[1] != factors or not 1 <= factors <= 1024:
        return False
    if i["gramian"].shape != (factors, factors) or not legal_matrix(i, rows, len(fixed)):
        return False
    if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(rows)):
        return False
    if not all(map(from_zero, (i["alpha"], i["regularization"], i["unobserved_weight"], i["frequency_exponent"]))):
        return False
    if a["solver"] == "cg" and (i["inverse"].shape != (factors, factors) or not from_zero(i["shift"])):
        return False
    return 1 <= a["cg_steps"] <= 65_536 and 1 <= a["block_size"] < 1 << 31 and a["num_counted"] >= 0


def check_half_sweep(call: Call, found: Any, variables: dict[str, Any]) -> None:
    i, a = call.inputs, call.attributes
    offsets = i["row_offsets"]
    rows = len(offsets) - 1
    if "table" in call.variables:
        before, table, first = call.variables["table"], variables["table"].numpy(), int(i["first_row"])
        start, solved, bad = before[first : first + rows], table[first : first + rows], int(found[0])
        np.testing.assert_array_equal(table[:first], before[:first])
        np.testing.assert_array_equal(table[first + rows :], before[first + rows :])
    else:
        start, solved, bad = i["start"], found[0].numpy(), int(found[1])
    wrong = np.flatnonzero(~np.isfinite(solved.astype(np.float32)).all(axis=1))
    assert bad == (wrong[0] if len(wrong) else -1), f"{bad} is not the first row that is not finite"
    if call.damage:
        return  # a Gramian that is none has no solution
    sweep = ops.Sweep(
        float(i["alpha"]),
        float(i["regularization"]),
        float(i["unobserved_weight"]),
        float(i["frequency_exponent"]),
        **{n: v for n, v in a.items() if n != "num_counted"},
    )
    part = SimpleNamespace(
        num_fixed=a["num_counted"] or len(i["fixed"]),
        columns=tf.constant(i["columns"][offsets[0] : offsets[-1]]),
        values=tf.constant(i["values"][offsets[0] : offsets[-1]]),
    )
    arrays = (tf.constant(i[n]) for n in ("fixed", "gramian"))
    wanted = als._reference_rows(part, offsets - offsets[0], *arrays, tf.constant(start), sweep, i["inverse"])
    # Rounding leaves a few rows without a solution: those must be the same ones.
    finite = np.isfinite(wanted.numpy().astype(np.float32)).all(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(~finite), wrong)
    tolerance = 1e-2 if start.dtype == np.float16 else 2e-3
    close(solved[finite], wanted.numpy()[finite], max(tolerance, np.finfo(np.float32).eps * condition(call)))


def condition(call: Call) -> float:
    """No row's equations have a larger condition number: a bound of the matrix over lambda, its least eigenvalue."""
    i, fixed = call.inputs, call.inputs["fixed"].astype(np.float64)
    squares = float((fixed**2).sum(axis=1).max(initial=0))
    entries = np.diff(i["row_offsets"]).max(initial=0) * np.abs(i["values"]).max(initial=0)
    largest = i["unobserved_weight"] * (fixed**2).sum() + i["alpha"] * entries * squares
    return 1 + float(largest) / max(float(i["regularization"]), 1e-30)


def gramian(random: np.random.Generator) -> Call:
    dtype = pick(random, [np.float32, np.float16])
    return Call({"table": random.normal(size=(size(random, 700), 1 + size(random, 90))).astype(dtype)})


def legal_gramian(call: Call) -> bool:
    table = call.inputs["table"]
    return table.ndim == 2 and 1 <= table.shape[1] <= 1024


def check_gramian(call: Call, found: Any, _: Any) -> None:
    table = call.inputs["table"]
    assert found.shape == (table.shape[1], table.shape[1])
    if tame(table):
        with twin(als):
            close(found, ops.gramian(tf.constant(table)), 1e-4)


def losses(random: np.random.Generator) -> Call:
    call = half_sweep(random)
    i = call.inputs
    names = ("row_offsets", "columns", "values", "fixed", "gramian", "alpha", "unobserved_weight")
    return Call({**{n: i[n] for n in names}, "rows": i["start"]})


def legal_losses(call: Call) -> bool:
    i = call.inputs
    fixed, rows = i["fixed"], i["rows"]
    if fixed.ndim != 2 or rows.ndim != 2 or rows.dtype != fixed.dtype or not 1 <= fixed.shape[1] <= 1024:
        return False
    factors = fixed.shape[1]
    if rows.shape[1] != factors or i["gramian"].shape != (factors, factors):
        return False
    return legal_matrix(i, len(rows), len(fixed)) and from_zero(i["alpha"]) and from_zero(i["unobserved_weight"])


def check_losses(call: Call, found: Any, _: Any) -> None:
    i = call.inputs
    offsets = i["row_offsets"]
    assert found.shape == (len(i["rows"]),)
    if not tame(*(i[n] for n in ("values", "fixed", "gramian", "rows", "alpha", "unobserved_weight"))):
        return
    shifted = offsets - offsets[0]
    part = SimpleNamespace(
        columns=tf.constant(i["columns"][offsets[0] : offsets[-1]]),
        values=tf.constant(i["values"][offsets[0] : offsets[-1]]),
        num_rows=len(offsets) - 1,
        lengths=np.diff(offsets),
        offsets=lambda first, last: shifted[first : last + 1],
    )
    if not float(i["alpha"]):
        return  # which the twin's Sweep refuses
    sweep = ops.Sweep(alpha=float(i["alpha"]), unobserved_weight=float(i["unobserved_weight"]))
    with twin(als):
        wanted = ops.losses(part, *(tf.constant(i[n]) for n in ("fixed", "gramian", "rows")), sweep)
    close(found, wanted, 1e-3)


# ---- top k


def exclusions(random: np.random.Generator, queries: int, items: int) -> dict[str, np.ndarray]:
    if random.random() < 0.4:
        return {"excluded_offsets": np.zeros(queries + 1, np.int64), "excluded": np.zeros(0, np.int32)}
    # Some beyond the items, which is allowed.
    lists = [np.sort(random.integers(0, items + 3, size(random, 12))) for _ in range(queries)]
    before = int(random.integers(0, 3))
    flat = np.concatenate([np.zeros(before), *lists, np.zeros(random.integers(0, 3))])
    offsets = before + np.concatenate([[0], np.cumsum([len(x) for x in lists])])
    return {"excluded_offsets": offsets.astype(np.int64), "excluded": flat.astype(np.int32)}


def length(random: np.random.Generator, items: int) -> np.ndarray:
    return np.int32(pick(random, [1, 2, 10, 33, 100, max(1, items), items + 5, 65_536 if random.random() < 0.1 else 3]))


def dot_top_k(random: np.random.Generator) -> Call:
    dtype = pick(random, [np.float32, np.float16])
    queries, items, width = size(random, 90), size(random, 400), 1 + size(random, 70)
    if random.random() < 0.15:
        # All against all, where queries and items are one tensor; see `call_native`.
        items = int(random.integers(512, 800))
        table = random.integers(-3, 4, (items, width)).astype(dtype)
        none = {"excluded_offsets": np.zeros(items + 1, np.int64), "excluded": np.zeros(0, np.int32)}
        return Call({"queries": table, "items": table, **none, "k": np.int32(random.integers(1, 60))})
    return Call(
        {
            "queries": random.integers(-3, 4, (queries, width)).astype(dtype),
            "items": random.integers(-3, 4, (items, width)).astype(dtype),
            **exclusions(random, queries, items),
            "k": length(random, items),
        }
    )


def legal_lists(i: dict[str, Any], queries: int, items: int) -> bool:
    offsets, excluded, k = i["excluded_offsets"], i["excluded"], i["k"]
    if offsets.shape != (queries + 1,) or excluded.ndim != 1 or k.ndim or not 1 <= k <= max(items, 65_536):
        return False
    if offsets[0] < 0 or offsets[-1] > len(excluded) or (offsets[1:] < offsets[:-1]).any():
        return False
    lists = [excluded[a:b] for a, b in itertools.pairwise(offsets)]
    return all((x >= 0).all() and (x[1:] >= x[:-1]).all() for x in lists)


def legal_dot_top_k(call: Call) -> bool:
    i = call.inputs
    queries, items = i["queries"], i["items"]
    if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1] or queries.shape[1] < 1:
        return False
    return queries.dtype == items.dtype and legal_lists(i, len(queries), len(items))


def check_dot_top_k(call: Call, found: Any, _: Any) -> None:
    i = call.inputs
    k = int(i["k"])
    assert found[0].shape == found[1].shape == (len(i["queries"]), k)
    if not tame(i["queries"], i["items"]):
        return
    with twin(TOP_K):
        arrays = (tf.constant(i[n]) for n in ("queries", "items"))
        ids, scores = ops.dot_top_k(*arrays, k, i["excluded_offsets"], i["excluded"])
    np.testing.assert_array_equal(found[1], ids)
    np.testing.assert_array_equal(found[0], scores)


def int8_dot_top_k(random: np.random.Generator) -> Call:
    queries, items, width, limit = size(random, 90), size(random, 400), 1 + size(random, 90), pick(random, [1, 127])

    def rows(n: int) -> np.ndarray:
        return random.integers(-limit - 1, limit + 1, (n, width)).astype(np.int8)

    def scales(n: int) -> np.ndarray:
        return random.choice(np.float32([0.1, 0.3, 1]), n).astype(np.float32)

    return Call(
        {
            "queries": rows(queries),
            "query_scales": scales(queries),
            "items": rows(items),
            "item_scales": scales(items),
            **exclusions(random, queries, items),
            "k": length(random, items),
        }
    )


def legal_int8_dot_top_k(call: Call) -> bool:
    i = call.inputs
    queries, items = i["queries"], i["items"]
    if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1]:
        return False
    if not 1 <= queries.shape[1] <= 65_536:
        return False
    if i["query_scales"].shape != (len(queries),) or i["item_scales"].shape != (len(items),):
        return False
    return legal_lists(i, len(queries), len(items))


def check_int8_dot_top_k(call: Call, found: Any, _: Any) -> None:
    i = call.inputs
    with twin(INT8_TOP_K):
        arrays = (tf.constant(i[n]) for n in ("queries", "query_scales", "items", "item_scales"))
        ids, scores = ops.int8_dot_top_k(*arrays, int(i["k"]), i["excluded_offsets"], i["excluded"])
    np.testing.assert_array_equal(found[1], ids)
    np.testing.assert_array_equal(found[0], scores)


# ---- int8 scores


def int8_score(random: np.random.Generator) -> Call:
    users, items, pairs = 1 + size(random, 9), 1 + size(random, 20), (size(random, 12), size(random, 40))
    widths = [1 + size(random, 70) for _ in range(random.integers(0, 5))]
    gmf = 1 + size(random, 70) if not widths or random.random() < 0.6 else 0

    def bytes_of(*shape: int) -> np.ndarray:
        return random.integers(-128, 128, shape).astype(np.int8)

    def bounds() -> list[int]:
        return [int(random.integers(-300, 500)), *np.sort(random.integers(-128, 256, 2)).tolist()]

    layers = list(itertools.pairwise(widths))
    first, last = (widths[0], widths[-1]) if widths else (0, 0)
    return Call(
        {
            "user_terms": (random.integers(-600, 600, (users if first else 0, first)) / 4).astype(np.float32),
            "item_terms": (random.integers(-600, 600, (items if first else 0, first)) / 4).astype(np.float32),
            "user_index": random.integers(0, users, pairs[0]).astype(np.int32),
            "item_index": random.integers(0, items, pairs).astype(np.int32),
            "bounds": np.array([bounds() for _ in range(len(layers) + 1)], np.int32),
            "kernels": [bytes_of(*shape) for shape in layers],
            "biases": [random.integers(-(10**6), 10**6, n).astype(np.int32) for _, n in layers],
            "multipliers": [np.exp(random.normal(-6, 1, n)).astype(np.float32) for _, n in layers],
            "final_kernel": bytes_of(last),
            "final_bias": np.int32(random.integers(-(10**6), 10**6)),
            "final_scale": np.float32(random.random() / 1000),
            "gmf_user": bytes_of(users if gmf else 0, gmf),
            "gmf_item": bytes_of(items if gmf else 0, gmf),
            "gmf_user_scale": random.random(users if gmf else 0).astype(np.float32),
            "gmf_item_scale": random.random(items if gmf else 0).astype(np.float32),
            "gmf_kernel": bytes_of(gmf),
            "gmf_kernel_scale": np.float32(random.random()),
            "bias": np.float32(random.normal()),
        }
    )


def legal_int8_score(call: Call) -> bool:
    i = call.inputs
    ranks = {2: ("user_terms", "item_terms", "item_index", "bounds", "gmf_user", "gmf_item")}
    ranks[1] = ("user_index", "final_kernel", "gmf_user_scale", "gmf_item_scale", "gmf_kernel")
    ranks[0] = ("final_bias", "final_scale", "gmf_kernel_scale", "bias")
    if any(i[name].ndim != rank for rank, names in ranks.items() for name in names):
        return False
    width, gmf = i["user_terms"].shape[1], i["gmf_user"].shape[1]
    if width > 4096 or gmf > 1024 or (not width and (not gmf or i["kernels"])):
        return False
    tables = [i[("user_terms" if width else "gmf_user")], i["item_terms" if width else "gmf_item"]]
    users, items = map(len, tables)
    if i["item_terms"].shape[1] != width or i["gmf_item"].shape[1] != gmf or i["gmf_kernel"].shape != (gmf,):
        return False
    if gmf and (len(i["gmf_user"]) != users or len(i["gmf_item"]) != items):
        return False
    if len(i["gmf_user_scale"]) != len(i["gmf_user"]) or len(i["gmf_item_scale"]) != len(i["gmf_item"]):
        return False
    if len(i["user_index"]) != len(i["item_index"]) or i["bounds"].shape != (len(i["kernels"]) + 1, 3):
        return False
    for zero_point, low, high in i["bounds"].tolist():
        if not (-128 <= low <= high <= 255 and abs(zero_point) <= 16384):
            return False
    depth = width
    for kernel, bias, multiplier in zip(i["kernels"], i["biases"], i["multipliers"], strict=True):
        if kernel.ndim != 2 or kernel.shape[0] != depth or not 1 <= kernel.shape[1] <= 4096:
            return False
        depth = kernel.shape[1]
        if bias.shape != (depth,) or multiplier.shape != (depth,):
            return False
    if i["final_kernel"].shape != (depth,):
        return False
    inside = [((x >= 0) & (x < n)).all() for x, n in ((i["user_index"], users), (i["item_index"], items))]
    return all(inside)


def check_int8_score(call: Call, found: Any, _: Any) -> None:
    i = call.inputs
    given = {n: [tf.constant(x) for x in v] if isinstance(v, list) else tf.constant(v) for n, v in i.items()}
    wanted = INT8_SCORE._reference(
        given, i["bounds"].tolist(), i["user_terms"].shape[1] > 0, i["gmf_user"].shape[1] > 0
    )
    np.testing.assert_array_equal(found, wanted)


# ---- tensor trains


def tt_table(random: np.random.Generator) -> tuple[ops.TTShape, str]:
    cores = int(random.integers(2, 6))
    p = [int(pick(random, [1, 2, 3, 7, 12])) for _ in range(cores)]
    q = [int(random.integers(1, 5)) for _ in range(cores)]
    r = [int(pick(random, [1, 2, 5, 16, 33])) for _ in range(cores - 1)]
    if cores == 2 and random.random() < 0.3:
        p[1] = int(random.integers(100, 2_000))
    shape = ops.TTShape(int(random.integers(1, math.prod(p) + 1)), p, q, r, int(pick(random, [1, 1, 2, 3])))  # type: ignore[arg-type]
    return shape, pick(random, list(TOLERANCE))


def tt_ids(random: np.random.Generator, shape: ops.TTShape) -> np.ndarray:
    count = int(random.integers(500, 5_000)) if random.random() < 0.1 else size(random, 150)
    return random.integers(0, 1 + random.integers(shape.num_rows * shape.num_tables), count).astype(np.int64)


def stored(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.astype(BFLOAT16 if dtype == "bfloat16" else dtype)


def tt_cores(random: np.random.Generator, shape: ops.TTShape, dtype: str) -> list[np.ndarray]:
    return [stored(random.normal(size=s) / math.sqrt(s[1]), dtype) for s in shape.core_shapes]


def tt_lookup(random: np.random.Generator) -> Call:
    shape, dtype = tt_table(random)
    return Call({"ids": tt_ids(random, shape), "cores": tt_cores(random, shape, dtype)}, shape.attributes())


def tt_lookup_grad(random: np.random.Generator) -> Call:
    call = tt_lookup(random)
    shape, dtype = tt_shape(call), call.inputs["cores"][0].dtype.name
    call.inputs["upstream"] = stored(random.normal(size=(len(call.inputs["ids"]), shape.width)), dtype)
    return call


def tt_update(random: np.random.Generator) -> Call:
    call = tt_lookup_grad(random)
    cores = call.inputs.pop("cores")
    optimizer = pick(random, list(tt_embedding.SLOTS))
    slots = [np.abs(random.normal(size=c.shape)).astype(np.float32) for c in cores * tt_embedding.SLOTS[optimizer]]
    call.variables = {"cores": cores, "slots": slots}
    call.inputs["rate"] = np.float32(random.random() / 10)
    call.attributes |= {"optimizer": optimizer, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-3}
    return call


def tt_shape(call: Call) -> ops.TTShape:
    names = ("num_rows", "row_factors", "column_factors", "ranks", "num_tables")
    return ops.TTShape(*(tuple(v) if isinstance(v := call.attributes[n], list) else v for n in names))


def legal_tt(call: Call) -> bool:
    i, a = call.inputs, call.attributes
    p, q, r = a["row_factors"], a["column_factors"], a["ranks"]
    cores = call.variables.get("cores") or i["cores"]
    count = len(p)
    if not 2 <= count <= 5 or len(q) != count or len(r) != count - 1 or len(cores) != count or call.handles:
        return False
    if min(p) < 1 or not all(1 <= x <= 1024 for x in (*q, *r)):
        return False
    if not 1 <= a["num_tables"] < 1 << 31 or not 1 <= a["num_rows"] <= math.prod(p):
        return False
    if math.prod(p) * a["num_tables"] >= 1 << 62:
        return False
    if any(math.prod(q[: k + 1]) * rank > 65_536 for k, rank in enumerate((*r, 1))):
        return False
    before_after = list(itertools.pairwise((1, *r, 1)))
    shapes = [(a["num_tables"] * p[k], b, q[k], c) for k, (b, c) in enumerate(before_after)]
    if [c.shape for c in cores] != shapes or len({c.dtype for c in cores}) != 1:
        return False
    ids = i["ids"]
    if ids.ndim != 1 or not ((ids >= 0) & (ids < a["num_tables"] * a["num_rows"])).all():
        return False
    if "upstream" in i and (i["upstream"].shape != (len(ids), math.prod(q)) or i["upstream"].dtype != cores[0].dtype):
        return False
    if "rate" in i:
        slots = call.variables["slots"]
        wanted = shapes * tt_embedding.SLOTS[a["optimizer"]]
        if i["rate"].ndim or [s.shape for s in slots] != wanted or any(s.dtype != np.float32 for s in slots):
            return False
    return True


def check_tt_lookup(call: Call, found: Any, _: Any) -> None:
    cores = call.inputs["cores"]
    assert found.shape == (len(call.inputs["ids"]), math.prod(call.attributes["column_factors"]))
    if tame(*cores):
        wanted = ops.tt_lookup_reference(tf.constant(call.inputs["ids"]), list(map(tf.constant, cores)), tt_shape(call))
        close(found, wanted, TOLERANCE[cores[0].dtype.name])


def check_tt_lookup_grad(call: Call, found: Any, _: Any) -> None:
    cores, upstream = call.inputs["cores"], call.inputs["upstream"]
    if not tame(*cores, upstream):
        return
    with twin(tt_embedding):
        given = tf.constant(call.inputs["ids"]), tf.constant(upstream), list(map(tf.constant, cores))
        wanted = ops.tt_gradients(*given, tt_shape(call))
    for one, other in zip(found, wanted, strict=True):
        close(one, other, 1e-3)


def check_tt_update(call: Call, _: Any, variables: dict[str, Any]) -> None:
    cores, slots = call.variables["cores"], call.variables["slots"]
    if not tame(*cores, *slots, call.inputs["upstream"], call.inputs["rate"]) or any((s < 0).any() for s in slots):
        return
    if not (0 <= call.attributes["beta_1"] < 1 and 0 <= call.attributes["beta_2"] < 1):
        return
    if not 0 < call.attributes["epsilon"] < 1:
        return
    wanted = [[tf.Variable(x) for x in array] for array in (cores, slots)]
    ids, upstream, rate = (tf.constant(call.inputs[n]) for n in ("ids", "upstream", "rate"))
    a = call.attributes
    with twin(tt_embedding):
        rest = (a["optimizer"], a["beta_1"], a["beta_2"], a["epsilon"])
        ops.tt_update(ids, upstream, *wanted, rate, tt_shape(call), *rest)
    for found, other in zip([*variables["cores"], *variables["slots"]], itertools.chain(*wanted), strict=True):
        close(found, other, max(2e-3, TOLERANCE[cores[0].dtype.name]))


# ---- all operations

#: A legal call, whether a call is legal, and what a legal one gives.
GENERATORS: dict[str, tuple[Callable[..., Call], Callable[..., bool], Callable[..., None]]] = {
    "TfrecAlsGramian": (gramian, legal_gramian, check_gramian),
    "TfrecAlsHalfSweep": (half_sweep, legal_half_sweep, check_half_sweep),
    "TfrecAlsHalfSweepInPlace": (half_sweep_in_place, legal_half_sweep, check_half_sweep),
    "TfrecAlsLosses": (losses, legal_losses, check_losses),
    "TfrecDotTopK": (dot_top_k, legal_dot_top_k, check_dot_top_k),
    "TfrecInt8DotTopK": (int8_dot_top_k, legal_int8_dot_top_k, check_int8_dot_top_k),
    "TfrecInt8Score": (int8_score, legal_int8_score, check_int8_score),
    "TfrecTtLookup": (tt_lookup, legal_tt, check_tt_lookup),
    "TfrecTtLookupGrad": (tt_lookup_grad, legal_tt, check_tt_lookup_grad),
    "TfrecTtUpdate": (tt_update, legal_tt, check_tt_update),
}


def operations() -> dict[str, Callable[..., Any]]:
    """What the loaded library registers, by name."""
    library = ops.library()
    return {name: getattr(library, name) for name in dir(library) if name.startswith("Tfrec")}


# ---- damage

INTEGERS = (-(1 << 63), -(1 << 31), -1, 0, 1, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1)
FLOATS = (math.nan, math.inf, -math.inf, -1.0, -0.0, 0.0, 3e38, 1e-42)


def extreme(random: np.random.Generator, dtype: Any) -> Any:
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return int(np.clip(pick(random, INTEGERS), limits.min, limits.max))
    return pick(random, FLOATS)


def damaged(random: np.random.Generator, array: np.ndarray) -> tuple[str, np.ndarray]:
    array = np.array(array)
    kind = pick(random, ["rank", "cut", "more", "empty", "value", "value", "value", "all", "shuffle", "reverse"])
    axis = int(random.integers(array.ndim)) if array.ndim else 0
    if kind == "rank" or (array.ndim == 0 and kind in ("cut", "more", "empty", "shuffle", "reverse")):
        ways = [array[None], array[..., None], array.reshape(-1)]
        if array.ndim and len(array):
            ways.append(array[0])
        if not array.ndim:
            ways += [np.repeat(array, 0), np.repeat(array, 2)]
        return "rank", pick(random, ways)
    if kind == "cut":
        return kind, np.delete(array, slice(-1, None), axis)
    if kind == "more":
        other = (*array.shape[:axis], 1, *array.shape[axis + 1 :])
        return kind, np.concatenate([array, np.ones(other, array.dtype)], axis)
    if kind == "empty":
        return kind, np.delete(array, slice(None), axis)
    if kind == "shuffle":
        return kind, random.permutation(array, axis=axis)
    if kind == "reverse":
        return kind, np.flip(array, axis).copy()
    if array.size:
        with np.errstate(over="ignore"):
            at = slice(None) if kind == "all" else random.integers(array.size)
            array.reshape(-1)[at] = extreme(random, array.dtype)
    return kind, array


def damage(random: np.random.Generator, call: Call) -> None:
    """One thing, anywhere."""
    places = [(call.inputs, n) for n in call.inputs] + [(call.attributes, n) for n in call.attributes]
    places += [(call.variables, n) for n in call.variables] * 2
    place, name = pick(random, places)
    value = place[name]
    if place is call.attributes:
        if isinstance(value, str):
            return
        if isinstance(value, list):
            value, way = list(value), pick(random, ["value", "value", "value", "cut", "more"])
            if way == "cut":
                value.pop()
            elif way == "more":
                value.append(1)
            else:
                value[random.integers(len(value))] = pick(random, INTEGERS)
        else:
            value = pick(random, INTEGERS) if isinstance(value, int) else pick(random, FLOATS)
        place[name] = value
        call.damage.append(f"{name}={value}")
        return
    if place is call.variables and random.random() < 0.4:
        kinds = ["vector", "unknown", "same"] if isinstance(value, list) else ["vector", "unknown"]
        if not isinstance(value, list) or value:
            call.handles[name] = pick(random, kinds)
            call.damage.append(f"{name}: {call.handles[name]} handle")
        return
    if isinstance(value, list):
        if not value:
            return
        at = int(random.integers(len(value)))
        kind, changed = damaged(random, value[at])
        place[name] = [*value[:at], changed, *value[at + 1 :]]
    else:
        kind, changed = damaged(random, value)
        place[name] = changed
        at = -1
    call.damage.append(f"{name}{f'[{at}]' if at >= 0 else ''}: {kind}")


# ---- calls


def lent(array: np.ndarray) -> tf.Tensor:
    """In memory at a multiple of the element's size and of no more, as NumPy may lend it."""
    array = np.asarray(array)
    if array.size == 0 or array.dtype == BFLOAT16:
        return tf.constant(array)
    memory = np.empty(array.size + 17, array.dtype)
    first = next(n for n in range(1, 18) if (memory.ctypes.data + n * array.itemsize) % 64 != 0)
    view = memory[first : first + array.size].reshape(array.shape)
    view[...] = array
    return tf.experimental.dlpack.from_dlpack(view.__dlpack__())


def handle(variable: tf.Variable, kind: str | None) -> tf.Tensor:
    if kind == "unknown":
        return tf.raw_ops.VarHandleOp(dtype=variable.dtype, shape=variable.shape, shared_name=f"nothing {id(variable)}")
    if kind == "vector":
        return tf.reshape(variable.handle, [1])
    return variable.handle


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    return [function(v) for v in value] if isinstance(value, list) else function(value)


def call_native(call: Call, function: Callable[..., Any], way: str) -> tuple[Any, dict[str, Any]]:
    """The results, and the variables."""
    variables = {n: mapped(tf.Variable, v) for n, v in call.variables.items()}
    handles = {
        n: [handle(v, call.handles.get(n) if k == 0 else None) for k, v in enumerate(vs)]
        if isinstance(vs, list)
        else handle(vs, call.handles.get(n))
        for n, vs in variables.items()
    }
    for name, kind in call.handles.items():
        if kind == "same":
            handles[name][0] = handles["cores"][-1]

    def run(inputs: dict[str, Any]) -> Any:
        found = function(**inputs, **handles, **call.attributes)
        return None if isinstance(found, tf.Operation) else found  # in a graph, an operation without results

    if way == "constants":
        return tf.function(lambda: run(call.inputs), autograph=False)(), variables
    given = {n: mapped(lent if way == "lent" else tf.constant, v) for n, v in call.inputs.items()}
    if call.inputs.get("queries") is call.inputs.get("items", 0):
        given["queries"] = given["items"]  # one tensor, not two of equal content
    if way in ("eager", "lent"):
        return run(given), variables
    flat = tf.nest.flatten(given)
    signature = [tf.TensorSpec(t.shape if way == "shapes" else None, t.dtype) for t in flat]
    traced = tf.function(
        lambda *tensors: run(tf.nest.pack_sequence_as(given, tensors)), input_signature=signature, autograph=False
    )
    return traced(*flat), variables


WAYS = ("eager", "eager", "eager", "lent", "lent", "shapes", "unknown", "constants")


def draw(seed: int, number: int, functions: dict[str, Callable[..., Any]]) -> tuple[str, str]:
    """One call: the operation, and ``legal`` or ``refused``."""
    names = sorted(GENERATORS)
    name = names[number % len(names)]
    random = np.random.default_rng([seed, number])
    make, legal, check = GENERATORS[name]
    call = make(random)
    for _ in range(pick(random, [0, 1, 1, 1, 2])):
        damage(random, call)
    way = pick(random, WAYS)
    print(f"{number} {name} {way} {'; '.join(call.damage) or 'as it should be'}", flush=True)
    expected = legal(call)
    try:
        found, variables = call_native(call, functions[name], way)
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, ValueError) as error:
        # Shape inference of a graph answers with a ValueError; an unknown variable is not found.
        if isinstance(error, ValueError) and way in ("eager", "lent"):
            raise
        if isinstance(error, tf.errors.NotFoundError) and "unknown" not in call.handles.values():
            raise
        if expected:
            raise AssertionError(f"refused what is legal: {error}") from error
        return name, "refused"
    assert expected, "took what is not legal"
    check(call, found, variables)
    return name, "legal"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--draws", type=int, default=500)
    arguments = parser.parse_args()
    functions = operations()
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for number in range(arguments.first, arguments.first + arguments.draws):
        counts[draw(arguments.seed, number, functions)] += 1
    for (name, outcome), count in sorted(counts.items()):
        print(f"counted {name} {outcome} {count}")


if __name__ == "__main__":
    sys.exit(main())
