"""The reasons that the command gives for what it recommends."""

import numpy as np
import pytest

from tests.models.test_als import checkerboard
from tfrec.models import ALS, Popularity
from tfrec.recommend import because


@pytest.fixture(scope="module")
def model():
    """Even items go with even ones, odd ones with odd ones."""
    made = ALS(factors=2, regularization=0.1, iterations=10, alpha=20.0, seed=1)
    made.fit(checkerboard(), verbose=0)
    return made


@pytest.mark.parametrize("liked", [[1, 3, 5, 8], [8, 1, 3, 5], [8, 1, 8, 3, 5]])
def test_the_reason_is_what_speaks_for_the_items_wherever_it_stands(model, liked):
    assert because(model, np.array(liked), [2, 4, 10])[0] == 8
    assert set(because(model, np.array(liked), [7, 9])) == {1, 3, 5}


def test_reasons_are_those_that_the_model_explains(model):
    import scipy.sparse

    liked = np.array([1, 2, 3, 4])
    row = scipy.sparse.csr_array((np.ones(4), ([0] * 4, liked)), shape=(1, 40))
    _, items, parts = model.explain(row, 9)
    assert set(because(model, liked, [9])) <= set(items[parts > 0].tolist())
    assert set(because(model, liked, [9])) == {1, 3}


def test_no_reason_where_there_is_none(model):
    popularity = Popularity(40)
    popularity.adapt(checkerboard())
    assert because(popularity, np.array([1, 2, 3]), [4, 5]) == []
    assert because(model, np.array([1, 2]), []) == []
