"""The end of every run: write what is left to write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from tfrec import distributed
from tfrec.configs import Run, to_json
from tfrec.data.files import atomic_path, reason
from tfrec.errors import InputError
from tfrec.evaluation import Report
from tfrec.printing import printable
from tfrec.training.environment import hardware, versions
from tfrec.training.history import write_curve
from tfrec.training.prepare import Prepared
from tfrec.training.prepare_entries import PreparedEntries
from tfrec.training.prepare_items import PreparedItems
from tfrec.training.report import number, table, write_json
from tfrec.training.run_folder import RunFolder


def finish(
    recipe: str,
    config: Run,
    folder: RunFolder,
    data: Prepared | PreparedItems | PreparedEntries,
    model: keras.Model,
    reports: dict[str, dict[str, Report]],
    training: dict[str, Any],
    history: list[dict[str, Any]],
) -> dict[str, Any]:
    """Save the model and its reports, and say where everything is. Rank 0 writes and prints.

    Args:
        recipe: its name.
        config: the settings.
        folder: the run's folder.
        data: what was trained on.
        model: with the best weights.
        reports: part -> model and references -> report; test has been looked at once, for this.
        training: what to say of the training.
        history: a row per epoch.

    Returns:
        The content of metrics.json.
    """
    result = {
        "recipe": recipe,
        "config": to_json(replace(config, output_dir=folder.path)),
        "data": data.summary(),
        "training": training,
        "versions": versions(),
        "hardware": hardware(distributed.size()),
        **{part: {name: report.to_json() for name, report in models.items()} for part, models in reports.items()},
    }
    if distributed.rank() != 0:
        return result
    data.vocabulary().save(folder.vocabulary)
    bare = type(model).from_config(model.get_config())
    bare.set_weights(model.get_weights())
    save_model(bare, folder.model)  # without its optimizer, whose state is in the checkpoint: a third of the bytes
    if history:
        monitor = config.evaluation.monitor
        lines = {n: r.metrics[monitor] for n, r in reports.get("validation", {}).items() if n != "model"}
        unit = "sample" if isinstance(data, PreparedItems) else "user"
        write_curve(folder.curve, history, monitor, lines, unit)
    write_json(folder.metrics, result)
    print_summary(folder, result)
    return result


def save_model(model: keras.Model, path: Path) -> None:
    """``model.save``, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            model.save(temporary)
        except RuntimeError as error:
            # HDF5's way to say that the disk is full, or the file too large for a limit.
            raise InputError(f"{path} cannot be written: {reason(error)}.\nFree some space.") from error


def print_summary(folder: RunFolder, result: dict[str, Any]) -> None:
    """The test metrics as a table, and, in the last line, where everything is."""
    test = result["test"]
    metrics = [str(m) for m in result["config"]["evaluation"]["metrics"]]
    users = test["model"]["users"]
    left_out = test["model"]["users_without_targets"]
    note = f" ({left_out} without anything to predict left out)" if left_out else ""
    print(f"\nTest, {users:,} held-out users{note}, ties {test['model']['ties']}:")
    print(table({name: report for name, report in test.items()}, metrics))
    monitor = result["config"]["evaluation"]["monitor"]
    shown = ", ".join(f"{name} {number(report[monitor]):.4f}" for name, report in test.items())
    print(f"Test {monitor}: {shown}. Model, report and logs are in {printable(folder.path)}", flush=True)
