import hashlib

import numpy as np
import pytest

from tests import oracles
from tests.data.splits.events import interactions
from tfrec.data import load, strong_generalization
from tfrec.errors import InputError


def pairs_of(matrix, users, items, events):
    coo = matrix.tocoo()
    raw_users = events.user_ids[users][coo.row]
    raw_items = events.item_ids[items][coo.col]
    return sorted(zip(raw_users.tolist(), raw_items.tolist(), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_rating": 1.0, "min_item_events": 18},
        {"min_rating": 2.0, "min_user_events": 9, "seed": 5},
        {"target_share": 0.45},
    ],
    ids=str,
)
def test_strong_generalization_is_the_papers(ratings, options):
    events = interactions(*ratings)
    split = strong_generalization(events, 8, **options)
    given = {"share" if name == "target_share" else name: value for name, value in options.items()}
    users, items, parts = oracles.liang_split(*ratings, heldout=8, **given)
    mine = np.concatenate([split.train_users, split.validation_users, split.test_users])
    assert events.user_ids[mine].tolist() == users
    assert events.item_ids[split.items].tolist() == items
    found = [
        pairs_of(split.train, split.train_users, split.items, events),
        pairs_of(split.validation_in, split.validation_users, split.items, events),
        pairs_of(split.validation_out, split.validation_users, split.items, events),
        pairs_of(split.test_in, split.test_users, split.items, events),
        pairs_of(split.test_out, split.test_users, split.items, events),
    ]
    assert found == [sorted(part) for part in parts]


def test_strong_generalization_counts_on_movielens_1m(real_data):
    split = strong_generalization(load("ml-1m", real_data("ml-1m")), 600)
    assert split.summary() == {
        "train_users": 4_834,
        "heldout_users": 600,
        "items": 3_497,
        "train_events": 462_827,
        "validation_in_events": 46_146,
        "validation_out_events": 11_228,
        "test_in_events": 44_266,
        "test_out_events": 10_761,
    }


def test_strong_generalization_is_bit_identical():
    split = strong_generalization(load("synthetic", num_users=300, num_items=80, seed=4), 30, None)
    digest = hashlib.sha256()
    for matrix in (split.train, split.validation_in, split.validation_out, split.test_in, split.test_out):
        digest.update(matrix.indptr.astype("<i8").tobytes() + matrix.indices.astype("<i8").tobytes())
    # Written down from the first run; a machine or a NumPy that splits otherwise shows here.
    assert digest.hexdigest()[:16] == "054cff843e79d4e7"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"heldout_users": 30}, "(?s)leave some for training.*Try"),
        ({"heldout_users": 0}, "whole number from 1"),
        ({"heldout_users": 5, "min_rating": 5}, "(?s)No interaction is left.*run from 0.5 to 5"),
        ({"heldout_users": 5, "target_share": 1.0}, "between 0 and 1"),
    ],
)
def test_strong_generalization_rejects(ratings, arguments, match):
    with pytest.raises(InputError, match=match):
        strong_generalization(interactions(*ratings), **arguments)


def test_strong_generalization_rejects_one_user_and_one_item():
    with pytest.raises(InputError, match="3 users are needed"):
        strong_generalization(interactions([1] * 9, range(9)), 1, None)
    with pytest.raises(InputError, match="2 items are needed"):
        strong_generalization(interactions(range(9), [4] * 9), 1, None, min_user_events=1)


def test_of_a_pair_that_repeats_the_first_event_counts(random):
    """Items are numbered and targets drawn as if the later events of a pair were not in the file."""
    user, item = np.repeat(np.arange(40), 60), random.integers(0, 30, 2400)
    shuffled = random.permutation(2400)
    user, item = user[shuffled], item[shuffled]
    _, first = np.unique(user * 100 + item, return_index=True)
    first = np.sort(first)
    split = strong_generalization(interactions(user, item), 10, None)
    without = strong_generalization(interactions(user[first], item[first]), 10, None)
    np.testing.assert_array_equal(split.items, without.items)
    for name in ("train", "validation_in", "validation_out", "test_in", "test_out"):
        assert (getattr(split, name) != getattr(without, name)).nnz == 0


def test_strong_generalization_of_a_log_with_repeats(random):
    """A play log: what is a target is never seen, and repeats do not make a user active."""
    user, item = np.repeat(np.arange(60), 40), random.integers(0, 10, 2400)
    split = strong_generalization(interactions(user, item), 10, None)
    assert split.test_in.multiply(split.test_out).nnz == 0
    assert split.test_out.nnz > 0
    with pytest.raises(InputError, match="filter all users away"):
        strong_generalization(interactions(user, user % 3), 10, None)
