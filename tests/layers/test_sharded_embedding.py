"""On one process a sharded table is keras.layers.Embedding with first values of its own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfrec.distributed import ranks
from tfrec.distributed.sharding import Shard, shard_of
from tfrec.errors import InputError
from tfrec.layers import ShardedEmbedding
from tfrec.layers.row_values import RowValues


def both(**options):
    """A sharded and an ordinary table of the same numbers."""
    sharded = ShardedEmbedding(50, 4, replicate_below=0, **options)
    sharded.build()
    plain = keras.layers.Embedding(50, 4, **options)
    plain.build()
    plain.set_weights(sharded.get_weights())
    return sharded, plain


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16", "float16"])
def test_looks_up_as_keras_does(dtype):
    sharded, plain = both(dtype=dtype, mask_zero=True)
    for ids in (tf.constant([[3, 0, 3], [49, 1, 0]]), tf.constant([], tf.int64), tf.constant(7), tf.constant([2.0, 4])):
        assert sharded(ids).dtype == plain(ids).dtype
        np.testing.assert_array_equal(sharded(ids), plain(ids))
        np.testing.assert_array_equal(sharded.compute_mask(ids), plain.compute_mask(ids))
    ragged = tf.RaggedTensor.from_row_lengths([5, 6, 0], [2, 0, 1])
    np.testing.assert_array_equal(sharded(ragged).flat_values, plain(tf.constant([5, 6, 0])))
    assert sharded(ragged).row_lengths().numpy().tolist() == [2, 0, 1]


def test_trains_as_keras_does():
    ids, labels = np.random.default_rng(0).integers(50, size=(64, 3)), np.ones((64, 4), np.float32)
    weights = []
    for table in both():
        pool = keras.layers.GlobalAveragePooling1D()
        model = keras.Sequential([keras.Input((3,), dtype="int32"), table, pool])
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        model.fit(ids, labels, batch_size=16, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights()[0])
    np.testing.assert_allclose(*weights, atol=1e-6)


def test_a_small_table_is_an_ordinary_weight():
    small, large = ShardedEmbedding(10, 4, replicate_below=41), ShardedEmbedding(10, 4, replicate_below=40)
    for layer in (small, large):
        layer.build()
    assert small.shard is None
    assert shard_of(small.embeddings) is None
    assert shard_of(large.embeddings) == Shard(10, 0, 1)


def test_is_saved_and_loaded(tmp_path):
    model = keras.Sequential(
        [keras.Input((2,), dtype="int64"), ShardedEmbedding(50, 4, "he_normal", replicate_below=0)]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    ids = tf.constant([[0, 49]])
    np.testing.assert_array_equal(loaded(ids), model(ids))
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()


def test_a_rank_reads_its_rows_of_a_saved_table(tmp_path, monkeypatch):
    whole = ShardedEmbedding(50, 4, replicate_below=0)
    model = keras.Sequential([keras.Input((2,), dtype="int64"), whole])
    model.save_weights(tmp_path / "model.weights.h5")
    monkeypatch.setattr(ranks, "rank", lambda: 2)
    monkeypatch.setattr(ranks, "size", lambda: 3)
    part = ShardedEmbedding(50, 4, replicate_below=0)
    other = keras.Sequential([part])
    part.build()
    other.built = True
    other.load_weights(tmp_path / "model.weights.h5")
    assert part.shard == Shard(50, 2, 3)
    np.testing.assert_array_equal(part.embeddings.numpy(), whole.embeddings.numpy()[2::3])
    with pytest.raises(InputError, match="must be whole to be saved.*holds 16 of its 50 rows"):
        other.save_weights(tmp_path / "part.weights.h5")


def test_the_parts_of_ranks_begin_as_one_table(monkeypatch):
    """Also a part that has no row, and one that is made in several chunks."""
    monkeypatch.setattr("tfrec.layers.sharded_embedding.CHUNK", 12)
    initializer = keras.initializers.RandomNormal(seed=7)
    parts = []
    monkeypatch.setattr(ranks, "size", lambda: 4)
    for rank in range(4):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        layer = ShardedEmbedding(3, 4, initializer, replicate_below=0)
        layer.build()
        parts.append(layer.embeddings.numpy())
    assert [part.shape for part in parts] == [(1, 4), (1, 4), (1, 4), (0, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), RowValues(initializer, 3, 4)(np.arange(3)))


def test_ids_out_of_range_raise():
    layer = ShardedEmbedding(5, 2)
    for wrong in (-1, 5):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"ids must lie in \[0, 5\)"):
            layer(tf.constant([[0, wrong]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dim": 0}, "`input_dim` must be a whole number from 1"),
        ({"output_dim": True}, "`output_dim` must be"),
        ({"replicate_below": -1}, "`replicate_below` must be at least 0"),
        ({"embeddings_regularizer": "l2"}, "(?s)`embeddings_regularizer` must be None.*activity_regularizer"),
        ({"embeddings_constraint": "non_neg"}, "`embeddings_constraint` must be None"),
        ({"embeddings_initializer": "orthogonal"}, "`embeddings_initializer` must make each row by itself"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(InputError, match=message):
        ShardedEmbedding(**{"input_dim": 5, "output_dim": 2, **options})
