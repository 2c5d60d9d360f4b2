import errno

import keras
import numpy as np
import pytest

from tfrec.errors import InputError
from tfrec.training import checkpoint
from tfrec.training.checkpoint import load_state, save_state


def make(units=3):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])
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

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.np, "savez", full)
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
    with pytest.raises(InputError, match=r"expected weight\.0 of float32 \(4, 3\).\nReceived: float64 \(4, 3\)"):
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
