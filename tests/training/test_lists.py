"""Tables of recommendations: joinable by id, and read back as they were written."""

import csv
import io

import numpy as np
import pytest

from tfrec.errors import InputError
from tfrec.training.lists import write_lists

HARD = [
    "plain", "tab\there", "two\nlines", "cr\rhere", "crlf\r\nhere", 'a "quoted" word', '"opens', "=1+1", "+x", "-x",
    "@x", " blanks ", "", "ü 🎬", "\x1b[31m", "a,b;c|d", "'", "\\t", "#", "same", "same", "\u202eabc", "nul\0byte",
]  # fmt: skip


def written(path, titles, ids, ranks=3):
    lists = np.arange(len(titles) * ranks).reshape(len(titles), ranks) % len(titles)
    scores = np.linspace(0.9, 0.1, lists.size).reshape(lists.shape)
    write_lists(path, {"user_id": ids}, {"item_id": ids, "title": titles}, lists, scores)
    return lists


def test_every_title_is_read_back(tmp_path):
    titles = np.array(HARD, dtype=object)
    ids = np.array([f"id {i}\t" for i in range(len(HARD))], dtype=object)
    lists = written(tmp_path / "r.tsv", titles, ids)
    rows = list(csv.reader(io.StringIO((tmp_path / "r.tsv").read_bytes().decode(), newline=""), delimiter="\t"))
    assert rows[0] == ["user_id", "rank", "item_id", "title", "score"]
    wanted = [[ids[u], str(r + 1), ids[i], titles[i]] for u, row in enumerate(lists) for r, i in enumerate(row)]
    assert [row[:4] for row in rows[1:]] == wanted


def test_pandas_reads_it(tmp_path):
    pandas = pytest.importorskip("pandas")
    titles = np.array(HARD[:-1], dtype=object)  # its fast reader ends a field at NUL
    lists = written(tmp_path / "r.tsv", titles, np.arange(len(titles)))
    found = pandas.read_csv(tmp_path / "r.tsv", sep="\t", keep_default_na=False, lineterminator="\n")
    assert found["item_id"].tolist() == lists.ravel().tolist()
    assert found["title"].tolist() == titles[lists.ravel()].tolist()


def test_two_items_of_one_title_are_told_apart(tmp_path):
    titles = np.array(["Crash", "Crash", "Heat"], dtype=object)
    write_lists(
        tmp_path / "s.tsv", {"item_id": np.array([7, 8, 9])}, {"similar_id": np.array([7, 8, 9]), "title": titles},
        np.array([[1, 2], [0, -1], [-1, -1]]), np.array([[0.5, 0.25], [0.5, 0.0], [0.0, 0.0]]),
    )  # fmt: skip
    assert (tmp_path / "s.tsv").read_text() == (
        "item_id\trank\tsimilar_id\ttitle\tscore\n7\t1\t8\tCrash\t0.5\n7\t2\t9\tHeat\t0.25\n8\t1\t7\tCrash\t0.5\n"
    )


def test_plain_titles_have_no_quotes(tmp_path):
    written(tmp_path / "r.tsv", np.array(["=A1", "b c"], dtype=object), np.array([1, 2]), ranks=1)
    assert (tmp_path / "r.tsv").read_text().splitlines()[1:] == ["1\t1\t1\t=A1\t0.9", "2\t1\t2\tb c\t0.1"]


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        written(tmp_path / "no" / "r.tsv", np.array(["a"], dtype=object), np.array([1]), ranks=1)
