"""The NCF paper's files: the real ones, and broken ones."""

import numpy as np
import pytest

from tfrec.data import leave_one_out
from tfrec.data.ncf import load_ncf, load_ncf_ml1m
from tfrec.errors import InputError

TRAIN = "0\t0\t5\t10\n0\t1\t3\t11\n1\t2\t4\t12\n1\t0\t4\t13\n2\t3\t1\t14\n"
TEST = "0\t2\t5\t20\n2\t1\t4\t21\n"
NEGATIVE = "(0,2)\t3\t3\n(2,1)\t0\t2\n"


def write(folder, train=TRAIN, test=TEST, negative=NEGATIVE):
    for suffix, text in (("train.rating", train), ("test.rating", test), ("test.negative", negative)):
        if text is not None:
            (folder / f"my.{suffix}").write_text(text)
    return folder


def test_reads(tmp_path):
    data = load_ncf(write(tmp_path))
    assert (data.train.num_users, data.train.num_items, len(data.train)) == (3, 4, 5)
    assert data.train.timestamps.tolist() == [10, 11, 12, 13, 14]
    assert data.test_items.tolist() == [2, -1, 1]
    assert data.test_negatives.tolist() == [[3, 3], [0, 0], [0, 2]]
    assert data.train.name == "my"


def test_trailing_tabs_and_carriage_returns(tmp_path):
    data = load_ncf(write(tmp_path, negative="(0,2)\t3\t3\t\r\n(2, 1)\t0\t2\r\n\r\n"))
    assert data.test_negatives[2].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"train": None}, "exactly one \\*.train.rating"),
        ({"negative": None}, "exactly one \\*.test.negative"),
        ({"train": ""}, "my.train.rating"),
        ({"train": "0\t0\t5\t10\n0\tx\t5\t10\n"}, "my.train.rating"),
        ({"train": "0\t0\t5\t10\n0\n"}, "my.train.rating, line 2: malformed"),
        ({"train": "0\t0\t5\t10\n\n0\t1\t\t11\n"}, "my.train.rating, line 3: the rating must be a number"),
        ({"train": "0\t0\t5\t10\n0\t1\t5\tnow\n"}, "line 2: the timestamp must be a number"),
        ({"train": "0\t-1\t5\t10\n"}, "line 1: the item must be a number from 0"),
        ({"train": "0 0 5 10\n"}, "line 1: the user must be a number from 0(?s:.*)tabs between them"),
        ({"train": "user\titem\trating\n0\t1\t5\n"}, "line 1: the user must be a number"),
        (
            {"train": "0\t0\t5\t10\n0\t100000000\t5\t10\n"},
            "line 2: expected a number of the item from 0(?s:.*)without gaps",
        ),
        ({"train": "0\t0\t0\t10\n1\t1\t-1\t10\n"}, "no event to train on"),
        ({"train": "0\t0\tnan\t10\n"}, "line 1: the rating must be a number"),
        ({"test": "0\t2\t5\t20\n0\t1\t4\t21\n"}, "line 2: user 0 must have one held-out item"),
        ({"negative": "(0,2)\t3\t3\n"}, "ends too early"),
        ({"negative": NEGATIVE + "(1,1)\t0\t1\n"}, "line 3: more lines than my.test.rating"),
        ({"negative": "(0,2)\t3\t3\n(2,0)\t0\t2\n"}, r"line 2: expected \(2,1\)"),
        ({"negative": "(0,2)\t3\t3\n(2,1)\t-1\n"}, "line 2: malformed"),
        ({"negative": "(0,2)\t3\t3\n2,1\t0\t1\n"}, "line 2: malformed"),
        ({"negative": "(0,2)\t3\tx\n(2,1)\t0\t1\n"}, "line 1: malformed"),
        ({"negative": "(0,2)\n(2,1)\t0\t1\n"}, "line 1: malformed"),
        ({"negative": "(0,2)\t3\t999999999\n(2,1)\t0\t1\n"}, "line 1: expected item numbers below 100,000,000"),
    ],
)
def test_rejects(tmp_path, files, match):
    with pytest.raises(InputError, match=match):
        load_ncf(write(tmp_path, **files))


@pytest.mark.parametrize(
    "train",
    [
        TRAIN,
        TRAIN.replace("\n", "\r\n"),
        "\ufeff" + TRAIN,
        "\n" + TRAIN.replace("\n", "\n\n") + "  \n",
        TRAIN.replace("\n", "\t\n"),
        TRAIN.replace("\n", "\tmore\tcolumns\n"),
        TRAIN.replace("\t5\t", "\t5.0\t").replace("\t10\n", "\t10.0\n"),
        TRAIN.replace("0\t1\t", "0.0\t 1 \t"),
        TRAIN.replace("\t10\n", "\t1e1\n"),
        TRAIN.removesuffix("\n"),
    ],
)
def test_ways_of_writing_the_same(tmp_path, train):
    data = load_ncf(write(tmp_path, train=train))
    assert data.train.user_index.tolist() == [0, 0, 1, 1, 2]
    assert data.train.item_index.tolist() == [0, 1, 2, 0, 3]
    assert data.train.timestamps.tolist() == [10, 11, 12, 13, 14]
    assert data.train.report.rows == data.train.report.kept == 5
    assert data.train.item_ids.dtype == np.int64


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("0\t0\t5\n0\t1\t3\n1\t2\t4\n1\t0\t4\n2\t3\t1\n", "5 lines"),
        ("0\t0\n0\t1\n1\t2\n1\t0\n2\t3\n", "5 lines"),
        ("0\t0\t5\t\n0\t1\t3\t\n1\t2\t4\n1\t0\t4\n2\t3\t1\t14\n", "4 lines"),
    ],
)
def test_without_times_the_order_of_the_file_stands_for_it(tmp_path, train, said):
    data = load_ncf(write(tmp_path, train=train, test="0\t2\r\n2\t1\r\n"))
    assert data.train.timestamps is None
    assert said in data.train.source["time"]
    assert data.test_items.tolist() == [2, -1, 1]
    assert leave_one_out(data.train).test_items.tolist() == [1, 0, -1]


def test_fractions_of_a_second_order_events(tmp_path):
    data = load_ncf(write(tmp_path, train="0\t0\t5\t10.5\n0\t1\t3\t10.25\n2\t3\t1\t14\n"))
    assert data.train.timestamps.tolist() == [10_500_000, 10_250_000, 14_000_000]


def test_tables_are_as_large_as_all_files_need(tmp_path):
    """Items and users beyond the training file's, as in some published sets."""
    folder = write(tmp_path, test="0\t9\t5\t20\n7\t1\t4\t21\n", negative="(0,9)\t3\t12\n(7,1)\t0\t2\n")
    data = load_ncf(folder)
    assert (data.train.num_users, data.train.num_items) == (8, 13)
    assert data.test_items.tolist() == [9, -1, -1, -1, -1, -1, -1, 1]
    assert data.test_negatives[[0, 7]].tolist() == [[3, 12], [0, 2]]
    assert data.notes == {
        "users only in the test": 1,
        "users without a test item": 2,
        "items only in test or negatives": 2,
        "held-out items that no training event has": 1,
    }
    assert "2 items only in test or negatives" in str(data)
    assert data.train.report.rows == 5
    assert data.train.to_csr().shape == (8, 13)


def test_ratings_that_are_no_event_and_copies_of_the_test(tmp_path):
    """The paper's loader leaves out ratings of 0 and less; a copy of the held-out pair would be trained on."""
    data = load_ncf(write(tmp_path, train=TRAIN + "3\t6\t0\t15\n0\t0\t-1\t16\n2\t1\t4\t21\n0\t0\t2\t30\n"))
    assert data.train.left_out == {"rating of 0 or less": 2, "held out for the test": 1}
    report = data.train.report
    assert (report.rows, report.kept, report.merged) == (9, 5, 1)
    assert (data.train.num_users, data.train.num_items) == (4, 7)
    assert not data.train.to_csr()[2, 1]
    assert data.train.values.tolist() == [1.0] * 6


def test_negatives_of_different_number_and_copies_of_the_item(tmp_path):
    data = load_ncf(write(tmp_path, negative="(0,2)\t3\t2\t3\n(2,1)\t0\n"))
    assert data.test_negatives.tolist() == [[3, 2, 3], [0, 0, 0], [0, 1, 1]]
    assert data.notes == {
        "users without a test item": 1,
        "negatives that are the held-out item (not counted)": 1,
        "negatives that repeat (counted once)": 1,
        "users with fewer negatives than others": 1,
    }


def test_several_data_sets_in_one_folder(tmp_path):
    write(tmp_path)
    for suffix in ("train.rating", "test.rating", "test.negative"):
        (tmp_path / f"other.{suffix}").write_text((tmp_path / f"my.{suffix}").read_text())
    with pytest.raises(InputError, match="(?s)exactly one.*Of several name one: .*my"):
        load_ncf(tmp_path)
    assert load_ncf(tmp_path / "my").train.name == "my"
    with pytest.raises(InputError, match="is not a folder"):
        load_ncf(tmp_path / "mine")


def test_rejects_what_is_no_folder(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        load_ncf(tmp_path / "nowhere")


def test_the_papers_files(real_data):
    root = real_data("ncf-ml-1m")
    data = load_ncf_ml1m(root)
    assert (data.train.num_users, data.train.num_items) == (6_040, 3_706)
    assert len(data.train) == 1_000_209 - 6_040
    assert data.test_negatives.shape == (6_040, 99)
    # None of the negatives is a training positive; 156 of them are the held-out item itself.
    has = data.train.to_csr().astype(bool)
    users = np.repeat(np.arange(6_040), 99)
    assert not np.asarray(has[users, data.test_negatives.ravel()]).any()
    assert (data.test_negatives == data.test_items[:, None]).sum() == 156
    assert data.notes["negatives that are the held-out item (not counted)"] == 156
    assert str(data.train.report) == "1,000,209 rows: 994,169 pairs kept; 6,040 held out for the test"
    # The paper numbers items by first appearance; "One Flew Over the Cuckoo's Nest" is in the first line of the data.
    assert data.train.item_titles[0].startswith("One Flew Over")


def test_damaged_papers_files(real_data, tmp_path):
    root = real_data("ncf-ml-1m")
    (tmp_path / "ml-1m").symlink_to(root / "ml-1m")
    (tmp_path / "ncf-ml-1m").mkdir()
    for name in ("ml-1m.test.rating", "ml-1m.test.negative"):
        (tmp_path / "ncf-ml-1m" / name).write_bytes((root / "ncf-ml-1m" / name).read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged, cut off"):
        load_ncf_ml1m(tmp_path)
