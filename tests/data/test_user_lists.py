import gzip

import pytest

from tfrec.data import read_user_lists
from tfrec.errors import InputError


def test_numbers_and_repeats(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes(b"3 7 9\r\n\r\n1\t9  9 \n2\n3 8")
    events = read_user_lists(path)
    assert events.user_ids.tolist() == [1, 3]
    assert events.item_ids.tolist() == [7, 8, 9]
    assert list(zip(events.user_index.tolist(), events.item_index.tolist(), strict=True)) == [
        (1, 0), (1, 2), (0, 2), (0, 2), (1, 1),
    ]  # fmt: skip
    assert (events.kind, events.timestamps) == ("events", None)
    # 5 items in lists and one empty list; user 1 has 9 twice. A blank line is no row.
    assert (events.report.rows, events.report.kept, events.report.merged) == (6, 4, 1)
    assert events.report.dropped == {"users with an empty list": 1}


def test_text_packed_and_named(tmp_path):
    path = tmp_path / "train.txt.gz"
    path.write_bytes(gzip.compress("zoë 007 x\nada x\n".encode()))
    events = read_user_lists(path, name="plays")
    assert events.user_ids.tolist() == ["ada", "zoë"]
    assert events.item_ids.tolist() == ["007", "x"]
    assert events.name == "plays"
    assert events.source["file"] == str(path)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("zoë 1\n".encode("latin-1"))
    assert read_user_lists(latin, encoding="latin-1").user_ids.tolist() == ["zoë"]


def test_numbers_that_are_text(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("1 007 7\n2 7\n")
    assert read_user_lists(path).item_ids.tolist() == ["007", "7"]
    path.write_text("1 99999999999999999999 7\n")
    assert read_user_lists(path).item_ids.tolist() == ["7", "99999999999999999999"]
    path.write_text("10 1\n9 1\n")
    assert read_user_lists(path).user_ids.tolist() == [9, 10]
    assert read_user_lists(path, text_ids=True).user_ids.tolist() == ["10", "9"]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "is empty"),
        (b"1\n2\n", "no user with an item"),
        (b"\n\n", "no user with an item"),
        (b"1 2\n\n3 -4 5\n", "(?s)line 3: the item id must be a whole number.*Received: '-4'.*text_ids=True"),
        (b"1 2\n2.5 4\n", "(?s)line 2: the user id.*Received: '2.5'"),
        (b"1 2\n" * 400 + b"1 \0\n", "line 401: there is a NUL byte"),
        (b"1 \0\n", "zero bytes"),
        (b"1 2\nzo\xeb 3\n", "(?s)line 2: not utf-8 text.*encoding='cp1252'"),
        (gzip.compress(b"1 2\n" * 100)[:-12], "Is the file cut off"),
    ],
    ids=range(9),
)
def test_rejected(tmp_path, data, match):
    path = tmp_path / "train.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=match):
        read_user_lists(path)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_user_lists(tmp_path / "train.txt")
    with pytest.raises(InputError, match="not a file"):
        read_user_lists(tmp_path)
