import hashlib

import numpy as np
import pytest

from tfrec.data import Synthetic, strong_generalization
from tfrec.errors import InputError
from tfrec.evaluation import evaluate_full_ranking


def digest(events):
    parts = (events.user_index, events.item_index, events.timestamps)
    return hashlib.sha256(b"".join(p.astype("<i8").tobytes() for p in parts)).hexdigest()[:16]


def test_is_bit_identical():
    # Written down from the first run; a machine or a NumPy that draws otherwise shows here.
    assert digest(Synthetic(num_users=200, num_items=150, seed=9).interactions()) == "265a9bcbf9cd3438"


def test_seed_and_size():
    data = Synthetic(num_users=50, num_items=90, seed=1)
    assert digest(data.interactions()) != digest(Synthetic(num_users=50, num_items=90, seed=2).interactions())
    # More users leave the first ones' factors and activity as they were.
    more = Synthetic(num_users=80, num_items=90, seed=1)
    assert (more.activity()[:50] == data.activity()).all()
    assert (more.scores(np.arange(50)) == data.scores(np.arange(50))).all()


def test_each_item_once_and_as_many_as_said():
    data = Synthetic(num_users=100, num_items=64, seed=3)
    events = data.interactions()
    assert events.to_csr().data.max() == 1
    assert (np.bincount(events.user_index) == data.activity()).all()


def test_draws_follow_the_planted_probabilities():
    """The first draws of many users with one preference against the softmax of the planted scores."""
    data = Synthetic(num_users=20_000, num_items=6, rank=1, strength=0.0, popularity=1.0, seed=5)
    events = data.interactions()
    first = events.item_index[np.flatnonzero(np.diff(events.user_index, prepend=-1))]
    scores = data.scores(np.array([0]))[0].astype(np.float64)
    expected = np.exp(scores) / np.exp(scores).sum()
    found = np.bincount(first, minlength=6) / len(first)
    # Four standard deviations of a share.
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / len(first)))


def test_movielens_like_activity_and_popularity():
    events = Synthetic().interactions()
    per_user = np.bincount(events.user_index)
    assert per_user.min() == 20
    assert 60 <= np.median(per_user) <= 76
    per_item = np.sort(np.bincount(events.item_index))[::-1]
    # The most popular tenth has between a third and two thirds of the events (MovieLens-20M: about two thirds).
    assert 1 / 3 < per_item[: len(per_item) // 10].sum() / per_item.sum() < 2 / 3 + 0.05


def test_the_oracle_is_better_than_popularity():
    data = Synthetic(num_users=400, num_items=200, seed=2)
    split = strong_generalization(data.interactions(), 100, None)
    counts = np.asarray(split.train.sum(axis=0))

    def measure(score):
        return evaluate_full_ranking(score, split.test_in, split.test_out, ["ndcg@20"]).metrics["ndcg@20"]

    oracle = measure(lambda rows, _: data.scores(split.test_users[rows])[:, split.items])
    popularity = measure(lambda rows, _: np.repeat(counts, len(rows), axis=0))
    assert oracle > 1.3 * popularity


@pytest.mark.parametrize(
    "argument", [{"num_users": 0}, {"num_items": 0}, {"rank": 0}, {"strength": -1}, {"seed": -1}, {"rank": 65}]
)
def test_rejects(argument):
    with pytest.raises(InputError, match=next(iter(argument))):
        Synthetic(**argument)


def test_one_user_and_one_item():
    events = Synthetic(num_users=1, num_items=1).interactions()
    assert (len(events), events.num_users, events.num_items) == (1, 1, 1)
