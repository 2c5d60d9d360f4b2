"""Statistics, their file, and the ranges that follow from them."""

import math

import numpy as np
import pytest
import yaml

from tfrec.errors import InputError
from tfrec.quantization import Affine, Statistics, clip_range, limits, weight_affine
from tfrec.quantization.clipping import CLIPPINGS
from tfrec.quantization.statistics import Collector


def collected(*batches):
    collector = Collector()
    for batch in batches:
        collector.moments(batch)
    for batch in batches:
        collector.distribution(batch)
    return collector.statistics()


@pytest.fixture
def normal(random):
    return collected(*(random.normal(1.0, 2.0, (500, 8)).astype(np.float32) for _ in range(20)))


def test_collected_in_batches(random):
    batches = [random.normal(size=(n, 3)).astype(np.float32) for n in (5, 1, 40)]
    every = np.concatenate(batches).astype(np.float64)
    found = collected(*batches)
    assert found.shape == [3]
    assert (found.min, found.max) == (every.min(), every.max())
    assert found.avg_min == pytest.approx(every.min(1).mean())
    assert found.avg_max == pytest.approx(every.max(1).mean())
    assert found.mean == pytest.approx(every.mean())
    assert found.std == pytest.approx(every.std())
    assert found.deviation == pytest.approx(np.abs(every - every.mean()).mean())
    assert sum(found.histogram) == every.size
    step = (found.max - found.min) / len(found.histogram)
    for percent in (5.0, 50.0, 99.0):
        assert abs(found.percentiles[percent] - np.percentile(every, percent)) < 0.1 + step


def test_constant_tensor():
    found = collected(np.zeros([4, 2], np.float32))
    assert (found.min, found.max, found.std) == (0.0, 0.0, 0.0)
    assert all(clip_range(found, c, "symmetric", 8) == (0.0, 0.0) for c in CLIPPINGS)


@pytest.mark.parametrize("method", CLIPPINGS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_range_lies_inside_the_values(normal, method, bits):
    low, high = clip_range(normal, method, "asymmetric_signed", bits)
    assert normal.min <= low < high <= normal.max


def test_known_ranges(normal):
    assert clip_range(normal, "none", "symmetric", 8) == (normal.min, normal.max)
    assert clip_range(normal, "average", "symmetric", 8) == (normal.avg_min, normal.avg_max)
    np.testing.assert_allclose(clip_range(normal, "std", "symmetric", 8, num_std=2.0), (-3.0, 5.0), atol=0.1)
    np.testing.assert_allclose(
        clip_range(normal, "percentile", "symmetric", 8, percentile=97.5), (1 - 1.96 * 2, 1 + 1.96 * 2), atol=0.1
    )


@pytest.mark.parametrize(("bits", "published"), [(2, 1.71), (3, 2.15), (4, 2.55)])
def test_gaussian_widths_are_those_of_the_paper(normal, bits, published):
    """Banner et al., 2019: the best clipping of a normal distribution, in standard deviations."""
    low, high = clip_range(normal, "gaussian", "symmetric", bits)
    assert (high - low) / 2 / normal.std == pytest.approx(published, abs=0.02)


@pytest.mark.parametrize(("bits", "published"), [(2, 2.83), (3, 3.89), (4, 5.03)])
def test_laplace_widths_are_those_of_the_paper(random, bits, published):
    values = collected(random.laplace(0.0, 1.5, (50_000, 4)).astype(np.float32))
    low, high = clip_range(values, "laplace", "symmetric", bits)
    assert (high - low) / 2 / values.deviation == pytest.approx(published, abs=0.03)


def test_least_squared_error_is_least(normal, random):
    values = random.normal(1.0, 2.0, 100_000).astype(np.float32)

    def error(method):
        affine = Affine.of_range(*clip_range(normal, method, "asymmetric_unsigned", 4), "asymmetric_unsigned", 4)
        return np.square(values - affine.dequantize(affine.quantize(values))).mean()

    errors = {method: error(method) for method in CLIPPINGS}
    assert errors["mse"] <= 1.001 * min(errors.values())
    assert errors["mse"] < 0.8 * errors["none"]


def test_file_round_trip_and_edit(normal, tmp_path):
    path = tmp_path / "statistics.yaml"
    statistics = Statistics("abc", 10, {"hidden_1": normal})
    statistics.save(path)
    assert Statistics.load(path) == statistics
    content = yaml.safe_load(path.read_text())
    content["tensors"]["hidden_1"]["max"] = 1.25
    path.write_text(yaml.safe_dump(content))
    assert Statistics.load(path)["hidden_1"].max == 1.25


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1, 2",
        "model: a",
        "model: a\nsamples: 1\ntensors: [1]",
        "model: a\nsamples: 1\ntensors: {x: {min: 0}}",
        "model: a\nsamples: 1\ntensors: {x: {min: 2, max: 1}}",
        "model: a\nsamples: 1\ntensors: {x: {min: 0, max: .nan}}",
        "model: a\nsamples: 1\ntensors: {x: {min: 0, max: 1, width: 3}}",
        "model: !!python/object/apply:os.getcwd []\nsamples: 1\ntensors: {}",
    ],
)
def test_damaged_file(tmp_path, content):
    path = tmp_path / "statistics.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"statistics\.yaml"):
        Statistics.load(path)


@pytest.mark.parametrize("mode", ["symmetric", "asymmetric_unsigned", "asymmetric_signed"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_affine(mode, bits, random):
    low, high = -0.7, 2.1
    affine = Affine.of_range(low, high, mode, bits)
    assert (affine.low, affine.high) == limits(mode, bits)
    assert affine.dequantize(affine.zero_point) == 0.0  # zero is exact
    values = random.uniform(low, high, 1_000).astype(np.float32)
    q = affine.quantize(values)
    assert affine.low <= q.min() <= q.max() <= affine.high
    # Half a step; at the ends of the range as much again, where the zero point was rounded.
    error = np.abs(affine.dequantize(q) - values)
    ends = (q == affine.low) | (q == affine.high)
    assert error[~ends].max(initial=0) <= affine.scale / 2 * 1.001
    assert error.max() <= affine.scale * (0.5 if mode == "symmetric" else 1.0) * 1.001
    np.testing.assert_array_equal(affine.quantize(affine.dequantize(q)), q)


def test_affine_by_hand():
    """Scale, zero point and integers of -1 to 3, and of ranges on one side of 0."""
    for mode, scale, zero, ends in (
        ("symmetric", 3 / 7, 0, (-2, 7)),  # -1 / (3 / 7) = -2.33
        ("asymmetric_unsigned", 4 / 15, 4, (0, 15)),  # 0 + 1 / (4 / 15) = 3.75
        ("asymmetric_signed", 4 / 15, -4, (-8, 7)),  # -8 + 3.75 = -4.25
    ):
        affine = Affine.of_range(-1.0, 3.0, mode, 4)
        assert affine.scale == np.float32(scale)
        assert affine.zero_point == zero
        assert tuple(affine.quantize(np.array([-1.0, 3.0]))) == ends
        assert affine.quantize(np.array(1e9)) == affine.high
        assert affine.quantize(np.array(-1e9)) == affine.low
    assert Affine.of_range(2.0, 3.0, "asymmetric_unsigned", 4).scale == np.float32(3 / 15)  # widened to 0
    assert Affine.of_range(-3.0, -2.0, "asymmetric_unsigned", 4).scale == np.float32(3 / 15)
    assert Affine.of_range(-3.0, -2.0, "asymmetric_unsigned", 4).zero_point == 15
    # Halves to even, as everywhere.
    unit = Affine.of_range(-7.0, 7.0, "symmetric", 4)
    assert unit.quantize(np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.6])).tolist() == [0, 2, 2, 0, -2, 3]


def test_weights_per_channel_and_row(random):
    weight = random.normal(size=(6, 4)).astype(np.float32) * np.array([1, 10, 100, 0], np.float32)
    for axis, shape in ((0, (1, 4)), (1, (6, 1)), (None, ())):
        affine = weight_affine(weight, "symmetric", 8, axis)
        assert np.shape(affine.scale) == shape
        error = np.abs(affine.dequantize(affine.quantize(weight)) - weight)
        assert (error <= affine.scale / 2 * 1.001).all()
    with pytest.raises(InputError, match="finite"):
        weight_affine(np.array([[math.nan]], np.float32), "symmetric", 8, None)
