"""Measure a trained model and its references on held-out users, and show the result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec import distributed
from tfrec.configs import EvaluationConfig
from tfrec.data.csr import to_sparse_tensor
from tfrec.data.files import atomic_write
from tfrec.evaluation import Report, evaluate_full_ranking
from tfrec.evaluation.full_ranking import Scorer
from tfrec.models import Popularity
from tfrec.training.prepare import Prepared


def model_scorer(model: keras.Model, num_items: int) -> Scorer:
    """Scores of a model that maps sparse rows ``[B, I]`` to ``[B, I]``."""
    forward = tf.function(
        lambda x: model(x, training=False), input_signature=[tf.SparseTensorSpec([None, num_items], tf.float32)]
    )

    def score(rows: np.ndarray, seen: scipy.sparse.csr_matrix) -> tf.Tensor:
        return forward(to_sparse_tensor(seen))

    return score


def measure(score: Scorer, prepared: Prepared, part: str, config: EvaluationConfig) -> Report:
    """Evaluate on the ``validation`` or ``test`` users, on every rank its share."""
    seen, targets, _ = prepared.heldout(part)
    return evaluate_full_ranking(
        score,
        seen,
        targets,
        config.metrics,
        ties=config.ties,
        gains=config.gains,
        block_users=config.block_users,
        rank=distributed.rank(),
        size=distributed.size(),
        sum_across_ranks=distributed.sum_across_ranks,
    )


def measure_all(
    model: keras.Model, prepared: Prepared, config: EvaluationConfig, parts: Sequence[str] = ("validation", "test")
) -> dict[str, dict[str, Report]]:
    """Part -> ``model``, ``popularity`` and, where the truth is known, ``oracle`` -> report."""
    num_items = prepared.split.train.shape[1]
    popularity = Popularity(num_items)
    popularity.adapt(prepared.split.train)
    scorers = {"model": model_scorer(model, num_items), "popularity": model_scorer(popularity, num_items)}
    found: dict[str, dict[str, Report]] = {}
    for part in parts:
        found[part] = {name: measure(score, prepared, part, config) for name, score in scorers.items()}
        if prepared.oracle is not None:
            found[part]["oracle"] = measure(_oracle_scorer(prepared, part), prepared, part, config)
    return found


def _oracle_scorer(prepared: Prepared, part: str) -> Scorer:
    oracle, users = prepared.oracle, prepared.heldout(part)[2]
    assert oracle is not None

    def score(rows: np.ndarray, seen: scipy.sparse.csr_matrix) -> np.ndarray:
        return oracle.scores(users[rows])[:, prepared.split.items]

    return score


def table(reports: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """A text table: a line per model, a column per metric."""
    width = max(len(name) for name in reports)
    lines = ["  ".join([" " * width, *(f"{m:>12}" for m in metrics)])]
    for name, report in reports.items():
        lines.append("  ".join([f"{name:<{width}}", *(f"{report[m]:>12.4f}" for m in metrics)]))
    return "\n".join(lines)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    with atomic_write(path, "w") as stream:
        json.dump(value, stream, indent=2)
        stream.write("\n")
