"""The end of every run: measure on test, once, and write what is left to write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfrec import distributed
from tfrec.configs import Run, to_json
from tfrec.data.files import atomic_path
from tfrec.training.environment import hardware, versions
from tfrec.training.history import write_curve
from tfrec.training.prepare import Prepared
from tfrec.training.report import measure_all, table, write_json
from tfrec.training.run_folder import RunFolder
from tfrec.training.vocabulary import Vocabulary


def finish(
    recipe: str,
    config: Run,
    folder: RunFolder,
    data: Prepared,
    model: keras.Model,
    training: dict[str, Any],
    history: list[dict[str, Any]],
) -> dict[str, Any]:
    """Evaluate ``model`` beside its references, save it and the report, and say where everything is.

    Every rank calls it; rank 0 writes and prints.

    Returns:
        The content of metrics.json.
    """
    reports = measure_all(model, data, config.evaluation)
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
    popularity = np.asarray(data.split.train.sum(axis=0)).ravel()
    Vocabulary(data.item_ids, data.item_labels, popularity).save(folder.vocabulary)
    _save_model(model, folder)
    if history:
        monitor = config.evaluation.monitor
        lines = {n: r.metrics[monitor] for n, r in reports["validation"].items() if n != "model"}
        write_curve(folder.curve, history, monitor, lines)
    write_json(folder.metrics, result)
    print_summary(folder, result)
    return result


def _save_model(model: keras.Model, folder: RunFolder) -> None:
    """Save the model without its optimizer, whose state is in the checkpoint: a third of the bytes."""
    bare = type(model).from_config(model.get_config())
    bare.set_weights(model.get_weights())
    with atomic_path(folder.model) as path:
        bare.save(path)


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
    shown = ", ".join(f"{name} {report[monitor]:.4f}" for name, report in test.items())
    print(f"Test {monitor}: {shown}. Model, report and logs are in {folder.path}", flush=True)
