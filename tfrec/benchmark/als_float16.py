"""float16 against float32 factors, as in the study of the implicit package: precision@10, time and memory.

A random fifth of the pairs is held out (seeds 1, 2, 3); Last.fm's plays weighted by BM25 (K1 = 100, B = .8),
MovieLens's ratings of 4 and 5 stars by BM25 (B = .9) times 5; 128 factors, 15 iterations. Data sets that are not at
hand are left out, and said.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from tfrec.benchmark.timing import seconds_of, spread
from tfrec.data import Interactions, confidence, load, random_holdout
from tfrec.evaluation import evaluate_full_ranking
from tfrec.models import ALS

_SETS = ("lastfm-2k", "lastfm-360k", "ml-1m", "ml-20m")
_SEEDS = (1, 2, 3)


def benchmark_als_float16(rounds: int, data_dir: Path | None = None) -> dict[str, Any]:
    """For each available data set both types' precision@10, seconds and bytes."""
    root = data_dir or os.environ.get("TFREC_DATA")
    found: dict[str, Any] = {"benchmark": "als-float16", "factors": 128, "iterations": 15, "seeds": _SEEDS}
    for name in _SETS:
        if root is None or not any((Path(root) / n).exists() for n in (name, f"{name}.zip", f"{name}.tar.gz")):
            found[name] = "not available"
            continue
        events = load(name, root)
        if name.startswith("ml"):
            kept = events.values >= 4
            events = Interactions(
                events.user_index[kept], events.item_index[kept], events.values[kept], events.user_ids, events.item_ids
            )
        found[name] = _study(name, events, rounds)
        print(name, found[name], file=sys.stderr, flush=True)
    return found


def _study(name: str, events: Interactions, rounds: int) -> dict[str, Any]:
    precision: dict[str, list[float]] = {"float32": [], "float16": []}
    seconds: dict[str, list[float]] = {"float32": [], "float16": []}
    memory: dict[str, int] = {}
    for seed in _SEEDS:
        split = random_holdout(events, seed=seed)
        train, test = split.train, split.test
        weighted = confidence.bm25(train, 100.0, 0.8 if name.startswith("lastfm") else 0.9)
        if name.startswith("ml"):
            weighted = weighted * np.float32(5)
        for kind in precision:
            times = []
            for _ in range(rounds if train.nnz < 5_000_000 else 1):
                model = ALS(128, iterations=15, factor_dtype=kind, seed=seed)
                times.append(seconds_of(functools.partial(model.fit, weighted, verbose=0)))
            users, items = model.user_factors.astype(np.float32), model.item_factors.astype(np.float32)
            scores = functools.partial(_scores, users, items.T)
            report = evaluate_full_ranking(scores, train, test, ["precision@10"], gains="binary")
            precision[kind].append(report.metrics["precision@10"])
            seconds[kind].append(float(np.median(times)))
            memory[kind] = model.user_factors.nbytes + model.item_factors.nbytes
    difference = np.array(precision["float16"]) - np.array(precision["float32"])
    return {
        **{f"precision@10_{kind}": [round(p, 5) for p in values] for kind, values in precision.items()},
        "mean_difference": round(float(difference.mean()), 5),
        "float16_seconds_over_float32": spread(np.array(seconds["float16"]) / np.array(seconds["float32"])),
        "factor_bytes": memory,
    }


def _scores(users: np.ndarray, items: np.ndarray, rows: np.ndarray, seen: scipy.sparse.csr_matrix) -> np.ndarray:
    return users[rows] @ items
