"""Facts of a run that never was, small and complete."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfrec.evaluation import Details, Report
from tfrec.metrics import Exposure
from tfrec.reporting import DataFacts, Example, RunFacts

METRICS = ("ndcg@10", "recall@20", "coverage@10")


def report(users: int = 60, items: int = 30, seed: int = 0, metrics: tuple[str, ...] = METRICS) -> Report:
    """A test of ``users`` with a target each, one in ten without."""
    random = np.random.default_rng(seed)
    per_user = {name: random.random(users) for name in metrics if not name.startswith("coverage")}
    for values in per_user.values():
        values[::10] = np.nan
    found = {name: float(np.nanmean(values)) for name, values in per_user.items()}
    there = np.flatnonzero(np.arange(users) % 10)
    details = Details(
        10, random.integers(0, items, len(there)), there, random.integers(0, 2, len(there)).astype(np.float64),
        {k: Exposure(random.integers(0, 9, items), random.integers(1, 9, items), users) for k in (10, 20)},
    )  # fmt: skip
    return Report(
        {name: found.get(name, 0.5) for name in metrics}, len(there), users - len(there), per_user, "expected", details
    )


def facts(users: int = 60, items: int = 30, **changes: Any) -> RunFacts:
    """The facts of a run with a model and popularity, of five epochs."""
    random = np.random.default_rng(1)
    test = changes.pop("test", None) or {"model": report(users, items, 2), "popularity": report(users, items, 3)}
    metrics = {
        "recipe": "vae-cf",
        "family": "vae-cf",
        "config": {"model": {"hidden_dims": [8, 4], "anneal": None}, "seed": 0},
        "evaluation": {"metrics": list(test["model"].metrics), "monitor": "ndcg@10", "protocol": "all"},
        "data": {
            "name": "plays.csv", "users": users, "items": items,
            "report": {"rows": 500, "kept": 400, "merged": 40, "dropped": {"no user id": 60}},
        },
        "split": {"name": "held_out_users", "positive": "a pair is positive above 0"},
        "training": {"best_epoch": 3, "median_users_per_second": 1234.5},
        "versions": {"tfrec": "0"},
        "hardware": {"processor": "CPU", "cores": 2, "gpus": [], "ranks": 1},
        "finished": "2026-01-01T00:00:00+00:00",
        "seconds": 3.2,
        "validation": {"model": {"ndcg@10": 0.5}, "popularity": {"ndcg@10": 0.3}},
        "test": {name: found.to_json() for name, found in test.items()},
    }  # fmt: skip
    metrics |= changes.pop("metrics", {})
    return RunFacts(
        **{
            "metrics": metrics,
            "place": "runs/x",
            "held_out": "holds out whole users",
            "history": [
                {"epoch": e, "loss": 9.0 - e, "seconds": 0.5, "users_per_second": 9.0, "validation_ndcg@10": 0.1 * e}
                for e in range(1, 6)
            ],
            "test": test,
            "history_lengths": random.integers(1, 50, users),
            "popularity": random.integers(1, 90, items),
            "data": DataFacts(
                random.integers(1, 50, users), random.integers(1, 90, items), np.linspace(1e9, 1.1e9, 41),
                random.integers(0, 90, 40),
            ),
            "examples": [Example("u", 3, ["a", "b"], [("c", True), ("d", False)], 2)],
            **changes,
        }
    )  # fmt: skip
