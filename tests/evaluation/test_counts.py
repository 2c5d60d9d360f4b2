"""Counts are whole numbers, whatever they are added in."""

import pytest
import tensorflow as tf

from tfrec.evaluation import counts


@pytest.mark.parametrize("exact", [1 << 24, 10])
def test_counts_are_exact(random, monkeypatch, exact):
    """Both ways to add."""
    monkeypatch.setattr(counts, "_EXACT", exact)
    condition = random.random((3, 500)) < 0.4
    found = counts.true_in_row(tf.constant(condition))
    assert found.dtype == tf.int64
    assert found.numpy().tolist() == condition.sum(axis=1).tolist()


def test_a_row_beyond_what_float32_can_count():
    """2^24 + 1 ones, the first number that float32 does not have."""
    assert counts.true_in_row(tf.ones([1, (1 << 24) + 1], tf.bool)).numpy().tolist() == [(1 << 24) + 1]
    assert counts.true_in_row(tf.ones([0, 5], tf.bool)).numpy().tolist() == []
    assert counts.true_in_row(tf.zeros([2, 0], tf.bool)).numpy().tolist() == [0, 0]
