import numpy as np
import pytest

from tfrec.errors import InputError
from tfrec.metrics import Exposure, coverage, gini, novelty


def test_values_by_hand():
    # Four items in the first places of 6, 3, 1 and 0 users; 1, 2, 4 and 8 of 8 training users have them.
    exposure = Exposure(np.array([6, 3, 1, 0]), np.array([1, 2, 4, 8]), 8)
    assert coverage(exposure) == 3 / 4
    assert novelty(exposure) == (6 * 3 + 3 * 2 + 1 * 1 + 0 * 0) / 10
    # From below: 0, 1, 3 and 6 tenths, with weights -3, -1, 1 and 3, over I - 1 = 3.
    assert gini(exposure) == pytest.approx((-3 * 0 - 1 * 1 + 1 * 3 + 3 * 6) / 10 / 3)


def test_extremes():
    alike, alone = Exposure(np.full(50, 7)), Exposure(np.eye(50, dtype=np.int64)[3] * 7)
    assert (gini(alike), gini(alone)) == (0, 1)
    assert (coverage(alike), coverage(alone)) == (1, 1 / 50)
    # 10 items of 50 shown to everybody.
    assert gini(Exposure(np.repeat([5, 0], [10, 40]))) == pytest.approx(40 / 49)
    nothing, one = Exposure(np.zeros(4, np.int64), np.ones(4), 3), Exposure(np.array([9]), np.array([1]), 1)
    assert (gini(nothing), coverage(nothing), novelty(nothing)) == (0, 0, 0)
    assert (gini(one), coverage(one), novelty(one)) == (0, 1, 0)


def test_an_item_nobody_has_is_as_new_as_one_that_one_user_has():
    assert novelty(Exposure(np.array([1, 0]), np.array([0, 5]), 8)) == 3
    assert novelty(Exposure(np.array([0, 1]), np.array([0, 1]), 8)) == 3


def test_novelty_needs_popularity():
    with pytest.raises(InputError, match="number of training users"):
        novelty(Exposure(np.array([1])))
