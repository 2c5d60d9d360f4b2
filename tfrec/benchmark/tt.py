"""Tensor-train embeddings against the pure-TensorFlow twin and a dense table, at FBTT-Embedding's shape."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec import ops
from tfrec.benchmark.memory import resident_bytes
from tfrec.benchmark.timing import matmul_peak, seconds_of, spread
from tfrec.errors import InputError
from tfrec.layers import TTEmbedding
from tfrec.layers.tt_factors import initial_cores

#: The headline benchmark of facebookresearch/FBTT-Embedding: 11,000,000 x 64, batch 512 of 20 ids.
_SHAPE = ops.TTShape(11_000_000, (200, 220, 250), (4, 4, 4), (32, 32))
_IDS = 512 * 20
#: Rows of the dense table that it is compared with: 256 MB; 11,000,000 would be 2.8 GB.
_DENSE_ROWS = 1_000_000
_ZIPF = 1.1


def operations(shape: ops.TTShape, ids: np.ndarray) -> dict[str, float]:
    """Multiplications and additions that a lookup and its gradient need, with equal prefixes and ids computed once.

    Forward: for each distinct prefix of k cores Q_{k-1} r_{k-1} q_k r_k multiply-adds, Q_k = q_1 ... q_k, of two
    operations each. Backward: twice as many, one product for each side of every product forward, and those of the
    prefixes of fewer than T cores once more, as they are computed again instead of kept.
    """
    digits: list[np.ndarray] = []
    left = ids.astype(np.int64)
    for p in reversed(shape.row_factors):
        digits.insert(0, left % p)
        left = left // p
    q, r = shape.column_factors, (1, *shape.ranks, 1)
    forward, last, prefix = 0.0, 0.0, digits[0]
    for k in range(1, len(q)):
        prefix = prefix * shape.row_factors[k] + digits[k]
        last = 2.0 * len(np.unique(prefix)) * math.prod(q[:k]) * r[k] * q[k] * r[k + 1]
        forward += last
    return {"forward": forward, "backward": 3.0 * forward - last}


def draw_ids(kind: str, random: np.random.Generator) -> np.ndarray:
    """``uniform``; ``zipf``: P(rank) ~ rank^-1.1, ranks scattered over the ids; ``zipf_by_popularity``: rank = id."""
    if kind == "uniform":
        return random.integers(_SHAPE.num_rows, size=_IDS)
    weights = np.arange(1, _SHAPE.num_rows + 1, dtype=np.float64) ** -_ZIPF
    cumulative = np.cumsum(weights)
    ranks = np.searchsorted(cumulative, random.random(_IDS) * cumulative[-1])
    return ranks if kind == "zipf_by_popularity" else ranks * 7_368_787 % _SHAPE.num_rows  # a prime: each id once


def _measure(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each way, alternating; short ones several times in a row, of which the mean counts."""
    repeats = {}
    for name, way in ways.items():
        way()
        repeats[name] = max(1, round(0.05 / max(seconds_of(way), 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            way()

            def several(way: Callable[[], Any] = way, n: int = repeats[name]) -> None:
                for _ in range(n):
                    way()

            times[name].append(seconds_of(several) / repeats[name])
    return {name: np.array(values) for name, values in times.items()}


def benchmark_tt(rounds: int, memory: bool = True) -> dict[str, Any]:
    """Microseconds per id, operations per second, and memory.

    Args:
        rounds: how often each way is timed.
        memory: whether to measure the host's memory too.

    Raises:
        InputError: the native library is not built.
    """
    if ops.library() is None:
        raise InputError("The benchmark is of the native operations, which are not built.\nRun launch/setup --force.")
    random = np.random.default_rng(0)
    start = initial_cores("approx_normal", 0.05, _SHAPE, random)
    upstream = tf.constant(random.normal(size=(_IDS, _SHAPE.width)), tf.float32)
    # Two: once a variable's rows have been updated, TensorFlow copies all of it whenever it is read.
    fixed, dense = (keras.layers.Embedding(_DENSE_ROWS, _SHAPE.width) for _ in range(2))
    fixed.build()
    dense.build()
    dense_optimizer = keras.optimizers.SGD(0.01)
    dense_optimizer.build(dense.trainable_variables)
    peaks = [matmul_peak([])]
    found: dict[str, Any] = {
        "benchmark": "tt",
        "rounds": rounds,
        "ids": _IDS,
        "shape": {**_SHAPE.attributes(), "embedding_dim": _SHAPE.width},
        "cores_mib": round(_SHAPE.num_parameters * 4 / 2**20, 2),
        "dense_table_mib": round(_SHAPE.num_rows * _SHAPE.width * 4 / 2**20, 1),
        "operations": "2 per multiply-add; each distinct prefix and id counted once; backward with what it recomputes",
    }
    raw: dict[str, dict[str, np.ndarray]] = {}
    for kind in ("uniform", "zipf", "zipf_by_popularity"):
        drawn = draw_ids(kind, random)
        raw[kind] = _measure(_ways(drawn, start, upstream, fixed, dense, dense_optimizer), rounds)
        found[kind] = {"distinct_ids": len(np.unique(drawn)), **_summary(raw[kind], operations(_SHAPE, drawn))}
        print(f"{kind}: {json.dumps(found[kind])}", file=sys.stderr, flush=True)
    peaks.append(matmul_peak([]))
    peak = max(peaks)
    found["matmul_peak_gflops"] = {"best": round(peak / 1e9, 1), **spread(np.array(peaks) / 1e9)}
    for kind in raw:
        for stage in ("forward", "backward"):
            found[kind][stage]["share_of_matmul_peak"] = round(found[kind][stage]["gflops"]["median"] * 1e9 / peak, 3)
    found["zipf_times_faster_than_uniform"] = {
        stage: spread(raw["uniform"][stage] / raw["zipf"][stage]) for stage in ("forward", "backward")
    }
    if memory:
        found["memory_of_a_lookup_and_its_gradient"] = {way: _memory(way) for way in ("native", "twin")}
        found["training_at_size"] = _memory("training")
    return found


def _ways(
    drawn: np.ndarray, start: list[np.ndarray], upstream: tf.Tensor, fixed: Any, dense: Any, dense_optimizer: Any
) -> dict[str, Callable[[], Any]]:
    cores = [tf.constant(c) for c in start]
    variables = [tf.Variable(c) for c in start]
    ids, dense_ids = tf.constant(drawn), tf.constant(drawn % _DENSE_ROWS)

    # Each gives one number back, so that nothing is copied, and the call waits for the work.
    @tf.function
    def forward(ids: tf.Tensor) -> tf.Tensor:
        return ops.tt_lookup(ids, cores, _SHAPE)[-1, -1]

    @tf.function
    def backward(ids: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        return tf.add_n([g[-1, -1, -1, -1] for g in ops.tt_gradients(ids, upstream, cores, _SHAPE)])

    @tf.function
    def update(ids: tf.Tensor, upstream: tf.Tensor) -> None:
        ops.tt_update(ids, upstream, variables, [], tf.constant(1e-6), _SHAPE, "sgd")

    @tf.function
    def twin_forward(ids: tf.Tensor) -> tf.Tensor:
        return ops.tt_lookup_reference(ids, cores, _SHAPE)[-1, -1]

    @tf.function
    def twin_both(ids: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(cores)
            rows = ops.tt_lookup_reference(ids, cores, _SHAPE)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(rows, cores, upstream)]
        return rows[-1, -1] + tf.add_n([g[-1, -1, -1, -1] for g in gradients])

    @tf.function
    def dense_forward(ids: tf.Tensor) -> tf.Tensor:
        return fixed(ids)[-1, -1]

    @tf.function
    def dense_step(ids: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            rows = dense(ids)
        dense_optimizer.apply(tape.gradient(rows, dense.trainable_variables, upstream), dense.trainable_variables)
        return rows[-1, -1]

    return {
        "forward": lambda: forward(ids).numpy(),
        "backward": lambda: backward(ids, upstream).numpy(),
        "fused_sgd_update": lambda: update(ids, upstream),
        "twin_forward": lambda: twin_forward(ids).numpy(),
        "twin_forward_and_backward": lambda: twin_both(ids, upstream).numpy(),
        "dense_forward": lambda: dense_forward(dense_ids).numpy(),
        "dense_forward_and_sgd": lambda: dense_step(dense_ids, upstream).numpy(),
    }


def _summary(times: dict[str, np.ndarray], counts: dict[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {name: {"microseconds_per_id": spread(t * 1e6 / _IDS)} for name, t in times.items()}
    for stage in ("forward", "backward"):
        found[stage]["operations"] = counts[stage]
        found[stage]["gflops"] = spread(counts[stage] / times[stage] / 1e9)
    both = times["forward"] + times["backward"]
    found["forward_and_backward_microseconds_per_id"] = spread(both * 1e6 / _IDS)
    found["times_faster_than_twin"] = {
        "forward": spread(times["twin_forward"] / times["forward"]),
        "forward_and_backward": spread(times["twin_forward_and_backward"] / both),
    }
    found["times_a_dense_lookup"] = spread(times["forward"] / times["dense_forward"])
    return found


def _memory(way: str) -> Any:
    """MiB that a lookup and its gradient take above what was there before, or `_measure_training`, in a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "tfrec.benchmark.tt", way],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def _measure_training() -> dict[str, Any]:
    """Ten million rows of 128: memory and time of training pairs of ids by a dot product, with Adam.

    The label is whether the ids' sum is odd, which the last core alone can tell: an easy task, to see that it learns.
    """
    random = np.random.default_rng(0)
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    rows, width, pairs = 10_000_000, 128, 8_192
    table = TTEmbedding(rows, width, 32, seed=0)
    ids = keras.Input((2,), dtype="int64")
    found = table(ids)
    model = keras.Model(ids, keras.ops.sum(found[:, 0] * found[:, 1], axis=-1, keepdims=True))
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.BinaryCrossentropy(from_logits=True))
    x = random.integers(rows, size=(pairs, 2))
    y = (x.sum(axis=1, keepdims=True) % 2).astype(np.float32)
    losses, times = [], []
    for _ in range(20):
        times.append(seconds_of(lambda: losses.append(float(model.train_on_batch(x, y)))))
    state = [*model.weights, *model.optimizer.variables]
    return {
        "rows": rows,
        "embedding_dim": width,
        "ids_per_step": 2 * pairs,
        "dense_table_mib": round(rows * width * 4 / 2**20, 1),
        "cores_mib": round(table.shape.num_parameters * 4 / 2**20, 2),
        "cores_and_adam_mib": round(sum(math.prod(v.shape) * 4 for v in state) / 2**20, 2),
        "process_grew_mib": round((resident_bytes("VmHWM") - before) / 2**20, 1),
        "milliseconds_per_step": spread(np.array(times[5:]) * 1e3),
        "loss": {"first": round(losses[0], 4), "last": round(losses[-1], 4)},
    }


def _measure_memory(way: str) -> float:
    random = np.random.default_rng(0)
    cores = [tf.constant(c) for c in initial_cores("approx_normal", 0.05, _SHAPE, random)]
    lookup = ops.tt_lookup if way == "native" else ops.tt_lookup_reference

    def run(ids: tf.Tensor, upstream: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            tape.watch(cores)
            rows = lookup(ids, cores, _SHAPE)
        [tf.convert_to_tensor(g) for g in tape.gradient(rows, cores, upstream)]

    run(tf.constant([0]), tf.ones([1, _SHAPE.width]))  # what a process does once
    ids = tf.constant(draw_ids("uniform", random))
    upstream = tf.ones([_IDS, _SHAPE.width])
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    run(ids, upstream)
    return round((resident_bytes("VmHWM") - before) / 2**20, 1)


if __name__ == "__main__":
    print(json.dumps(_measure_training() if sys.argv[1] == "training" else _measure_memory(sys.argv[1])))
