"""Sums over ranks are equal to the last bit, in whichever order things arrive."""

import numpy as np
import pytest
import tensorflow as tf

from tfrec.distributed.sparse_sum import sum_in_rank_order
from tfrec.optimizers.distinct_rows import with_distinct_rows


def parts_of(random, num_ranks, num_rows=50, width=3):
    """For each rank its rows, each once, and values of which no two orders of adding give the same sum everywhere."""
    parts = []
    for _ in range(num_ranks):
        rows = random.permutation(num_rows)[: random.integers(0, num_rows + 1)]
        values = random.normal(size=(len(rows), width)) * 10.0 ** random.integers(-3, 4, (len(rows), width))
        parts.append((rows.astype(np.int64), values.astype(np.float32)))
    return parts


def summed(parts):
    indices, values = (np.concatenate(x) for x in zip(*parts, strict=True))
    rows, total = sum_in_rank_order(
        tf.constant(indices), tf.constant(values), tf.constant([len(p[0]) for p in parts], tf.int64), len(parts)
    )
    assert len(np.unique(rows.numpy())) == len(rows)
    return dict(zip(rows.numpy().tolist(), total.numpy().tolist(), strict=True))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 9])
def test_is_the_sum_in_the_order_of_the_ranks(random, num_ranks):
    parts = parts_of(random, num_ranks)
    expected = {}
    for rows, values in parts:
        for row, value in zip(rows.tolist(), values, strict=True):
            expected[row] = value if row not in expected else expected[row] + value  # float32, rounded each time
    assert summed(parts) == {row: value.tolist() for row, value in expected.items()}


def test_the_order_of_arrival_makes_no_difference(random):
    """Within a rank's part, the only order that its threads decide: the same bits for every permutation."""
    parts = parts_of(random, 4)
    first = summed(parts)
    for _ in range(20):
        shuffled = []
        for rows, values in parts:
            order = random.permutation(len(rows))
            shuffled.append((rows[order], values[order]))
        assert summed(shuffled) == first


def test_the_order_of_the_ranks_would_make_one(random):
    """That the numbers of this test can tell orders apart."""
    parts = parts_of(random, 4)
    assert any(summed([parts[i] for i in order]) != summed(parts) for order in ([3, 2, 1, 0], [1, 3, 0, 2]))


def test_repeated_rows_travel_once(random):
    gradient = tf.IndexedSlices(
        tf.constant([[1.0], [2.0], [4.0]]), tf.constant([7, 3, 7]), tf.constant([9, 1], tf.int64)
    )
    found = with_distinct_rows(gradient)
    assert found.indices.dtype == tf.int64
    assert dict(zip(found.indices.numpy().tolist(), found.values.numpy()[:, 0].tolist(), strict=True)) == {7: 5, 3: 2}


def test_nobody_has_a_row():
    none = tf.zeros([0], tf.int64), tf.zeros([0, 5])
    rows, total = sum_in_rank_order(*none, tf.zeros([3], tf.int64), 3)
    assert rows.shape == (0,)
    assert total.shape == (0, 5)
