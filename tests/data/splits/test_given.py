import numpy as np
import pytest

from tests.data.splits.events import interactions
from tfrec.data import given
from tfrec.errors import InputError


def raw(split):
    """Per part the set of (user, item), by raw ids."""
    ids = split.interactions.user_ids[split.users], split.interactions.item_ids[split.items]
    parts = []
    for matrix in (split.train, split.validation, split.test):
        coo = matrix.tocoo()
        parts.append(set(zip(ids[0][coo.row].tolist(), ids[1][coo.col].tolist(), strict=True)))
    return parts


TRAIN = interactions([1, 1, 2, 2, 3], [10, 11, 10, 12, 11])


def test_training_decides_users_and_items():
    validation = interactions([1, 1, 9, 3, 2], [12, 99, 10, 10, 11])
    test = interactions([1, 1, 2, 3, 3, 3], [10, 99, 11, 12, 12, 99])
    split = given(TRAIN, validation, test)
    # Of test (1, 10) is in training, 99 is unknown, and (3, 12) comes twice; of validation (2, 11) is in the test set.
    assert raw(split) == [
        {(1, 10), (1, 11), (2, 10), (2, 12), (3, 11)},
        {(1, 12), (3, 10)},
        {(2, 11), (3, 12)},
    ]
    assert split.report.dropped == {
        "of users unknown to training (validation)": 1,
        "of items unknown to training (validation)": 1,
        "also in test (validation)": 1,
        "of items unknown to training (test)": 2,
        "also in training (test)": 1,
    }
    assert (split.report.rows, split.report.kept, split.report.merged) == (5 + 5 + 6, 5 + 2 + 2, 1)
    assert split.validation_rule == "given"


def test_values_and_thresholds():
    train = interactions([1, 1, 2, 2], [10, 11, 10, 12], value=[5, 4, 2, 5])
    test = interactions([1, 2, 2], [12, 11, 10], value=[4, 3, 5])
    split = given(train, None, test, validation_share=0)
    assert split.train.toarray().tolist() == [[5, 4, 0], [0, 0, 5]]
    assert split.test.toarray().tolist() == [[0, 0, 4], [5, 0, 0]]
    assert split.report.dropped == {
        "below the threshold 3.5 (ratings) (training)": 1,
        "below the threshold 3.5 (ratings) (test)": 1,
    }
    assert (split.validation.nnz, split.validation_rule) == (0, "none")


def test_validation_is_drawn_from_training(random):
    places = random.permutation(100 * 100)[:4_000]
    train = interactions(np.append(places // 100, [200]), np.append(places % 100, [200]))
    test = interactions([5, 6], [200, 200])
    split = given(train, None, test, validation_share=0.2, seed=4)
    assert split.train.multiply(split.validation).nnz == 0
    assert split.train.nnz + split.validation.nnz == 4_001
    assert abs(split.validation.nnz / 4_001 - 0.2) < 4 * (0.2 * 0.8 / 4_001) ** 0.5
    # The only pair of user 200 and of item 200 stays.
    assert (np.diff(split.train.indptr) > 0).all()
    assert (np.bincount(split.train.indices, minlength=101) > 0).all()
    assert split.validation_rule == "0.2 of the training pairs at random, seed 4"
    assert split.report.kept == 4_001 + 2
    again = given(train, None, test, validation_share=0.2, seed=4)
    assert (again.validation != split.validation).nnz == 0


def test_files(tmp_path):
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text("ada 1 2\nbob 2 3\n7\n")
    test.write_text("ada 3 x\nbob\n")
    # Items are numbers in one file and text in the other: text in both.
    split = given(train, None, test, validation_share=0)
    assert raw(split) == [{("ada", "1"), ("ada", "2"), ("bob", "2"), ("bob", "3")}, set(), {("ada", "3")}]
    assert split.report.dropped == {
        "users with an empty list (training)": 1,
        "users with an empty list (test)": 1,
        "of items unknown to training (test)": 1,
    }


def test_sources_of_one_user_and_of_one_item():
    with pytest.raises(InputError, match=r"(?s)No test pair is left.*2 also in training"):
        given(interactions([1, 1], [10, 11]), None, interactions([1, 1], [10, 11]), validation_share=0)
    with pytest.raises(InputError, match="2 items are needed"):
        given(interactions([1, 2], [10, 10]), None, interactions([1], [11]))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"validation_share": 1}, r"`validation_share` must lie in \[0, 1\)"),
        ({"seed": -1}, "`seed` must lie"),
        ({"test": interactions(np.array(["a"], object), [10])}, "(?s)user ids must be of one kind.*'test': 'text'"),
        ({"test": interactions([1], [12], value=[3])}, "(?s)must mean the same.*'test': 'ratings'"),
        ({"test": interactions([7], [12])}, "(?s)No test pair is left.*1 of users unknown to training"),
        ({"validation": interactions([1], [12])}, "(?s)No validation pair is left.*1 also in test"),
        ({"validation_share": 1e-9}, "(?s)No validation pair is left.*1e-09 of the training pairs"),
        ({"train": interactions([1, 1], [10, 11], value=[1, 2]), "min_rating": 9.0}, "must mean the same"),
    ],
    ids=lambda value: "",
)
def test_rejected(arguments, match):
    with pytest.raises(InputError, match=match):
        given(**{"train": TRAIN, "validation": None, "test": interactions([1], [12]), **arguments})


def test_no_positive_training_pair():
    low = interactions([1, 1], [10, 11], value=[1, 2])
    with pytest.raises(InputError, match="(?s)No positive pair is left for training above 3.5.*2 below the threshold"):
        given(low, None, low)
