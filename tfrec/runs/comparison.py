"""Finished runs side by side: their test metrics, and by how much each differs from one of them, user by user."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.errors import InputError
from tfrec.metrics.significance import holm, paired_differences
from tfrec.printing import printable
from tfrec.runs.compared import ComparedRun, read_compared

#: Of the intervals.
LEVEL = 0.95


@dataclass(frozen=True)
class Paired:
    """How a run differs from the baseline in one metric, over the same users.

    Args:
        run: its name.
        metric: the metric.
        value: the run's mean over the users compared.
        difference: that less the baseline's.
        low: lower end of the bootstrap interval of the difference.
        high: its upper end.
        p_value: two-sided, of the sign-flip test.
        p_holm: the same, corrected for the number of runs that are compared with the baseline in this metric.
        users: how many users there are.
    """

    run: str
    metric: str
    value: float
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    users: int


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found.

    Args:
        runs: as they were given.
        metrics: what is shown.
        baseline: the name of the run that the others are compared with.
        best_by: the metric by which the baseline is best; None where it was asked for.
        paired: a result for each other run and each metric that is measured per user; by metric, then by run.
        users: users compared.
        users_left_out: users of the test without a value of some metric in some run.
        references: name -> metric -> value, of those that were measured with the runs.
        samples: resamples, and sign flips.
        seed: of both.
    """

    runs: list[ComparedRun]
    metrics: list[str]
    baseline: str
    best_by: str | None
    paired: list[Paired]
    users: int
    users_left_out: int
    references: dict[str, dict[str, float]]
    samples: int
    seed: int

    def best(self, metric: str) -> list[str]:
        """The names of the runs with the highest value."""
        values = [run.test["model"][metric] for run in self.runs]
        highest = max((v for v in values if not math.isnan(v)), default=math.nan)
        return [run.name for run, value in zip(self.runs, values, strict=True) if value == highest]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; null where a run has no value."""
        return {
            "split": dict(self.runs[0].split),
            "ties": self.runs[0].test["model"]["ties"],
            "baseline": self.baseline,
            "best_by": self.best_by,
            "users": self.users,
            "users_left_out": self.users_left_out,
            "level": LEVEL,
            "samples": self.samples,
            "seed": self.seed,
            "correction": "holm",
            "runs": [
                {
                    "run": run.name,
                    "path": str(run.path),
                    "recipe": run.recipe,
                    "test": _or_null({metric: run.test["model"][metric] for metric in self.metrics}),
                }
                for run in self.runs
            ],
            "references": {name: _or_null(values) for name, values in self.references.items()},
            "differences": [asdict(paired) for paired in self.paired],
        }

    def rows(self) -> list[dict[str, Any]]:
        """A row for each run and metric, the baseline and those not measured per user with fields that are empty."""
        paired = {(p.run, p.metric): asdict(p) for p in self.paired}
        empty = dict.fromkeys(("difference", "low", "high", "p_value", "p_holm", "users"), "")
        found = []
        for run in self.runs:
            for metric in self.metrics:
                said = {"run": run.name, "recipe": run.recipe, "metric": metric, "test": run.test["model"][metric]}
                of = paired.get((run.name, metric), {})
                found.append(
                    {**said, "baseline": self.baseline, **{name: of.get(name, value) for name, value in empty.items()}}
                )
        return found


def compare_runs(
    paths: Sequence[Path],
    baseline: Path | None = None,
    metrics: Sequence[str] = (),
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare finished runs, each with one of them, over the users of their test.

    For each other run and metric: the mean difference over users, its 95 % bootstrap interval, and the two-sided
    p-value of a paired sign-flip test (`tfrec.metrics.significance`). p-values are corrected by Holm's procedure for
    the number of runs compared with the baseline in a metric, and not for the number of metrics.

    The interval covers other users. It does not cover other seeds, which give other models: train with several where
    that matters. The best run was picked on these users, so its lead is on average a little less
    than it looks, the more so the more runs there are.

    Args:
        paths: folders of runs, two or more, of one split.
        baseline: one of them; default: the best one by the first of ``metrics``.
        metrics: what to compare by. Default: all that the runs have in common; the first is then what they all
            monitored, if they did.
        samples: resamples, and sign flips, from 1.
        seed: of both.

    Raises:
        InputError: see `read_compared`; a metric that a run has not; a baseline that is none of the runs.
    """
    if samples < 1:
        raise InputError(f"`samples` must be at least 1.\nReceived: {samples}.")
    runs = read_compared(paths)
    shown = _metrics(runs, metrics)
    tested = [metric for metric in shown if all(metric in run.per_user for run in runs)]
    if not tested:
        raise InputError(
            f"A comparison needs a metric that is measured for each user.\nReceived: {', '.join(shown)}.\n"
            f"All runs have {', '.join(m for m in runs[0].per_user if all(m in r.per_user for r in runs)) or 'none'}."
        )
    # [U, runs, metrics]
    values = np.stack([np.stack([run.per_user[metric] for metric in tested], axis=1) for run in runs], axis=1)
    there = np.isfinite(values).all(axis=(1, 2))
    if not there.any():
        raise InputError("No user of the test has a value of every metric in every run.\nName fewer --metrics.")
    base, best_by = _baseline(runs, baseline, shown)
    others = [i for i in range(len(runs)) if i != base]
    values = values[there]
    apart = values[:, others] - values[:, [base]]
    found = paired_differences(apart.reshape(len(apart), -1), level=LEVEL, samples=samples, seed=seed)
    shape = (len(others), len(tested))
    p_value = found.p_value.reshape(shape)
    p_holm = holm(p_value)
    mean, low, high = (a.reshape(shape) for a in (found.mean, found.low, found.high))
    paired = [
        Paired(
            runs[i].name, metric, float(values[:, i, m].mean()), float(mean[o, m]), float(low[o, m]),
            float(high[o, m]), float(p_value[o, m]), float(p_holm[o, m]), found.users,
        )
        for m, metric in enumerate(tested)
        for o, i in enumerate(others)
    ]  # fmt: skip
    left_out = int((~there).sum())
    references = _references(runs, shown)
    return Comparison(
        runs, shown, runs[base].name, best_by, paired, found.users, left_out, references, samples, seed
    )  # fmt: skip


def _or_null(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _metrics(runs: list[ComparedRun], wanted: Sequence[str]) -> list[str]:
    common = [metric for metric in runs[0].metrics if all(metric in run.metrics for run in runs)]
    for metric in wanted:
        for run in runs:
            if metric not in run.metrics:
                raise InputError(
                    f"Every run must have the metrics that are compared.\nReceived: {printable(metric)}, which "
                    f"{run.name} has not.\nAll have {', '.join(common) or 'none in common'}."
                )
    if not common:
        raise InputError("The runs have no metric in common.\nEvaluate them with the same --evaluation.metrics.")
    if len(set(wanted)) < len(wanted):
        raise InputError(f"Name each metric once.\nReceived: {' '.join(wanted)}.")
    monitors = {run.evaluation.get("monitor") for run in runs}
    first = [m for m in common if monitors == {m}]
    return list(wanted) or first + [m for m in common if m not in first]


def _baseline(runs: list[ComparedRun], wanted: Path | None, shown: list[str]) -> tuple[int, str | None]:
    if wanted is not None:
        places = [os.path.realpath(run.path) for run in runs]
        if os.path.realpath(wanted) not in places:
            raise InputError(
                "The baseline must be one of the runs that are compared.\n"
                f"Received: --baseline {printable(wanted)}.\nName one of {', '.join(str(r.path) for r in runs)}."
            )
        return places.index(os.path.realpath(wanted)), None
    values = [run.test["model"][shown[0]] for run in runs]
    return max(range(len(runs)), key=lambda i: -math.inf if math.isnan(values[i]) else values[i]), shown[0]


def _references(runs: list[ComparedRun], shown: list[str]) -> dict[str, dict[str, float]]:
    """Popularity and the like: once where the runs say the same of it, else once for each run that differs."""
    found: dict[str, dict[str, float]] = {}
    for run in runs:
        for name, report in run.test.items():
            if name == "model":
                continue
            values = {metric: report.get(metric, math.nan) for metric in shown}
            name = printable(name)
            if name not in found:
                found[name] = values
            elif not np.allclose(list(values.values()), list(found[name].values()), atol=1e-6, equal_nan=True):
                found[f"{name} of {run.name}"] = values
    return found
