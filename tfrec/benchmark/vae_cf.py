"""The sparse training step of VAE-CF against the same network with dense input and target.

Speed: both in one process, timed alternately; the ratio is taken within each round. Memory: each in a process of its
own, the highest resident size during steps less the one before the first step, when model, optimizer state and data
exist already.

Operations are counted once per multiplication and once per addition, and only those that a sparse encoder needs:
2 (forward) + 4 (backward) per weight and user for dense layers, 2 + 2 per unit and non-zero for the first one.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec import commands
from tfrec.benchmark.memory import resident_bytes
from tfrec.benchmark.timing import matmul_peak, seconds_of, spread
from tfrec.data import Synthetic
from tfrec.data.csr import ResidentMatrix
from tfrec.models import VAECF
from tfrec.optimizers import Adam

_HIDDEN, _LATENT = 600, 200
#: name -> users, items. Of ml-20m's users a part is enough: a step sees one batch.
_SHAPES = {"ml-1m": (4_834, 3_497), "ml-20m": (12_000, 20_720)}


class DenseVAECF(keras.Model):
    """The network of `VAECF` as it is usually written: dense rows, dense target, log-softmax of all logits."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(_HIDDEN, activation="tanh")
        self.code = keras.layers.Dense(2 * _LATENT)
        self.drop = keras.layers.Dropout(0.5)
        self.decoded = keras.layers.Dense(_HIDDEN, activation="tanh")
        self.logits = keras.layers.Dense(num_items)

    def call(self, x: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits and KL divergence."""
        h = self.drop(tf.math.l2_normalize(x, axis=1), training=training)
        mean, log_variance = tf.split(self.code(self.hidden(h)), 2, axis=1)
        kl = 0.5 * tf.reduce_sum(tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance, axis=1)
        z = mean + tf.exp(0.5 * log_variance) * tf.random.normal(tf.shape(mean)) if training else mean
        return self.logits(self.decoded(z)), kl

    def train_step(self, x: tf.Tensor) -> dict[str, Any]:
        """One step of Liang et al.'s loss."""
        with tf.GradientTape() as tape:
            logits, kl = self(x, training=True)
            nll = -tf.reduce_sum(tf.nn.log_softmax(logits) * x, axis=1)
            loss = tf.reduce_mean(nll + 0.2 * kl)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def _rows(shape: str) -> scipy.sparse.csr_matrix:
    """A user-item matrix like the positive ratings of the data set: half of the events that users draw."""
    users, items = _SHAPES[shape]
    matrix = Synthetic(num_users=users, num_items=items, seed=1).interactions().to_csr().tocoo()
    kept = np.random.default_rng(0).random(matrix.nnz) < 0.5
    return scipy.sparse.csr_matrix((matrix.data[kept], (matrix.row[kept], matrix.col[kept])), shape=matrix.shape)


def _step(kind: str, matrix: scipy.sparse.csr_matrix) -> Callable[[tf.Tensor], tf.Tensor]:
    """A compiled function: user indices -> loss, after one update."""
    keras.utils.set_random_seed(1)
    gather = ResidentMatrix(matrix).gather
    num_items = matrix.shape[1]
    model: keras.Model
    if kind == "sparse":
        model = VAECF(num_items, hidden_dims=(_HIDDEN,), latent_dim=_LATENT, kl_cap=0.2)
        model.compile(Adam(1e-3), gather=gather)
    else:
        model = DenseVAECF(num_items)
        model.compile(Adam(1e-3))
        model(tf.zeros([1, num_items]))
    model.optimizer.build(model.trainable_variables)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])
    def step(users: tf.Tensor) -> tf.Tensor:
        rows = users if kind == "sparse" else tf.sparse.to_dense(gather(users))
        return model.train_step(rows)["loss"]

    return step


def _run_step(step: Callable[[tf.Tensor], tf.Tensor], users: tf.Tensor) -> np.ndarray:
    return step(users).numpy()


def _operations(matrix: scipy.sparse.csr_matrix, users: np.ndarray) -> float:
    dense = _HIDDEN * 2 * _LATENT + _LATENT * _HIDDEN + _HIDDEN * matrix.shape[1]
    nonzeros = float(np.diff(matrix.indptr)[users].sum())
    return 6.0 * dense * len(users) + 4.0 * _HIDDEN * nonzeros


def benchmark_vae_cf(batch: int, rounds: int, memory: bool = True) -> dict[str, Any]:
    """Users per second, peak memory and share of the matmul peak, on the shapes of ml-1m and ml-20m.

    Args:
        batch: users per step.
        rounds: how often each way is timed.
        memory: whether to measure the host's memory too.
    """
    found: dict[str, Any] = {"benchmark": "vae-cf", "batch_users": batch, "rounds": rounds, "precision": "float32"}
    for shape in _SHAPES:
        matrix = _rows(shape)
        users = np.random.default_rng(1).permutation(matrix.shape[0])[:batch]
        batch_of = tf.constant(users, tf.int64)
        steps = {kind: _step(kind, matrix) for kind in ("sparse", "dense")}
        for step in steps.values():  # trace, allocate, warm up
            step(batch_of).numpy()
            step(batch_of).numpy()
        seconds: dict[str, list[float]] = {kind: [] for kind in steps}
        peaks, shares = [], []
        for number in range(rounds):
            peaks.append(matmul_peak([(batch, _HIDDEN, matrix.shape[1]), (batch, matrix.shape[1], _HIDDEN)]))
            for kind, step in steps.items():
                seconds[kind].append(seconds_of(functools.partial(_run_step, step, batch_of)))
            shares.append(_operations(matrix, users) / seconds["sparse"][-1] / peaks[-1])
            print(f"{shape} round {number + 1}/{rounds}", file=sys.stderr, flush=True)
        ratios = np.array(seconds["dense"]) / np.array(seconds["sparse"])
        rates = _operations(matrix, users) / np.array(seconds["sparse"])
        found[shape] = {
            "items": matrix.shape[1],
            "nonzeros_per_user": round(float(np.diff(matrix.indptr)[users].mean()), 1),
            "sparse_users_per_second": spread(len(users) / np.array(seconds["sparse"])),
            "dense_users_per_second": spread(len(users) / np.array(seconds["dense"])),
            "speed_ratio": spread(ratios),
            "matmul_peak_gflops": spread(np.array(peaks) / 1e9),
            "sparse_gflops": spread(rates / 1e9),
            "share_of_matmul_peak": spread(np.array(shares)),
        }
        if memory:
            peak = {kind: _memory_in_child(kind, shape, batch) for kind in steps}
            found[shape] |= {f"{kind}_peak_mib": mib for kind, mib in peak.items()}
            found[shape]["memory_ratio"] = round(peak["sparse"] / peak["dense"], 3)
        del steps, step
    return found


def _memory_in_child(kind: str, shape: str, batch: int) -> float:
    """Peak resident memory of steps above what was there before them, in MiB, measured in a new process."""
    command = [sys.executable, "-m", "tfrec.benchmark.vae_cf", kind, shape, str(batch)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return round(json.loads(done.stdout.splitlines()[-1]) / 2**20, 1)


def _measure_memory(kind: str, shape: str, batch: int) -> int:
    matrix = _rows(shape)
    users = np.random.default_rng(1).permutation(matrix.shape[0])[:batch]
    step = _step(kind, matrix)
    # Trace and load every kernel with a batch that needs hardly any memory.
    step(tf.constant(users[:2], tf.int64)).numpy()
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest size so far
    for _ in range(3):
        step(tf.constant(users, tf.int64)).numpy()
    return resident_bytes("VmHWM") - before


if __name__ == "__main__":
    commands.keep_freed_memory()
    print(_measure_memory(sys.argv[1], sys.argv[2], int(sys.argv[3])))
