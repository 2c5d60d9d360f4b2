"""The tensor-train layers: in the place of Keras's Embedding, and as bags."""

import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tfrec import layers, ops
from tfrec.errors import InputError, TfrecWarning
from tfrec.layers.tt_factors import suggest_column_factors

NATIVE = pytest.mark.skipif(
    ops.library() is None, reason="needs the native library: TFREC_BUILD_OPS=1 pip install -e ."
)
ROWS, DIM = 100, 12


def layer(**options):
    return layers.TTEmbedding(**{"num_embeddings": ROWS, "embedding_dim": DIM, "ranks": 5, "seed": 0, **options})


def test_the_full_table_is_the_product_of_the_cores():
    made = layer()
    made.build()
    wanted = oracles.tt_table([c.numpy() for c in made.cores], ROWS)
    np.testing.assert_allclose(made.full_table(), wanted, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(made.row_norms(), np.linalg.norm(wanted, axis=1), rtol=1e-4)
    ids = tf.constant([[3, 99], [0, 3]])
    np.testing.assert_allclose(made(ids), wanted[ids.numpy()], rtol=1e-4, atol=1e-7)
    sizes = sum(c.numpy().size for c in made.cores)
    assert made.compression_ratio == ROWS * DIM / sizes


@pytest.mark.parametrize("num_cores", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [1, 2, 10, 97, 1_000, 26_744, 11_000_000, 10**12])
def test_suggested_factors_hold_the_rows_with_little_to_spare(size, num_cores):
    factors = layers.suggest_factors(size, num_cores)
    product = int(np.prod(factors, dtype=object))
    assert len(factors) == num_cores
    assert list(factors) == sorted(factors)
    assert size <= product
    # A step of one in each factor.
    assert product <= size * (1 + size ** (-1 / num_cores)) ** num_cores


@pytest.mark.parametrize("width", [1, 7, 64, 96, 128, 360])
def test_suggested_columns_multiply_exactly(width):
    assert np.prod(suggest_column_factors(width)) == width


@pytest.mark.parametrize("kind", ["approx_normal", "approx_uniform"])
@pytest.mark.parametrize("num_cores", [2, 3, 4])
def test_the_full_table_follows_the_distribution(kind, num_cores):
    """Kolmogorov's distance over many tables: the numbers of one are not independent."""
    p = layers.suggest_factors(3_000, num_cores)
    tables = [
        layers.TTEmbedding(
            3_000, 16, 8, p, suggest_column_factors(16, num_cores), kind, embeddings_scale=0.3, seed=seed
        ).full_table()
        for seed in range(40)
    ]
    values = np.sort(np.concatenate(tables).ravel()) / 0.3
    at = np.linspace(-3, 3, 61)
    found = np.searchsorted(values, at) / len(values)
    if kind == "approx_normal":
        wanted = np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in at])
    else:
        wanted = np.clip((at + 1) / 2, 0, 1)
        assert np.abs(values).max() <= 1 + 1e-5
    assert np.abs(found - wanted).max() < 0.02


@pytest.mark.parametrize(("kind", "variance"), [("normal", 0.09), ("uniform", 0.03)])
def test_cores_drawn_alike_give_the_variance(kind, variance):
    tables = [
        layer(ranks=(8, 8), embeddings_initializer=kind, embeddings_scale=0.3, seed=s).full_table() for s in range(60)
    ]
    assert abs(np.var(tables) / variance - 1) < 0.15


def test_keras_initializers_stand_for_ours():
    assert layer(embeddings_initializer=keras.initializers.RandomNormal(stddev=0.2)).embeddings_scale == 0.2
    made = layer(embeddings_initializer=keras.initializers.RandomUniform(-0.1, 0.1))
    assert (made.embeddings_initializer, made.embeddings_scale) == ("approx_uniform", 0.1)


def test_a_seed_fixes_the_table_and_none_follows_keras():
    np.testing.assert_array_equal(layer().full_table(), layer().full_table())
    tables = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        tables.append(layer(seed=None).full_table())
    np.testing.assert_array_equal(*tables)
    assert (layer(seed=1).full_table() != layer(seed=2).full_table()).any()


@pytest.mark.parametrize("factors", [((4, 5, 5), (2, 2, 3)), ((10, 10), (3, 4)), ((2, 5, 2, 5), (1, 3, 2, 2))])
def test_from_dense_is_exact_at_full_rank_and_keeps_its_error_otherwise(random, factors):
    table = random.normal(size=(97, DIM))
    exact = layers.TTEmbedding.from_dense(table, max_error=0.0, row_factors=factors[0], column_factors=factors[1])
    np.testing.assert_allclose(exact.full_table(), table, atol=1e-4)
    assert exact.approximation_error < 1e-5
    low = layers.TTEmbedding.from_dense(table, max_error=0.5, row_factors=factors[0], column_factors=factors[1])
    measured = np.linalg.norm(low.full_table() - table) / np.linalg.norm(table)
    assert abs(low.approximation_error - measured) < 1e-4
    assert measured <= 0.5
    assert sum(low.shape.ranks) < sum(exact.shape.ranks)
    ranked = layers.TTEmbedding.from_dense(table, ranks=3, row_factors=factors[0], column_factors=factors[1])
    assert max(ranked.shape.ranks) <= 3


def test_from_dense_finds_the_ranks_of_a_table_that_has_them():
    source = layer(num_embeddings=120, row_factors=(4, 5, 6), column_factors=(2, 2, 3), ranks=(3, 4))
    found = layers.TTEmbedding.from_dense(
        source.full_table(), max_error=1e-4, row_factors=(4, 5, 6), column_factors=(2, 2, 3)
    )
    assert found.shape.ranks == (3, 4)


def tower(embedding):
    return keras.Sequential([embedding, keras.layers.Flatten(), keras.layers.Dense(1)])


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
@pytest.mark.parametrize("reference", [False, True])
def test_fit_under_each_policy(random, policy, reference):
    keras.config.set_dtype_policy(policy)
    made = layer(reference=reference)
    model = tower(made)
    model.compile("sgd", "mse")
    model.build((None, 3))
    ids, labels = random.integers(ROWS, size=(64, 3)), random.normal(size=(64, 1))
    before = [c.copy() for c in model.get_weights()]
    model.fit(ids, labels, verbose=0, epochs=1)
    assert made(tf.constant([1])).dtype == made.compute_dtype
    assert all(np.isfinite(w.astype(np.float32)).all() for w in model.get_weights())
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adagrad": keras.optimizers.Adagrad, "adam": keras.optimizers.Adam}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fused_layer_trains_as_keras_does(random, name):
    ids, labels = random.integers(ROWS, size=(96, 3)), random.normal(size=(96, 1))
    weights = []
    for fused in (name, None):
        keras.utils.set_random_seed(1)
        made = layer(fused_optimizer=fused, fused_learning_rate=0.05, embeddings_scale=0.5)
        model = tower(made)
        model.compile(OPTIMIZERS[name](0.05), "mse")
        model.fit(ids, labels, batch_size=32, epochs=3, shuffle=False, verbose=0)
        weights.append([c.numpy() for c in made.cores])
        assert all((c.numpy() != f).any() for c, f in zip(made.cores, _first(made), strict=True))
    for fused, plain in zip(*weights, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=2e-4, atol=2e-5)


def _first(made):
    other = layers.TTEmbedding.from_config({**made.get_config(), "name": "other"})
    other.build()
    return [c.numpy() for c in other.cores]


@pytest.mark.parametrize("fused", [None, "sgd", "adagrad", "adam"])
def test_every_row_of_every_core_moves_when_all_ids_are_trained(fused):
    made = layer(fused_optimizer=fused, fused_learning_rate=0.1)
    model = tower(made)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.build((None, 1))
    before = [c.numpy() for c in made.cores]
    model.fit(np.arange(ROWS)[:, None], np.ones([ROWS, 1]), batch_size=ROWS, epochs=2, verbose=0)
    for core, first in zip(made.cores, before, strict=True):
        assert (core.numpy() != first).reshape(len(first), -1).any(axis=1).all()


def test_several_tables_are_as_many_layers():
    made = layer(num_tables=3)
    made.build()
    ids = tf.constant([[3, 99, 0], [5, 5, 5]])
    found = made(ids)
    assert found.shape == (2, 3, DIM)
    table = made.full_table().reshape(3, ROWS, DIM)
    for t in range(3):
        np.testing.assert_allclose(found[:, t], table[t][ids[:, t].numpy()], rtol=1e-5, atol=1e-7)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must lie in"):
        made(tf.constant([[100, 0, 0]]))  # not row 0 of the second table
    with pytest.raises(InputError, match="a last axis of 3"):
        made(tf.constant([[1, 2]]))


def test_save_load_and_mask(tmp_path, random):
    model = tower(layer(mask_zero=False))
    model.compile("adam", "mse")
    ids = random.integers(ROWS, size=(8, 3))
    model.fit(ids, np.ones([8, 1]), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(ids, verbose=0), again.predict(ids, verbose=0))
    masked = layer(mask_zero=True)
    np.testing.assert_array_equal(masked.compute_mask(tf.constant([0, 2])), [False, True])


def test_a_fused_layer_is_saved_with_its_slots(tmp_path, random):
    model = tower(layer(fused_optimizer="adam"))
    model.compile("adam", "mse")
    ids, labels = random.integers(ROWS, size=(8, 3)), np.ones([8, 1])
    model.fit(ids, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for m in (model, again):
        m.fit(ids, labels, verbose=0)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@NATIVE
def test_an_export_answers_in_a_new_process_after_importing_the_operations(tmp_path):
    model = keras.Sequential([keras.Input((3,), dtype="int32"), layer()])
    model.export(tmp_path / "model", verbose=False)
    wanted = model(tf.constant([[1, 2, 99]])).numpy()
    np.save(tmp_path / "wanted.npy", wanted)
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "if sys.argv[2] == 'with': import tfrec.ops\n"
        "loaded = tf.saved_model.load(sys.argv[1] + '/model')\n"
        "found = loaded.serve(tf.constant([[1, 2, 99]]))\n"
        "np.testing.assert_allclose(found, np.load(sys.argv[1] + '/wanted.npy'), rtol=1e-6)\n"
        "print('good')\n"
    )
    for how in ("with", "without"):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path), how], capture_output=True, text=True)
        if how == "with":
            assert done.stdout.endswith("good\n"), done.stderr
        else:
            assert "TfrecTtLookup" in done.stderr


def test_keras_does_not_choose_xla_where_a_gpu_is(monkeypatch, random):
    """On a machine with a GPU Keras compiles by XLA unless a layer says that it cannot."""
    real = tf.config.list_physical_devices

    def faked(kind=None):
        return [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")] if kind == "GPU" else real(kind)

    monkeypatch.setattr(tf.config, "list_physical_devices", faked)
    model = tower(layer())
    model.compile("sgd", "mse")
    assert not model.jit_compile
    model.fit(random.integers(ROWS, size=(8, 3)), np.ones([8, 1]), verbose=0)
    assert tower(layer(reference=True)).layers[0].supports_jit


def test_the_reference_compiles_by_xla():
    made, ids = layer(reference=True), tf.constant([3, 99, 3])
    compiled = tf.function(made.__call__, jit_compile=True)
    np.testing.assert_allclose(compiled(ids), made(ids), rtol=1e-5, atol=1e-7)


BAGS = [[5, 7, 7], [], [1], list(range(60)), []]


def in_form(form, values):
    if form == "ragged":
        return tf.ragged.constant(values)
    if form == "sparse":
        return tf.RaggedTensor.to_sparse(tf.ragged.constant(values))
    lengths = [len(v) for v in values]
    return tf.constant([x for v in values for x in v]), tf.constant(np.cumsum([0, *lengths[:-1]]))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("form", ["ragged", "sparse", "offsets"])
def test_bags(random, form, mode, weighted):
    made = layers.TTEmbeddingBag(ROWS, DIM, 5, seed=0, mode=mode)
    table = made.full_table().astype(np.float64)
    weights = [list(random.random(len(b)).astype(np.float32)) for b in BAGS]
    wanted = np.zeros([len(BAGS), DIM])
    for row, ids, w in zip(wanted, BAGS, weights, strict=True):
        if ids:
            w = np.asarray(w if weighted else np.ones(len(ids)), np.float64)
            divisor = {"sum": 1.0, "mean": w.sum(), "sqrtn": np.sqrt((w**2).sum())}[mode]
            row += (w @ table[ids]) / divisor
    given = in_form(form, weights) if weighted else None
    found = made(in_form(form, BAGS), given[0] if weighted and form == "offsets" else given)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_large_bag_and_its_gradient(random):
    made = layers.TTEmbeddingBag(ROWS, DIM, 5, seed=0)
    made.build()
    ids = random.integers(ROWS, size=(2, 1_000))
    with tf.GradientTape() as tape:
        found = made(tf.constant(ids))
    np.testing.assert_allclose(found, made.full_table()[ids].sum(axis=1), rtol=1e-3, atol=1e-4)
    gradients = tape.gradient(found, [c.value for c in made.cores])
    wanted = oracles.tt_gradients([c.numpy() for c in made.cores], ids.ravel(), np.ones([2_000, DIM]))
    for g, w in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5 * np.abs(w).max())


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.one_of(st.integers(0, 3), st.integers(0, 1_000)), max_size=6),
    st.integers(2, 5),
    st.sampled_from(["sum", "mean", "sqrtn"]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_bags_of_any_length_and_their_gradients(lengths, num_cores, mode, weighted, seed):
    random = np.random.default_rng(seed)
    factors = {"row_factors": (3,) * num_cores, "column_factors": (2,) * num_cores}
    rows, width = 3**num_cores - 1, 2**num_cores
    made = layers.TTEmbeddingBag(rows, width, 4, **factors, mode=mode, embeddings_scale=1.0, seed=seed)
    ids = random.integers(rows, size=sum(lengths))
    weights = random.uniform(0.1, 2.0, len(ids)).astype(np.float32) if weighted else np.ones(len(ids), np.float32)
    upstream = random.normal(size=(len(lengths), width)).astype(np.float32)
    made.build()
    cores = [core.numpy() for core in made.cores]
    # Each id's share of its bag's row.
    share, bag = weights.astype(np.float64), np.repeat(np.arange(len(lengths)), lengths)
    power = {"sum": None, "mean": 1, "sqrtn": 2}[mode]
    if power is not None:
        share = share / (np.bincount(bag, share**power, minlength=len(lengths))[bag] ** (1 / power))
    wanted = np.zeros((len(lengths), width))
    np.add.at(wanted, bag, share[:, None] * oracles.tt_table(cores, rows)[ids])
    ragged = tf.RaggedTensor.from_row_lengths(ids, np.array(lengths, np.int64))
    given_weights = ragged.with_values(tf.constant(weights)) if weighted else None
    with tf.GradientTape() as tape:
        found = made(ragged, given_weights)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(wanted).max(initial=0.0)))
    gradients = tape.gradient(found, [core.value for core in made.cores], upstream)
    expected = oracles.tt_gradients(cores, ids, share[:, None] * upstream[bag].astype(np.float64))
    for g, e in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(g), e, rtol=1e-3, atol=1e-5 * max(1.0, np.abs(e).max()))


def test_no_bags_and_no_ids():
    made = layers.TTEmbeddingBag(ROWS, DIM, 5)
    assert made(tf.zeros([0, 4], tf.int64)).shape == (0, DIM)
    assert made((tf.zeros([0], tf.int64), tf.zeros([3], tf.int64))).numpy().tolist() == [[0.0] * DIM] * 3
    assert layer()(tf.zeros([0], tf.int32)).shape == (0, DIM)


def test_offsets_that_fall_are_rejected():
    made = layers.TTEmbeddingBag(ROWS, DIM, 5)
    for offsets in ([0, 2, 1], [1, 2], [0, 4]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="offsets must begin at 0"):
            made((tf.constant([1, 2, 3]), tf.constant(offsets)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_embeddings": 0}, "`num_embeddings` must be at least 1"),
        ({"row_factors": (4, 5, 4)}, "`row_factors` must multiply to at least the number of rows"),
        ({"column_factors": (2, 2, 2)}, "`column_factors` must multiply to `embedding_dim`"),
        ({"row_factors": (10, 10), "column_factors": (2, 2, 3)}, "must have as many numbers"),
        ({"row_factors": (2, 2, 2, 2, 2, 4)}, "`row_factors` must have 2 to 5 numbers"),
        ({"ranks": (3, 3, 3)}, "`ranks` must be one number or 2"),
        ({"ranks": 0}, "`ranks` must be whole numbers from 1"),
        ({"embeddings_initializer": "glorot_uniform"}, "`embeddings_initializer` must be"),
        ({"embeddings_scale": 0.0}, "`embeddings_scale` must be above 0"),
        ({"dtype": "float64"}, "`dtype` must be of float32, float16, bfloat16"),
        ({"fused_optimizer": "lamb"}, "`fused_optimizer` must be one of sgd, adagrad, adam"),
        ({"fused_optimizer": "adam", "dtype": "mixed_float16"}, "does not go with float16"),
        ({"fused_optimizer": "adam", "fused_learning_rate": 0.0}, "`fused_learning_rate` must be above 0"),
    ],
)
def test_a_layer_rejects(options, message):
    with pytest.raises(InputError, match=message):
        layer(**options)


def test_ranks_beyond_the_exact_ones_are_clipped_with_a_message():
    with pytest.warns(TfrecWarning, match=r"clipped to \(8, 18\)"):
        made = layer(row_factors=(4, 5, 6), column_factors=(2, 2, 3), ranks=(100, 100))
    assert made.shape.ranks == (8, 18)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (np.zeros([0, 3]), {"ranks": 2}, "`table` must be a finite matrix"),
        (np.full([4, 3], np.nan), {"ranks": 2}, "`table` must be a finite matrix"),
        (np.zeros([4, 3]), {}, "Give `ranks` or `max_error`"),
        (np.zeros([4, 3]), {"max_error": 1.5}, "`max_error` must lie in"),
    ],
)
def test_from_dense_rejects(table, options, message):
    with pytest.raises(InputError, match=message):
        layers.TTEmbedding.from_dense(table, **options)


def test_a_bag_rejects():
    with pytest.raises(InputError, match="`mode` must be"):
        layers.TTEmbeddingBag(ROWS, DIM, mode="max")
    with pytest.raises(InputError, match="A bag is of one table"):
        layers.TTEmbeddingBag(ROWS, DIM, num_tables=2)
