"""NeuMF at ml-20m's shape and the reference sizes: training, scoring, memory, and lazy against dense Adam.

Training is timed as people run it, by ``fit``. What is compared, alternating, in one process:

- ``device``: positives on the device, exact negatives drawn there, several steps per graph call;
- ``host``: the same class and optimizer, ``fit`` on a tf.data pipeline whose pairs NumPy shuffles and samples (uniform
  negatives without a check, the cheapest form), prefetched;
- ``plain``: the network as it is usually written in Keras (four embeddings, dense layers, dropout, Keras's Adam), on
  that pipeline.

The matmul limit is the peak of this machine over 0.64 MFLOP per sample (3 x 2 x 106,560 multiply-adds: forward and
back through 256-256-128-64 and the output layer), which a computation pair by pair cannot pass. tfrec's can: it does
the first layer once per user and item of the batch. Scoring: 0.213 MFLOP per pair.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec import commands
from tfrec.benchmark.memory import resident_bytes
from tfrec.benchmark.timing import matmul_peak, seconds_of, spread
from tfrec.data.pipelines import without_autotune
from tfrec.data.pointwise import PointwiseSampler
from tfrec.evaluation import Candidates, evaluate_candidates
from tfrec.families.neumf import NeuMFTraining, is_lazy
from tfrec.models import NeuMF
from tfrec.optimizers import Adam

_USERS, _ITEMS, _EVENTS = 138_493, 26_744, 20_000_263
_NEGATIVES = 4
_DIMS = (256, 256, 128, 64)
#: Multiply-adds of one pair through the network, forward.
_PAIR = 256 * 256 + 256 * 128 + 128 * 64 + 128
_BATCHES = (1 << 16, 1 << 18)
#: NVIDIA's settings.
_ADAM: dict[str, Any] = {"beta_1": 0.25, "beta_2": 0.5, "epsilon": 1e-8}


def ml20m_shape(events: int | None = None) -> scipy.sparse.csr_matrix:
    """Positives like ml-20m's, as many as it has by default: at least 20 per user with a long tail, and long-tailed
    items."""
    events = events or _EVENTS
    random = np.random.default_rng(20)
    activity = 20 + random.lognormal(4.0, 1.2, _USERS)
    lengths = np.minimum(activity * (events / activity.sum()), _ITEMS // 4).astype(np.int64)
    user = np.repeat(np.arange(_USERS, dtype=np.int64), lengths)
    item = np.minimum((random.pareto(1.2, len(user)) * 300).astype(np.int64), _ITEMS - 1)
    pairs = np.unique(user * _ITEMS + item)
    user, item = pairs // _ITEMS, (pairs % _ITEMS).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=_USERS))])
    return scipy.sparse.csr_matrix((np.ones(len(item), np.float32), item, offsets), shape=(_USERS, _ITEMS))


def device_model(train: scipy.sparse.csr_matrix, batch: int, steps: int) -> tuple[NeuMF, PointwiseSampler]:
    """NeuMF of the reference sizes on samples made on the device, as `tfrec.families.neumf` sets it up."""
    keras.utils.set_random_seed(1)
    sampler = PointwiseSampler(train, batch, _NEGATIVES, seed=1)
    rows = {"user_embedding": sampler.positives_per_step, "item_embedding": batch}
    model = NeuMF(_USERS, _ITEMS, layer_dims=_DIMS)
    lazy = [t for t, n in rows.items() if is_lazy(NeuMFTraining(), n, getattr(model, t).shape[0])]
    model.compile(
        Adam(4.5e-3, lazy=bool(lazy), **_ADAM), sampler=sampler.batch, lazy_tables=lazy, steps_per_execution=steps
    )
    return model, sampler


class PlainNeuMF(keras.Model):
    """The network pair by pair, as it is usually written."""

    def __init__(self) -> None:
        super().__init__()
        table = functools.partial(
            keras.layers.Embedding, embeddings_initializer=keras.initializers.RandomNormal(0, 0.01)
        )
        self.mf_user, self.mf_item = table(_USERS, 64), table(_ITEMS, 64)
        self.mlp_user, self.mlp_item = table(_USERS, _DIMS[0] // 2), table(_ITEMS, _DIMS[0] // 2)
        self.hidden = [keras.layers.Dense(d, activation="relu") for d in _DIMS[1:]]
        self.drop = keras.layers.Dropout(0.5)
        self.final = keras.layers.Dense(1)

    def call(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Logits ``[B, 1]``."""
        user, item = inputs
        h = tf.concat([self.mlp_user(user), self.mlp_item(item)], axis=1)
        for layer in self.hidden:
            h = self.drop(layer(h), training=training)
        return self.final(tf.concat([self.mf_user(user) * self.mf_item(item), h], axis=1))


def host_pipeline(train: scipy.sparse.csr_matrix, batch: int, steps: int) -> tf.data.Dataset:
    """Shuffled positives with uniform negatives, made by NumPy, one batch ahead."""
    users = np.repeat(np.arange(_USERS, dtype=np.int32), np.diff(train.indptr))
    items = train.indices.astype(np.int32)
    random = np.random.default_rng(1)
    positives = batch // (1 + _NEGATIVES)
    label = np.repeat([1.0, 0.0], [positives, positives * _NEGATIVES]).astype(np.float32)

    def batches() -> Iterator[Any]:
        order = random.permutation(len(users))
        for step in range(steps):
            chosen = order[step * positives : (step + 1) * positives]
            user = np.concatenate([users[chosen], np.repeat(users[chosen], _NEGATIVES)])
            negative = random.integers(0, _ITEMS, positives * _NEGATIVES, dtype=np.int32)
            yield (user, np.concatenate([items[chosen], negative])), label

    pair = tf.TensorSpec([None], tf.int32)
    source = tf.data.Dataset.from_generator(batches, output_signature=((pair, pair), tf.TensorSpec([None], tf.float32)))
    # Without tf.data's tuning thread, which can hold up the end of `fit` by seconds.
    return without_autotune(source.prefetch(1))


def benchmark_neumf(rounds: int, memory: bool = True) -> dict[str, Any]:
    """Samples per second in training and scoring, shares of the matmul limit, peak memory, and Adam's crossover.

    Args:
        rounds: how often each way is timed.
        memory: whether to measure the host's memory too.
    """
    train = ml20m_shape()
    found: dict[str, Any] = {
        "benchmark": "neumf",
        "users": _USERS,
        "items": _ITEMS,
        "positives": int(train.nnz),
        "rounds": rounds,
        "precision": "float32",
        "operations_per_sample": 6 * _PAIR,
    }
    for batch in _BATCHES:
        found[f"training_batch_{batch}"] = _training(train, batch, rounds)
    found["scoring_999_negatives"] = _scoring(train, rounds)
    found["adam_user_table"] = _crossover(rounds)
    if memory:
        found["peak_memory_batch_2^18"] = _memory_in_child()
    return found


def _training(train: scipy.sparse.csr_matrix, batch: int, rounds: int) -> dict[str, Any]:
    steps = max(2, (1 << 19) // batch)
    device, sampler = device_model(train, batch, steps)
    host = NeuMF(_USERS, _ITEMS, layer_dims=_DIMS)
    host.compile(Adam(4.5e-3, **_ADAM))
    plain = PlainNeuMF()
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    plain.compile(keras.optimizers.Adam(4.5e-3, **_ADAM), loss=loss, jit_compile=False)
    samples = steps * sampler.positives_per_step * (1 + _NEGATIVES)
    # `take` of the counts: the samples of a step come from the model's own step counter.
    fits = {
        "device": lambda: device.fit(sampler.steps().take(steps), shuffle=False, verbose=0),
        "host": lambda: host.fit(host_pipeline(train, batch, steps), verbose=0, shuffle=False),
        "plain": lambda: plain.fit(host_pipeline(train, batch, steps), verbose=0, shuffle=False),
    }
    for fit in fits.values():  # trace, allocate, warm up
        fit()
    seconds: dict[str, list[float]] = {name: [] for name in fits}
    peaks = []
    for number in range(rounds):
        peaks.append(matmul_peak([(8_192, 256, 256), (16_384, 256, 256)]))
        for name, fit in fits.items():
            seconds[name].append(seconds_of(fit))
        print(f"training, batch {batch}, round {number + 1}/{rounds}", file=sys.stderr, flush=True)
    times = {name: np.array(t) for name, t in seconds.items()}
    limit = np.array(peaks) / (6 * _PAIR)
    return {
        **{f"{name}_samples_per_second": spread(samples / t) for name, t in times.items()},
        "device_over_host": spread(times["host"] / times["device"]),
        "device_over_plain": spread(times["plain"] / times["device"]),
        "matmul_peak_gflops": spread(np.array(peaks) / 1e9),
        "matmul_limit_samples_per_second": spread(limit),
        "device_share_of_limit": spread(samples / times["device"] / limit),
        "lazy_tables": list(device.lazy_tables),
    }


def _scoring(train: scipy.sparse.csr_matrix, rounds: int) -> dict[str, Any]:
    """A block of users with 999 negatives and a held-out item each; with and without drawing and ranking."""
    users = 1_024
    model = NeuMF(_USERS, _ITEMS, layer_dims=_DIMS)
    few = train[:users]
    random = np.random.default_rng(2)
    held = np.array([random.choice(np.setdiff1d(random.integers(0, _ITEMS, 50), few[u].indices)) for u in range(users)])
    candidates = Candidates(few, held, 999)
    drawn = candidates.block(tf.range(users, dtype=tf.int64))
    score = tf.function(model.scores)
    parts = {
        "score": lambda: score(tf.range(users, dtype=tf.int64), drawn).numpy(),
        "evaluate": lambda: evaluate_candidates(model.scores, candidates, ["hit_rate@10"], block_pairs=users * 1_000),
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    peaks = []
    for part in parts.values():
        part()
    for _ in range(rounds):
        peaks.append(matmul_peak([(8_192, 256, 256), (16_384, 256, 256)]))
        for name, part in parts.items():
            seconds[name].append(seconds_of(part))
    limit = np.array(peaks) / (2 * _PAIR)
    pairs = users * 1_000
    return {
        "score_pairs_per_second": spread(pairs / np.array(seconds["score"])),
        "evaluate_pairs_per_second": spread(pairs / np.array(seconds["evaluate"])),
        "matmul_limit_pairs_per_second": spread(limit),
        "score_share_of_limit": spread(pairs / np.array(seconds["score"]) / limit),
        "evaluate_share_of_limit": spread(pairs / np.array(seconds["evaluate"]) / limit),
    }


def _crossover(rounds: int) -> dict[str, Any]:
    """Seconds of one update of the user table when a share of its rows occurs."""
    table = keras.Variable(tf.zeros([_USERS, 192]))
    found = {}
    for share in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8):
        rows = tf.constant(np.random.default_rng(0).permutation(_USERS)[: int(_USERS * share)])
        gradient = tf.random.normal([rows.shape[0], 192])
        steps = {}
        for lazy in (True, False):
            optimizer = Adam(1e-3, lazy=lazy)
            optimizer.build([table])

            def step(optimizer: Adam = optimizer, rows: tf.Tensor = rows, gradient: tf.Tensor = gradient) -> Any:
                slices = tf.IndexedSlices(gradient, rows, tf.constant([_USERS, 192], tf.int64))
                optimizer.apply([slices], [table])
                return table.value[0, 0]

            graph = tf.function(step)
            graph()
            steps["lazy" if lazy else "dense"] = functools.partial(_read, graph)
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(max(rounds, 5)):
            for name, run in steps.items():
                seconds[name].append(seconds_of(run))
        lazy_over_dense = np.array(seconds["lazy"]) / np.array(seconds["dense"])
        found[f"share_{share}"] = {"lazy_over_dense": spread(lazy_over_dense)}
    return found


def _read(graph: Any) -> np.ndarray:
    return graph().numpy()


def _memory_in_child() -> dict[str, float]:
    """Highest resident size of a process that trains at batch 2^18, TensorFlow, data and all."""
    done = subprocess.run(
        [sys.executable, "-m", "tfrec.benchmark.neumf"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def _measure_memory() -> dict[str, float]:
    train = ml20m_shape()
    model, sampler = device_model(train, 1 << 18, 2)
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest size so far, which was that of making the data
    model.fit(sampler.steps().take(4), shuffle=False, verbose=0)
    return {
        "gib": round(resident_bytes("VmHWM") / 2**30, 2),
        "before_training_gib": round(before / 2**30, 2),
    }


if __name__ == "__main__":
    commands.keep_freed_memory()
    print(json.dumps(_measure_memory()))
