import hashlib

import numpy as np
import pytest

from tests.data.splits.events import interactions
from tfrec.data import load, random_holdout
from tfrec.errors import InputError


def digest(matrix):
    parts = (matrix.indptr.astype("<i8"), matrix.indices.astype("<i8"), matrix.data.astype("<f4"))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]


def test_shares_and_seeds(ratings):
    events = interactions(*ratings)
    split = random_holdout(events, target_share=0.3, seed=7)
    assert (split.train + split.test != events.to_csr()).nnz == 0
    assert split.train.multiply(split.test).nnz == 0
    assert split.validation.nnz == 0
    assert abs(split.test.nnz / events.to_csr().nnz - 0.3) < 0.06
    # Four standard deviations of 40,000 draws.
    many = interactions(np.repeat(np.arange(200), 200), np.tile(np.arange(200), 200))
    for share in (0.3, 0.05):
        found = random_holdout(many, target_share=share).test.nnz / 40_000
        assert abs(found - share) < 4 * (share * (1 - share) / 40_000) ** 0.5
    again = random_holdout(events, target_share=0.3, seed=7).test
    assert (again != split.test).nnz == 0
    assert (random_holdout(events, target_share=0.3, seed=8).test != split.test).nnz > 0


def test_validation_comes_out_of_training_alone():
    events = interactions(np.repeat(np.arange(200), 200), np.tile(np.arange(200), 200))
    without = random_holdout(events, target_share=0.2, seed=3)
    split = random_holdout(events, validation_share=0.1, target_share=0.2, seed=3)
    assert (split.test != without.test).nnz == 0
    assert (split.train + split.validation != without.train).nnz == 0
    assert split.train.multiply(split.validation).nnz == 0
    assert abs(split.validation.nnz / 40_000 - 0.1) < 4 * (0.1 * 0.9 / 40_000) ** 0.5


def test_the_split_is_the_same_bits_everywhere():
    split = random_holdout(load("synthetic", num_users=300, num_items=80, seed=4), target_share=0.3, seed=7)
    # Written down when there was no validation set yet.
    assert (digest(split.train), digest(split.test)) == ("a2ab79b165df862d", "111eee678b401303")


def test_dislikes_held_out_are_counted_and_in_no_set():
    users, items = np.repeat(np.arange(20), 20), np.tile(np.arange(20), 20)
    votes = np.where(users % 2 == items % 2, 1, -1)
    votes[0] = 0
    split = random_holdout(interactions(users, items, value=votes), validation_share=0.2, target_share=0.3, seed=1)
    assert (split.train.data < 0).any()
    assert (split.validation.data > 0).all()
    assert (split.test.data > 0).all()
    dropped = split.report.dropped
    assert dropped["of 0 (ratings)"] == 1
    kept = split.train.nnz + split.validation.nnz + split.test.nnz
    assert split.report.kept == kept == 400 - 1 - dropped["disliked and held out, so no targets"]


def test_one_user_and_one_item():
    one_user = random_holdout(interactions([1] * 50, range(50)), validation_share=0.3, target_share=0.3)
    assert one_user.train.shape == one_user.validation.shape == one_user.test.shape == (1, 50)
    one_item = random_holdout(interactions(range(50), [1] * 50), validation_share=0.3, target_share=0.3)
    assert one_item.train.nnz + one_item.validation.nnz + one_item.test.nnz == 50


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"target_share": 0}, "between 0 and 1"),
        ({"target_share": 1.0}, "between 0 and 1"),
        ({"target_share": 0.5, "validation_share": 0.5}, "(?s)below 1"),
        ({"validation_share": -0.1}, "from 0"),
        ({"validation_share": float("nan")}, "from 0"),
        ({"seed": -1}, "seed"),
    ],
)
def test_rejected(ratings, options, match):
    with pytest.raises(InputError, match=match):
        random_holdout(interactions(*ratings), **options)


def test_too_few_pairs():
    with pytest.raises(InputError, match="Too few"):
        random_holdout(interactions([1], [2]))
    with pytest.raises(InputError, match="(?s)Too few.*one of 0.001"):
        random_holdout(interactions([1] * 9, range(9)), validation_share=0.001, target_share=0.5)
