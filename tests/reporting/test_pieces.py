"""Numbers, axes and intervals of a page."""

import itertools
import math

import numpy as np
import pytest

from tfrec.metrics.significance import bootstrap_interval
from tfrec.reporting.intervals import intervals, share
from tfrec.reporting.plot import Plot, path
from tfrec.reporting.scales import Scale, dates, linear, logarithmic, per_second
from tfrec.reporting.sections.coverage import cumulative
from tfrec.reporting.sections.where import groups
from tfrec.reporting.text import decimal, duration, exact, foreign, percent, significant


@pytest.mark.parametrize("seed", range(5))
def test_groups(seed):
    """Every value is in one group, groups do not overlap, and without ties they are about equally large."""
    random = np.random.default_rng(seed)
    values = random.zipf(1.5, 500).clip(max=10**6)
    found = groups(values, 10)
    assert np.sum([inside for *_, inside in found], axis=0).tolist() == [1] * 500
    for low, high, inside in found:
        assert (values[inside].min(), values[inside].max()) == (low, high)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(found))
    different = groups(random.permutation(1_000), 10)
    assert [int(inside.sum()) for *_, inside in different] == pytest.approx([100] * 10, abs=1)
    assert len(groups(np.arange(45), 10)) == 2  # a group of a few would be noise
    assert len(groups(np.full(1_000, 7), 10)) == 1


def test_cumulative():
    times = np.random.default_rng(0).integers(0, 50, 1_000)
    points = cumulative(times)
    assert points[0] == (0, 0)
    assert points[-1] == (1, pytest.approx(1))
    for x, y in points:
        assert y == pytest.approx(np.sort(times)[::-1][: round(x * 1_000)].sum() / times.sum())
    for x, y in cumulative(np.ones(10, np.int64)):
        assert y == pytest.approx(x)
    assert cumulative(np.zeros(4, np.int64)) == []


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0.43), (0, 1), (-3, 8e6), (0.5, 0.5), (0, 0), (1e-9, 3e-9), (435.2, 461)]
)
def test_linear(low, high):
    scale = linear(low, high)
    values = [value for value, _ in scale.ticks]
    assert scale.low <= low <= high <= scale.high
    assert (values[0], values[-1]) == (scale.low, scale.high)
    assert 2 <= len(values) <= 8
    assert len({label for _, label in scale.ticks}) == len(values)
    np.testing.assert_allclose(np.diff(values), values[1] - values[0])
    assert [scale.place(v) for v in (scale.low, scale.high, scale.high + 1)] == [0, 1, 1]


def test_logarithmic():
    scale = logarithmic(1, 10_000)
    assert scale.place(100) == pytest.approx(0.5)
    assert scale.place(0) == 0
    assert [label for _, label in scale.ticks] == ["1", "10", "100", "1,000", "10,000"]
    assert len(logarithmic(1, 1e12).ticks) <= 6
    assert logarithmic(1, 1).high == 10


@pytest.mark.parametrize("span", [60, 3_600, 86_400, 7 * 86_400, 60 * 86_400, 3e7, 3e8, 3e9])
@pytest.mark.parametrize("unit", [1, 1_000, 10**9])
def test_dates(span, unit):
    low = 1_046_454_590.0 * unit
    high = low + span * unit
    assert per_second(low, high) == unit
    scale = dates(low, high, unit)
    assert 1 <= len(scale.ticks) <= 9
    assert all(scale.low <= value <= scale.high for value, _ in scale.ticks)
    assert len({label for _, label in scale.ticks}) == len(scale.ticks)


def test_intervals_are_those_of_the_bootstrap():
    random = np.random.default_rng(0)
    column = random.random(200)
    with_gaps = np.where(np.arange(200) % 3, column, np.nan)
    whole, gaps, none = intervals([column, with_gaps, np.full(200, np.nan)])
    low, high = bootstrap_interval(column[:, None], samples=2_000)
    assert (whole.mean, whole.low, whole.high) == pytest.approx((column.mean(), low[0], high[0]))
    assert gaps.mean == pytest.approx(np.nanmean(with_gaps))
    assert gaps.high - gaps.low > whole.high - whole.low
    assert math.isnan(none.mean)


def test_the_interval_of_a_share_is_about_that_of_a_bootstrap_over_users():
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(300), random.integers(1, 9, 300))
    found = (random.random(len(users)) < random.random(300)[users]).astype(np.float64)
    interval = share(found, users)
    hits, targets = (np.bincount(users, weights) for weights in (found, np.ones(len(users))))
    drawn = random.integers(0, 300, (4_000, 300))
    low, high = np.quantile(hits[drawn].sum(1) / targets[drawn].sum(1), [0.025, 0.975])
    assert interval.mean == pytest.approx(found.mean())
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.005)
    # Targets of a user are alike, so treating them as independent would claim too much.
    naive = 1.96 * math.sqrt(found.mean() * (1 - found.mean()) / len(found))
    assert interval.high - interval.mean > 1.2 * naive


def test_numbers():
    assert exact(0.12345678901234) == '<data value="0.12345678901234">0.1235</data>'
    assert exact(-0.5, sign=True) == '<data value="-0.5">−0.5000</data>'
    assert [decimal(value) for value in (None, math.nan, math.inf)] == ["–"] * 3
    assert [percent(share) for share in (None, 0, 1e-9, 0.12345, 1)] == ["–", "0.0 %", "<0.1 %", "12.3 %", "100.0 %"]
    assert [significant(value) for value in (0, 0.01234, 12.34, 1234.5)] == ["0", "0.0123", "12.3", "1,234"]
    assert [duration(s) for s in (0.028, 5.25, 125, 7_260)] == ["28 ms", "5.2 s", "2 min 5 s", "2 h 1 min"]
    assert foreign("<b>\u202e") == "<bdi>&lt;b&gt;\\u202e</bdi>"
    assert len(foreign("x" * 10**6)) < 200


def test_labels_that_would_overlap_are_left_out():
    ticks = [(i + 0.5, "1,000,000–2,000,000") for i in range(10)]
    plot = Plot("", Scale(0, 10, ticks), linear(0, 1), "x", "y")
    assert plot.svg().count("1,000,000–2,000,000") == 2
    assert path([(0, 1), (0.01, 1), (5, 1)]) == "M0 1L5 1"
