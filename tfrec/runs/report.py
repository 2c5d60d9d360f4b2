"""metrics.json, the test metrics of each user, and what is shown of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfrec.data.arrow import write_table
from tfrec.data.files import atomic_path, atomic_write, reason
from tfrec.errors import InputError
from tfrec.evaluation import Report
from tfrec.printing import printable
from tfrec.runs.folder import RunFolder


def save_model(model: keras.Model, path: Path) -> None:
    """``model.save``, whole or not at all, without the optimizer, whose state is in the checkpoint.

    Raises:
        InputError: the file cannot be written.
    """
    bare = model
    if model.compiled:
        bare = type(model).from_config(model.get_config())
        bare.set_weights(model.get_weights())
    with atomic_path(path) as temporary:
        try:
            bare.save(temporary)
        except RuntimeError as error:
            # HDF5's way to say that the disk is full, or the file too large for a limit.
            raise InputError(f"{path} cannot be written: {reason(error)}.\nFree some space.") from error


def write_test_users(path: Path, user_ids: np.ndarray, report: Report) -> None:
    """A row for each user of the test, in the split's order: the raw id, and the model's metrics of this user."""
    write_table(path, {"user": user_ids, **{name: values for name, values in report.per_user.items()}})


def print_summary(folder: RunFolder, result: dict[str, Any]) -> None:
    """The test metrics as a table, and, in the last line, where everything is."""
    test = result["test"]
    evaluation = result["evaluation"]
    metrics = [str(m) for m in evaluation["metrics"]]
    users = test["model"]["users"]
    left_out = test["model"]["users_without_targets"]
    note = f" ({left_out} without anything to predict left out)" if left_out else ""
    print(f"\nTest, {users:,} users{note}, ties {test['model']['ties']}:")
    print(table(dict(test), metrics))
    monitor = evaluation["monitor"]
    shown = ", ".join(f"{name} {number(report[monitor]):.4f}" for name, report in test.items())
    shipped = result.get("shipped", {}).get("words")
    if shipped:
        print(printable(shipped))
    print(f"Test {monitor}: {shown}. Model, report and logs are in {printable(folder.path)}", flush=True)


def table(reports: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """A text table: a line per model, a column per metric."""
    width = max(len(name) for name in reports)
    lines = ["  ".join([" " * width, *(f"{m:>12}" for m in metrics)])]
    for name, report in reports.items():
        lines.append("  ".join([f"{name:<{width}}", *(f"{number(report[m]):>12.4f}" for m in metrics)]))
    return "\n".join(lines)


def number(value: float | None) -> float:
    """A number as `write_json` has written it."""
    return math.nan if value is None else value


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all. What is no number or infinite is written as null: JSON has no word for it."""
    text = json.dumps(_finite(value), indent=2, allow_nan=False)
    with atomic_write(path, "w") as stream:
        stream.write(text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
