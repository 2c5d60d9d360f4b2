"""A run's files: what is damaged is told, with what to do; what is written can be read by anybody."""

import gc
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfrec.data.arrow import read_table, write_table
from tfrec.data.files import check_file
from tfrec.errors import InputError
from tfrec.fitting import load_config, load_recommender
from tfrec.recommender import Recommender
from tfrec.runs.folder import RunFolder
from tfrec.runs.loading import load_run_model, load_vocabulary
from tfrec.runs.report import table, write_json
from tfrec.train import parse, train

ARGUMENTS = [
    "vae-cf", "--data.synthetic.num-users", "400", "--data.synthetic.num-items", "150", "--model.hidden-dims", "16",
    "--model.latent-dim", "8", "--training.global-batch-size", "60", "--training.epochs", "2", "--output-dir",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    train(*parse([*ARGUMENTS, str(path)]), 0.0)
    return path


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def strict(text):
    """JSON as the standard has it, without NaN."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_json_has_no_word_for(tmp_path):
    value = {"a": [math.nan, 1.5, {"b": math.inf}], "c": (-math.inf,), "d": "NaN", "e": 3, "f": None, "g": True}
    write_json(tmp_path / "x.json", value)
    found = strict((tmp_path / "x.json").read_text())
    assert found == {"a": [None, 1.5, {"b": None}], "c": [None], "d": "NaN", "e": 3, "f": None, "g": True}
    assert "nan" in table({"model": {"ndcg": None}}, ["ndcg"])


def test_opening_one_run_after_another_keeps_nothing(finished):
    """Neither graphs nor tables: a server that reloads every night must not grow."""
    query = tf.constant([3, 7], tf.int64), tf.constant([0, 2], tf.int64), tf.constant(5)

    def opened():
        recommender = Recommender.load(finished)
        recommender.served(raw_ids=False).recommend(*query)
        recommender.recommend_to([["Item 00003", 7]], k=5)
        del recommender
        gc.collect()
        return sum(isinstance(o, tf.Graph | tf.Variable) for o in gc.get_objects())

    opened()
    before = opened()
    assert [opened() for _ in range(2)] == [before] * 2


DAMAGES = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "zeros": lambda whole: bytes(len(whole)),
    "text": lambda whole: b"hello \x1b[2J",
    "not utf-8": lambda whole: b"\xff\xfe" + whole,
    "a list": lambda whole: b"[1, 2]",
    "nested": lambda whole: b"[" * 200_000,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["config", "metrics", "model", "items", "users"])
def test_damaged(copied, name, damage):
    path = getattr(copied, name)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    read = {
        "config": lambda: load_config(copied),
        "metrics": copied.read_metrics,
        "model": lambda: load_run_model(copied, ["VAECF"]),
        "items": lambda: load_vocabulary(copied),
        "users": lambda: load_vocabulary(copied),
    }[name]
    if damage == "not utf-8" and name == "model":
        return  # a zip archive is looked for from its end: nothing is lost
    with pytest.raises(InputError) as caught:
        read()
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(str(path))
    assert len(lines) == 2
    if name != "config":
        assert f"remove {copied.metrics} and give the training command again" in lines[1]


@pytest.mark.parametrize("name", ["metrics", "model", "items", "users"])
def test_what_the_message_says_to_do_brings_the_file_back(copied, name, capsys, monkeypatch):
    reported = copied.read_metrics()["test"]
    getattr(copied, name).write_bytes(b"")
    copied.metrics.unlink()
    monkeypatch.setattr("tfrec.models.VAECF.fit", lambda *_, **__: pytest.fail("trained again"))
    train(*parse([*ARGUMENTS, str(copied.path)]), 0.0)
    assert copied.read_metrics()["test"] == reported
    load_recommender(copied)


def test_a_damaged_best_epoch_is_told_when_training_goes_on(copied, capsys):
    copied.metrics.unlink()
    copied.best.write_bytes(copied.best.read_bytes()[:-100])
    capsys.readouterr()
    train(*parse([*ARGUMENTS, str(copied.path)]), 0.0)
    out = capsys.readouterr().out
    assert f"{copied.best} is damaged" in out
    assert "Its place is taken by the last epoch, 2." in out
    strict(copied.metrics.read_text())


@pytest.mark.parametrize(
    "changes",
    [
        {"popularity": np.full(150, np.nan, np.float32)},
        {"weight": np.full(150, np.inf, np.float32)},
        {"popularity": None},
        {"id": None},
        {"id": np.full(150, 0.5)},
    ],
    ids=["popularity nan", "weight infinite", "no popularity", "no ids", "fractions as ids"],
)
def test_items_that_make_no_sense(copied, changes):
    columns = {**read_table(copied.items).columns, **changes}
    write_table(copied.items, {name: column for name, column in columns.items() if column is not None})
    with pytest.raises(InputError, match="damaged"):
        load_vocabulary(copied)


@pytest.mark.parametrize(
    ("entries", "values"),
    [([150], [1]), ([-1], [1]), ([3], [np.nan])],
    ids=["an item too many", "a negative one", "no number"],
)
def test_histories_that_make_no_sense(copied, entries, values):
    lists = {"items": np.array(entries, np.int32), "values": np.array(values, np.float32)}
    write_table(copied.users, {"id": np.array([4])}, lists=(np.array([0, 1]), lists))
    with pytest.raises(InputError, match="damaged"):
        load_vocabulary(copied)


def test_a_model_of_another_run(copied, tmp_path):
    train(*parse(["popularity", *ARGUMENTS[1:5], "--output-dir", str(tmp_path / "other")]), 0.0)
    shutil.copy(tmp_path / "other" / "model.keras", copied.model)
    with pytest.raises(InputError, match="is of another run: .* is of VAECF.\nReceived: Popularity."):
        load_recommender(copied)


def test_files_of_the_run_are_not_overwritten(copied):
    for path in (copied.model, copied.path / "." / "model.keras", copied.path / "statistics.yaml"):
        check_file(path)
        with pytest.raises(InputError, match="is a file of the run"):
            copied.check_not_inside(path)
    copied.check_not_inside(copied.path / "my.json")


@pytest.mark.parametrize("place", ["history.csv", "report.html", "logs", "checkpoint", "checkpoint/best.npz"])
def test_something_else_in_a_files_place(copied, place):
    path = copied.path / place
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for make in (os.mkfifo, os.mkdir if "." in place else lambda p: p.write_text("")):
        make(path)
        copied.metrics.unlink(missing_ok=True)
        with pytest.raises(InputError, match=f"{path} must be a (file|folder)"):
            train(*parse([*ARGUMENTS, str(copied.path)]), 0.0)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_name_that_is_too_long():
    with pytest.raises(InputError, match=r"(?s)cannot be written.*--output-dir"):
        train(*parse([*ARGUMENTS, "n" * 300]), 0.0)
    with pytest.raises(InputError, match="not the folder of a finished run|cannot be read"):
        RunFolder.existing(Path("n" * 300))
