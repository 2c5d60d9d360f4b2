"""NeuMF against pair-by-pair float64 NumPy, and what a Keras user expects of it."""

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tests import oracles
from tfrec.data.pointwise import PointwiseSampler
from tfrec.errors import InputError
from tfrec.models import NeuMF
from tfrec.optimizers import Adam

USERS, ITEMS = 7, 11
BRANCHES = ["neumf", "gmf", "mlp"]


def make(branch="neumf", **options):
    keras.utils.set_random_seed(3)
    model = NeuMF(USERS, ITEMS, **{"mf_dim": 4, "layer_dims": (6, 8, 5), "dropout": 0.0, "branch": branch, **options})
    random = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(random.normal(0, 0.6, weight.shape))
    return model


def as_float64(model):
    by_name = {v.name: np.asarray(v.value, np.float64) for v in model.weights}
    if model.split_final:
        final = np.concatenate([by_name["gmf_kernel"], by_name["mlp_kernel"]])[:, 0]
        bias = by_name["gmf_bias"][0] + by_name["mlp_bias"][0]
    else:
        final, bias = by_name["final_kernel"][:, 0], by_name["final_bias"][0]
    layers = range(1, len(model.kernels) + 1)
    return {
        "user": by_name["user_embedding"],
        "item": by_name["item_embedding"],
        "kernels": [by_name[f"kernel_{i}"] for i in layers],
        "biases": [by_name[f"bias_{i}"] for i in layers],
        "final": final,
        "bias": bias,
    }


def batch(pairs=(5, 3), seed=1):
    random = np.random.default_rng(seed)
    return (
        random.integers(0, USERS, pairs[0]),
        random.integers(0, ITEMS, pairs),
        (random.random(pairs) < 0.4).astype(np.float32),
    )


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("chunk_pairs", [1, 7, 10_000])
@pytest.mark.parametrize("graph", [False, True])
def test_logits_loss_and_gradients(branch, chunk_pairs, graph):
    model = make(branch, embedding_l2=0.1, mlp_embedding_l2=0.3, chunk_pairs=chunk_pairs)
    model.compile(Adam())
    users, items, labels = batch()
    expected_logits, expected_loss, expected = oracles.neumf(
        as_float64(model), users, items, labels, l2=0.1, mlp_l2=0.3
    )
    np.testing.assert_allclose(model((users, items)), expected_logits, rtol=1e-5, atol=1e-6)
    everything = model.scores(tf.constant(users))
    np.testing.assert_allclose(np.take_along_axis(everything.numpy(), items, 1), expected_logits, rtol=1e-5, atol=1e-6)
    compute = tf.function(model.loss_and_gradients) if graph else model.loss_and_gradients
    loss, gradients = compute(tf.constant(users), tf.constant(items), tf.constant(labels))
    assert float(loss) == pytest.approx(expected_loss, rel=1e-5)
    found = {v.name: np.asarray(g) for v, g in zip(model.trainable_variables, gradients, strict=True)}
    wanted = {"user_embedding": expected["user"], "item_embedding": expected["item"]}
    wanted |= {f"kernel_{i}": k for i, k in enumerate(expected["kernels"], start=1)}
    wanted |= {f"bias_{i}": b for i, b in enumerate(expected["biases"], start=1)}
    wanted |= {"final_kernel": expected["final"][:, None], "final_bias": [expected["bias"]]}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_lazy_tables_give_the_same_gradient_as_rows():
    model = make(embedding_l2=0.1)
    model.compile(Adam())
    users, items, labels = map(tf.constant, batch())
    _, dense = model.loss_and_gradients(users, items, labels)
    model.compile(Adam(lazy=True), lazy_tables=("user_embedding", "item_embedding"))
    _, rows = model.loss_and_gradients(users, items, labels)
    assert sum(isinstance(g, tf.IndexedSlices) for g in rows) == 2
    for a, b in zip(dense, rows, strict=True):
        np.testing.assert_allclose(a, tf.convert_to_tensor(b), atol=1e-7)


def test_weights_of_samples():
    """A weight of 2 counts as the sample twice."""
    model = make()
    model.compile(Adam())
    users, items, labels = batch((4, 1))
    weights = np.array([2.0, 1.0, 1.0, 0.0], np.float32)
    _, weighted = model.loss_and_gradients(tf.constant(users), tf.constant(items), tf.constant(labels), weights)
    twice = np.array([0, 0, 1, 2])
    _, plain = model.loss_and_gradients(
        tf.constant(users[twice]), tf.constant(items[twice]), tf.constant(labels[twice])
    )
    for a, b in zip(weighted, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("split", [False, True])
def test_gmf_weights_of_ones_stay(split):
    """The branch is a dot product, and training moves the other weights only."""
    model = NeuMF(USERS, ITEMS, mf_dim=4, layer_dims=(6, 8, 5), gmf_weights="ones", split_final=split)
    source = sampler()
    model.compile(Adam(1e-2), sampler=source.batch)
    before = model.get_weights()
    model.fit(source.steps(), epochs=2, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.final_kernels[0].numpy()[:4], np.ones((4, 1)))
    assert all((a != b).any() for a, b in zip(before[:-1], model.get_weights(), strict=False) if a.shape != (4, 1))
    dot = NeuMF(USERS, ITEMS, mf_dim=4, branch="gmf", gmf_weights="ones")
    users, items, _ = batch()
    p, q = dot.user_embedding.numpy()[users], dot.item_embedding.numpy()[items]
    np.testing.assert_allclose(dot((users, items)), np.einsum("pd,pcd->pc", p, q), atol=1e-7)


def test_empty_batch_is_finite():
    model = make(embedding_l2=0.1)
    model.compile(Adam())
    loss, gradients = model.loss_and_gradients(tf.zeros([0], tf.int64), tf.zeros([0, 3], tf.int64))
    assert float(loss) == 0
    assert all(not np.any(g) for g in gradients)
    assert model.scores(tf.zeros([0], tf.int64)).shape == (0, ITEMS)


def test_split_final_is_exactly_the_same():
    model = make()
    users, items, _ = batch((40, 9))
    split = model.with_split_final()
    assert {"gmf_kernel", "mlp_kernel", "gmf_bias", "mlp_bias"} <= {w.name for w in split.weights}
    np.testing.assert_array_equal(split((users, items)), model((users, items)))
    for bias in split.final_biases:  # to each branch half
        np.testing.assert_array_equal(bias, model.final_biases[0].numpy() / 2)
    joined = split.with_split_final(False)
    for a, b in zip(joined.weights, model.weights, strict=True):
        np.testing.assert_array_equal(a.value, b.value)
    # And it is the oracle's function, so not equal by being the same code only.
    logits, _, _ = oracles.neumf(as_float64(split), users, items, np.zeros(items.shape))
    np.testing.assert_allclose(split((users, items)), logits, rtol=1e-5, atol=1e-6)


def test_reference_sizes_and_initialization():
    keras.utils.set_random_seed(0)
    model = NeuMF(2_000, 3_000)
    assert model.user_embedding.shape == (2_000, 64 + 128)
    assert [k.shape for k in model.kernels] == [(256, 256), (256, 128), (128, 64)]
    # Of the references: 0.01 for embeddings; Glorot's sqrt(6 / (in + out)); LeCun's sqrt(3 / in) over both branches.
    assert np.std(model.user_embedding.numpy()) == pytest.approx(0.01, rel=0.02)
    assert np.abs(model.kernels[1].numpy()).max() == pytest.approx((6 / (256 + 128)) ** 0.5, rel=0.01)
    assert np.abs(model.final_kernels[0].numpy()).max() == pytest.approx((3 / 128) ** 0.5, rel=0.05)


def test_fit_on_a_host_pipeline_learns(random):
    """Two groups of users who like two groups of items, in plain Keras."""
    users = random.integers(0, 40, 8_000)
    items = random.integers(0, 30, 8_000)
    labels = (users % 2 == items % 2).astype(np.float32)
    keras.utils.set_random_seed(1)
    model = NeuMF(40, 30, mf_dim=8, layer_dims=(16, 16, 8), dropout=0.1)
    model.compile(Adam(5e-3))
    data = tf.data.Dataset.from_tensor_slices(((users, items), labels)).batch(500)
    history = model.fit(data, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.1 < history["loss"][0]
    assert model.evaluate(data, verbose=0) < 0.1
    inputs = {"user": tf.constant([0, 1]), "item": tf.constant([[0, 1], [0, 1]])}
    assert (model(inputs).numpy() > 0).tolist() == [[True, False], [False, True]]
    assert model.predict(((users[:7], items[:7])), verbose=0).shape == (7, 1)


def sampler(**options):
    matrix = scipy.sparse.random(USERS, ITEMS, density=0.4, format="csr", random_state=1, dtype=np.float32)
    matrix.sort_indices()
    return PointwiseSampler(matrix, 12, 3, seed=2, **options)


def test_steps_per_execution_do_not_change_the_result():
    """Python looks in after every step, or after the whole epoch and a bit: the same weights."""
    found = []
    for steps in (1, 4):
        model = make(dropout=0.3)
        source = sampler()
        assert source.steps_per_epoch % 4
        model.compile(Adam(1e-2), sampler=source.batch, steps_per_execution=steps)
        model.fit(source.steps(), epochs=3, shuffle=False, verbose=0)
        assert int(model.steps.numpy()) == 3 * source.steps_per_epoch
        found.append(model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("lazy", [(), ("user_embedding", "item_embedding")])
def test_mixed_precision(precision, lazy):
    keras.config.set_dtype_policy(precision)
    model = make(dropout=0.2)
    source = sampler()
    model.compile(Adam(1e-2, lazy=bool(lazy)), sampler=source.batch, lazy_tables=lazy)
    losses = model.fit(source.steps(), epochs=30, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert all(v.dtype in ("float32", "int64") for v in model.weights)
    users, items, _ = batch()
    expected, _, _ = oracles.neumf(as_float64(model), users, items, np.zeros(items.shape))
    logits = model((users, items))
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, expected, rtol=0.05, atol=0.05 if precision == "mixed_float16" else 0.2)


@pytest.mark.parametrize("lazy", [(), ("user_embedding",)])
def test_gradients_come_times_the_loss_scale(lazy):
    """As the optimizer divides by it; Adam, whose steps do not depend on the size, would not tell."""
    users, items, labels = batch()
    _, _, expected = oracles.neumf(as_float64(make()), users, items, labels, l2=0.1)
    keras.config.set_dtype_policy("mixed_float16")
    model = make(embedding_l2=0.1)
    model.compile(Adam(lazy=bool(lazy)), lazy_tables=lazy)
    model.optimizer.build(model.trainable_variables)
    scale = float(model.optimizer.dynamic_scale)
    assert scale > 1
    _, gradients = model.loss_and_gradients(*map(tf.constant, (users, items, labels)))
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        if variable.name in ("user_embedding", "item_embedding", "final_kernel"):
            wanted = expected[variable.name.split("_")[0]]
            found = tf.convert_to_tensor(gradient).numpy().reshape(wanted.shape) / scale
            np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max(), err_msg=variable.name)


def test_saves_and_loads(tmp_path):
    model = make(embedding_l2=0.1, split_final=True)
    model.compile(Adam(1e-2))
    users, items, labels = batch()
    model.fit(((users, items)), labels, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded((users, items)), model((users, items)))
    assert loaded.get_config() == model.get_config()
    # Training goes on as it would have, so the optimizer's state and the steps came back too.
    for m in (model, loaded):
        m.fit(((users, items)), labels, verbose=0)
    for a, b in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7, err_msg=a.path)


def positive(**options):
    """A model in which every ReLU lets everything through, with logits so large that their loss for label 0 is the
    logit itself: dropout must then keep the expected loss, layer by layer."""
    model = make(**options)
    for weight in model.trainable_variables:
        weight.assign(np.abs(weight.numpy()) + 0.1)
    model.final_biases[-1].assign([30.0])
    return model


def losses_by_step(model, users, items, steps):
    """The mean logit, with the dropout of each step."""
    model.compile(Adam())
    compute = tf.function(lambda: model.loss_and_gradients(users, items, tf.zeros(items.shape))[0])
    found = []
    for step in range(steps):
        model.steps.assign(step)
        found.append(float(compute()))
    return np.array(found)


@pytest.mark.parametrize("dropout", [0.5, 0.2])
@pytest.mark.parametrize("split", [False, True])
def test_dropout_drops_and_keeps_the_mean(dropout, split):
    """With dropout the logits differ from step to step; on average they are the ones without."""
    model = positive(dropout=dropout, layer_dims=(6, 8, 8, 5), split_final=split)
    model.kernels[1].assign(np.eye(8))  # units that were kept by the same draw in both layers would count too much
    users, items, _ = (tf.constant(a) for a in batch((6, 4)))
    assert np.array_equal(model((users, items)), model((users, items)))
    losses = losses_by_step(model, users, items, 400)
    assert len(set(losses.tolist())) == 400
    error = losses.std() / 400**0.5
    assert error < 0.015 * (model((users, items)).numpy().mean() - 30)
    assert abs(losses.mean() - model((users, items)).numpy().mean()) < 4 * error


def test_nothing_is_dropped_while_scoring():
    users, items, labels = batch((6, 4))
    plain, model = make(dropout=0.0), make(dropout=0.5)
    model.compile(Adam())
    plain.compile(Adam())
    np.testing.assert_array_equal(model((users, items)), plain((users, items)))
    np.testing.assert_array_equal(model.scores(users), plain.scores(users))
    evaluated = [m.evaluate((users, items), labels, verbose=0) for m in (model, plain)]
    assert evaluated[0] == evaluated[1]


def test_noise_differs_by_chunk_and_by_seed():
    """Four users with one embedding: what is dropped for each shows in their gradients."""
    gradients = []
    for seed in (0, 1):
        model = positive(dropout=0.5, layer_dims=(6, 32), chunk_pairs=1, noise_seed=seed)
        model.user_embedding.assign(np.ones_like(model.user_embedding.numpy()))
        model.compile(Adam())
        _, found = model.loss_and_gradients(tf.range(4), tf.zeros([4, 1], tf.int32), tf.zeros([4, 1]))
        by_name = {v.name: g for v, g in zip(model.trainable_variables, found, strict=True)}
        gradients += [tuple(row) for row in by_name["user_embedding"].numpy()[:4, 4:].tolist()]
    assert len(set(gradients)) == 8


def test_a_loss_over_batches_is_the_mean_over_pairs():
    """Of two batches of 5 and 2 users each pair counts the same, in `fit` and in `evaluate`; weights multiply."""
    users, items, labels = batch((7, 3))
    model = make(dropout=0.0)
    model.compile(keras.optimizers.SGD(0.0))
    _, wanted, _ = oracles.neumf(as_float64(model), users, items, labels)
    fitted = model.fit((users, items), labels, batch_size=5, shuffle=False, verbose=0).history["loss"][0]
    assert fitted == pytest.approx(wanted, rel=1e-5)
    assert model.evaluate((users, items), labels, batch_size=5, verbose=0) == pytest.approx(wanted, rel=1e-5)
    weights = np.arange(7.0, dtype=np.float32)
    each = [oracles.neumf(as_float64(model), users[[u]], items[[u]], labels[[u]])[1] for u in range(7)]
    found = model.evaluate((users, items), labels, sample_weight=weights, batch_size=5, verbose=0)
    assert found == pytest.approx(np.mean(weights * each), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_users": 0}, "`num_users` must be at least 1"),
        ({"num_items": 0}, "`num_items` must be at least 1"),
        ({"mf_dim": 0}, "`mf_dim` must be at least 1"),
        ({"layer_dims": (8,)}, "at least two widths"),
        ({"layer_dims": (7, 4)}, "the first even"),
        ({"layer_dims": (8, 0)}, "layer_dims"),
        ({"dropout": 1.0}, "dropout"),
        ({"embedding_l2": -1.0}, "embedding_l2"),
        ({"branch": "both"}, "`branch` must be"),
        ({"gmf_weights": "two"}, "`gmf_weights` must be"),
        ({"branch": "gmf", "split_final": True}, "two branches to split"),
        ({"chunk_pairs": 0}, "chunk_pairs"),
    ],
)
def test_rejects(options, match):
    with pytest.raises(InputError, match=match):
        NeuMF(**{"num_users": 3, "num_items": 4, **options})


def test_rejects_a_loss_and_wrong_shapes():
    model = make()
    with pytest.raises(InputError, match="has its own loss"):
        model.compile(Adam(), loss="mse")
    with pytest.raises(InputError, match="lazy_tables"):
        model.compile(Adam(), lazy_tables=("users",))
    with pytest.raises(InputError, match="users \\[B\\]"):
        model((tf.zeros([2, 3], tf.int64), tf.zeros([2], tf.int64)))
    model.compile(Adam())
    with pytest.raises(InputError, match="ranking"):
        NeuMF(3, 4).compile(Adam(), metrics=["accuracy"])
    with pytest.raises(InputError, match="whole numbers as users"):
        model((tf.constant([1.0]), tf.constant([0])))
    with pytest.raises(InputError, match="users \\[B\\]"):
        model((tf.zeros([3], tf.int64), tf.zeros([2, 4], tf.int64)))
    with pytest.raises(InputError, match="shape of items"):
        model.fit((np.zeros(4, int), np.zeros((4, 3), int)), np.zeros((4, 2)), verbose=0)
    with pytest.raises(InputError, match="`labels`"):
        model.fit((np.zeros(4, int), np.zeros(4, int)), verbose=0)


def test_ids_beyond_the_tables_raise_on_a_cpu():
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not in"):
        make()((tf.constant([USERS]), tf.constant([[0]])))
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not in"):
        make()((tf.constant([0]), tf.constant([[ITEMS]])))


def test_no_xla_on_a_gpu(monkeypatch):
    """Keras would pick XLA by itself where there is a GPU; the batch's different ids have no fixed number."""
    real = tf.config.list_physical_devices
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["gpu"] if kind == "GPU" else real(kind))
    model = make()
    model.compile(Adam())
    assert not model.jit_compile
