"""Tables of which each rank holds a part, written by one number of ranks and read by another. The ranks are made up."""

import zipfile
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfrec.distributed.sharding import Shard, mark
from tfrec.errors import InputError
from tfrec.runs import checkpoint, parts
from tfrec.runs.checkpoint import load_state, save_state

ROWS, WIDTH = 11, 3
TABLE = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)


def variables(rank, size, rows=ROWS, filled=True):
    """A rank's part of a table in float32, and of one number per row in int64."""
    shard = Shard(rows, rank, size)
    found = {}
    for name, table in (("weight:t/table", TABLE[:rows]), ("optimizer:count", np.arange(rows))):
        own = table[shard.ids()]
        found[name] = variable = keras.Variable(own if filled else np.zeros_like(own), dtype=str(own.dtype))
        mark(variable, shard)
    return found


def written(folder, size, rows=ROWS):
    """The main file's path, and what it says of ``size`` ranks' parts."""
    main = folder / "last.npz"
    every = [variables(r, size, rows) for r in range(size)]
    files = [parts.write_parts(main, "abc", one) for one in every]
    return main, parts.described("abc", files, every[0])


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 4), (2, 2), (3, 2), (2, 5), (4, 1), (13, 2), (2, 13)])
def test_any_number_of_ranks_reads_what_another_wrote(tmp_path, before, after):
    """Chunks smaller than a row, and more ranks than rows."""
    with mock.patch.object(parts, "CHUNK", 10):
        main, about = written(tmp_path, before)
        for rank in range(after):
            found, expected = variables(rank, after, filled=False), variables(rank, after)
            parts.check_parts(main, about, found)
            parts.read_parts(main, about, found)
            for name in found:
                np.testing.assert_array_equal(found[name], expected[name])


def test_a_part_is_an_npz_that_numpy_reads(tmp_path):
    main, about = written(tmp_path, 2)
    with np.load(main.with_name(about["files"][1]["file"]), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["weight:t/table"], TABLE[1::2])


def damage(path, places):
    content = bytearray(path.read_bytes())
    for place in places:
        content[place] ^= 0xFF
    path.write_bytes(content)


def test_damage_and_mixtures_are_told(tmp_path):
    main, about = written(tmp_path, 2)
    second = main.with_name(about["files"][1]["file"])
    with zipfile.ZipFile(second) as archive:
        place = archive.getinfo("weight:t/table.npy").header_offset + 200
    whole = second.read_bytes()
    damage(second, [place])
    with pytest.raises(InputError, match=r"1of2.npz is damaged(?s:.*)--no-resume"):
        parts.read_parts(main, about, variables(0, 1, filled=False))
    second.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"expected [\d,]+ bytes.\nReceived: [\d,]+"):
        parts.check_parts(main, about, variables(0, 1))
    second.unlink()
    with pytest.raises(InputError, match=r"in 2 more files, and one is missing: (?s:.*)1of2.npz"):
        parts.check_parts(main, about, variables(0, 1))
    parts.write_parts(main, "xyz", variables(1, 2))
    (tmp_path / "last-xyz-1of2.npz").rename(second)
    with pytest.raises(InputError, match="of another save"):
        parts.read_parts(main, about, variables(0, 1, filled=False))


@pytest.mark.parametrize(
    ("about", "text"),
    [(None, "Received: nothing"), ({"tables": {}}, "Received: nothing"), ("other", r"Received: float32 \(7, 3\)")],
)
def test_another_model_is_told(tmp_path, about, text):
    if about == "other":
        _, about = written(tmp_path, 2, rows=7)
    with pytest.raises(InputError, match=rf"expected weight:t/table in parts, float32 \(11, 3\).\n{text}"):
        parts.check_parts(tmp_path / "last.npz", about, variables(0, 1))


class Table(keras.layers.Layer):
    """One part that is the whole table, as on one process."""

    def build(self, input_shape=None):
        self.rows = self.add_weight(name="rows", shape=(5, 2), initializer="zeros", autocast=False)
        mark(self.rows, Shard(5, 0, 1))
        self.bias = self.add_weight(name="bias", shape=(2,), initializer="zeros")

    def call(self, ids):
        return tf.gather(self.rows.value, tf.cast(ids, tf.int64)) + self.bias


def model(value=0.0):
    made = keras.Sequential([keras.Input((), dtype="int64"), Table(name="table")], name="m")
    made.set_weights([np.full(w.shape, value) for w in made.get_weights()])
    return made


def test_a_save_that_is_cut_off_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "last.npz"
    save_state(path, model(1.0), {"epoch": 1}, optimizer=False)
    before = sorted(p.name for p in tmp_path.iterdir())
    assert len(before) == 2

    def cut(*args):
        raise KeyboardInterrupt

    for place in ("write_parts", "encoded"):
        with monkeypatch.context() as patch:
            patch.setattr(parts, place, cut)
            with pytest.raises(KeyboardInterrupt):
                save_state(path, model(2.0), {"epoch": 2}, optimizer=False)
        found = model()
        assert load_state(path, found, optimizer=False) == {"epoch": 1}
        assert all((w == 1).all() for w in found.get_weights())
    # The next save removes what was left.
    save_state(path, model(3.0), {"epoch": 3}, optimizer=False)
    assert len(list(tmp_path.iterdir())) == 2
    assert checkpoint.load_state(path, found, optimizer=False) == {"epoch": 3}
    assert all((w == 3).all() for w in found.get_weights())


def test_the_best_epoch_in_the_place_of_the_last(tmp_path):
    """As the message of a damaged checkpoint says: its parts keep their names."""
    best, last = tmp_path / "best.npz", tmp_path / "last.npz"
    save_state(best, model(4.0), {"epoch": 4}, optimizer=False)
    save_state(last, model(5.0), {"epoch": 5}, optimizer=False)
    last.write_bytes(best.read_bytes())
    found = model()
    assert load_state(last, found, optimizer=False) == {"epoch": 4}
    assert all((w == 4).all() for w in found.get_weights())
