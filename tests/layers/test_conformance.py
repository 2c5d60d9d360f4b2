"""Keras's own test of a layer on every public layer: build, get_config, symbolic = eager, fit, mixed precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.testing.test_case import TestCase

from tfrec import layers
from tfrec.errors import InputError

TABLE = {"num_embeddings": 40, "embedding_dim": 8, "ranks": 3}
CACHED = {**TABLE, "cache_size": 5}
IDS = {"input_shape": (2, 3), "input_dtype": "int32"}
ROWS = {"expected_output_shape": (2, 3, 8), "expected_num_losses": 0}
MASKED = {"supports_masking": True, "expected_mask_shape": (2, 3)}

CASES = {
    "tt": (layers.TTEmbedding, TABLE, {**IDS, **ROWS, "supports_masking": False, "expected_num_trainable_weights": 3}),
    "tt of int64": (layers.TTEmbedding, TABLE, {**IDS, **ROWS, "input_dtype": "int64"}),
    "tt with a mask": (layers.TTEmbedding, {**TABLE, "mask_zero": True}, {**IDS, **ROWS, **MASKED}),
    "tt in plain TensorFlow": (
        layers.TTEmbedding,
        {**TABLE, "mask_zero": True, "reference": True},
        {**IDS, **ROWS, **MASKED},
    ),
    # Float16 has a loss scale that the layer would not know.
    "tt fused": (
        layers.TTEmbedding,
        {**TABLE, "fused_optimizer": "adam"},
        {**IDS, **ROWS, "run_mixed_precision_check": False},
    ),
    "several tt": (layers.TTEmbedding, {**TABLE, "num_tables": 3}, {**IDS, **ROWS}),
    "tt of sparse ids": (layers.TTEmbedding, TABLE, {**IDS, **ROWS, "input_sparse": True}),
    "tt of ragged ids": (
        layers.TTEmbedding,
        TABLE,
        {**IDS, "input_ragged": True, "expected_output_shape": (2, None, 8), "expected_output_ragged": True},
    ),
    "cached": (layers.CachedTTEmbedding, {**CACHED, "mask_zero": True}, {**IDS, **ROWS, **MASKED}),
    "cached, no mask": (layers.CachedTTEmbedding, CACHED, {**IDS, **ROWS, "supports_masking": False}),
    "cached of ragged ids": (
        layers.CachedTTEmbedding,
        CACHED,
        {**IDS, "input_ragged": True, "expected_output_shape": (2, None, 8), "expected_output_ragged": True},
    ),
    "bag": (layers.TTEmbeddingBag, TABLE, {**IDS, "expected_output_shape": (2, 8)}),
    "bag of sparse ids": (
        layers.TTEmbeddingBag,
        {**TABLE, "mode": "mean"},
        {**IDS, "input_sparse": True, "expected_output_shape": (2, 8)},
    ),
    "bag of ragged ids": (
        layers.TTEmbeddingBag,
        {**TABLE, "mode": "sqrtn", "mask_zero": True},
        {**IDS, "input_ragged": True, "expected_output_shape": (2, 8)},
    ),
    "sparse dense": (
        layers.SparseDense,
        {"units": 5, "activation": "tanh", "kernel_regularizer": "l2"},
        {"input_shape": (4, 7), "input_sparse": True, "expected_output_shape": (4, 5), "expected_num_losses": 1},
    ),
    "sparse dense of dense": (
        layers.SparseDense,
        {"units": 5},
        {"input_shape": (4, 7), "expected_output_shape": (4, 5)},
    ),
    "aligned": (layers.AlignedDense, {"units": 6}, {"input_shape": (4, 7), "expected_output_shape": (4, 6)}),
    "aligned, rank 3": (
        layers.AlignedDense,
        {"units": 6, "activation": "relu", "use_bias": False},
        {"input_shape": (2, 24, 8), "expected_output_shape": (2, 24, 6), "supports_masking": True},
    ),
    "aligned, rank 4": (
        layers.AlignedDense,
        {"units": 16},
        {"input_shape": (2, 3, 4, 5), "expected_output_shape": (2, 3, 4, 16)},
    ),
    "aligned of sparse": (
        layers.AlignedDense,
        {"units": 6},
        {"input_shape": (4, 7), "input_sparse": True, "expected_output_shape": (4, 6)},
    ),
    "als factors": (
        layers.ALSFactors,
        {"num_rows": 40, "factors": 4},
        {**IDS, "expected_output_shape": (2, 3, 4), "expected_output_dtype": "float32", "run_training_check": False},
    ),
}


class Run(TestCase):
    def runTest(self):
        """Keras's base class wants a name for a test."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_keras_layer_test(case):
    """`run_layer_test` looks at mixed_float16 too."""
    layer, arguments, checks = CASES[case]
    run = Run()
    run.setUp()
    run.run_layer_test(layer, arguments, **checks)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_the_symbolic_type_is_that_of_the_result(case, policy):
    layer, arguments, checks = CASES[case]
    if policy == "float64" and issubclass(layer, layers.TTEmbedding):
        with pytest.raises(InputError, match="`dtype` must be of float32, float16, bfloat16"):
            layer(**arguments, dtype=policy)
        return
    if "fused_optimizer" in arguments and "float16" in policy and "bfloat" not in policy:
        with pytest.raises(InputError, match="does not go with float16"):
            layer(**arguments, dtype=policy)
        return
    made = layer(**arguments, dtype=policy)
    shape, dtype = checks["input_shape"], checks.get("input_dtype", "float32")
    symbolic = made(keras.Input(shape[1:], batch_size=shape[0], dtype=dtype))
    found = made(tf.ones(shape, dtype))
    assert keras.backend.standardize_dtype(found.dtype) == symbolic.dtype
    assert tuple(found.shape) == symbolic.shape


@pytest.mark.parametrize("kind", ["tt", "cached"])
@pytest.mark.parametrize("how", ["functional", "sequential"])
def test_a_masked_table_in_the_place_of_keras_embedding(kind, how, random, tmp_path):
    """A padded sequence gives what the sequence without padding gives, as with `keras.layers.Embedding`."""
    options = {**(CACHED if kind == "cached" else TABLE), "mask_zero": True}
    made = (layers.CachedTTEmbedding if kind == "cached" else layers.TTEmbedding)(**options)
    tail = [keras.layers.LSTM(4), keras.layers.Dense(1)]
    if how == "sequential":
        model = keras.Sequential([keras.Input((None,), dtype="int32"), made, *tail])
    else:
        ids = keras.Input((None,), dtype="int32")
        model = keras.Model(ids, tail[1](tail[0](made(ids))))
    model.compile("adam", "mse")
    rows = random.integers(1, 40, size=(16, 4))
    padded = np.pad(rows, [[0, 0], [0, 3]])
    model.fit(padded, np.ones([16, 1]), verbose=0)
    np.testing.assert_allclose(model.predict(padded, verbose=0), model.predict(rows, verbose=0), atol=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(padded, verbose=0), model.predict(padded, verbose=0), atol=1e-6)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    np.testing.assert_allclose(copy.predict(padded, verbose=0), model.predict(padded, verbose=0), atol=1e-6)


def test_masks_are_those_of_keras():
    ours, keras_own = layers.TTEmbedding(**TABLE, mask_zero=True), keras.layers.Embedding(40, 8, mask_zero=True)
    for ids in (tf.constant([[0, 3], [7, 0]]), np.array([0, 2])):
        np.testing.assert_array_equal(ours.compute_mask(ids), keras_own.compute_mask(ids))
    assert ours.compute_mask(keras.Input((5,), dtype="int32")).shape == (None, 5)
    ragged = tf.ragged.constant([[0, 3], [7]])
    assert ours.compute_mask(ragged).to_list() == [[False, True], [True]]
    assert layers.TTEmbedding(**TABLE).compute_mask(tf.constant([0])) is None


def test_sparse_and_ragged_ids_are_the_rows_of_dense_ones():
    for made in (layers.TTEmbedding(**TABLE, seed=0), layers.CachedTTEmbedding(**CACHED, seed=0)):
        table = made.full_table()
        dense = np.array([[5, 0, 7], [0, 39, 0]])
        np.testing.assert_allclose(made(tf.sparse.from_dense(dense)), table[dense], rtol=1e-5, atol=1e-7)
        ragged = made(tf.ragged.constant([[5, 39], [], [7]]))
        assert ragged.row_lengths().numpy().tolist() == [2, 0, 1]
        np.testing.assert_allclose(ragged.flat_values, table[[5, 39, 7]], rtol=1e-5, atol=1e-7)
    several = layers.TTEmbedding(**TABLE, num_tables=2)
    with pytest.raises(InputError, match="must be a dense tensor"):
        several(tf.ragged.constant([[5, 39]]))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_ids_of_a_float_type_keep_their_last_digits(policy):
    """Keras's Input is float32 unless told otherwise, and 16 bits do not hold 2,049."""
    made = layers.TTEmbedding(5_000, 8, 3, dtype=policy, seed=0)
    ids = [2_049.0, 4_999.0, 3.0]
    np.testing.assert_array_equal(
        tf.cast(made(tf.constant(ids)), "float32"), tf.cast(made(tf.constant([2_049, 4_999, 3])), "float32")
    )


def test_padding_takes_no_part_in_a_bag():
    options = {**TABLE, "mode": "mean", "seed": 0}
    padded, plain = layers.TTEmbeddingBag(**options, mask_zero=True), layers.TTEmbeddingBag(**options)
    weights = tf.constant([[1.0, 2.0, 9.0], [9.0, 9.0, 9.0]])
    found = padded(tf.constant([[5, 7, 0], [0, 0, 0]]), weights)
    np.testing.assert_allclose(found[0], plain(tf.constant([[5, 7]]), weights[:1, :2])[0], rtol=1e-5, atol=1e-7)
    assert not found[1].numpy().any()
    np.testing.assert_allclose(padded(tf.constant([[5, 7, 0]])), plain(tf.constant([[5, 7]])), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("shape", [(2, 24, 8), (2, 3, 4, 5), (0, 4, 8)])
def test_aligned_dense_of_any_rank_is_dense(random, policy, shape):
    x = random.normal(size=shape).astype(np.float32)
    made, plain = layers.AlignedDense(16, dtype=policy), keras.layers.Dense(16, dtype=policy)
    for layer in (made, plain):
        layer.build(shape)
    plain.set_weights(made.get_weights())
    found = made(x)
    assert found.shape == (*shape[:-1], 16)
    np.testing.assert_allclose(tf.cast(found, "float32"), tf.cast(plain(x), "float32"), atol=3e-2)
    graph = tf.function(made, input_signature=[tf.TensorSpec([None] * len(shape), made.compute_dtype)])
    np.testing.assert_array_equal(tf.cast(graph(tf.cast(x, made.compute_dtype)), "float32"), tf.cast(found, "float32"))


def test_sparse_dense_takes_no_rows_of_another_width():
    made = layers.SparseDense(3)
    made.build((None, 7))
    for width in (6, 8):
        with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 7"):
            made(tf.sparse.from_dense(np.ones((2, width), np.float32)))
