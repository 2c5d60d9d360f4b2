import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tfrec.optimizers import Adam


def stepper(optimizer, weight):
    def step(gradient):
        optimizer.apply([gradient], [weight])

    return step


@pytest.mark.parametrize("graph", [False, True])
def test_equals_the_formula_and_keras(random, graph):
    start = random.normal(size=(7, 5)).astype(np.float32)
    gradients = [random.normal(size=(7, 5)).astype(np.float32) for _ in range(12)]
    found = {}
    for name, optimizer in (("fused", Adam(0.03)), ("keras", keras.optimizers.Adam(0.03))):
        weight = keras.Variable(start)
        optimizer.build([weight])
        step = stepper(optimizer, weight)
        step = tf.function(step) if graph else step
        for gradient in gradients:
            step(tf.constant(gradient))
        found[name] = weight.numpy()
    np.testing.assert_allclose(found["fused"], oracles.adam(start, gradients, 0.03), atol=1e-5)
    np.testing.assert_allclose(found["fused"], found["keras"], atol=5e-6)


def test_options_of_keras_still_act(random):
    """Clipping, decay, schedules, EMA and sparse gradients go the way they go in Keras."""
    for options in (
        {"clipnorm": 0.1},
        {"global_clipnorm": 0.1},
        {"weight_decay": 0.1},
        {"amsgrad": True},
        {"use_ema": True, "ema_overwrite_frequency": 2},
        {"learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 10)},
        {"gradient_accumulation_steps": 2},
    ):
        found = []
        for make in (Adam, keras.optimizers.Adam):
            weight = keras.Variable(np.ones((3, 2), np.float32))
            optimizer = make(**options)
            optimizer.build([weight])
            for step in range(4):
                optimizer.apply([tf.fill([3, 2], step - 1.5)], [weight])
            found.append(weight.numpy())
        np.testing.assert_allclose(*found, atol=5e-6, err_msg=str(options))
    weight = keras.Variable(np.ones((3, 2), np.float32))
    optimizer = Adam()
    optimizer.build([weight])
    optimizer.apply([tf.IndexedSlices(tf.ones([1, 2]), tf.constant([1]), tf.constant([3, 2]))], [weight])
    assert weight.numpy()[1, 0] < 1


def test_saves():
    config = keras.saving.serialize_keras_object(Adam(0.02, beta_1=0.5))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is Adam
    assert again.beta_1 == 0.5


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("size", [1e-7, 1e-4])
def test_epsilon_is_added_to_the_root(random, lazy, size):
    """Gradients so small that epsilon, and where it stands, decides the step."""
    start = np.zeros((6, 3), np.float32)
    gradients = [(size * random.normal(size=(6, 3))).astype(np.float32) for _ in range(4)]
    weight = keras.Variable(start)
    optimizer = Adam(0.03, lazy=lazy, epsilon=1e-5)
    optimizer.build([weight])
    for gradient in gradients:
        optimizer.apply([rows(gradient, list(range(6))) if lazy else tf.constant(gradient)], [weight])
    np.testing.assert_allclose(weight.numpy(), oracles.adam(start, gradients, 0.03, epsilon=1e-5), rtol=1e-4)


@pytest.mark.parametrize("lazy", [False, True])
def test_the_decays_are_those_asked_for(random, lazy):
    start = random.normal(size=(6, 3)).astype(np.float32)
    gradients = [random.normal(size=(6, 3)).astype(np.float32) for _ in range(5)]
    weight = keras.Variable(start)
    optimizer = Adam(0.03, beta_1=0.5, beta_2=0.8, lazy=lazy)
    optimizer.build([weight])
    for gradient in gradients:
        optimizer.apply([rows(gradient, list(range(6))) if lazy else tf.constant(gradient)], [weight])
    np.testing.assert_allclose(weight.numpy(), oracles.adam(start, gradients, 0.03, 0.5, 0.8), atol=1e-6)


def rows(gradient, ids):
    return tf.IndexedSlices(tf.convert_to_tensor(gradient), tf.constant(ids), tf.constant([6, 3], tf.int64))


@pytest.mark.parametrize("graph", [False, True])
def test_lazy_is_adam_where_every_row_occurs(random, graph):
    start = random.normal(size=(6, 3)).astype(np.float32)
    gradients = [random.normal(size=(6, 3)).astype(np.float32) for _ in range(8)]
    weight = keras.Variable(start)
    optimizer = Adam(0.03, lazy=True)
    optimizer.build([weight])
    step = tf.function(lambda g: optimizer.apply([rows(g, [5, 1, 0, 2, 4, 3])], [weight]))
    for gradient in gradients:
        (step if graph else step.python_function)(tf.constant(gradient[[5, 1, 0, 2, 4, 3]]))
    np.testing.assert_allclose(weight.numpy(), oracles.adam(start, gradients, 0.03), atol=1e-5)


def test_lazy_leaves_other_rows_alone_and_sums_repeated_ones(random):
    start = random.normal(size=(6, 3)).astype(np.float32)
    weight = keras.Variable(start)
    optimizer = Adam(0.03, lazy=True)
    optimizer.build([weight])
    first, second = (random.normal(size=(3, 3)).astype(np.float32) for _ in range(2))
    optimizer.apply([rows(first, [4, 1, 4])], [weight])
    optimizer.apply([rows(second, [1, 1, 2])], [weight])
    found = weight.numpy()
    np.testing.assert_array_equal(found[[0, 3, 5]], start[[0, 3, 5]])
    # Row 1 by hand, over the two steps it was in; the bias correction counts both.
    gradients = [first[1:2], second[:2].sum(0, keepdims=True)]
    np.testing.assert_allclose(found[1:2], oracles.adam(start[1:2], gradients, 0.03), atol=1e-6)
    # Row 4 moved once, in step 1; row 2 once, in step 2, with m and v from nothing.
    np.testing.assert_allclose(
        found[4:5], oracles.adam(start[4:5], [first[[0, 2]].sum(0, keepdims=True)], 0.03), atol=1e-6
    )
    m, v = 0.1 * second[2], 0.001 * second[2] ** 2
    rate = 0.03 * np.sqrt(1 - 0.999**2) / (1 - 0.9**2)
    np.testing.assert_allclose(found[2], start[2] - rate * m / (np.sqrt(v) + 1e-7), atol=1e-6)


def test_rows_without_lazy_are_the_dense_gradient(random):
    start = random.normal(size=(6, 3)).astype(np.float32)
    gradient = random.normal(size=(3, 3)).astype(np.float32)
    dense = np.zeros((6, 3), np.float32)
    np.add.at(dense, [4, 1, 4], gradient)
    weight = keras.Variable(start)
    optimizer = Adam(0.03)
    optimizer.build([weight])
    for _ in range(2):
        optimizer.apply([rows(gradient, [4, 1, 4])], [weight])
    np.testing.assert_allclose(weight.numpy(), oracles.adam(start, [dense, dense], 0.03), atol=1e-6)
    assert Adam.from_config(Adam(lazy=True).get_config()).lazy
