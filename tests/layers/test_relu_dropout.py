import numpy as np
import pytest
import tensorflow as tf

from tfrec.layers.relu_dropout import kept_share, relu_dropout


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
@pytest.mark.parametrize("width", [1, 7, 64])
@pytest.mark.parametrize("graph", [False, True])
def test_forward_and_gradient(random, dtype, width, graph):
    x = tf.cast(random.normal(size=(500, width)), dtype)

    def compute(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = relu_dropout(x, 0.25, tf.constant([1, 2]))
            total = tf.reduce_sum(tf.cast(y, tf.float32) * 3.0)
        return y, tape.gradient(total, x)

    y, gradient = (tf.function(compute) if graph else compute)(x)
    assert y.dtype == x.dtype
    x, y, gradient = (tf.cast(a, tf.float32).numpy() for a in (x, y, gradient))
    kept = y != 0
    np.testing.assert_array_equal(y[kept], x[kept])
    assert (x[kept] > 0).all()
    np.testing.assert_array_equal(gradient, 3.0 * kept)
    positive = (x > 0).sum()
    assert abs(kept.sum() - 0.75 * positive) < 5 * (positive * 0.75 * 0.25) ** 0.5


def test_seeds_units_and_rows_are_independent():
    x = tf.ones([4_000, 8])
    first, again, other = (relu_dropout(x, 0.5, tf.constant([1, s])).numpy() for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    for a, b in ((first, other), (first[:, :-1], first[:, 1:]), (first[:-1], first[1:])):
        assert abs((a == b).mean() - 0.5) < 5 * 0.5 / a.size**0.5
    # Each unit is kept in its share of the rows.
    np.testing.assert_allclose(first.mean(axis=0), 0.5, atol=5 * 0.5 / 4_000**0.5)


def test_rates():
    assert kept_share(0.0) == 1.0
    assert kept_share(0.5) == 0.5
    assert kept_share(0.2) == 1 - 51 / 256
    x = tf.constant([[-1.0, 2.0]])
    np.testing.assert_array_equal(relu_dropout(x, 0.0, tf.constant([0, 0])), [[0.0, 2.0]])
    assert relu_dropout(tf.zeros([0, 5]), 0.5, tf.constant([0, 0])).shape == (0, 5)


@pytest.mark.parametrize("rate", [0.5, 0.2, 0.9])
def test_exactly_the_stated_share_is_kept(rate):
    """Of 8 million units, so that one level of 256 too many or too few is seen."""
    found = np.mean([relu_dropout(tf.ones([4_000, 500]), rate, tf.constant([7, s])).numpy().mean() for s in range(4)])
    share = kept_share(rate)
    assert abs(found - share) < 5 * (share * (1 - share) / 8e6) ** 0.5 < 1 / 512
