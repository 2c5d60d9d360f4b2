"""Every command that opens a run, on runs with damaged files, hard names and hard titles; in this process."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from tfrec.training.checkpoint import load_state, save_state
from tfrec.training.vocabulary import Vocabulary

from tests.training.test_checkpoint import make
from tests.training.test_run_files import ARGUMENTS
from tfrec.errors import InputError
from tfrec.evaluate import Arguments as Evaluate
from tfrec.evaluate import evaluate
from tfrec.export import Arguments as Export
from tfrec.export import run_export
from tfrec.quantize import Arguments as Quantize
from tfrec.quantize import run_quantize
from tfrec.recommend import Arguments as Recommend
from tfrec.recommend import recommend
from tfrec.train import parse, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    train(*parse([*ARGUMENTS, str(path)]), 0.0)
    return path


def json_of(path, **changes):
    return json.dumps({**json.loads(path.read_text()), **changes}).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, content) for name in ("config.json", "model.keras", "vocabulary.npz") for content in
          (b"", b"PK\x03\x04" + bytes(range(256)), "cut", "folder", "other")),
        ("config.json", b"[" * 100_000),
        ("config.json", lambda p: json_of(p, recipe=["vae-cf"])),
        ("config.json", lambda p: json_of(p, evaluation=5)),
        ("config.json", lambda p: json_of(p, seed="one")),
        ("config.json", lambda p: json_of(p, training={"epochs": "many"})),
    ],
)  # fmt: skip
def test_every_command_tells_damage(finished, tmp_path, name, content):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("logs", "checkpoint"))
    path = folder / name
    whole = path.read_bytes()
    if content == "folder":
        path.unlink()
        path.mkdir()
    elif content == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "other":  # another run's, as after copying files about
        if name == "config.json":
            path.write_bytes(json_of(path, recipe="neumf"))
        elif name == "vocabulary.npz":
            Vocabulary(np.arange(9), np.array(["x"] * 9, dtype=object), np.ones(9)).save(path)
        else:
            keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    else:
        path.write_bytes(content(path) if callable(content) else content)
    commands = [
        lambda: evaluate(Evaluate(folder)),
        lambda: recommend(Recommend(folder, items=("7",), k=5)),
        lambda: run_export(Export(folder, tmp_path / "out")),
        lambda: run_quantize(Quantize(folder, tmp_path / "out")),
    ]
    if name == "config.json" or (name, content) == ("vocabulary.npz", "other"):
        # Without a user or data to look up, recommend and export ask for the model's kind only.
        commands = commands[:1] + commands[3:] if name == "config.json" else commands[1:]
    elif name == "vocabulary.npz" and content != "folder":
        commands = commands[1:]  # which measure needs no titles for
    for command in commands:
        with pytest.raises(InputError, match=name):
            command()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_output_names(finished, tmp_path, monkeypatch):
    """RUN given as `.` and `..`; folders with blanks and letters of any kind."""
    strange = tmp_path / "ü 🎬 blank" / "run"
    shutil.copytree(finished, strange, ignore=shutil.ignore_patterns("logs", "checkpoint"))
    monkeypatch.chdir(strange)
    run_quantize(Quantize(Path(".")))
    (strange / "sub").mkdir()
    monkeypatch.chdir(strange / "sub")
    with pytest.raises(InputError, match="run-int8 is there already"):
        run_quantize(Quantize(Path("..")))
    assert sorted(p.name for p in strange.parent.iterdir()) == ["run", "run-int8"]


def test_titles_are_printed_with_escapes(finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("logs", "checkpoint"))
    old = Vocabulary.load(folder / "vocabulary.npz")
    titles = np.array([f"{i}\x1b[2J\u202e\0\nforged" for i in range(150)], dtype=object)
    Vocabulary(old.item_ids, titles, old.popularity).save(folder / "vocabulary.npz")
    recommend(Recommend(folder, items=("7", r"9\x1b[2J\u202e\x00\nforged"), k=5))
    with pytest.raises(InputError) as caught:
        recommend(Recommend(folder, items=("forge",)))
    for text in (capsys.readouterr().out, str(caught.value)):
        assert r"\x1b[2J\u202e\x00\nforged" in text
        assert text.replace("\n", "").isprintable()


def test_damage_anywhere_in_a_checkpoint_is_a_message(tmp_path, random):
    """A message, or a file that is as good as before: never another error."""
    path, model = tmp_path / "last.npz", make()
    save_state(path, model, {"epoch": 1}, optimizer=True)
    whole = path.read_bytes()
    messages = set()
    for _ in range(300):
        broken = bytearray(whole)
        for place in random.integers(0, len(broken), random.integers(1, 4)):
            broken[place] = random.integers(0, 256)
        path.write_bytes(bytes(broken[: random.integers(1, len(broken)) if random.random() < 0.3 else None]))
        try:
            load_state(path, model, optimizer=True)
        except InputError as error:
            messages.add("damaged" if "damaged" in str(error) else "another model" * ("another model" in str(error)))
    assert messages <= {"damaged", "another model"}
    assert "damaged" in messages
