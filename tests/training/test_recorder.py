"""What happens around epochs: which is best, when training stops, what is saved, and what history.csv says."""

import csv
import json

import keras
import numpy as np
import pytest
from tfrec.configs import EvaluationConfig, TrainingConfig
from tfrec.training.fitting import restore_best
from tfrec.training.recorder import Recorder
from tfrec.training.run_folder import RunFolder

from tfrec.evaluation import Report

MONITOR = "ndcg@10"


def tiny():
    """A model of one weight."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.25), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def weight(model):
    return float(model.get_weights()[0][0, 0])


def run(tmp_path, values, progress=None, **training):
    """Epochs with these validation values, the model's weight being the number of the epoch; until it stops.

    Returns:
        the recorder, and the validations that were made.
    """
    folder = RunFolder(tmp_path)
    folder.last.parent.mkdir(exist_ok=True)
    model, validated = tiny(), []

    def validate():
        epoch = int(weight(model))
        validated.append(epoch)
        return Report({MONITOR: values[epoch - 1]}, 1, 0, {}, "expected")

    training = TrainingConfig(**{"epochs": len(values), **training})
    recorder = Recorder(
        folder, training, EvaluationConfig(monitor=MONITOR), validate, samples=70, unit="users", steps=7,
        progress=progress,
    )  # fmt: skip
    recorder.set_model(model)
    recorder.on_train_begin()
    for epoch in range(progress["epoch"] if progress else 0, training.epochs):
        recorder.on_epoch_begin(epoch)
        model.set_weights([np.full((1, 1), epoch + 1.0)])
        recorder.on_epoch_end(epoch, {"loss": 10.0 - epoch})
        if model.stop_training:
            break
    recorder.on_train_end()
    return recorder, validated


def saved(path):
    with np.load(path) as arrays:
        return float(arrays["weight.0"][0, 0]), json.loads(arrays["progress"].tobytes())


@pytest.mark.parametrize(
    ("values", "best"), [([0.1, 0.3, 0.2], 2), ([0.3, 0.3, 0.3], 1), ([0.0, 0.0, 0.1], 3), ([0.5, 0.4, 0.1], 1)]
)
def test_the_best_epoch_is_the_first_of_the_highest_value(tmp_path, values, best):
    recorder, validated = run(tmp_path, values)
    assert validated == [1, 2, 3]
    assert recorder.best == {"epoch": best, "value": values[best - 1]}
    found, progress = saved(tmp_path / "checkpoint/best.npz")
    assert found == best
    # Training can go on from there, should the last epoch's file be lost.
    assert progress == {"epoch": best, "rows": progress["rows"], "best": recorder.best, "updates": 0}
    assert progress["rows"] == recorder.rows[:best]
    assert saved(tmp_path / "checkpoint/last.npz")[0] == 3
    model = tiny()
    restore_best(recorder.folder, model)
    assert weight(model) == best


@pytest.mark.parametrize(
    ("values", "options", "epochs"),
    [
        ([0.5, 0.4, 0.4, 0.4, 0.4], {"patience": 2}, 3),
        ([0.5, 0.4, 0.6, 0.4, 0.4, 0.9], {"patience": 2}, 5),
        ([0.5, 0.4, 0.6, 0.4], {"patience": 2}, 4),
        ([0.5, 0.4, 0.4], {"patience": 1}, 2),
        ([0.5, 0.5, 0.5, 0.5], {"patience": 3}, 4),  # equal is not better
        # Validated after epochs 2, 4 and 6: two validations without a better one.
        ([0.0, 0.5, 0.0, 0.4, 0.0, 0.4, 0.0, 0.0], {"patience": 2, "validate_every": 2}, 6),
        ([0.1, 0.2, 0.3, 0.4, 0.5], {"threshold": 0.3}, 3),
        ([0.1, 0.2, 0.2, 0.2, 0.2], {"threshold": 0.3}, 5),
        ([0.4, 0.2, 0.2, 0.2, 0.2], {"threshold": 0.3, "patience": 2}, 1),
    ],
    ids=str,
)
def test_when_training_stops(tmp_path, values, options, epochs):
    recorder, _ = run(tmp_path, values, **options)
    assert len(recorder.rows) == epochs


def test_validations_come_every_so_many_epochs_and_after_the_last(tmp_path):
    recorder, validated = run(tmp_path, [0.1, 0.2, 0.3, 0.4, 0.5], validate_every=2)
    assert validated == [2, 4, 5]
    assert recorder.best == {"epoch": 5, "value": 0.5}


@pytest.mark.parametrize(
    ("values", "options", "last"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], {"checkpoint_every": 2}, 5),  # the last epoch always
        ([0.5, 0.4, 0.3, 0.2, 0.1], {"checkpoint_every": 4, "patience": 2}, 3),  # and where it stops
    ],
)
def test_a_run_that_is_through_is_saved_as_it_ended(tmp_path, values, options, last):
    recorder, _ = run(tmp_path, values, **options)
    found, progress = saved(tmp_path / "checkpoint/last.npz")
    assert found == last
    assert progress == {"epoch": last, "rows": recorder.rows, "best": recorder.best, "updates": 0}


def test_checkpoints_come_every_so_many_epochs(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "tfrec.training.recorder.save_state",
        lambda path, model, progress, optimizer: written.append((path.name, progress["epoch"], optimizer)),
    )
    run(tmp_path, [0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], checkpoint_every=3)
    assert written == [("best.npz", 1, False), ("last.npz", 3, True), ("last.npz", 6, True), ("last.npz", 7, True)]


def test_a_resumed_run_goes_on_with_the_next_epoch(tmp_path):
    """Stopped after three of six epochs: the same rows, the same best, the same end as without."""
    values = [0.1, 0.6, 0.2, 0.3, 0.4, 0.5]
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, _ = run(tmp_path / "whole", values)
    run(tmp_path / "parts", values[:3])
    progress = saved(tmp_path / "parts/checkpoint/last.npz")[1]
    assert progress["epoch"] == 3
    resumed, validated = run(tmp_path / "parts", values, progress=progress)
    assert validated == [4, 5, 6]
    assert [r["epoch"] for r in resumed.rows] == [1, 2, 3, 4, 5, 6]
    assert resumed.best == whole.best == {"epoch": 2, "value": 0.6}


def test_history_has_each_epoch_and_each_value(tmp_path, monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 14.0, 20.0, 21.0])
    monkeypatch.setattr("tfrec.training.recorder.time.perf_counter", lambda: next(clock))
    run(tmp_path, [0.1, 0.2, 0.3], validate_every=2)
    with (tmp_path / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    names = ("epoch", "loss", "learning_rate", "seconds", "users_per_second", f"validation_{MONITOR}")
    assert set(rows[0]) == set(names)
    assert [[float(row[name]) if row[name] else None for name in names] for row in rows] == [
        [1, 10, 0.25, 2, 35, None],
        [2, 9, 0.25, 4, 17.5, 0.2],
        [3, 8, 0.25, 1, 70, 0.3],
    ]
