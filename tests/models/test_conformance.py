"""Keras's own test of a layer on every model, and each model exported, saved and loaded as Keras users do it."""

import copy
import json
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from keras.src.testing.test_case import TestCase

from tfrec import registration
from tfrec.errors import InputError
from tfrec.layers import CachedTTEmbedding, SparseDense, TTEmbedding
from tfrec.models import ALS, EASE, VAECF, NeuMF, Popularity
from tfrec.optimizers import Adam
from tfrec.quantization import QuantizationAwareNeuMF, QuantizationConfig, QuantizedNeuMF, aware, calibrate, quantize

ITEMS = 7
NET = {"num_users": 6, "num_items": 9, "mf_dim": 3, "layer_dims": (4, 5, 3)}
VAE = {"num_items": ITEMS, "hidden_dims": (5,), "latent_dim": 2, "dropout": 0.0}
USERS, CANDIDATES = np.array([0, 5]), np.array([[1, 2, 3], [0, 8, 8]])
PAIR = (tf.constant(USERS), tf.constant(CANDIDATES))
RANGES = {"hidden_1": (0.0, 1.0), "hidden_2": (0.0, 1.0)}

CASES = {
    "vae": (VAECF, VAE, {"input_shape": (4, ITEMS)}),
    "vae of sparse": (VAECF, VAE, {"input_shape": (4, ITEMS), "input_sparse": True}),
    "dae": (VAECF, {**VAE, "variational": False, "l2": 0.1}, {"input_shape": (4, ITEMS), "input_sparse": True}),
    "popularity": (Popularity, {"num_items": ITEMS}, {"input_shape": (4, ITEMS), "run_training_check": False}),
    "ease": (EASE, {"num_items": ITEMS}, {"input_shape": (4, ITEMS), "run_training_check": False}),
    "ease of sparse": (
        EASE,
        {"num_items": ITEMS, "regularization": 2.0},
        {"input_shape": (4, ITEMS), "input_sparse": True, "run_training_check": False},
    ),
    "neumf": (NeuMF, NET, {"input_data": PAIR}),
    "gmf": (NeuMF, {**NET, "branch": "gmf"}, {"input_data": PAIR}),
    "mlp": (NeuMF, {**NET, "branch": "mlp"}, {"input_data": PAIR}),
    "neumf tt": (NeuMF, {**NET, "item_embedding": "tt", "user_embedding": "tt"}, {"input_data": PAIR}),
    "quantized": (
        QuantizedNeuMF,
        {"network": {**NET, "branch": "neumf"}, "quantization": {}},
        {"input_data": PAIR, "run_training_check": False},
    ),
    "aware": (QuantizationAwareNeuMF, {**NET, "quantization": {}, "ranges": RANGES}, {"input_data": PAIR}),
    "als": (
        ALS,
        {"factors": 3, "num_users": 6, "num_items": 9},
        {"input_data": (PAIR[0], PAIR[0]), "run_training_check": False},
    ),
}


class Run(TestCase):
    def runTest(self):
        """Keras's base class wants a name for a test."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_keras_layer_test(case):
    model, arguments, checks = CASES[case]
    run = Run()
    run.setUp()
    run.run_layer_test(model, arguments, **checks, expected_output_dtype="float32")


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_are_float32_and_said_to_be(case, policy):
    model, arguments, checks = CASES[case]
    if policy in ("float16", "bfloat16", "float64") and issubclass(model, VAECF | NeuMF):
        with pytest.raises(
            InputError, match=f"`dtype` must be float32, mixed_float16 or mixed_bfloat16.\nReceived: {policy}"
        ):
            model(**arguments, dtype=policy)
        return
    made = model(**arguments, dtype=policy)
    given = checks.get("input_data", tf.ones(checks.get("input_shape", ())))
    symbolic = tf.nest.map_structure(
        lambda x: keras.Input(x.shape[1:], batch_size=x.shape[0], dtype=x.dtype.name), given
    )
    expected, found = made(symbolic), made(given)
    assert found.dtype == tf.float32
    assert expected.dtype == "float32"
    assert tuple(found.shape) == expected.shape


def test_models_as_layers_of_a_functional_model():
    rows = keras.Input((ITEMS,), sparse=True)
    model = keras.Model(rows, VAECF(**VAE, dtype="mixed_float16")(rows))
    x = tf.sparse.from_dense(np.eye(4, ITEMS, dtype=np.float32))
    assert model(x).dtype == tf.float32 == tf.as_dtype(model.outputs[0].dtype)
    users, items = keras.Input((), dtype="int32"), keras.Input((None,), dtype="int32")
    inner = NeuMF(**NET)
    model = keras.Model([users, items], inner((users, items)))
    np.testing.assert_array_equal(model([USERS, CANDIDATES]), inner(PAIR))


def test_counts_beyond_float16_are_normalised_first():
    """65,504 is the greatest number of float16; the row is divided by its norm in float32."""
    half, x = VAECF(**VAE, dtype="mixed_float16"), np.eye(3, ITEMS, dtype=np.float32)
    np.testing.assert_allclose(half(x * 1e6), half(x), atol=1e-6)
    popular = Popularity(2, dtype="mixed_float16")
    popular.counts.assign([70_001, 70_002])
    assert popular(np.zeros((1, 2))).numpy().tolist() == [[70_001, 70_002]]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_scores_have_the_resolution_of_float32(policy, random):
    """Rounded to 16 bits, the scores of most items would be those of another one too."""
    model = VAECF(2_000, hidden_dims=(), latent_dim=16, dtype=policy)
    neumf = NeuMF(3, 2_000, mf_dim=16, layer_dims=(16, 16), dtype=policy)
    for weight in [*model.trainable_weights, *neumf.trainable_weights]:
        weight.assign(random.normal(0, 0.5, weight.shape))
    logits = model(np.eye(3, 2_000, dtype=np.float32)).numpy()
    scores = neumf.scores(tf.range(3)).numpy()
    for row in (*logits, *scores):
        assert len(np.unique(row)) > 1_950


def test_the_stand_ins_are_the_registered_classes():
    found = {n for n, c in keras.saving.get_custom_objects().items() if n.startswith("tfrec>")}
    assert found == {f"tfrec>{name}" for name in registration.CLASSES}
    for name in registration.CLASSES:
        made = registration._StandIn(name).imported()
        assert keras.saving.get_registered_name(made) == f"tfrec>{name}"


# ---- export, save, load


def _trained_neumf(**options):
    keras.utils.set_random_seed(0)
    model = NeuMF(**NET, **options)
    random = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(random.normal(0, 0.5, weight.shape))
    return model


def _models():
    keras.utils.set_random_seed(1)
    rows = np.array([[1, 0, 2, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0, 0]], np.float32)
    popular = Popularity(ITEMS)
    popular.adapt(scipy.sparse.csr_matrix(rows))
    ease = EASE(ITEMS, 1.0)
    ease.fit(scipy.sparse.csr_matrix(rows), verbose=0)
    neumf = _trained_neumf()
    positives = scipy.sparse.csr_matrix(np.random.default_rng(3).random((6, 9)) < 0.4, dtype=np.float32)
    statistics = calibrate(neumf, positives)
    simulated = QuantizationConfig(split_final=False, product="quantized", final_addition="int8")
    found = {
        "vae": (VAECF(**VAE), rows),
        "vae16": (VAECF(**VAE, dtype="mixed_float16"), rows),
        "dae": (VAECF(**{**VAE, "hidden_dims": ()}, variational=False), rows),
        "popularity": (popular, rows),
        "ease": (ease, rows),
        "neumf": (neumf, (USERS, CANDIDATES)),
        "neumf16": (_trained_neumf(dtype="mixed_float16"), (USERS, CANDIDATES)),
        "gmf": (_trained_neumf(branch="gmf"), (USERS, CANDIDATES)),
        "neumf_tt": (_trained_neumf(item_embedding="tt", user_embedding="tt"), (USERS, CANDIDATES)),
        "quantized": (quantize(neumf, statistics), (USERS, CANDIDATES)),
        "simulated": (quantize(neumf, statistics, simulated), (USERS, CANDIDATES)),
        "aware": (aware(neumf, statistics), (USERS, CANDIDATES)),
    }
    trained = VAECF(**VAE)
    trained.compile(Adam(0.01), metrics=[keras.metrics.TopKCategoricalAccuracy(2)])
    trained.fit(rows, verbose=0)
    return {**found, "trained": (trained, rows)}


READ_EXPORTS = """
import json, sys
import numpy as np
import tensorflow as tf
folder = sys.argv[1]
wanted = np.load(folder + "/wanted.npz")
for name in json.load(open(folder + "/names.json")):
    served = tf.saved_model.load(f"{folder}/{name}")
    serve = served.serve
    near = 1e-3 if name.endswith("16") else 1e-5  # a graph need not round to float16 after each step
    if f"{name}_rows" in wanted:
        rows = wanted[f"{name}_rows"]
        forms = [rows, rows.astype(np.float64), rows.astype(np.int64), tf.constant(rows), tf.sparse.from_dense(rows)]
    else:
        users, items = wanted["users"], wanted["items"]
        forms = [(users, items), {"user": users, "item": items}]
        forms += [(tf.constant(users, tf.int32), tf.constant(items, tf.int32))]
        first = serve((users, items[:, 0]))
        np.testing.assert_allclose(first, wanted[name][:, :1], rtol=1e-5, atol=near, err_msg=name)
    for form in forms:
        np.testing.assert_allclose(serve(form), wanted[name], rtol=1e-5, atol=near, err_msg=name)
served = tf.saved_model.load(folder + "/neumf")
serve = served.signatures["serving_default"]
found = serve(user=tf.constant(users, tf.int64), item=tf.constant(items, tf.int64))["output_0"]
np.testing.assert_allclose(found, wanted["neumf"], rtol=1e-5, atol=1e-6)
served = tf.saved_model.load(folder + "/vae")
serve = served.signatures["serving_default"]
found = serve(x=tf.constant(wanted["vae_rows"]))["output_0"]
np.testing.assert_allclose(found, wanted["vae"], rtol=1e-5, atol=1e-5)
assert "tfrec" not in sys.modules

# Keras is there before tfrec here.
import keras
import tfrec
loaded = keras.models.load_model(folder + "/vae.keras")
np.testing.assert_allclose(loaded(wanted["vae_rows"]), wanted["vae"], atol=1e-6)
"""

LOAD = """
import json, sys
import tfrec
assert not {"tensorflow", "keras", "numpy"} & set(sys.modules)
import keras
assert not {"tfrec.models", "tfrec.layers"} & set(sys.modules)
import numpy as np
folder = sys.argv[1]
wanted = np.load(folder + "/wanted.npz")
for name in json.load(open(folder + "/names.json")):
    loaded = keras.models.load_model(f"{folder}/{name}.keras")
    given = wanted[f"{name}_rows"] if f"{name}_rows" in wanted else (wanted["users"], wanted["items"])
    np.testing.assert_allclose(loaded(given), wanted[name], rtol=1e-5, atol=1e-6, err_msg=name)
    fresh = type(loaded).from_config(loaded.get_config())
    fresh.load_weights(f"{folder}/{name}.weights.h5")
    np.testing.assert_allclose(fresh(given), wanted[name], rtol=1e-5, atol=1e-6, err_msg=name)
    loaded.summary(print_fn=lambda *_, **__: None)
    loaded.export(f"{folder}/{name}_again", verbose=False)
trained = keras.models.load_model(folder + "/trained.keras")
assert type(trained.optimizer) is tfrec.optimizers.Adam and int(trained.optimizer.iterations) == 1
trained.fit(wanted["trained_rows"], verbose=0)
towers = keras.models.load_model(folder + "/layers.keras")
np.testing.assert_allclose(towers.predict(wanted["ids"], verbose=0), wanted["layers"], atol=1e-6)
legacy = keras.models.load_model(folder + "/legacy.h5", compile=False)
np.testing.assert_allclose(legacy.predict(wanted["ids"], verbose=0), wanted["legacy"], atol=1e-6)
assert tfrec.models.ALS.__name__ == "ALS" and "models" in dir(tfrec)
try:
    tfrec.nothing
except AttributeError as error:
    assert "has no attribute 'nothing'" in str(error)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with every model, never called, exported and saved, and what each answers."""
    folder = tmp_path_factory.mktemp("written")
    models = _models()
    wanted = {"users": USERS, "items": CANDIDATES}
    for name, (model, _) in models.items():
        assert not model._called, name
        model.export(folder / name, verbose=False)
        model.save(folder / f"{name}.keras")
        model.save_weights(folder / f"{name}.weights.h5")
    for name, (model, given) in models.items():
        wanted[name] = model(given).numpy()
        if not isinstance(given, tuple):
            wanted[f"{name}_rows"] = given
    ids = np.array([[1, 2], [39, 0]])
    towers = [TTEmbedding(40, 8, 3, mask_zero=True), CachedTTEmbedding(40, 8, 3, cache_size=5)]
    given = keras.Input((2,), dtype="int32")
    joined = keras.layers.Concatenate()([tower(given) for tower in towers])
    model = keras.Model(given, keras.layers.Dense(2)(keras.layers.Flatten()(joined)))
    model.save(folder / "layers.keras")
    wanted |= {"ids": ids, "layers": model.predict(ids, verbose=0)}
    legacy = keras.Sequential([keras.Input((2,), dtype="int32"), TTEmbedding(40, 8, 3), keras.layers.Flatten()])
    legacy.save(folder / "legacy.h5")
    wanted["legacy"] = legacy.predict(ids, verbose=0)
    np.savez(folder / "wanted.npz", **wanted)
    (folder / "names.json").write_text(json.dumps(list(models)))
    return folder


@pytest.mark.parametrize("code", [READ_EXPORTS, LOAD], ids=["exports, TensorFlow alone", "saved, after import tfrec"])
def test_in_a_fresh_process(written, code):
    done = subprocess.run([sys.executable, "-c", code, str(written)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_in_this_process(written):
    for name, (model, given) in _models().items():
        wanted = model(given).numpy()
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            np.testing.assert_allclose(other(given), wanted, rtol=1e-6, err_msg=name)
        cloned = keras.models.clone_model(model)
        cloned.set_weights(model.get_weights())
        np.testing.assert_allclose(cloned(given), wanted, rtol=1e-6, err_msg=name)
        assert keras.models.model_from_json(model.to_json()).get_config() == model.get_config()
        with pytest.raises(InputError, match=r"saved as a \.keras file"):
            model.save("x.h5")


def test_export_takes_a_signature_and_layers_keep_their_operations(tmp_path):
    model = _trained_neumf(item_embedding="tt")
    spec = [(keras.InputSpec("int32", [None]), keras.InputSpec("int32", [None, 3]))]
    model.export(tmp_path / "own", verbose=False, input_signature=spec)
    served = tf.saved_model.load(str(tmp_path / "own"))
    pair = tuple(tf.cast(x, tf.int32) for x in PAIR)
    np.testing.assert_allclose(served.serve(pair), model(PAIR), rtol=1e-5, atol=1e-6)
    assert model.item_embedding.reference is False
    archive = keras.export.ExportArchive()
    layer = SparseDense(3)
    layer.build((None, 4))
    archive.track(layer)
    archive.add_endpoint("serve", layer.call, input_signature=[keras.InputSpec("float32", [None, 4])])
    archive.write_out(str(tmp_path / "layer"), verbose=False)
    x = np.eye(2, 4, dtype=np.float32)
    served = tf.saved_model.load(str(tmp_path / "layer"))
    np.testing.assert_allclose(served.serve(x), layer(x), rtol=1e-6)
