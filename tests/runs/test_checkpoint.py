import errno
import os
import shutil

import keras
import numpy as np
import pytest

from tfrec.errors import InputError
from tfrec.runs import checkpoint
from tfrec.runs.checkpoint import load_state, resume_state, save_state


def make(units=3):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, name="only")])
    model.compile("adam", loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_round_trip(tmp_path):
    keras.utils.set_random_seed(1)
    model = make()
    model.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
    save_state(tmp_path / "s.npz", model, {"epoch": 3}, optimizer=True)
    other = make()
    assert load_state(tmp_path / "s.npz", other, optimizer=True) == {"epoch": 3}
    for a, b in zip(
        [*model.weights, *model.optimizer.variables], [*other.weights, *other.optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    model = make()
    path = tmp_path / "s.npz"
    save_state(path, model, {"epoch": 1}, optimizer=True)
    before = path.read_bytes()

    def full(stream, variable):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.parts, "write_rows", full)
    with pytest.raises(InputError, match="No space left"):
        save_state(path, model, {"epoch": 2}, optimizer=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


def test_damage_and_other_models_are_told(tmp_path):
    path = tmp_path / "s.npz"
    save_state(path, make(), {"epoch": 1}, optimizer=True)
    with pytest.raises(InputError, match="another model"):
        load_state(path, make(units=5), optimizer=True)
    whole = path.read_bytes()
    with np.load(path) as arrays:
        wide = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in arrays.items()}
    np.savez(path, **wide)
    with pytest.raises(InputError, match=r"weight:only/kernel of float32 \(4, 3\).\nReceived: float64 \(4, 3\)"):
        load_state(path, make(), optimizer=True)
    path.write_bytes(whole[:-300])
    with pytest.raises(InputError, match="damaged"):
        load_state(path, make(), optimizer=True)
    broken = bytearray(whole)
    broken[200] ^= 0xFF
    path.write_bytes(broken)
    model = make()
    before = model.get_weights()
    with pytest.raises(InputError, match="damaged"):
        load_state(path, model, optimizer=True)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def rows(count):
    return [{"epoch": i + 1, "validation_ndcg": 0.5 - 0.1 * i} for i in range(count)]


def fill(model, value):
    model.set_weights([np.full(w.shape, value) for w in model.get_weights()])


@pytest.fixture
def stopped(tmp_path):
    """A run stopped after three epochs, of which the first was best; weights tell the epoch."""
    model, best = make(), {"epoch": 1, "value": 0.5}
    fill(model, 1)
    save_state(
        tmp_path / "best.npz", model, {"epoch": 1, "rows": rows(1), "best": best, "updates": 40}, optimizer=False
    )
    fill(model, 3)
    model.optimizer.iterations.assign(120)
    progress = {"epoch": 3, "rows": rows(3), "best": best, "updates": 120}
    save_state(tmp_path / "last.npz", model, progress, optimizer=True)
    return tmp_path / "last.npz", tmp_path / "best.npz", progress


def flip(content, place):
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def without_progress(path):
    with np.load(path) as arrays:
        kept = {n: a for n, a in arrays.items() if n != "progress"}
    np.savez(path, **kept)


DAMAGES = {
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("hello"),
    "half": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "end lost": lambda p: p.write_bytes(p.read_bytes()[:-10]),
    "zeros": lambda p: p.write_bytes(bytes(p.stat().st_size)),
    "a number": lambda p: p.write_bytes(flip(p.read_bytes(), 200)),
    "an array instead": lambda p: np.save(p.open("wb"), np.ones(3)),
    "no progress": without_progress,
    "another model": lambda p: save_state(p, make(units=5), {"epoch": 1}, optimizer=True),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "a pipe": lambda p: (p.unlink(), os.mkfifo(p)),
}


def test_a_stopped_run_goes_on_as_it_was(stopped, capsys):
    last, best, progress = stopped
    model = make()
    assert resume_state(last, best, model, "ndcg") == progress
    assert (model.get_weights()[0] == 3).all()
    assert int(model.optimizer.iterations) == 120
    assert capsys.readouterr().out == ""
    last.unlink()
    assert resume_state(last, best, model, "ndcg") is None


@pytest.mark.parametrize("damage", [*(d for d in DAMAGES if d not in ("a folder", "a pipe")), "missing"])
def test_a_damaged_best_epoch_is_noticed_at_the_start_and_the_last_takes_its_place(stopped, damage, capsys):
    last, best, progress = stopped
    if damage == "missing":
        best.unlink()
    else:
        DAMAGES[damage](best)
    model = make()
    found = resume_state(last, best, model, "ndcg")
    assert found == {**progress, "best": {"epoch": 3, "value": rows(3)[-1]["validation_ndcg"]}}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert str(best) in lines[0]
    assert "Its place is taken by the last epoch, 3." in lines[0]
    other = make()
    load_state(best, other, optimizer=False)
    assert (other.get_weights()[0] == 3).all()
    assert resume_state(last, best, model, "ndcg") is not None
    assert capsys.readouterr().out == ""  # mended


def test_the_last_epoch_may_not_have_been_validated(stopped):
    last, best, progress = stopped
    model = make()
    del progress["rows"][-1]["validation_ndcg"]
    save_state(last, model, progress, optimizer=True)
    best.write_bytes(b"")
    assert resume_state(last, best, model, "ndcg")["best"] is None  # the next validation is the best


def test_before_the_first_validation_there_is_no_best_epoch(stopped, capsys):
    last, best, progress = stopped
    save_state(last, make(), {**progress, "best": None}, optimizer=True)
    best.unlink()
    assert resume_state(last, best, make(), "ndcg")["epoch"] == 3
    assert capsys.readouterr().out == ""
    assert not best.exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_epoch_throws_nothing_away(stopped, damage, capsys):
    """The message has the command that goes on from the best epoch; it works."""
    last, best, progress = stopped
    DAMAGES[damage](last)
    model = make()
    before = model.get_weights()
    with pytest.raises(InputError) as caught:
        resume_state(last, best, model, "ndcg")
    lines = str(caught.value).splitlines()
    assert f"To continue from epoch 1, the best: cp {best} {last}" in lines
    assert lines[-1] == "Or start over with --no-resume."
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    if last.is_dir():
        last.rmdir()
    elif not last.is_file():
        last.unlink()
    shutil.copyfile(best, last)
    found = resume_state(last, best, model, "ndcg")
    assert found == {"epoch": 1, "rows": rows(1), "best": progress["best"], "updates": 40}
    assert (model.get_weights()[0] == 1).all()
    assert int(model.optimizer.iterations) == 40  # for schedules
    assert "it starts again after epoch 1" in capsys.readouterr().out


@pytest.mark.parametrize("progress", [{}, {"epoch": 3}, {"epoch": 3, "rows": [], "best": None}, {"epoch": "x"}, [1],
                                      {"epoch": 1, "rows": [3], "best": None},
                                      {"epoch": 1, "rows": [{}], "best": {"epoch": 1}}])  # fmt: skip
def test_progress_that_makes_no_sense(stopped, progress):
    last, best, _ = stopped
    save_state(last, make(), progress, optimizer=True)
    with pytest.raises(InputError, match="damaged"):
        resume_state(last, best, make(), "ndcg")


def test_both_files_damaged(stopped):
    last, best, _ = stopped
    for path in (last, best):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"(?s)damaged.*\nStart over with --no-resume\.$"):
        resume_state(last, best, make(), "ndcg")
