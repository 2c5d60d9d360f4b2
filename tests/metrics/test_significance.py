"""Intervals that cover as often as they say, and p-values that are rare as often as they say."""

import math

import numpy as np
import pytest

from tests import oracles
from tfrec.errors import InputError
from tfrec.metrics import significance
from tfrec.metrics.significance import bootstrap_interval, holm, paired_differences, sign_flip_p_values


def sparse_differences(random, users, tests, mean=0.0):
    """``[U, N]``: most users have no difference, the others a skewed one; columns have this mean, as a population."""
    values = random.exponential(1.0, (users, tests)) - 1 + mean / 0.3
    return values * (random.random((users, tests)) < 0.3)


@pytest.mark.parametrize("users", [1, 2, 5, 10])
def test_the_test_is_exact_for_few_users(users):
    values = np.random.default_rng(users).normal(0.3, 1, (users, 4)).round(1)
    wanted = [oracles.sign_flip_p(column) for column in values.T]
    np.testing.assert_allclose(sign_flip_p_values(values), wanted)
    # Users without a difference say nothing, however many they are.
    padded = np.concatenate([np.zeros((100, 4)), values])
    np.testing.assert_allclose(sign_flip_p_values(padded), wanted)


def test_equal_sums_are_ties_whatever_their_rounding():
    values = np.array([[0.1], [0.2], [0.3], [-0.6], [0.7]])
    assert sign_flip_p_values(values) == oracles.sign_flip_p([1, 2, 3, -6, 7])
    assert sign_flip_p_values(np.full((8, 1), 0.1)) == 2 / 2**8


def test_random_signs_agree_with_all_of_them():
    values = np.random.default_rng(0).normal(0.2, 1, (14, 6))
    drawn = sign_flip_p_values(values, samples=16_000)  # of 16,384
    wanted = np.array([oracles.sign_flip_p(column) for column in values.T])
    error = np.sqrt(wanted * (1 - wanted) / 16_000)
    assert (np.abs(drawn - wanted) < 4 * error + 1e-4).all()


def test_a_p_value_is_never_zero():
    assert sign_flip_p_values(np.ones((60, 1)), samples=99) == 1 / 100
    assert sign_flip_p_values(np.zeros((60, 1))) == 1


def test_p_values_are_uniform_where_nothing_differs():
    values = np.random.default_rng(1).normal(0, 1, (40, 3_000))
    values *= np.random.default_rng(2).exponential(1, (40, 1))
    p_values = np.sort(sign_flip_p_values(values, samples=999, seed=3))
    # Kolmogorov's distance; the columns share their signs, which makes them a little alike.
    distance = np.abs(p_values - np.arange(1, 3_001) / 3_000).max()
    assert distance < 1.95 / math.sqrt(3_000) + 1 / 1_000
    for level in (0.01, 0.05, 0.2):
        share = (p_values <= level).mean()
        assert share == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 3_000))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_an_interval_covers_the_mean_as_often_as_it_says(level):
    tests, random = 1_500, np.random.default_rng(4)
    covered = 0
    for part in range(10):  # with resamples of its own
        values = sparse_differences(random, 300, tests // 10, mean=0.1)
        low, high = bootstrap_interval(values, samples=800, level=level, seed=part)
        covered += ((low <= 0.1) & (high >= 0.1)).sum()
    # A percentile interval of skewed values covers a little less: half a percent at 300 users.
    assert covered / tests == pytest.approx(level, abs=0.007 + 3 * math.sqrt(level * (1 - level) / tests))


def test_an_interval_is_that_of_all_resamples():
    values = np.array([0.0, 0.5, 1.0, -0.25, 0.125])
    means = oracles.bootstrap_means(values)
    low, high = bootstrap_interval(values[:, None], samples=100_000, level=0.9)
    assert np.searchsorted(means, low[0], "right") / len(means) >= 0.045
    assert np.searchsorted(means, low[0], "left") / len(means) <= 0.055
    assert np.searchsorted(means, high[0], "right") / len(means) >= 0.945
    assert np.searchsorted(means, high[0], "left") / len(means) <= 0.955


def test_blocks_and_seeds(monkeypatch):
    values = sparse_differences(np.random.default_rng(5), 100, 3, mean=0.05)
    whole = paired_differences(values, samples=1_000, seed=7)
    other = paired_differences(values, samples=1_000, seed=8)
    assert not np.array_equal(whole.low, other.low)
    monkeypatch.setattr(significance, "_BLOCK_NUMBERS", 100 * 37)
    parts = paired_differences(values, samples=1_000, seed=7)
    np.testing.assert_allclose(parts.low, whole.low, atol=1e-12)
    np.testing.assert_allclose(parts.high, whole.high, atol=1e-12)
    assert np.array_equal(parts.p_value, whole.p_value)
    assert np.array_equal(whole.mean, values.mean(axis=0))
    assert whole.users == 100


def test_memory_does_not_grow_with_samples(monkeypatch):
    sizes = []
    bincount = np.bincount
    monkeypatch.setattr(np, "bincount", lambda x, **options: sizes.append(len(x)) or bincount(x, **options))
    monkeypatch.setattr(significance, "_BLOCK_NUMBERS", 5_000)
    bootstrap_interval(np.ones((50, 1)), samples=1_234)
    assert max(sizes) <= 5_000
    assert sum(sizes) == 50 * 1_234


def test_swapped_models_swap_the_interval_and_keep_the_p_value():
    values = sparse_differences(np.random.default_rng(6), 200, 2, mean=0.1)
    one, other = paired_differences(values, samples=500), paired_differences(-values, samples=500)
    np.testing.assert_allclose(one.low, -other.high)
    assert np.array_equal(one.p_value, other.p_value)


@pytest.mark.parametrize("number", [1, 2, 7])
def test_holm(number):
    p_values = np.random.default_rng(number).random((number, 5)) ** 3
    p_values[0, 0] = p_values[-1, 0]
    wanted = np.array([oracles.holm(column) for column in p_values.T]).T
    np.testing.assert_allclose(holm(p_values), wanted)
    np.testing.assert_allclose(holm(p_values[:, 1]), wanted[:, 1])


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros((0, 2)), {}, "at least one"),
        (np.zeros(3), {}, "matrix"),
        (np.array([[np.nan]]), {}, "finite"),
        (np.ones((2, 1)), {"samples": 0}, "`samples`"),
        (np.ones((2, 1)), {"level": 1.0}, "`level`"),
    ],
)
def test_what_cannot_be_compared(values, options, message):
    with pytest.raises(InputError, match=message):
        paired_differences(values, **options)
