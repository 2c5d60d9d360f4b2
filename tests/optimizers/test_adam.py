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
