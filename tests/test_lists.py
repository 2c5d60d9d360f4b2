"""Tables of recommendations: joinable by id, and read back as they were written."""

import csv
import io
import signal
import subprocess
import sys
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrec.errors import InputError
from tfrec.lists import write_lists

HARD = [
    "plain", "tab\there", "two\nlines", "cr\rhere", "crlf\r\nhere", 'a "quoted" word', '"opens', "=1+1", "+x", "-x",
    "@x", " blanks ", "", "ü 🎬", "\x1b[31m", "a,b;c|d", "'", "\\t", "#", "same", "same", "\u202eabc", "nul\0byte",
]  # fmt: skip


SUFFIXES = {".tsv": "\t", ".csv": ","}


def blocks(lists, scores, size):
    for first in range(0, len(lists), size):
        numbers = np.arange(first, min(first + size, len(lists)))
        yield numbers, lists[numbers], scores[numbers]


def write(path, titles, ids, ranks=3, size=4):
    lists = (np.arange(len(titles) * ranks).reshape(len(titles), ranks) % len(titles)).astype(np.int32)
    scores = np.linspace(0.9, 0.1, lists.size, dtype=np.float32).reshape(lists.shape)
    written = write_lists(path, {"user": ids}, {"item": ids, "title": titles}, blocks(lists, scores, size))
    assert written == lists.size
    return lists, scores


def read_text(path):
    text = path.read_bytes().decode()
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=SUFFIXES[path.suffix]))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_every_title_is_read_back(tmp_path, suffix, size):
    titles = np.array(HARD, dtype=object)
    ids = np.array([f"id {i}\t," for i in range(len(HARD))], dtype=object)
    lists, scores = write(tmp_path / f"r{suffix}", titles, ids, size=size)
    rows = read_text(tmp_path / f"r{suffix}")
    assert rows[0] == ["user", "rank", "item", "title", "score"]
    wanted = [[ids[u], str(r + 1), ids[i], titles[i]] for u, row in enumerate(lists) for r, i in enumerate(row)]
    assert [row[:4] for row in rows[1:]] == wanted
    assert np.array_equal(np.array([row[4] for row in rows[1:]], np.float32), scores.ravel())


@pytest.mark.parametrize("ids", [np.arange(len(HARD)) + 2**62, np.array([f"u{i}" for i in range(len(HARD))], object)])
def test_parquet_keeps_kinds(tmp_path, ids):
    titles = np.array(HARD, dtype=object)
    lists, scores = write(tmp_path / "r.parquet", titles, ids, size=4)
    file = pq.ParquetFile(tmp_path / "r.parquet")
    table = file.read()
    kind = pa.int64() if ids.dtype == np.int64 else pa.string()
    assert table.schema.types == [kind, pa.int32(), kind, pa.string(), pa.float32()]
    assert table.column_names == ["user", "rank", "item", "title", "score"]
    assert table["user"].to_pylist() == np.repeat(ids, 3).tolist()
    assert table["rank"].to_pylist() == [1, 2, 3] * len(HARD)
    assert table["item"].to_pylist() == ids[lists.ravel()].tolist()
    assert table["title"].to_pylist() == titles[lists.ravel()].tolist()
    assert np.array_equal(table["score"].to_numpy(), scores.ravel())
    assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == [12] * 5 + [9]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pandas_reads_it(tmp_path, suffix):
    pandas = pytest.importorskip("pandas")
    titles = np.array(HARD[:-1], dtype=object)  # its fast reader ends a field at NUL
    lists, _ = write(tmp_path / f"r{suffix}", titles, np.arange(len(titles)))
    found = pandas.read_csv(tmp_path / f"r{suffix}", sep=SUFFIXES[suffix], keep_default_na=False, lineterminator="\n")
    assert found["item"].tolist() == lists.ravel().tolist()
    assert found["title"].tolist() == titles[lists.ravel()].tolist()


PADDED = (np.array([0, 1, 2]), np.array([[1, 2], [-1, 0], [-1, -1]]), np.array([[0.5, 0.25], [0.0, 0.5], [0.0, 0.0]]))


def test_two_items_of_one_title_are_told_apart(tmp_path):
    names = {"item": np.array([7, 8, 9])}
    columns = {"similar_item": np.array([7, 8, 9]), "title": np.array(["Crash", "Crash", "Heat"], dtype=object)}
    assert write_lists(tmp_path / "s.tsv", names, columns, [PADDED]) == 3
    assert (tmp_path / "s.tsv").read_text() == (
        "item\trank\tsimilar_item\ttitle\tscore\n7\t1\t8\tCrash\t0.5\n7\t2\t9\tHeat\t0.25\n8\t1\t7\tCrash\t0.5\n"
    )


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".parquet"])
@pytest.mark.parametrize("given", [[], [(np.zeros(0, int), np.zeros((0, 2), int), np.zeros((0, 2)))]])
def test_no_list_is_a_table_without_lines(tmp_path, suffix, given):
    path = tmp_path / f"s{suffix}"
    names = {"item": np.array(["a"], object), "title": np.array(["t"], object)}
    columns = {"similar_item": np.array(["a"], object), "similar_title": np.array(["t"], object)}
    assert write_lists(path, names, columns, given) == 0
    wanted = ["item", "title", "rank", "similar_item", "similar_title", "score"]
    if suffix == ".parquet":
        assert pq.read_table(path).schema == pa.schema(
            [(h, {"rank": pa.int32(), "score": pa.float32()}.get(h, pa.string())) for h in wanted]
        )
    else:
        assert read_text(path) == [wanted]


def test_plain_titles_have_no_quotes(tmp_path):
    write(tmp_path / "r.tsv", np.array(["=A1", "b, c"], dtype=object), np.array([1, 2]), ranks=1)
    assert (tmp_path / "r.tsv").read_text().splitlines()[1:] == ["1\t1\t1\t=A1\t0.9", "2\t1\t2\tb, c\t0.1"]


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".parquet"])
def test_an_error_on_the_way_leaves_what_was_there(tmp_path, suffix):
    path = tmp_path / f"r{suffix}"
    path.write_text("before")

    def broken():
        yield PADDED
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lists(path, {"user": np.arange(3)}, {"item": np.arange(3)}, broken())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from tfrec.lists import write_lists

def blocks():
    for first in range(3):
        yield np.array([first]), np.array([[0]]), np.array([[1.0]])
    os.kill(os.getpid(), signal.SIGKILL)

write_lists(Path(sys.argv[1]), {"user": np.arange(3)}, {"item": np.arange(1)}, blocks())
"""


@pytest.mark.parametrize("suffix", [".tsv", ".parquet"])
def test_a_killed_run_leaves_nothing_half_written(tmp_path, suffix):
    path = tmp_path / f"r{suffix}"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    write_lists(path, {"user": np.arange(3)}, {"item": np.arange(3)}, [PADDED])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".parquet"])
def test_memory_is_that_of_a_block(tmp_path, suffix):
    users, k, size = 40_000, 50, 1_000
    given, most_blocks, most_bytes = [], 0, 0

    def made():
        nonlocal most_blocks, most_bytes
        for first in range(0, users, size):
            block = (np.arange(first, first + size), np.tile(np.arange(k), (size, 1)), np.ones((size, k), np.float32))
            given.append(weakref.ref(block[1]))
            yield block
            del block
            most_blocks = max(most_blocks, sum(r() is not None for r in given))
            most_bytes = max(most_bytes, pa.total_allocated_bytes() - before)

    titles = np.array(["x" * 30] * k, object)
    names, columns = {"user": np.arange(users)}, {"item": np.arange(k), "title": titles}
    before = pa.total_allocated_bytes()
    assert write_lists(tmp_path / f"r{suffix}", names, columns, made()) == users * k
    assert most_blocks == 1
    # All lines have 60 MB of titles alone; those of a block have 1.5.
    assert most_bytes < 15e6


@pytest.mark.parametrize("name", ["r.txt", "r", "r.tsv.gz", "\x1b.x"])
def test_another_suffix(tmp_path, name):
    with pytest.raises(InputError, match=r"\.parquet, \.csv or \.tsv"):
        write_lists(tmp_path / name, {"user": np.arange(3)}, {"item": np.arange(3)}, [PADDED])
    assert list(tmp_path.iterdir()) == []


def test_two_columns_of_one_name(tmp_path):
    with pytest.raises(InputError, match="different names"):
        write_lists(tmp_path / "r.csv", {"item": np.arange(3)}, {"item": np.arange(3)}, [PADDED])


def test_a_place_that_cannot_be_write(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "no" / "r.tsv", np.array(["a"], dtype=object), np.array([1]), ranks=1)


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".parquet"])
def test_a_full_disk(tmp_path, suffix):
    (tmp_path / f"r{suffix}").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left on device"):
        write(tmp_path / f"r{suffix}", np.array(["a" * 99_999] * 9, dtype=object), np.arange(9))
