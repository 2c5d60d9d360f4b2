import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tfrec.data import Interactions
from tfrec.data.datasets import load_table
from tfrec.errors import InputError

COLUMNS = {"user": "u", "item": "i", "value": "r", "time": "t"}
GOOD = "u,i,r,t\n7,10,4.5,100\n3,11,2,101\n7,11,5,99\n"


def write(tmp_path, text, name="events.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def check_good(events):
    assert events.user_ids.tolist() == [3, 7]
    assert events.item_ids.tolist() == [10, 11]
    assert events.user_index.tolist() == [1, 0, 1]
    assert events.item_index.tolist() == [0, 1, 1]
    assert events.values.tolist() == [4.5, 2, 5]
    assert events.timestamps.tolist() == [100, 101, 99]
    assert events.kind == "ratings"


def test_csv(tmp_path):
    check_good(Interactions.from_table(write(tmp_path, GOOD), **COLUMNS))


def test_tsv_and_semicolons_and_other_columns(tmp_path):
    tabs = GOOD.replace(",", "\t").replace("t\n", "t\n", 1)
    check_good(Interactions.from_table(write(tmp_path, tabs, "events.tsv"), **COLUMNS))
    check_good(Interactions.from_table(write(tmp_path, GOOD.replace(",", ";")), **COLUMNS))
    more = "note,u,i,r,t\n" + "".join(f'"a, b",{line}\n' for line in GOOD.splitlines()[1:])
    check_good(Interactions.from_table(write(tmp_path, more), **COLUMNS))


def test_gzip_bom_and_crlf(tmp_path):
    check_good(Interactions.from_table(write(tmp_path, gzip.compress(GOOD.encode()), "events.csv.gz"), **COLUMNS))
    check_good(
        Interactions.from_table(write(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()), **COLUMNS)
    )


def test_parquet(tmp_path):
    table = pa.table({"u": [7, 3, 7], "i": [10, 11, 11], "r": [4.5, 2, 5], "t": [100, 101, 99]})
    pa.parquet.write_table(table, tmp_path / "events.parquet")
    check_good(Interactions.from_table(tmp_path / "events.parquet", **COLUMNS))


def test_text_ids_titles_and_dates(tmp_path):
    text = (
        "user_id,item_id,title,when\nzoë,b,Amélie 🎬,2024-01-02\nadam,a,Solaris,2024-01-01\nzoë,a,Solaris,2024-01-03\n"
    )
    events = Interactions.from_table(write(tmp_path, text), time="when", title="title")
    assert events.user_ids.tolist() == ["adam", "zoë"]
    assert events.item_titles.tolist() == ["Solaris", "Amélie 🎬"]
    assert np.diff(events.timestamps).tolist() == [-86_400_000_000, 2 * 86_400_000_000]
    assert events.kind == "events"
    assert events.values.tolist() == [1, 1, 1]


def test_to_csr_sums_repeated_events(tmp_path):
    events = Interactions.from_table(write(tmp_path, "u,i,r\n1,5,2\n1,5,3\n2,6,1\n"), user="u", item="i", value="r")
    assert events.to_csr().toarray().tolist() == [[5, 0], [0, 1]]
    assert events.to_csr(binary=True).toarray().tolist() == [[1, 0], [0, 1]]


def test_large_ids_are_exact(tmp_path):
    top = 2**63 - 1
    events = Interactions.from_table(write(tmp_path, f"u,i\n{top},1\n{top - 1},1\n"), user="u", item="i")
    assert events.user_ids.tolist() == [top - 1, top]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        ("u,i,r,t\n", "no rows"),
        ("u,i,t\n1,2,3\n", r"no column `r` \(for the value\).*Received columns: u, i, t"),
        ("u,i,r,t\n1,2,good,4\n", r"line 2: column `r` must be a number.*'good'"),
        ("u,i,r,t\n1,2,3,4\n1,2,NaN,4\n", r"line 3: the value must be a finite number"),
        ("u,i,r,t\n1,2,inf,4\n", r"line 2: the value must be a finite number"),
        ("u,i,r,t\n1,2,3,4\n,2,3,4\n", r"line 3: the user id is missing"),
        ("u,i,r,t\n1,-2,3,4\n", r"line 2: the item id must not be negative.*-2"),
        ("u,i,r,t\n1.5,2,3,4\n", r"line 2: the user id must be a whole number.*1\.5"),
        ("u,i,r,t\n1e30,2,3,4\n", r"line 2: the user id must be a whole number"),
        ("u,i,r,t\n1,2,3\n", r"line 2: expected 4 columns.*Received: 3"),
        ("u,i,r,t\n1,2,3,4\n1,2,3,4,5\n", r"line 3: expected 4 columns.*Received: 5"),
        ("u,i,r,t\n1,2,3,yesterday\n", r"`t` must hold times"),
        (b"u,i,r,t\n1,2,3,4\nMont\xe9,2,3,4\n", "must be UTF-8"),
    ],
)
def test_rejects(tmp_path, text, match):
    with pytest.raises(InputError, match=f"(?s){match}"):
        Interactions.from_table(write(tmp_path, text), **COLUMNS)


def test_a_word_among_numbers_makes_ids_text(tmp_path):
    lines = [f"{i},{i % 7}" for i in range(300)] + ["POST,3", "85123A,4"]
    events = Interactions.from_table(write(tmp_path, "u,i\n" + "\n".join(lines) + "\n"), user="u", item="i")
    assert {"POST", "85123A", "299"} <= set(events.user_ids)
    assert len(events) == 302
    assert events.item_ids.tolist() == list(range(7))


def test_rejects_what_is_no_table(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        Interactions.from_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="not a file"):
        Interactions.from_table(tmp_path)
    cut = gzip.compress((GOOD + GOOD[8:] * 1000).encode())[:-40]
    with pytest.raises(InputError, match="cut off"):
        Interactions.from_table(write(tmp_path, cut, "cut.csv.gz"), **COLUMNS)
    with pytest.raises(InputError, match="must be a Parquet file"):
        Interactions.from_table(write(tmp_path, GOOD, "events.parquet"), **COLUMNS)
    with pytest.raises(InputError, match="must be different columns"):
        Interactions.from_table(write(tmp_path, GOOD), user="u", item="u")


def test_cached_by_content(tmp_path):
    path = write(tmp_path, GOOD)
    first, again = load_table(path, **COLUMNS), load_table(path, **COLUMNS)
    check_good(again)
    assert first.summary() == again.summary()
    write(tmp_path, GOOD + "8,10,1,102\n")
    assert len(load_table(path, **COLUMNS)) == 4


def test_ids_are_never_rewritten_or_merged(tmp_path):
    def users(*ids):
        return Interactions.from_table(
            write(tmp_path, "u,i\n" + "".join(f"{u},1\n" for u in ids)), user="u", item="i"
        ).user_ids

    assert users("007", "7", "07").tolist() == ["007", "07", "7"]
    assert users("0x7", "1e5", "x").tolist() == ["0x7", "1e5", "x"]
    assert users("7.0", "12.0", "3").tolist() == [3, 7, 12]  # what pandas makes of a column with gaps
    assert users("99999999999999999999", "1").tolist() == ["1", "99999999999999999999"]


def test_quotes(tmp_path):
    """A line break inside quotes is part of a field, also beyond the parser's first block."""
    rows = "".join(f'{i},{i % 9},"a\nb,""c"" {i}"\n' for i in range(400_000))
    events = Interactions.from_table(write(tmp_path, "user_id,item_id,note\n" + rows))
    assert len(events) == 400_000
    with pytest.raises(InputError, match="(?s)spans lines.*quote"):
        Interactions.from_table(write(tmp_path, 'user_id,item_id\n1,"a\n3,x\n4,y"\n'))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("\n", "no column names"),
        ("user_id,item_id,user_id\n1,2,3\n", "more than once"),
        ("user_id,item_id", "no rows"),
        ("user_id,item_id\n\n\n1,2\n-1,2\n", "line 5: the user id must not be negative"),
        ("user_id,item_id\r1,2\r", "CR alone"),
    ],
)
def test_rejects_odd_tables(tmp_path, text, match):
    with pytest.raises(InputError, match=f"(?s){match}"):
        Interactions.from_table(write(tmp_path, text))


def test_times_beyond_the_range(tmp_path):
    path = write(tmp_path, "user_id,item_id,t\n1,2,1.5\n1,3,1.7e13\n")
    with pytest.raises(InputError, match="line 3: the time"):
        Interactions.from_table(path, time="t")
    table = pa.table({"user_id": [1], "item_id": [2], "t": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))})
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    assert Interactions.from_table(tmp_path / "t.parquet", time="t").timestamps.tolist() == [1_700_000_000_123_456]
