"""The integer NeuMF against the NumPy oracle, and what `quantize` refuses."""

import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.quantization.oracle import IntegerNeuMF
from tfrec.errors import InputError
from tfrec.models import NeuMF
from tfrec.quantization import STUDY_SPLIT, QuantizationConfig, Statistics, calibrate, clip_range, quantize

USERS, ITEMS = 12, 17
MODES = ("symmetric", "asymmetric_unsigned", "asymmetric_signed")


def trained(branch="neumf", seed=0, split=False, embedding=0.4):
    """A model with weights as after a training."""
    random = np.random.default_rng(seed)
    model = NeuMF(USERS, ITEMS, mf_dim=6, layer_dims=(10, 7, 5), branch=branch, split_final=split)
    for variable in model.trainable_variables:
        scale = embedding if "embedding" in variable.path else 0.3
        variable.assign(random.normal(size=variable.shape) * scale)
    return model


def positives(seed=0):
    matrix = scipy.sparse.random(USERS, ITEMS, 0.3, format="csr", random_state=seed, dtype=np.float32)
    matrix.data[:] = 1
    return matrix


def oracle_of(model, statistics, config):
    """Of the float model; what the ranges are is tested with the statistics, which tensor has which range here."""
    layers = range(1, len(model.layer_dims)) if model.branch != "gmf" else []
    sources = {f"hidden_{i}": f"hidden_{i}" if config.relu_ranges else f"hidden_{i}_linear" for i in layers}
    split = model.branch != "neumf" or config.split_final
    others = ["product"] if model.branch != "mlp" and config.product == "quantized" else []
    others += [] if split else ["final_input"]
    if config.final_addition == "int8":
        others += {"neumf": ["gmf_logit", "mlp_logit"] if split else []}.get(model.branch, [f"{model.branch}_logit"])
        others += ["logit"] if model.branch == "neumf" else []
    ranges = {
        name: clip_range(
            statistics[source], config.clipping, config.mode, config.activations, config.clip_std,
            config.clip_percentile,
        )
        for name, source in (sources | {n: n for n in others}).items()
    }  # fmt: skip
    weights = {v.path.split("/")[-1]: v.numpy() for v in model.weights}
    return IntegerNeuMF(weights, model.branch, model.mf_dim, config, ranges)


@pytest.fixture(scope="module")
def calibrated():
    return {b: (m := trained(b), calibrate(m, positives(), fraction=1.0)) for b in ("neumf", "gmf", "mlp")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    branch=st.sampled_from(["neumf", "neumf", "gmf", "mlp"]),
    mode=st.sampled_from(MODES),
    weight_mode=st.sampled_from(MODES),
    activations=st.integers(2, 8),
    weights=st.integers(2, 8),
    per_channel=st.booleans(),
    per_row=st.booleans(),
    relu_ranges=st.booleans(),
    product=st.sampled_from(["exact", "quantized"]),
    final_addition=st.sampled_from(["float32", "int8"]),
    split_final=st.booleans(),
    clipping=st.sampled_from(["none", "mse", "percentile", "std"]),
    clip_percentile=st.sampled_from([99.9, 95.0]),
    clip_std=st.sampled_from([3.0, 1.5]),
    native=st.booleans(),
)
def test_bit_equal_to_the_integer_oracle(calibrated, branch, native, **options):
    config = QuantizationConfig(**options)
    try:
        config.check()
    except InputError:
        config = replace(config, product="quantized")
    model, statistics = calibrated[branch]
    made = quantize(model, statistics, config)
    made.reference = not native
    oracle = oracle_of(model, statistics, config)
    own = {v.path.split("/")[-1]: v.numpy() for v in made.weights}
    assert own.keys() == oracle.values.keys()
    for name, value in oracle.values.items():
        np.testing.assert_array_equal(own[name], value, err_msg=name)
    users, items = np.array([0, 5, 5]), np.array([[3, 16], [0, 3], [9, 9]])
    scores = made.scores(tf.constant(users), tf.constant(items)).numpy()
    found = made.integers(users, items)
    for pair, (user, item) in enumerate(zip(np.repeat(users, 2), items.ravel(), strict=True)):
        expected = oracle.logit(user, item)
        assert set(expected) == set(found)
        for name, integers in expected.items():
            flat = found[name].reshape(len(items.ravel()), -1)[pair]
            np.testing.assert_array_equal(flat, np.atleast_1d(integers), err_msg=name)
            if name != "logit":
                low, high = oracle.limits["a"]
                assert low <= flat.min() <= flat.max() <= high
                assert (flat == np.rint(flat)).all()
        assert scores.ravel()[pair] == expected["logit"]


@pytest.mark.parametrize("split", [False, True])
def test_split_form_makes_no_difference_to_where_it_came_from(split):
    """From a split or an unsplit checkpoint: the same statistics fit, and the integer model is the same."""
    whole = trained()
    other = whole.with_split_final(split)
    statistics = calibrate(whole, positives())
    users = tf.constant([1, 2])
    np.testing.assert_allclose(whole.scores(users), other.scores(users), atol=1e-5, rtol=0)
    assert (
        quantize(whole, statistics).scores(users).numpy() == quantize(other, statistics).scores(users).numpy()
    ).all()


def test_close_to_the_float_model(calibrated):
    model, statistics = calibrated["neumf"]
    exact = model.scores(tf.range(USERS)).numpy()
    noise = {}
    for name, config in (
        ("best", QuantizationConfig()),
        ("study", STUDY_SPLIT),
        ("four", QuantizationConfig(activations=4, weights=4)),
    ):
        found = quantize(model, statistics, config).scores(tf.range(USERS)).numpy()
        noise[name] = np.square(found - exact).sum() / np.square(exact).sum()
    assert noise["best"] < 1e-3
    assert noise["best"] < noise["study"] < 0.02
    assert noise["best"] < noise["four"] < 0.2


def test_saved_and_loaded(calibrated, tmp_path):
    model, statistics = calibrated["neumf"]
    for number, config in enumerate((QuantizationConfig(), STUDY_SPLIT, replace(STUDY_SPLIT, split_final=False))):
        made = quantize(model, statistics, config)
        path = tmp_path / f"{number}.keras"
        made.save(path)
        again = keras.saving.load_model(path)
        np.testing.assert_array_equal(again.scores(tf.range(3)), made.scores(tf.range(3)))
        np.testing.assert_array_equal(again((tf.range(3), tf.range(3))), made((tf.range(3), tf.range(3))))
        assert {v.dtype for v in again.weights if "kernel" in v.path and "scale" not in v.path} <= {
            "int8",
            "uint8",
            "int32",
        }


def test_a_candidate_list_of_nobody(calibrated):
    made = quantize(*calibrated["neumf"])
    assert made.scores(tf.zeros([0], tf.int64), tf.zeros([0, 4], tf.int64)).shape == (0, 4)


@pytest.mark.parametrize(("fraction", "positive"), [(1.0, 61), (0.1, 6), (0.001, 1)])
def test_a_fraction_of_the_training_pairs_is_looked_at(fraction, positive):
    """61 positives with two unseen items each."""
    train = positives()
    assert train.nnz == 61
    found = calibrate(trained(), train, fraction, negatives=2)
    assert found.samples == 3 * positive
    assert sum(found["hidden_1"].histogram) == 3 * positive * 7


def test_dead_units_and_constant_activations():
    model = trained()
    for variable in model.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    made = quantize(model, calibrate(model, positives()))
    np.testing.assert_array_equal(made.scores(tf.range(2)), np.zeros([2, ITEMS]))


class TestRefused:
    def test_quantized_twice(self, calibrated):
        made = quantize(*calibrated["neumf"])
        with pytest.raises(InputError, match="quantized already"):
            quantize(made, calibrated["neumf"][1])
        with pytest.raises(InputError, match=r"expects a float tfrec\.models\.NeuMF"):
            calibrate(made, positives())

    def test_other_models(self, calibrated):
        with pytest.raises(InputError, match="belong to another model"):
            quantize(trained(seed=1), calibrated["neumf"][1])
        with pytest.raises(InputError, match=r"Received: Sequential"):
            quantize(keras.Sequential(), calibrated["neumf"][1])

    def test_tensor_trains(self, calibrated):
        model = NeuMF(USERS, ITEMS, mf_dim=6, layer_dims=(10, 7, 5), item_embedding="tt")
        with pytest.raises(InputError, match="sharded table cannot be quantized: item_embedding"):
            quantize(model, calibrated["neumf"][1])

    def test_a_layer_without_statistics(self, calibrated):
        model, statistics = calibrated["neumf"]
        less = {n: t for n, t in statistics.tensors.items() if n != "hidden_2"}
        with pytest.raises(InputError, match="no statistics for hidden_2"):
            quantize(model, Statistics(statistics.model, 1, less))

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"activations": 9}, "from 2 to 8"),
            ({"weights": 1}, "from 2 to 8"),
            ({"mode": "signed"}, "`mode` must be one of"),
            ({"clipping": "half"}, "must be one of"),
            ({"clip_percentile": 20.0}, "above 50"),
            ({"weight_mode": "asymmetric_signed"}, "without zero point"),
            ({"split_final": False}, "must be quantized"),
        ],
    )
    def test_settings(self, calibrated, options, match):
        with pytest.raises(InputError, match=match):
            quantize(*calibrated["neumf"], QuantizationConfig(**options))

    def test_nothing_to_calibrate_on(self):
        with pytest.raises(InputError, match="empty training matrix"):
            calibrate(trained(), scipy.sparse.csr_matrix((USERS, ITEMS), dtype=np.float32))
        with pytest.raises(InputError, match="must have the model's users and items"):
            calibrate(trained(), positives()[:3])
        with pytest.raises(InputError, match="fraction"):
            calibrate(trained(), positives(), fraction=0.0)


def test_exported_and_served(calibrated, tmp_path):
    """In a process of its own, through `tf.saved_model`, with tfrec's operations loaded."""
    made = quantize(*calibrated["neumf"])
    expected = made((tf.range(3), tf.range(3))).numpy()
    made.export(
        tmp_path / "saved",
        verbose=False,
        input_signature=[(keras.InputSpec("int64", [None]), keras.InputSpec("int64", [None]))],
    )
    np.save(tmp_path / "expected.npy", expected, allow_pickle=False)
    code = (
        "import sys, numpy as np, tensorflow as tf; import tfrec.ops; tfrec.ops.library();"
        "m = tf.saved_model.load(sys.argv[1] + '/saved'); i = tf.range(3, dtype=tf.int64);"
        "assert (m.serve((i, i)).numpy() == np.load(sys.argv[1] + '/expected.npy')).all()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
