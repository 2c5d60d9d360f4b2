import numpy as np
import pyarrow as pa
import pytest

from tfrec.data.arrow import read_table, write_table
from tfrec.data.files import DAMAGE
from tfrec.errors import InputError

COLUMNS = {
    "id": np.array([3, 2**62, -1]),
    "short": np.array([1, 2, -(2**31)], np.int32),
    "value": np.array([0.5, np.nan, np.inf], np.float32),
    "exact": np.array([0.1, 1e300, -0.0]),
    "title": np.array(["Amélie 🎬", "", "a\0b"], object),
}
LISTS = (np.array([0, 2, 2, 3], np.int32), {"items": np.array([5, 1, 4], np.int32), "values": np.ones(3, np.float32)})


def test_round_trip(tmp_path):
    path = tmp_path / "t.arrow"
    write_table(path, COLUMNS, {"kind": "votes", "left_out": {"no id": 3}}, lists=LISTS)
    table = read_table(path)
    assert table.metadata == {"kind": "votes", "left_out": {"no id": 3}}
    assert list(table.columns) == list(COLUMNS)
    for name, column in COLUMNS.items():
        assert table.columns[name].dtype == column.dtype
        np.testing.assert_array_equal(table.columns[name], column)
    np.testing.assert_array_equal(table.offsets, LISTS[0])
    for name, values in LISTS[1].items():
        assert table.lists[name].dtype == values.dtype
        np.testing.assert_array_equal(table.lists[name], values)
    # Anybody can read it.
    with pa.OSFile(str(path)) as source:
        assert pa.ipc.open_file(source).read_all()["items"].to_pylist() == [[5, 1], [], [4]]


def test_numbers_are_views_of_the_file(tmp_path):
    write_table(tmp_path / "t.arrow", {"id": np.arange(1_000)})
    before = pa.total_allocated_bytes()
    table = read_table(tmp_path / "t.arrow")
    assert pa.total_allocated_bytes() - before < 8 * 1_000
    (tmp_path / "t.arrow").unlink()
    assert table.columns["id"].sum() == 999 * 1_000 / 2
    with pytest.raises(ValueError, match="read-only"):
        table.columns["id"][0] = 1


def test_no_rows_and_one(tmp_path):
    for rows in (0, 1):
        columns = {name: column[:rows] for name, column in COLUMNS.items()}
        offsets = np.zeros(rows + 1, np.int64)
        write_table(tmp_path / "t.arrow", columns, lists=(offsets, {"items": np.zeros(0, np.int32)}))
        table = read_table(tmp_path / "t.arrow")
        for name, column in columns.items():
            np.testing.assert_array_equal(table.columns[name], column)
        assert table.offsets.tolist() == offsets.tolist()
        assert len(table.lists["items"]) == 0


def test_what_is_sliced_or_strided(tmp_path):
    write_table(tmp_path / "t.arrow", {"a": np.arange(10)[3:9:2], "b": np.array(list("wxyz"), object)[1:]})
    table = read_table(tmp_path / "t.arrow")
    assert table.columns["a"].tolist() == [3, 5, 7]
    assert table.columns["b"].tolist() == ["x", "y", "z"]


def test_damage(tmp_path):
    path = tmp_path / "t.arrow"
    write_table(path, COLUMNS, {"kind": "votes"}, lists=LISTS)
    whole = path.read_bytes()
    wanted = read_table(path)
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        with pytest.raises(DAMAGE):
            read_table(path)
    # A bit anywhere: an error, or, in padding, the same table.
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            table = read_table(path)
        except DAMAGE:
            continue
        assert table.metadata == {"kind": "votes"}
        for found, part in ((table.columns, wanted.columns), (table.lists, wanted.lists)):
            assert list(found) == list(part)
            for name, column in part.items():
                assert found[name].dtype == column.dtype
                np.testing.assert_array_equal(found[name], column)
        np.testing.assert_array_equal(table.offsets, wanted.offsets)
    path.unlink()
    path.mkdir()
    with pytest.raises(DAMAGE):
        read_table(path)
    with pytest.raises(DAMAGE):
        read_table(tmp_path / "none.arrow")


def test_other_arrow_files(tmp_path):
    path = tmp_path / "t.arrow"
    table = pa.table({"a": [1, 2]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DAMAGE):
        read_table(path)


def test_rejected(tmp_path):
    with pytest.raises(ValueError, match="(?s)same length.*'a': 1, 'b': 2"):
        write_table(tmp_path / "t", {"a": np.zeros(1), "b": np.zeros(2)})
    with pytest.raises(TypeError, match="(?s)Columns must be.*`a` of bool"):
        write_table(tmp_path / "t", {"a": np.zeros(1, bool)})
    with pytest.raises(TypeError, match="Lists must hold numbers"):
        write_table(tmp_path / "t", {}, lists=(np.array([0, 1]), {"a": np.array(["x"], object)}))
    with pytest.raises(InputError, match="cannot be written"):
        write_table(tmp_path / "no" / "t", {"a": np.zeros(1)})
    assert not list(tmp_path.iterdir())
