"""The cache of a tensor-train table: what it holds, and that nobody sees it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec.errors import InputError
from tfrec.layers import CachedTTEmbedding, CacheRefresh, TTEmbedding

ROWS, DIM = 60, 8


def layer(cache_size=7, **options):
    made = CachedTTEmbedding(ROWS, DIM, 4, cache_size=cache_size, seed=0, embeddings_scale=0.5, **options)
    made.build()
    return made


@given(st.lists(st.tuples(st.sampled_from(["lookup", "populate", "flush"]), st.integers(0, 9)), max_size=12))
@settings(max_examples=25, deadline=None)
def test_with_and_without_the_cache_the_same_rows(steps):
    made, plain = layer(), TTEmbedding(ROWS, DIM, 4, seed=0, embeddings_scale=0.5)
    everything = tf.range(ROWS)
    for what, seed in steps:
        if what == "lookup":
            ids = np.random.default_rng(seed).integers(ROWS, size=20)
            made(tf.constant(ids), training=True)
        elif what == "populate":
            made.cache_populate()
        else:
            made.cache_flush()
        # A row that leaves as it came is written back as it is.
        np.testing.assert_allclose(made(everything), plain(everything), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.full_table(), plain.full_table(), rtol=1e-5, atol=1e-6)


def held(made):
    ids = made.cache_ids.numpy()
    return set(ids[ids < ROWS])


def test_it_holds_the_most_frequent_and_forgets():
    made = layer(3, cache_decay=0.5)
    made(tf.constant([5, 5, 5, 5, 9, 9, 9, 2, 2, 40]), training=True)
    assert np.isnan(layer().hit_rate)
    assert made.hit_rate == 0
    made.cache_populate()
    assert held(made) == {2, 5, 9}
    made(tf.constant([5, 40, 40, 40, 7, 7]), training=True)
    assert made.hit_rate == 1 / 6
    made(tf.constant([9] * 30), training=False)
    assert made.hit_rate == 1 / 6
    # Counts: 5 has 4 / 2 + 1 = 3, 9 has 3 / 2, 2 has 2 / 2, 40 has 1 / 2 + 3, 7 has 2: more than what 9 has kept.
    made.cache_populate()
    assert held(made) == {5, 7, 40}
    made = layer(2)
    made(tf.constant([30, 20, 10]), training=True)
    made.cache_populate()
    assert held(made) == {10, 20}  # equal counts: the lower ids


def train(made, ids, wanted, steps=60, rate=0.3):
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(made(tf.constant(ids), training=True) - wanted))
        made.cache_rows.assign_sub(rate * tf.convert_to_tensor(tape.gradient(loss, made.cache_rows.value)))


def test_what_a_row_has_learned_is_written_back(random):
    made = layer(4)
    ids = np.array([3, 11, 25, 59])
    made(tf.constant(ids), training=True)
    made.cache_populate()
    before = made(tf.constant(ids)).numpy()
    wanted = before + random.normal(0, 0.05, size=(4, DIM)).astype(np.float32)
    train(made, ids, wanted)
    learned = made(tf.constant(ids)).numpy()
    np.testing.assert_allclose(learned, wanted, atol=1e-3)
    made.cache_flush()
    assert held(made) == set()
    left = np.linalg.norm(made(tf.constant(ids)).numpy() - learned)
    assert left < 0.8 * np.linalg.norm(before - learned)


def test_a_row_that_stays_keeps_what_it_learned(random):
    made = layer(2)
    made(tf.constant([3, 3, 3, 3, 8]), training=True)
    made.cache_populate()
    wanted = random.normal(size=(1, DIM)).astype(np.float32)
    train(made, [3], wanted)
    made(tf.constant([20] * 30), training=True)
    made.cache_populate()
    assert held(made) == {3, 20}
    np.testing.assert_allclose(made(tf.constant([3])), wanted, atol=1e-3)


def test_fit_with_refresh_save_and_load(tmp_path, random):
    made = layer(10)
    model = keras.Sequential([made, keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    ids = np.minimum(random.zipf(1.5, size=(256, 3)) - 1, ROWS - 1)
    refresh = CacheRefresh(made, steps=4)
    history = model.fit(ids, np.ones([256, 1]), epochs=3, batch_size=32, verbose=0, callbacks=[refresh]).history
    assert history["loss"][-1] < history["loss"][0]
    assert len(refresh.hit_rates) == 6
    assert refresh.hit_rates[0] == 0
    assert refresh.hit_rates[-1] > 0.5
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(ids, verbose=0), again.predict(ids, verbose=0))


def test_ids_out_of_range_and_none():
    made = layer()
    made(tf.constant([3]), training=True)
    made.cache_populate()
    for bad in (-1, ROWS, np.iinfo(np.int64).max):
        with pytest.raises(tf.errors.InvalidArgumentError, match="must lie in"):
            made(tf.constant([3, bad]), training=True)
    assert made(tf.zeros([0, 2], tf.int32)).shape == (0, 2, DIM)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_size": ROWS + 1}, "`cache_size` must lie in 1 to `num_embeddings`, 60"),
        ({"cache_size": 0}, "`cache_size` must lie in 1"),
        ({"cache_decay": 1.5}, "`cache_decay` must lie in"),
        ({"fused_optimizer": "sgd"}, "A cache is of one table"),
        ({"num_tables": 2}, "A cache is of one table"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(InputError, match=message):
        layer(**options)
