"""What the rounding of a NeuMF costs, layer by layer, and what it gains in time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.evaluation import Candidates
from tfrec.models import NeuMF
from tfrec.quantization import Affine, QuantizedNeuMF, Statistics, activations

#: Pairs are those of this many users with an item of theirs and another one.
_USERS = 512
#: Users whose candidates are scored.
_SCORED = 256


def layers(
    model: NeuMF, made: QuantizedNeuMF, statistics: Statistics, train: scipy.sparse.csr_matrix
) -> dict[str, Any]:
    """Of each activation and weight: its values' range, what the integers cover, the step, and the ratio of signal to
    noise in decibels (over a thousand training pairs)."""
    rows = np.flatnonzero(np.diff(train.indptr))[:_USERS]
    first = train.indices[train.indptr[rows]]
    items = np.stack([first, np.random.default_rng(0).integers(0, model.num_items, len(first))], axis=1)
    exact = {n: v.numpy() for n, v in activations(model, tf.constant(rows), tf.constant(items)).items()}
    found: dict[str, Any] = {}
    for name, integers in made.integers(rows, items).items():
        if name == "logit":
            target = exact["logit"] if "logit" in exact else next(v for n, v in exact.items() if n.endswith("_logit"))
            found["logit"] = {"signal_to_noise_db": _decibels(target.ravel(), integers.ravel())}
            continue
        name = name.removesuffix("_integer")
        affine = made.affine(name)
        found[name] = {
            "min": statistics[name].min,
            "max": statistics[name].max,
            **_covered(affine),
            "signal_to_noise_db": _decibels(exact[name], affine.dequantize(integers.astype(np.int32))),
        }
    for name in ("gmf_logit", "mlp_logit"):
        if name in statistics.tensors and name not in found:
            found[name] = {"min": statistics[name].min, "max": statistics[name].max}
    return found | _weights(model, made)


def _weights(model: NeuMF, made: QuantizedNeuMF) -> dict[str, Any]:
    found = {}
    values = {v.path.split("/")[-1]: v.numpy() for v in model.weights}
    for name, value in values.items():
        side = name.removesuffix("_embedding")
        parts = [name] if name.startswith("kernel_") else [f"{side}_gmf", f"{side}_mlp"] if side != name else []
        integers = {part: made.stored(part) for part in parts}
        rounded = [made.affine(p).dequantize(q.astype(np.int32)) for p, q in integers.items() if q is not None]
        if rounded:
            found[name] = {
                "min": float(value.min()),
                "max": float(value.max()),
                "signal_to_noise_db": _decibels(value, np.concatenate(rounded, axis=1)),
            }
    return found


def _covered(affine: Affine) -> dict[str, float]:
    ends = affine.dequantize(np.array([affine.low, affine.high]))
    return {"integers_from": float(ends[0]), "integers_to": float(ends[1]), "step": float(affine.scale)}


def _decibels(exact: np.ndarray, rounded: np.ndarray) -> float | None:
    noise = np.square(exact.astype(np.float64) - rounded).sum()
    signal = np.square(exact.astype(np.float64)).sum()
    return None if noise == 0 or signal == 0 else round(float(10 * np.log10(signal / noise)), 2)


def _asked(users: np.ndarray, candidates: Candidates | None) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Users, int64 ``[B]``, and their candidates ``[B, C]``; None: all items."""
    if candidates is None:
        return tf.constant(users[:_SCORED], tf.int64), None
    # Candidates know users by their place in the test.
    places = candidates.users[:_SCORED]
    return tf.constant(users[places], tf.int64), candidates.block(tf.constant(places))


def distinct_scores(model: Any, users: np.ndarray, candidates: Candidates | None) -> float:
    """Mean number of different scores among a user's candidates: fewer than candidates means ties.

    Args:
        model: with ``scores``.
        users: int64 ``[B]``, of the test, in its order.
        candidates: of the test; None: all items.
    """
    scores = model.scores(*_asked(users, candidates)).numpy()
    return float(np.mean([len(np.unique(row)) for row in scores]))


def speed(model: Any, made: QuantizedNeuMF, users: np.ndarray, candidates: Candidates | None) -> dict[str, Any]:
    """Pairs per second of both, alternating: medians of five after a warm-up. Arguments as in `distinct_scores`."""
    asked, items = _asked(users, candidates)
    pairs = len(asked) * (model.num_items if items is None else int(items.shape[1]))
    ways = {n: tf.function(m.scores) for n, m in (("float", model), ("quantized", made))}
    seconds: dict[str, list[float]] = {n: [] for n in ways}
    for turn in range(6):
        for name, way in ways.items():
            start = time.perf_counter()
            way(asked, items).numpy()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    medians = {n: float(np.median(s)) for n, s in seconds.items()}
    return {
        **{f"{n}_pairs_per_second": round(pairs / s) for n, s in medians.items()},
        "quantized_over_float": round(float(np.median(np.array(seconds["float"]) / seconds["quantized"])), 3),
        "native": made.runs_natively,
    }
