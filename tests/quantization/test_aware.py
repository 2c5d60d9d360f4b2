"""Fine-tuning with rounding in the loop."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.quantization.test_neumf import ITEMS, USERS, positives, trained
from tfrec.data.pointwise import PointwiseSampler
from tfrec.errors import InputError
from tfrec.models import NeuMF
from tfrec.optimizers import Adam
from tfrec.quantization import Affine, QuantizationConfig, activations, aware, calibrate, quantize


def cross_entropy(model, train):
    labels = tf.constant(train.toarray())
    return float(tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, model.scores(tf.range(USERS)))))


def fit(model, train, epochs, rate):
    sampler = PointwiseSampler(train, 60, 2, seed=1)
    model.compile(Adam(rate), sampler=sampler.batch)
    model.fit(sampler.steps(), epochs=epochs, verbose=0, shuffle=False)


def test_gradient_passes_straight_through_inside_the_range():
    affine = Affine.of_range(-1.0, 1.0, "symmetric", 4)
    x = tf.constant([-3.0, -0.96, 0.0, 0.33, 1.0, 1.2])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = affine.fake(x)
    np.testing.assert_allclose(y, affine.dequantize(affine.quantize(x.numpy())), atol=1e-6)
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1, 1, 1, 1, 0])


def test_is_the_integer_model_in_floats():
    """The forward pass rounds to the same numbers as the integer model, but for its last bits."""
    model, train = trained(), positives()
    config = QuantizationConfig(activations=5, weights=4)
    statistics = calibrate(model, train, 1.0)
    found = aware(model, statistics, config).scores(tf.range(USERS)).numpy()
    whole = quantize(model, statistics, config).scores(tf.range(USERS)).numpy()
    exact = model.scores(tf.range(USERS)).numpy()
    assert np.abs(found - whole).mean() < 0.1 * np.abs(exact - whole).mean()


@pytest.mark.parametrize("product", [pytest.param("exact", marks=pytest.mark.slow), "quantized"])
def test_fine_tuning_gains_back_what_three_bits_lose(product):
    keras.utils.set_random_seed(0)
    train = positives()
    model = NeuMF(USERS, ITEMS, mf_dim=6, layer_dims=(10, 7, 5), dropout=0.0)
    fit(model, train, 60, 0.01)
    config = QuantizationConfig(activations=3, weights=3, product=product)
    statistics = calibrate(model, train, 1.0)
    before = cross_entropy(quantize(model, statistics, config), train)
    tuned = aware(model, statistics, config)
    fit(tuned, train, 40, 0.003)
    plain = tuned.float_model()
    after = cross_entropy(quantize(plain, calibrate(plain, train, 1.0), config), train)
    assert after < before


def test_saved_and_loaded(tmp_path):
    model, train = trained(), positives()
    tuned = aware(model, calibrate(model, train))
    tuned.save(tmp_path / "aware.keras")
    again = keras.saving.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(again.scores(tf.range(3)), tuned.scores(tf.range(3)))


def test_refused():
    model, train = trained(), positives()
    statistics = calibrate(model, train)
    with pytest.raises(InputError, match="another model"):
        aware(trained(seed=3), statistics)
    with pytest.raises(InputError, match="split final layer with float32 addition"):
        aware(model, statistics, QuantizationConfig(final_addition="int8"))


def test_activations_are_those_of_the_model():
    for branch in ("neumf", "gmf", "mlp"):
        for split in (False, True) if branch == "neumf" else (False,):
            model = trained(branch, split=split)
            users, items = tf.constant([1, 4]), tf.constant([[2, 3], [3, 16]])
            found = activations(model, users, items)
            last = "logit" if branch == "neumf" else f"{branch}_logit"
            np.testing.assert_allclose(
                np.reshape(found[last], [2, 2]), model.scores(users, items), rtol=1e-5, atol=1e-6
            )
            # Each of them, pair by pair in NumPy: the GMF part of an embedding comes first.
            w = {v.path.split("/")[-1]: v.numpy() for v in model.weights}
            u, i = w["user_embedding"][[1, 1, 4, 4]], w["item_embedding"][[2, 3, 3, 16]]
            gmf = {"neumf": 6, "gmf": 6, "mlp": 0}[branch]
            wanted = {"product": u[:, :gmf] * i[:, :gmf]} if gmf else {}
            hidden = np.concatenate([u[:, gmf:], i[:, gmf:]], axis=1)
            for layer in (1, 2) if branch != "gmf" else ():
                wanted[f"hidden_{layer}_linear"] = hidden @ w[f"kernel_{layer}"] + w[f"bias_{layer}"]
                wanted[f"hidden_{layer}"] = hidden = np.maximum(wanted[f"hidden_{layer}_linear"], 0)
            if branch == "neumf":
                wanted["final_input"] = np.concatenate([wanted["product"], hidden], axis=1)
            assert set(found) == set(wanted) | ({last} if branch != "neumf" else {"gmf_logit", "mlp_logit", "logit"})
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
