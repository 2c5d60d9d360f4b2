"""The NCF paper's files: the real ones, and broken ones."""

import numpy as np
import pytest

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
        ({"train": "0\t0\t5\t10\n0\t1\t5\n"}, "my.train.rating"),
        ({"train": "0\t-1\t5\t10\n"}, "line 1: expected a item number|line 1: expected"),
        ({"test": "0\t2\t5\t20\n3\t1\t4\t21\n"}, "line 2: user 3 is beyond the training data, which has 3 users"),
        ({"test": "0\t4\t5\t20\n2\t1\t4\t21\n"}, "line 1: item 4 is beyond the training data, which has 4 items"),
        ({"test": "0\t2\t5\t20\n0\t1\t4\t21\n"}, "line 2: user 0 has a held-out item already"),
        ({"negative": "(0,2)\t3\t3\n"}, "ends after 1 of 2 lines"),
        ({"negative": NEGATIVE + "(1,1)\t0\t1\n"}, "line 3: more lines than my.test.rating"),
        ({"negative": "(0,2)\t3\t3\n(2,0)\t0\t2\n"}, r"line 2: expected \(2,1\)"),
        ({"negative": "(0,2)\t3\t3\n(2,1)\t0\n"}, "line 2: expected 2 negatives"),
        ({"negative": "(0,2)\t3\t3\n2,1\t0\t1\n"}, "line 2: malformed"),
        ({"negative": "(0,2)\t3\tx\n(2,1)\t0\t1\n"}, "line 1: malformed"),
        ({"negative": "(0,2)\n(2,1)\t0\t1\n"}, "line 1: malformed"),
        ({"negative": "(0,2)\t3\t9\n(2,1)\t0\t1\n"}, "line 1: item 9 is beyond"),
    ],
)
def test_rejects(tmp_path, files, match):
    with pytest.raises(InputError, match=match):
        load_ncf(write(tmp_path, **files))


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
