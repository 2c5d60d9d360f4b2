"""The generated catalogue against its own description."""

import numpy as np
import pytest

from tfrec.data import SyntheticCatalog
from tfrec.errors import InputError

SMALL = {"num_users": 400, "num_items": 995, "category_size": 100, "events_per_user": 200}


def test_events_follow_the_planted_probabilities():
    data = SyntheticCatalog(**SMALL, seed=3)
    events = data.interactions()
    assert len(events) == 400 * 200
    # All items of all users: the probabilities, from the scores.
    users, items = np.arange(400), np.tile(np.arange(995), (400, 1))
    weights = np.exp(data.scores(users, items).astype(np.float64))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    categories = np.add.reduceat(probabilities.sum(axis=0), np.arange(0, 995, 100)) * 200
    found = np.bincount(events.item_index // 100, minlength=10)
    np.testing.assert_allclose(found, categories, rtol=0.03, atol=50)
    places = np.bincount(events.item_index % 100, minlength=100)
    np.testing.assert_allclose(places[0] / places[9], 10**0.8, rtol=0.1)


def test_the_oracle_ranks_as_the_probabilities():
    data = SyntheticCatalog(**SMALL)
    users, items = np.array([0, 7]), np.array([[0, 1, 99, 100], [994, 900, 5, 5]])
    scores = data.scores(users, items)
    assert scores.dtype == np.float32
    assert scores[0, 0] > scores[0, 1] > scores[0, 2]  # in a category the popular ones come first
    assert scores[0, 0] - scores[0, 1] == pytest.approx(0.8 * np.log(2), abs=1e-5)
    assert scores[1, 2] == scores[1, 3]


def test_seeds_and_more_users():
    few, more = SyntheticCatalog(**SMALL), SyntheticCatalog(**{**SMALL, "num_users": 500})
    np.testing.assert_array_equal(few.interactions().item_index, SyntheticCatalog(**SMALL).interactions().item_index)
    assert (few.interactions().item_index != SyntheticCatalog(**SMALL, seed=1).interactions().item_index).any()
    items = np.arange(995)[None]
    np.testing.assert_array_equal(few.scores(np.array([5]), items), more.scores(np.array([5]), items))


def test_rejects():
    with pytest.raises(InputError, match="`num_items` must lie in"):
        SyntheticCatalog(num_items=0)
    with pytest.raises(InputError, match="`decay` must lie in"):
        SyntheticCatalog(decay=-0.1)
