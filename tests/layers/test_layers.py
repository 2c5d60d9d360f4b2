import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tfrec.layers import AlignedDense, SparseDense, dropout_nonzeros, l2_normalize_rows, multinomial_nll


@pytest.fixture
def rows(random):
    dense = random.integers(1, 5, (17, 29)) * (random.random((17, 29)) < 0.3)
    dense[3] = 0
    return dense.astype(np.float32)


def test_inference_leaves_nothing_behind(rows):
    """TensorFlow keeps each graph with a custom gradient, and every table in it, until the process ends."""
    layer = SparseDense(7)
    layer.build(rows.shape)
    graph = tf.function(lambda x: layer(x, training=False)).get_concrete_function(
        tf.SparseTensorSpec([None, rows.shape[1]], tf.float32)
    )
    forgotten = weakref.ref(graph.graph)
    del graph
    gc.collect()
    assert forgotten() is None


def test_l2_normalize_rows(rows):
    found = tf.sparse.to_dense(l2_normalize_rows(tf.sparse.from_dense(rows))).numpy()
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(found, rows / np.where(norms > 0, norms, 1), atol=1e-6)


def test_dropout_nonzeros(rows):
    x = tf.sparse.from_dense(np.tile(rows, (50, 1)))
    seed = tf.constant([1, 2])
    dropped = dropout_nonzeros(x, 0.4, seed)
    share = dropped.values.shape[0] / x.values.shape[0]
    assert abs(share - 0.6) < 4 * np.sqrt(0.24 / x.values.shape[0])
    dense, before = tf.sparse.to_dense(dropped).numpy(), tf.sparse.to_dense(x).numpy()
    kept = dense != 0
    np.testing.assert_allclose(dense[kept], before[kept] / 0.6, rtol=1e-6)
    np.testing.assert_array_equal(dropout_nonzeros(x, 0.4, seed).indices, dropped.indices)
    assert dropout_nonzeros(x, 0.4, tf.constant([1, 3])).indices.shape != dropped.indices.shape or not np.array_equal(
        dropout_nonzeros(x, 0.4, tf.constant([1, 3])).indices, dropped.indices
    )
    assert dropout_nonzeros(x, 0.0, seed) is x


@pytest.mark.parametrize("training", [None, False])
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("values", ["any", "one per row", "none"])
def test_sparse_dense_equals_dense(rows, values, graph, training):
    """Rows with several values, rows with one value each (another path on CPUs), and an all-zero batch."""
    if values != "any":
        rows = (rows != 0) * np.linspace(-2, 2, len(rows), dtype=np.float32)[:, None] * (values != "none")
    sparse, dense = SparseDense(7, activation="tanh"), keras.layers.Dense(7, activation="tanh")
    sparse.build(rows.shape)
    dense.build(rows.shape)
    dense.set_weights(sparse.get_weights())

    def both():
        with tf.GradientTape(persistent=True) as tape:
            a, b = sparse(tf.sparse.from_dense(rows), training=training), dense(rows)
            loss_a, loss_b = tf.reduce_sum(a * a * a), tf.reduce_sum(b * b * b)
        return a, b, tape.gradient(loss_a, sparse.weights), tape.gradient(loss_b, dense.weights)

    a, b, grads_a, grads_b = (tf.function(both) if graph else both)()
    np.testing.assert_allclose(a, b, atol=1e-5)
    for x, y in zip(grads_a, grads_b, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(x), y, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sparse_dense_in_16_bits(random, dtype):
    """Sums of hundreds of rows in 16 bits stay as near to the exact ones as rounding allows."""
    rows = (random.random((5, 700)) < 0.5).astype(np.float32) / 16
    layer = SparseDense(6, dtype=f"mixed_{dtype}")
    layer.build(rows.shape)
    found = tf.cast(layer(tf.sparse.from_dense(rows)), tf.float32)
    exact = rows.astype(np.float64) @ layer.kernel.numpy().astype(np.float64)
    np.testing.assert_allclose(found, exact, atol=0.02 if dtype == "float16" else 0.1)


def test_sparse_dense_saves_and_rejects():
    layer = SparseDense(3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.1))
    assert SparseDense.from_config(layer.get_config()).get_config() == layer.get_config()
    with pytest.raises(ValueError, match="units"):
        SparseDense(0)
    with pytest.raises(ValueError, match="number of items"):
        SparseDense(3).build((None, None))


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_aligned_dense_equals_dense(random, precision):
    x = random.normal(size=(5, 13)).astype(np.float32)
    aligned = AlignedDense(9, activation="tanh", dtype=precision)
    dense = keras.layers.Dense(9, activation="tanh", dtype=precision)
    aligned.build(x.shape)
    dense.build(x.shape)
    dense.set_weights(aligned.get_weights())
    assert aligned.kernel.shape == (13, 9)
    tolerance = {"float32": 0, "mixed_float16": 2e-3, "mixed_bfloat16": 2e-2}[precision]
    np.testing.assert_allclose(tf.cast(aligned(x), tf.float32), tf.cast(dense(x), tf.float32), atol=tolerance)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("chunk_rows", [1, 4, 17, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_multinomial_nll(rows, random, dtype, chunk_rows, graph):
    hidden = random.normal(size=(17, 6)).astype(np.float32)
    kernel = random.normal(size=(6, 29)).astype(np.float32)
    bias = random.normal(size=29).astype(np.float32)
    target = tf.sparse.from_dense(rows)

    def value_and_gradients(hidden, kernel, bias):
        with tf.GradientTape() as tape:
            tape.watch([hidden, kernel, bias])
            nll = multinomial_nll(
                tf.cast(hidden, dtype), kernel, bias, target, training=True, chunk_bytes=chunk_rows * 29 * 4
            )
            loss = 3.0 * nll  # gradients must scale with what comes from above
        return nll, tape.gradient(loss, [hidden, kernel, bias])

    function = tf.function(value_and_gradients) if graph else value_and_gradients
    nll, gradients = function(*map(tf.constant, (hidden, kernel, bias)))
    # The exact value for the rounded input, to see the operation's own error only.
    rounded = tf.cast(tf.cast(hidden, dtype), tf.float32).numpy()
    expected = oracles.multinomial_nll(rounded, kernel, bias, rows)
    relative = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}[dtype]
    np.testing.assert_allclose(nll, expected[0], rtol=relative)
    for found, wanted in zip(gradients, expected[1:], strict=True):
        np.testing.assert_allclose(found, 3.0 * wanted, atol=3 * relative * np.abs(wanted).max())
    value = multinomial_nll(
        tf.cast(hidden, dtype), tf.constant(kernel), tf.constant(bias), target, training=False, chunk_bytes=500
    )
    np.testing.assert_allclose(value, nll, rtol=1e-5)


def test_multinomial_nll_of_nobody():
    """A rank's share of a small last batch may be empty."""
    nobody = tf.SparseTensor(tf.zeros([0, 2], tf.int64), tf.zeros([0]), [0, 4])
    hidden, kernel, bias = tf.zeros([0, 3]), tf.ones([3, 4]), tf.ones([4])
    with tf.GradientTape() as tape:
        tape.watch([hidden, kernel, bias])
        nll = multinomial_nll(hidden, kernel, bias, nobody, training=True)
    assert float(nll) == 0
    d_hidden, d_kernel, d_bias = tape.gradient(nll, [hidden, kernel, bias])
    assert d_hidden.shape == (0, 3)
    assert not d_kernel.numpy().any()
    assert not d_bias.numpy().any()


def test_multinomial_nll_of_extreme_logits():
    """Neither overflows nor gives NaN where a plain exp would."""
    target = tf.sparse.from_dense([[1.0, 1.0]])
    nll = multinomial_nll(tf.constant([[1.0]]), tf.constant([[1000.0, -1000.0]]), tf.zeros([2]), target, training=True)
    np.testing.assert_allclose(nll, 2000.0)
