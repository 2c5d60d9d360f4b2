"""Counter-based random numbers: bijections, uniformity, independence of the way they are asked for."""

import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfrec.data.counter_random import key, permute, uniform

#: A test of uniformity fails by chance once in a million; seeds are fixed, so it never flickers.
P_VALUE = 1e-6


def long(values):
    return tf.constant(np.asarray(values), tf.int64)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 63, 64, 65, 100, 10_007, 262_144])
def test_permutation(size):
    found = permute(tf.range(size, dtype=tf.int64), size, key(5, size)).numpy()
    np.testing.assert_array_equal(np.sort(found), np.arange(size))
    if size > 100:
        assert abs(np.corrcoef(found, np.arange(size))[0, 1]) < 5 / size**0.5
        assert (found == np.arange(size)).sum() < 12  # 1 is expected
        assert not np.array_equal(found, permute(tf.range(size, dtype=tf.int64), size, key(6, size)).numpy())


def test_permutation_does_not_depend_on_its_company():
    """Element by element, in another order, beside other sizes and keys, or in a graph: the same numbers."""
    index = long(np.arange(200))
    sizes, keys = long(np.arange(200) % 90 + 201), key(3, long(np.arange(200) % 5))
    together = permute(index, sizes, keys).numpy()
    alone = [int(permute(index[i : i + 1], sizes[i], keys[i])[0]) for i in range(0, 200, 17)]
    assert alone == together[::17].tolist()
    np.testing.assert_array_equal(tf.function(permute)(index, sizes, keys), together)
    assert together.max() < 290


@pytest.mark.parametrize("size", [3, 4, 5])
def test_all_orders_of_a_few_are_equally_likely(size):
    keys = key(long(np.arange(60_000)), 1)[:, None]
    found = permute(tf.tile(tf.range(size, dtype=tf.int64)[None], [60_000, 1]), size, keys).numpy()
    orders = {o: n for n, o in enumerate(itertools.permutations(range(size)))}
    counts = np.bincount([orders[tuple(row)] for row in found.tolist()], minlength=len(orders))
    assert scipy.stats.chisquare(counts).pvalue > P_VALUE


@pytest.mark.parametrize("size", [64, 1_000])
def test_places_and_pairs_of_places_are_uniform(size):
    keys = key(long(np.arange(200_000)), 2)[:, None]
    first = permute(tf.tile(long([[0, size - 1]]), [200_000, 1]), size, keys).numpy()
    for column in (0, 1):
        assert scipy.stats.chisquare(np.bincount(first[:, column], minlength=size)).pvalue > P_VALUE
    difference = (first[:, 1] - first[:, 0]) % size  # 0 cannot be
    assert scipy.stats.chisquare(np.bincount(difference, minlength=size)[1:]).pvalue > P_VALUE


@pytest.mark.parametrize("bound", [1, 2, 3, 1_000, 26_744])
def test_uniform(bound):
    draws = uniform(tf.range(1_000_000, dtype=tf.int64), bound, key(1, 2)).numpy()
    assert (
        scipy.stats.chisquare(np.bincount(draws, minlength=bound)).pvalue > P_VALUE if bound > 1 else (draws == 0).all()
    )
    if bound == 1_000:
        # Neighbours in a sequence, the same place of two keys, and counters beyond 2^32 are unrelated.
        others = (
            np.roll(draws, 1),
            uniform(tf.range(1_000_000, dtype=tf.int64), bound, key(1, 3)).numpy(),
            uniform(tf.range(1_000_000, dtype=tf.int64) + (1 << 32), bound, key(1, 2)).numpy(),
        )
        for other in others:
            table = np.bincount(draws // 50 * 20 + other // 50, minlength=400)
            assert scipy.stats.chisquare(table).pvalue > P_VALUE


def test_keys():
    parts = [(0,), (1,), (0, 0), (0, 1), (1, 0), (1 << 33,), (1 << 32, 5)]
    keys = [int(key(*p)) for p in parts]
    assert len(set(keys)) == len(keys)
    assert all(0 <= k < 2**32 for k in keys)
    assert key(7, long([1, 2])).numpy().tolist() == [int(key(7, 1)), int(key(7, 2))]
    many = key(long(np.arange(100_000)), 9).numpy()
    assert scipy.stats.chisquare(np.bincount(many >> 24, minlength=256)).pvalue > P_VALUE
