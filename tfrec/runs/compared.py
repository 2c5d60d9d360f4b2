"""What a comparison needs of finished runs, and whether they were asked the same."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.data.arrow import read_table
from tfrec.data.files import DAMAGE, read_json, reason
from tfrec.errors import InputError
from tfrec.metrics import Metric
from tfrec.printing import printable
from tfrec.settings import differences

#: Settings of the evaluation that change neither what is asked of a model nor how the answer is measured.
_NO_MATTER = ("metrics", "monitor", "block_users", "block_pairs", "validation_negatives")
#: Settings that say which candidates are drawn, and nothing where all items are ranked.
_OF_CANDIDATES = ("negatives", "seed")


@dataclass(frozen=True)
class ComparedRun:
    """A finished run's test.

    Args:
        name: what it is called in tables: the folder's name, or its path where two folders have one name. Printable.
        path: the folder.
        recipe: what it was trained by.
        split: what was held out, with ``sha256`` of what the test asks.
        data: the settings of the data.
        evaluation: the settings of the evaluation.
        test: ``model``, ``popularity`` and maybe others -> metric -> value, NaN where it has none; and counts.
        users: ``[U]``, raw ids, int64 or text.
        per_user: metric -> float64 ``[U]``, NaN for users left out.
    """

    name: str
    path: Path
    recipe: str
    split: Mapping[str, Any]
    data: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    test: Mapping[str, Mapping[str, Any]]
    users: np.ndarray
    per_user: Mapping[str, np.ndarray]

    @property
    def metrics(self) -> list[str]:
        """The metrics of the test."""
        return [name for name in self.test["model"] if _is_metric(name)]


def read_compared(paths: Sequence[Path]) -> list[ComparedRun]:
    """Read runs and check that they may be compared.

    Raises:
        InputError: fewer than two runs, one twice, a folder that is no finished run or has no metrics of users, damage,
            or runs of which the test, the tie rule or the candidates differ.
    """
    if len(paths) < 2:
        given = ", ".join(printable(p) for p in paths) or "none"
        raise InputError(f"A comparison needs at least two runs.\nReceived: {given}.\nName the folders of others.")
    places: dict[str, Path] = {}
    for path in paths:
        place = os.path.realpath(path)
        if place in places:
            raise InputError(
                "Each run can be compared once.\n"
                f"Received: {printable(places[place])} and {printable(path)}, one folder.\nName each folder once."
            )
        places[place] = path
    runs = [_read(path) for path in paths]
    names = [run.name for run in runs]
    runs = [replace(r, name=printable(r.path)) if names.count(r.name) > 1 else r for r in runs]
    for run in runs[1:]:
        _check_comparable(runs[0], run)
    return runs


def _read(path: Path) -> ComparedRun:
    report_file, users_file = path / "metrics.json", path / "test_users.arrow"
    if not path.is_dir():
        raise InputError(
            f"A run must be a folder.\nReceived: {printable(path)}.\nName a folder that training has made."
        )
    if not report_file.is_file():
        raise InputError(
            f"A run must be finished, with a metrics.json.\nReceived: {printable(path)}, which has none.\n"
            "Let it finish: give its training command again."
        )
    if not users_file.is_file():
        raise InputError(
            f"A comparison needs the metrics of each user, test_users.arrow.\nReceived: {printable(path)}, which has "
            "none.\nIts run is of an older version: train it again with --no-resume."
        )
    try:
        report = read_json(report_file)
        test = {str(name): _numbers(of) for name, of in report["test"].items()}
        str(test["model"]["ties"]), int(test["model"]["users"]), str(report["split"]["sha256"])
        config = dict(report["config"])
        run = ComparedRun(
            name=printable(path.absolute().name),
            path=path,
            recipe=printable(report["recipe"]),
            split=dict(report["split"]),
            data=dict(config.get("data", {})),
            # As resolved, where the report says how.
            evaluation=dict(report.get("evaluation") or config.get("evaluation", {})),
            test=test,
            users=np.zeros(0, np.int64),
            per_user={},
        )
    except DAMAGE as error:
        raise InputError(f"{printable(report_file)} is damaged: {reason(error)}.\nTrain the run again.") from error
    try:
        columns = read_table(users_file).columns
        per_user = {n: values.astype(np.float64) for n, values in columns.items() if _is_metric(n)}
        run = replace(run, users=columns["user"], per_user=per_user)
    except DAMAGE as error:
        raise InputError(f"{printable(users_file)} is damaged: {reason(error)}.\nTrain the run again.") from error
    _check_means(run)
    return run


def _numbers(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report of one model; a metric that is null is no number."""
    return {k: math.nan if v is None else float(v) if _is_metric(k) else v for k, v in report.items()}


def _is_metric(name: str) -> bool:
    try:
        return str(Metric.parse(name)) == name
    except InputError:
        return False


def _check_means(run: ComparedRun) -> None:
    """Raise InputError unless the two files of a run belong together."""
    for metric, values in run.per_user.items():
        there = values[~np.isnan(values)]
        said = run.test["model"].get(metric, math.nan)
        found = float(there.mean()) if len(there) else math.nan
        if not (math.isclose(said, found, rel_tol=1e-6, abs_tol=1e-9) or (math.isnan(said) and math.isnan(found))):
            raise InputError(
                f"metrics.json and test_users.arrow of {printable(run.path)} must be of one run.\n"
                f"Received: {metric} of {said} in the one, and a mean of {found} in the other.\nTrain the run again."
            )


def _check_comparable(one: ComparedRun, other: ComparedRun) -> None:
    """Raise InputError unless two runs were asked the same, and measured in the same way."""
    if one.split["sha256"] != other.split["sha256"]:
        found = differences({"data": one.data, "split": one.split}, {"data": other.data, "split": other.split})
        noted = [line for line in found if not line.startswith(("split.sha256: ", "data.dir: "))]
        _refuse(one, other, "the test asks the same", noted or found, "Train both with the same --data options.")
    mine, others = _asked(one), _asked(other)
    if mine != others:
        _refuse(
            one, other, "ties are broken and candidates drawn in the same way", differences(mine, others),
            "Train both with the same --evaluation options.",
        )  # fmt: skip
    if one.users.dtype != other.users.dtype or not np.array_equal(one.users, other.users):
        _refuse(one, other, "the users are the same", ["the users in test_users.arrow"], "Train one of them again.")


def _asked(run: ComparedRun) -> dict[str, Any]:
    """How a run was measured."""
    all_items = run.evaluation.get("protocol", "all") == "all"
    left_out = (*_NO_MATTER, *(_OF_CANDIDATES if all_items else ()))
    settings = {k: v for k, v in run.evaluation.items() if k not in left_out}
    return {"evaluation": {**settings, "ties": run.test["model"]["ties"]}}


def _refuse(one: ComparedRun, other: ComparedRun, where: str, found: list[str], hint: str) -> None:
    lines = "".join(f"\n  {printable(line)}" for line in found)
    raise InputError(
        f"Runs can be compared only where {where}.\n"
        f"Received: {one.name} and {other.name}, which differ in{lines}\n{hint}"
    )
