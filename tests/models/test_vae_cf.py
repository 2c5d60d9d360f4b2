import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tests import oracles
from tfrec.data import load
from tfrec.data.csr import ResidentMatrix, to_sparse_tensor
from tfrec.data.pipelines import sparse_batches, steps_per_epoch, user_batches
from tfrec.errors import InputError
from tfrec.models import VAECF
from tfrec.optimizers import Adam

ITEMS = 30


@pytest.fixture(scope="module")
def matrix():
    return load("synthetic", num_users=150, num_items=ITEMS, seed=6).to_csr()


def make(**options):
    keras.utils.set_random_seed(3)
    model = VAECF(ITEMS, **{"hidden_dims": (16,), "latent_dim": 4} | options)
    model.compile(Adam(0.01))
    return model


def test_loss_is_the_papers(matrix):
    """A step's loss against float64 NumPy, with noise switched off."""
    model = make(dropout=0.0, variational=True, kl_cap=0.3, l2=0.01)
    x = matrix[:9].toarray().astype(np.float64)
    w = {v.path.split("/", 1)[1]: v.numpy().astype(np.float64) for v in model.weights}
    h = np.tanh(x / np.linalg.norm(x, axis=1, keepdims=True) @ w["encoder_0/kernel"] + w["encoder_0/bias"])
    mean, log_variance = np.split(h @ w["encoder_1/kernel"] + w["encoder_1/bias"], 2, axis=1)
    hidden = np.tanh(mean @ w["decoder_0/kernel"] + w["decoder_0/bias"])
    nll = oracles.multinomial_nll(hidden, w["item_kernel"], w["item_bias"], x)[0] / 9
    kl = 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum() / 9
    penalty = 0.01 * sum((v**2).sum() for name, v in w.items() if name.endswith("kernel"))
    found = model.evaluate(to_sparse_tensor(matrix[:9]), return_dict=True, verbose=0)
    np.testing.assert_allclose(found["nll"], nll, rtol=1e-5)
    np.testing.assert_allclose(found["kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(found["loss"], nll + 0.3 * kl + penalty, rtol=1e-5)
    np.testing.assert_allclose(
        model(to_sparse_tensor(matrix[:9])), hidden @ w["item_kernel"] + w["item_bias"], atol=1e-4
    )


@pytest.mark.parametrize("variational", [True, False])
@pytest.mark.parametrize("hidden_dims", [(), (16,), (16, 8)])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_learns_in_every_form(matrix, variational, hidden_dims, precision):
    keras.config.set_dtype_policy(precision)
    model = make(variational=variational, hidden_dims=hidden_dims, dropout=0.2)
    assert {v.dtype for v in model.trainable_weights} == {"float32"}
    batches = sparse_batches(matrix, 40, epochs=None)
    history = model.fit(batches, epochs=12, steps_per_epoch=4, shuffle=False, verbose=0).history
    assert history["nll"][-1] < 0.97 * history["nll"][0]
    assert model(to_sparse_tensor(matrix[:2])).dtype == tf.float32


def test_plain_keras(matrix, tmp_path):
    """SciPy, dense and pipelines in; compile, fit, evaluate, predict, save and load as for any Keras model."""
    model = make(dropout=0.0)
    x = to_sparse_tensor(matrix)
    model.fit(matrix, batch_size=50, epochs=1, verbose=0)
    model.fit(matrix.toarray(), batch_size=50, epochs=1, verbose=0)
    model.fit(sparse_batches(matrix, 50), epochs=2, verbose=0, shuffle=False)
    evaluated = [
        model.evaluate(data, verbose=0, return_dict=True)
        for data in (matrix, matrix.toarray(), sparse_batches(matrix, 64))
    ]
    for name in ("loss", "nll", "kl"):
        np.testing.assert_allclose([e[name] for e in evaluated], evaluated[0][name], rtol=1e-5, err_msg=name)
    logits = model(x).numpy()
    np.testing.assert_allclose(model.predict(matrix, verbose=0), logits, atol=1e-5)
    np.testing.assert_allclose(model.predict(sparse_batches(matrix, 64, shuffle=False), verbose=0), logits, atol=1e-5)
    scores = model.scores(x)
    np.testing.assert_allclose(tf.reduce_sum(model.link(scores, scores), axis=1), np.ones(len(scores)), rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(x), logits, atol=1e-6)
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) == 3 + 3 + 6
    loaded.fit(matrix, batch_size=50, epochs=1, verbose=0)


def test_device_pipeline_equals_host_pipeline(matrix):
    weights = []
    for on_device in (False, True):
        model = make()
        if on_device:
            model.compile(Adam(0.01), gather=ResidentMatrix(matrix).gather)
            batches = user_batches(150, 40, seed=1, epochs=None)
        else:
            batches = sparse_batches(matrix, 40, seed=1, epochs=None)
        model.fit(batches, epochs=2, steps_per_epoch=steps_per_epoch(150, 40), shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_chunks_do_not_change_training(matrix):
    weights = []
    for chunk_bytes in (1, 700, 1 << 26):
        model = make(chunk_bytes=chunk_bytes)
        model.fit(sparse_batches(matrix, 40, epochs=None), steps_per_epoch=8, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for other in weights[1:]:
        for a, b in zip(weights[0], other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_odd_sizes_are_the_same_model_in_16_bits(matrix):
    """30 items, 13 units, 3 latents: nothing is a multiple of 8, and padding must not show."""
    keras.utils.set_random_seed(1)
    exact = VAECF(ITEMS, hidden_dims=(13,), latent_dim=3, dtype="float32")
    half = VAECF(ITEMS, hidden_dims=(13,), latent_dim=3, dtype="mixed_float16")
    half.set_weights(exact.get_weights())
    x = to_sparse_tensor(matrix)
    np.testing.assert_allclose(half(x), exact(x), atol=3e-3)
    for model in (exact, half):
        model.compile(keras.optimizers.SGD(0.0))
    losses = [m.evaluate(x, verbose=0, return_dict=True)["nll"] for m in (exact, half)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_kl_is_annealed(matrix):
    model = make(kl_cap=0.4, kl_anneal_steps=8)
    betas = []
    for _ in range(6):
        betas.append(float(model.beta()))
        model.fit(sparse_batches(matrix, 75, epochs=None), steps_per_epoch=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(betas, [0, 0.1, 0.2, 0.3, 0.4, 0.4], rtol=1e-6)
    assert float(make(kl_cap=0.4).beta()) == np.float32(0.4)


def test_weight_decay_acts(matrix):
    norms = []
    for l2 in (0.0, 0.1):
        model = make(l2=l2)
        model.fit(sparse_batches(matrix, 50, epochs=None), steps_per_epoch=60, shuffle=False, verbose=0)
        norms.append(sum(float(tf.reduce_sum(w.value**2)) for w in model.trainable_weights if "kernel" in w.path))
    assert norms[1] < 0.5 * norms[0]


def test_noise_depends_on_seed_and_step(matrix):
    def train(noise_seed):
        model = make(noise_seed=noise_seed)
        model.fit(sparse_batches(matrix, 50, epochs=None), steps_per_epoch=3, shuffle=False, verbose=0)
        return model.get_weights()[0]

    np.testing.assert_array_equal(train(1), train(1))
    assert np.abs(train(1) - train(2)).max() > 1e-6


def test_scoring_is_without_noise(matrix):
    x = to_sparse_tensor(matrix[:40])
    noisy, plain = make(dropout=0.5), make(dropout=0.0)
    plain.set_weights(noisy.get_weights())
    np.testing.assert_array_equal(noisy(x), plain(x))
    np.testing.assert_array_equal(noisy.predict(x, verbose=0), plain.predict(x, verbose=0))
    assert noisy.evaluate(x, verbose=0) == plain.evaluate(x, verbose=0)


def test_z_is_drawn_from_its_distribution():
    """Without decoder the hidden layer is z: of mean .7 and variance 4, in training only."""
    model = make(hidden_dims=(), latent_dim=3)
    encoder = model.encoder[0]
    encoder.kernel.assign(tf.zeros_like(encoder.kernel))
    encoder.bias.assign([0.7] * 3 + [np.log(4.0)] * 3)
    x = tf.sparse.from_dense(np.ones([20_000, ITEMS], np.float32))
    z = model._hidden(x, training=True)[0].numpy()
    np.testing.assert_allclose(z.mean(axis=0), 0.7, atol=5 * 2 / 20_000**0.5)
    np.testing.assert_allclose(z.std(axis=0), 2.0, atol=5 * 2 / (2 * 20_000) ** 0.5)
    np.testing.assert_allclose(model._hidden(x, training=False)[0], np.full([20_000, 3], 0.7), rtol=1e-6)


def test_mult_dae_has_no_kl_term(matrix):
    model = make(variational=False, dropout=0.0)
    found = model.evaluate(matrix, verbose=0, return_dict=True)
    assert found["kl"] == 0
    assert found["loss"] == pytest.approx(found["nll"], rel=1e-6)


def test_no_two_draws_of_a_training_share_their_seed():
    model, seeds = make(noise_seed=3), []
    for step in range(6):
        model.steps.assign(step)
        seeds += [tuple(model._noise(purpose).numpy().tolist()) for purpose in (0, 1)]
    assert len(set(seeds)) == len(seeds)


def test_never_makes_the_input_dense(matrix):
    """No tensor of the step has the shape of a dense input but the logits and their like, once per chunk."""
    model = make(chunk_bytes=4 * ITEMS * 10)  # chunks of at most 10 users
    model.optimizer.build(model.trainable_variables)
    function = tf.function(model.train_step).get_concrete_function(tf.SparseTensorSpec([37, ITEMS], tf.float32))
    shapes = [
        tuple(t.shape)
        for graph in [function.graph, *(f.graph for f in function.graph._functions.values() if hasattr(f, "graph"))]
        for op in graph.get_operations()
        for t in op.outputs
        if t.shape.rank == 2
    ]
    assert shapes
    assert (37, ITEMS) not in shapes


def test_an_empty_row_and_an_empty_batch():
    model = make()
    nothing = scipy.sparse.csr_matrix((3, ITEMS), dtype=np.float32)
    assert np.isfinite(model(to_sparse_tensor(nothing))).all()
    result = model.train_step(to_sparse_tensor(nothing))
    assert np.isfinite(result["loss"])
    assert all(np.isfinite(w).all() for w in model.get_weights())
    # Nobody teaches nothing, but the step counts; Adam's momentum would go on moving.
    model.compile(keras.optimizers.SGD(0.1))
    steps, before = int(model.steps), [w.numpy() for w in model.trainable_weights]
    model.train_step(to_sparse_tensor(nothing[:0]))
    assert int(model.steps) == steps + 1
    for weight, was in zip(model.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight, was, err_msg=weight.path)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_items": 1}, "num_items"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"hidden_dims": (8, 0)}, r"hidden_dims\[1\]"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"kl_cap": -1}, "kl_cap"),
        ({"l2": float("nan")}, "l2"),
    ],
)
def test_rejects(options, match):
    with pytest.raises(InputError, match=match):
        VAECF(**{"num_items": 10} | options)


def test_rejects_a_loss():
    with pytest.raises(InputError, match="its own loss"):
        make().compile("adam", loss="mse")


def test_a_gpu_would_not_get_xla(monkeypatch):
    """Keras turns XLA on by itself when it sees a GPU; the sparse product has no XLA kernel."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"] if kind == "GPU" else [])
    model = make()
    assert not model.jit_compile


def test_explain_is_the_fall_of_the_logit(matrix, monkeypatch):
    monkeypatch.setattr("tfrec.models.leave_one_out.BLOCK", 3)
    model = VAECF(matrix.shape[1], hidden_dims=(6,), latent_dim=3)
    row = next(matrix[u] for u in range(matrix.shape[0]) if matrix[[u]].nnz > 4)
    row = scipy.sparse.csr_matrix(row)
    score, items, falls = model.explain(row, 2, k=matrix.shape[1])
    for item, fall in zip(items, falls, strict=True):
        without = row.toarray()
        without[0, item] = 0
        wanted = model(row.toarray())[0, 2] - model(without)[0, 2]
        np.testing.assert_allclose(fall, wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(score, model(row.toarray())[0, 2], rtol=1e-5)
    assert sorted(items.tolist()) == row.indices.tolist()
