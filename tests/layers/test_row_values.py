"""First values of rows have the distribution that the initializer names, and depend on the row alone."""

import keras
import numpy as np
import pytest
import scipy.stats

from tfrec.layers.row_values import RowValues


@pytest.mark.parametrize(
    ("initializer", "distribution"),
    [
        (keras.initializers.RandomUniform(-0.2, 0.6, seed=1), scipy.stats.uniform(-0.2, 0.8)),
        (keras.initializers.RandomNormal(0.5, 0.1, seed=1), scipy.stats.norm(0.5, 0.1)),
        (keras.initializers.TruncatedNormal(0.5, 0.1, seed=1), scipy.stats.truncnorm(-2, 2, 0.5, 0.1)),
        (keras.initializers.GlorotUniform(seed=1), scipy.stats.uniform(-(6 / 2020) ** 0.5, 2 * (6 / 2020) ** 0.5)),
        (
            keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", seed=1),
            scipy.stats.norm(0, 0.1**0.5),
        ),
    ],
)  # fmt: skip
def test_distributions(initializer, distribution):
    found = RowValues(initializer, 2_000, 20)(np.arange(2_000))
    assert found.dtype == np.float32
    assert scipy.stats.kstest(found.ravel(), distribution.cdf).pvalue > 1e-3
    # Neighbours in a row, rows, and seeds are independent.
    other = RowValues(type(initializer).from_config({**initializer.get_config(), "seed": 2}), 2_000, 20)(
        np.arange(2_000)
    )
    for a, b in ((found[:, 0], found[:, 1]), (found[:-1, 3], found[1:, 3]), (found[:, 5], other[:, 5])):
        assert scipy.stats.pearsonr(a, b).pvalue > 1e-3


def test_spread_of_keras_itself():
    """He's and LeCun's normal numbers have Keras's standard deviation after truncation."""
    for name in ("he_normal", "lecun_normal", "glorot_normal"):
        initializer = keras.initializers.get(name)
        ours, keras_own = RowValues(initializer, 3_000, 30)(np.arange(3_000)), np.asarray(initializer((3_000, 30)))
        assert ours.std() == pytest.approx(keras_own.std(), rel=0.02)
        assert np.abs(ours).max() <= np.abs(keras_own).max() * 1.01


def test_a_row_depends_on_itself_alone():
    values = RowValues(keras.initializers.RandomNormal(seed=3), 10**10, 8)
    some = np.array([5, 9_999_999_999, 0])
    np.testing.assert_array_equal(values(some)[::-1], values(some[::-1]))
    np.testing.assert_array_equal(values(some[1:2]), values(some)[1:2])


def test_constants():
    assert (RowValues(keras.initializers.Constant(2.5), 4, 3)(np.arange(4)) == 2.5).all()
    assert (RowValues(keras.initializers.Ones(), 4, 3)(np.arange(4)) == 1).all()
    assert (RowValues(keras.initializers.Zeros(), 4, 3)(np.arange(4)) == 0).all()
