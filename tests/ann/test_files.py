"""An index on disk: read back, and refused where it is damaged or of another model."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.ann.test_index import vectors
from tfrec.ann import KINDS, AnnIndex, read_index, remove_index, write_index
from tfrec.errors import InputError


@pytest.fixture(scope="module")
def table():
    return vectors()[0]


@pytest.fixture(scope="module")
def queries():
    return vectors()[1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_finds_the_same(kind, table, queries, tmp_path):
    index = AnnIndex.build(table, queries, kind)
    write_index(index, tmp_path)
    read = read_index(tmp_path, lambda: table)
    assert read.report == index.report
    for one, other in zip(read.search(queries, 7), index.search(queries, 7), strict=True):
        np.testing.assert_array_equal(one, other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.faiss", "index.json"]
    remove_index(tmp_path)
    remove_index(tmp_path)
    assert list(tmp_path.iterdir()) == []
    # The vectors of the model are not asked for where there is no index.
    assert read_index(tmp_path, None) is None


@pytest.fixture
def written(table, queries, tmp_path):
    write_index(AnnIndex.build(table, queries, "ivf"), tmp_path)
    return tmp_path


def cut(folder):
    (folder / "index.faiss").write_bytes((folder / "index.faiss").read_bytes()[:1_000])


def flipped(folder):
    data = bytearray((folder / "index.faiss").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "index.faiss").write_bytes(data)


def says(**fields):
    def change(folder):
        found = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps({**found, **fields}))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flipped,
        lambda folder: (folder / "index.faiss").unlink(),
        lambda folder: (folder / "index.json").write_text("{"),
        lambda folder: (folder / "index.json").write_text("[]"),
        lambda folder: (folder / "index.json").write_text("{}"),
        says(format=2),
        says(kind="tree"),
        says(effort="many"),
        says(items=3),
    ],
)
def test_damage_is_said_with_what_to_do(damage, written, table):
    damage(written)
    with pytest.raises(InputError, match="damaged[^\n]*\n.*tfrec index"):
        read_index(written, lambda: table)


def test_another_models_index(written, table):
    with pytest.raises(InputError, match="another model"):
        read_index(written, lambda: table + tf.constant(1.0))
