"""Every command that opens a run, on runs with damaged files, hard names and hard titles; in this process."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.sparse

from tests.runs.test_checkpoint import make
from tests.runs.test_folder import ARGUMENTS
from tfrec.errors import InputError
from tfrec.evaluate import Arguments as Evaluate
from tfrec.evaluate import evaluate
from tfrec.export import Arguments as Export
from tfrec.export import run_export
from tfrec.recommend import Arguments as Recommend
from tfrec.recommend import recommend
from tfrec.runs.checkpoint import load_state, save_state
from tfrec.runs.vocabulary import Vocabulary
from tfrec.train import parse, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    train(*parse([*ARGUMENTS, str(path)]), 0.0)
    return path


def json_of(path, **changes):
    return json.dumps({**json.loads(path.read_text()), **changes}).encode()


#: Which commands open a file.
READERS = {
    "config.json": ("evaluate", "recommend", "export"),
    "model.keras": ("evaluate", "recommend", "export"),
    "metrics.json": ("evaluate", "export"),
    "items.arrow": ("recommend", "export"),
    "users.arrow": ("recommend", "export"),
}
BYTES = (b"", b"PK\x03\x04" + bytes(range(256)), "cut", "folder", "other")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, content) for name in READERS for content in BYTES),
        ("config.json", b"[" * 100_000),
        ("config.json", lambda p: json_of(p, recipe=["vae-cf"], family=["vae-cf"])),
        ("config.json", lambda p: json_of(p, family="sasrec")),
        ("config.json", lambda p: json_of(p, evaluation=5)),
        ("config.json", lambda p: json_of(p, seed="one")),
        ("config.json", lambda p: json_of(p, training={"epochs": "many"})),
    ],
)
def test_every_command_tells_damage(finished, tmp_path, name, content):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("logs", "checkpoint"))
    path = folder / name
    whole = path.read_bytes()
    if content == "folder":
        path.unlink()
        path.mkdir()
    elif content == "other":  # another run's, as after copying files about
        if name == "config.json":
            path.write_bytes(json_of(path, family="neumf"))
        elif name == "metrics.json":
            path.write_text("{}")
        elif name.endswith(".arrow"):
            # One item more than this run, and a user who has it.
            has = scipy.sparse.csr_matrix(([1.0], ([0], [150])), shape=(1, 151), dtype=np.float32)
            other = Vocabulary(np.arange(151), None, np.ones(151), np.array([7]), has)
            for unwanted in {"items.arrow", "users.arrow"} - {name}:
                shutil.copy(folder / unwanted, tmp_path / "kept")
                other.save(folder / "items.arrow", folder / "users.arrow")
                shutil.move(tmp_path / "kept", folder / unwanted)
        else:
            keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    elif content == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.write_bytes(content(path) if callable(content) else content)
    commands = {
        "evaluate": lambda: evaluate(Evaluate(folder)),
        "recommend": lambda: recommend(Recommend(folder, items=("7",), k=5)),
        "export": lambda: run_export(Export(folder, tmp_path / "out")),
    }
    readers = READERS[name]
    if callable(content) and b"sasrec" not in path.read_bytes() and b'["vae-cf"]' not in path.read_bytes():
        readers = ("evaluate",)  # settings that only measuring needs
    if content == "folder" and name != "metrics.json":
        readers = tuple(commands)
    for reader in readers:
        with pytest.raises(InputError, match="The family must be|is of another run|" + re.escape(name)):
            commands[reader]()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_output_names(finished, tmp_path, monkeypatch, capsys):
    """RUN given as `.` and `..`; folders with blanks and letters of any kind."""
    strange = tmp_path / "ü 🎬 blank" / "run"
    shutil.copytree(finished, strange, ignore=shutil.ignore_patterns("logs", "checkpoint"))
    monkeypatch.chdir(strange)
    run_export(Export(Path("."), Path("../served")))
    (strange / "sub").mkdir()
    monkeypatch.chdir(strange / "sub")
    with pytest.raises(InputError, match="served exists already"):
        run_export(Export(Path(".."), Path("../../served")))
    recommend(Recommend(Path(".."), user=("7",), k=3))
    assert sorted(p.name for p in strange.parent.iterdir()) == ["run", "served"]


def test_titles_are_printed_with_escapes(finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("logs", "checkpoint"))
    files = folder / "items.arrow", folder / "users.arrow"
    old = Vocabulary.load(*files)
    titles = np.array([f"{i}\x1b[2J\u202e\0\nforged" for i in range(150)], dtype=object)
    replace(old, item_titles=titles).save(*files)
    recommend(Recommend(folder, items=("7", r"9\x1b[2J\u202e\x00\nforged"), k=5))
    recommend(Recommend(folder, user=("3",), k=5))
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
