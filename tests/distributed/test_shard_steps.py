"""Slots and norms of a table in parts, on one process."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfrec import distributed
from tfrec.distributed.shard_steps import all_finite
from tfrec.distributed.sharding import Shard, mark, shard_of
from tfrec.optimizers import Adam


def rows():
    """A gradient in which a row occurs twice."""
    values = tf.constant([[3.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    return tf.IndexedSlices(values, tf.constant([4, 1, 4], tf.int64), tf.constant([5, 2], tf.int64))


@pytest.mark.parametrize("options", [{"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 1.0}, {}])
def test_clips_as_keras_does(options):
    found = []
    for marked in (True, False):
        table, weight = keras.Variable(np.zeros((5, 2), np.float32)), keras.Variable(np.zeros(3, np.float32))
        if marked:
            mark(table, Shard(5, 0, 1))
        optimizer = distributed.DistributedOptimizer(keras.optimizers.SGD(1.0, **options))
        optimizer.build([table, weight])
        gradient = rows() if marked else tf.convert_to_tensor(rows())
        optimizer.apply([gradient, tf.constant([0.0, 3.0, 0.5])], [table, weight])
        found.append([table.numpy(), weight.numpy()])
    for ours, keras_own in zip(*found, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-6)


@pytest.mark.parametrize("optimizer", [keras.optimizers.Adam, keras.optimizers.Adagrad, Adam])
def test_a_row_that_occurs_twice_counts_with_its_sum(optimizer):
    """Also in the squares, where Keras takes the occurrences one by one."""
    found = []
    for gradient in (rows(), tf.convert_to_tensor(rows())):
        table = keras.Variable(np.zeros((5, 2), np.float32))
        mark(table, Shard(5, 0, 1))
        made = distributed.DistributedOptimizer(optimizer(0.1))
        made.build([table])
        made.apply([gradient], [table])
        found.append([table.numpy(), *(v.numpy() for v in made.variables if shard_of(v) is not None)])
    for sparse, dense in zip(*found, strict=True):
        np.testing.assert_allclose(sparse, dense, rtol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_slots_are_marked(scaled):
    table, weight = keras.Variable(np.zeros((5, 2), np.float32)), keras.Variable(np.zeros(3, np.float32))
    mark(table, Shard(5, 0, 1))
    inner = Adam(use_ema=True)
    optimizer = distributed.DistributedOptimizer(keras.optimizers.LossScaleOptimizer(inner) if scaled else inner)
    optimizer.build([table, weight])
    marked = [v.path.split("/")[-1] for v in optimizer.variables if shard_of(v) == Shard(5, 0, 1)]
    assert len(marked) == 3  # momentum, velocity, average
    assert all(tuple(v.shape) == (5, 2) for v in optimizer.variables if shard_of(v) is not None)


def test_all_finite_looks_at_rows():
    table = keras.Variable(np.zeros((5, 2), np.float32))
    good = rows()
    bad = tf.IndexedSlices(good.values * np.inf, good.indices, good.dense_shape)
    assert all_finite([good, None], [table, table])
    assert not all_finite([None, bad], [table, table])
