"""ALS: the loss, the recommendations, what is folded in, saving, and what is rejected."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tests import oracles
from tfrec.errors import InputError
from tfrec.models import ALS
from tfrec.models.als_fit import balanced_range
from tfrec.ops import Sweep, als
from tfrec.serving import ServedUsers


def checkerboard(size=40):
    """Even users have even items, odd ones odd items; every user misses one, her own number."""
    dense = np.zeros((size, size), np.float32)
    for u in range(size):
        dense[u, u % 2 :: 2] = 1.0
    np.fill_diagonal(dense, 0.0)
    return scipy.sparse.csr_matrix(dense)


def random_matrix(random, users=60, items=40, density=0.2, dislikes=True):
    matrix = scipy.sparse.random(users, items, density, format="csr", random_state=random, dtype=np.float32)
    matrix.sort_indices()
    matrix.data = (random.random(matrix.nnz) * 3 + 0.1).astype(np.float32)
    if dislikes:
        matrix.data *= np.where(random.random(matrix.nnz) < 0.2, -1, 1).astype(np.float32)
    return matrix


SOLVERS = [{"solver": "cg"}, {"solver": "cholesky"}, {"solver": "block", "block_size": 2}]
KINDS = [{**s, "factor_dtype": d} for s in SOLVERS for d in ("float32", "float16")]


@pytest.fixture(params=KINDS, ids=lambda k: f"{k['solver']}-{k['factor_dtype']}")
def fitted(request):
    """A model of the checkerboard, and its matrix."""
    matrix = checkerboard()
    model = ALS(factors=2, regularization=0.1, iterations=10, alpha=20.0, seed=1, **request.param)
    model.fit(matrix, verbose=0)
    return model, matrix


def test_the_missing_square_is_recommended(fitted):
    model, matrix = fitted
    ids, scores = model.recommend(np.arange(40), matrix, k=1)
    assert ids[:, 0].tolist() == list(range(40))
    assert (scores > 0.5).all()
    one, score = model.recommend(3, matrix[3], k=1)
    assert one.tolist() == [3]
    np.testing.assert_allclose(score, scores[3], rtol=1e-3)


def test_similar_rows_have_the_same_colour(fitted):
    model, _ = fitted
    for similar in (model.similar_items, model.similar_users):
        ids, scores = similar(np.arange(40), k=15)
        assert (ids % 2 == (np.arange(40) % 2)[:, None]).all()
        np.testing.assert_allclose(scores[:, 0], 1.0, atol=2e-3)
        assert (np.diff(scores, axis=1) <= 0).all()
        one, score = similar(7, k=3)
        assert (one % 2 == 1).all()
        np.testing.assert_allclose(score, scores[7, :3], atol=2e-3)


def test_new_users_are_folded_in(fitted):
    model, matrix = fitted
    ids, _ = model.recommend(np.arange(40), matrix, k=1, recalculate=True)
    assert ids[:, 0].tolist() == list(range(40))
    row = scipy.sparse.csr_matrix((np.ones(3, np.float32), ([0, 0, 0], [1, 5, 9])), shape=(1, 40))
    ids, _ = model.recommend(1_000, row, k=10, recalculate=True)
    assert len(ids) == 10
    assert (ids % 2 == 1).all()
    assert not {1, 5, 9} & set(ids.tolist())


def test_partial_fit(fitted):
    model, matrix = fitted
    before = model.user_factors
    # What a fit would give this row: the exact solution for it.
    model.partial_fit_users([4], matrix[5])
    np.testing.assert_allclose(model.user_factors[4], model.recalculate_users(matrix[5])[0], rtol=1e-3)
    np.testing.assert_array_equal(np.delete(model.user_factors, 4, 0), np.delete(before, 4, 0))
    model.partial_fit_users([41], matrix[1])
    assert model.num_users == 42
    assert not model.user_factors[40].any()
    assert model.recommend(40, k=3, filter_seen=False)[0].tolist() == []
    assert (model.recommend(41, k=5, filter_seen=False)[0] % 2 == 1).all()
    column = scipy.sparse.csr_matrix((np.ones(4, np.float32), ([0] * 4, [0, 2, 6, 8])), shape=(1, 42))
    model.partial_fit_items([40], column)
    assert model.num_items == 41
    assert (model.similar_items(40, k=8)[0] % 2 == 0).all()


def test_explain(fitted):
    model, matrix = fitted
    score, items, parts = model.explain(matrix, 8, k=40, user=8)
    _, total = model.recommend(8, matrix[8], recalculate=True, filter_seen=False, items=[8])
    assert set(items.tolist()) == set(matrix[8].indices.tolist())
    np.testing.assert_allclose(parts.sum(), score, rtol=1e-4)
    np.testing.assert_allclose(score, total[0], atol=3e-3)


def test_explain_leaves_out_what_is_disliked(random):
    matrix = random_matrix(random)
    model = ALS(factors=6, iterations=3)
    model.fit(matrix, verbose=0)
    assert (matrix[4].data < 0).any()
    score, items, parts = model.explain(matrix, 8, k=40, user=4)
    assert set(items.tolist()) == set(matrix[4].indices[matrix[4].data > 0].tolist())
    # Disliked items still have their part in the score, as in the user's factors.
    wanted = model.recalculate_users(matrix[4])[0] @ model.item_factors[8]
    np.testing.assert_allclose([score, parts.sum()], wanted, rtol=1e-3, atol=1e-5)
    score, items, parts = model.explain(-abs(matrix[4]), 8)
    assert (score, len(items), len(parts)) == (0.0, 0, 0)


def test_explain_without_a_solution():
    model = ALS(factors=4, iterations=1, regularization=0.0, unobserved_weight=0.0, num_users=3, num_items=3)
    with pytest.raises(InputError, match="model has no regularization"):
        model.explain(scipy.sparse.csr_array(np.eye(3))[0], 1)


@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize("options", KINDS)
def test_dislikes_only(random, monkeypatch, options, twin):
    """Nothing is recommended to who likes nothing, and nothing is similar to what nobody likes."""
    if twin:
        monkeypatch.setattr(als, "library", lambda: None)
    matrix = random_matrix(random)
    dense = matrix.toarray()
    dense[5], dense[11], dense[:, 9] = -np.abs(dense[5]), 0, -np.abs(dense[:, 9])
    dense[11, 3] = -0.5
    matrix = scipy.sparse.csr_array(dense)
    model = ALS(factors=6, iterations=3, alpha=4.0, **options)
    model.fit(matrix, verbose=0)
    assert not model.user_factors[[5, 11]].any()
    assert not model.item_factors[9].any()
    assert np.isfinite(model.training_loss(matrix))
    for recalculate in (False, True):
        ids, scores = model.recommend([5, 6, 11], matrix[[5, 6, 11]], k=3, recalculate=recalculate)
        assert ids[[0, 2]].tolist() == [[-1] * 3] * 2
        assert (scores[[0, 2]] == -np.inf).all()
        assert (ids[1] >= 0).all()
        assert model.recommend(5, filter_seen=False)[0].tolist() == []
    assert model.similar_items(9)[0].tolist() == []
    assert 9 not in model.similar_items(8, k=40)[0]
    assert model.similar_users(5)[0].tolist() == []
    assert not {5, 11} & set(model.similar_users(6, k=60)[0].tolist())
    model.partial_fit_users([6], matrix[5])
    assert model.recommend(6, filter_seen=False)[0].tolist() == []
    rows = tf.sparse.from_dense(dense[[5, 7]])
    assert not model(rows)[0].numpy().any()
    # Served: nothing, and not the first items of the catalogue with a score of 0.
    assert model.answerable(rows).numpy().tolist() == [False, True]
    assert model.answerable(matrix[[5, 7, 11]]).numpy().tolist() == [False, True, False]
    assert model.answerable([5, 7]).numpy().tolist() == [False, True]
    names = (np.arange(60), np.arange(40), np.arange(40), np.ones(40))
    served = ServedUsers(model, *names, scipy.sparse.csr_matrix(matrix))
    answer = served.recommend(tf.constant([5, 7], tf.int64), tf.constant(3))
    assert answer["counts"].numpy().tolist() == [0, 3]
    assert answer["ids"][0].numpy().tolist() == [-1] * 3
    assert served.score(tf.constant([5], tf.int64), tf.constant([[1, 2]], tf.int64))["scores"].numpy().tolist() == [
        [0, 0]
    ]


def test_choosing_and_leaving_out(fitted):
    model, matrix = fitted
    ids, _ = model.recommend(2, matrix[2], k=50)
    assert sorted(ids.tolist()) == sorted(set(range(40)) - set(matrix[2].indices.tolist()))
    ids, _ = model.recommend(2, filter_seen=False, filter_items=[0, 4], k=50)
    assert sorted(ids.tolist()) == sorted(set(range(40)) - {0, 4})
    ids, _ = model.recommend([2, 3], matrix[[2, 3]], items=[2, 3, 4, 6], k=4)
    assert ids[0].tolist() == [2, 3, -1, -1]  # she has 4 and 6
    assert ids[1, 0] == 3
    assert sorted(ids[1].tolist()) == [2, 3, 4, 6]
    ranked, scores = model.rank_items(2, [5, 2, 7, 8])
    assert sorted(ranked.tolist()) == [2, 5, 7, 8]
    assert set(ranked[:2].tolist()) == {2, 8}
    assert (np.diff(scores) <= 0).all()
    assert 3 not in model.similar_items(5, k=40, filter_items=[3])[0]


@pytest.mark.parametrize("options", KINDS)
def test_saved_models_answer_the_same(tmp_path, random, options):
    matrix = random_matrix(random)
    model = ALS(factors=5, iterations=2, seed=3, frequency_exponent=1.0, unobserved_weight=0.2, **options)
    model.fit(matrix, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.get_config() == model.get_config()
    assert again.item_factors.dtype == np.dtype(options["factor_dtype"])
    np.testing.assert_array_equal(again.item_factors, model.item_factors)
    for a, b in zip(again.recommend([0, 1], matrix[:2]), model.recommend([0, 1], matrix[:2]), strict=True):
        np.testing.assert_array_equal(a, b)


CHILD = """
import sys
import keras, numpy as np, scipy.sparse
from tfrec import commands
commands.quiet_tensorflow()
import tfrec.models
model = keras.models.load_model("m.keras")
model.export("served", verbose=False)
rows = scipy.sparse.load_npz("rows.npz")
ids, scores = model.recommend([0, 1, 89], rows, k=5)
similar, _ = model.similar_items([0, 40], k=5)
old = model.recalculate_items(scipy.sparse.load_npz("old.npz"))
model.partial_fit_users([90], rows[[0]])
model.save("again.keras")
np.savez("answers.npz", ids=ids, scores=scores, similar=similar, old=old, users=model.user_factors)
"""


def test_daily_updates_are_saved_loaded_and_exported_in_a_new_process(tmp_path, random):
    matrix = random_matrix(random)
    model = ALS(factors=5, iterations=2, seed=3, factor_dtype="float16")
    model.fit(matrix, verbose=0)
    sizes, layers = [], [layer.name for layer in model.layers]
    for day in range(30):
        model.partial_fit_users([60 + day, day], matrix[[day, day + 1]])
        if day % 10 == 0:
            model.partial_fit_items([40 + day // 10], abs(random_matrix(random, 1, model.num_users)))
        model.save(tmp_path / "m.keras")
        sizes.append((tmp_path / "m.keras").stat().st_size)
    assert (model.num_users, model.num_items) == (90, 43)
    assert [layer.name for layer in model.layers] == layers == ["users", "items"]
    assert [w.shape for w in model.weights] == [(90, 5), (43, 5)]
    # A user a day and three items: the file grows by their numbers.
    assert sizes[-1] - sizes[0] <= (29 + 2) * 5 * 2 + 64
    rows = scipy.sparse.csr_array(scipy.sparse.hstack([matrix[[0, 1, 2]], np.zeros((3, 3))]))
    old = scipy.sparse.csr_matrix(matrix.T[[3, 4]])
    scipy.sparse.save_npz(tmp_path / "rows.npz", rows)
    scipy.sparse.save_npz(tmp_path / "old.npz", old)
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ids, scores = model.recommend([0, 1, 89], rows, k=5)
    with np.load(tmp_path / "answers.npz") as found:
        np.testing.assert_array_equal(found["ids"], ids)
        np.testing.assert_array_equal(found["scores"], scores)
        np.testing.assert_array_equal(found["similar"], model.similar_items([0, 40], k=5)[0])
        np.testing.assert_array_equal(found["old"], model.recalculate_items(old))
        model.partial_fit_users([90], rows[0])
        np.testing.assert_array_equal(found["users"], model.user_factors)
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(again.user_factors, model.user_factors)
    assert again.get_config() == model.get_config()
    served = tf.saved_model.load(str(tmp_path / "served"))
    users, items = np.array([0, 1, 89]), np.array([3, 42, 0])
    wanted = (model.user_factors[users].astype(np.float32) * model.item_factors[items].astype(np.float32)).sum(axis=1)
    answer = served.signatures["serving_default"](users=tf.constant(users), items=tf.constant(items))
    np.testing.assert_allclose(next(iter(answer.values())), wanted, rtol=1e-5)


def test_export_of_a_model_that_was_never_called(tmp_path, random):
    matrix = random_matrix(random)
    model = ALS(factors=5, iterations=1)
    model.fit(matrix, verbose=0)
    model.export(tmp_path / "fitted", verbose=False)
    model.partial_fit_users([60], matrix[0])
    model.export(tmp_path / "longer", verbose=False)
    pairs = (tf.constant([0, 60], tf.int64), tf.constant([1, 2], tf.int64))
    served = tf.saved_model.load(str(tmp_path / "longer"))
    np.testing.assert_allclose(served.serve(pairs), model(pairs), rtol=1e-6)
    earlier = tf.saved_model.load(str(tmp_path / "fitted"))
    with pytest.raises(tf.errors.InvalidArgumentError):
        earlier.serve(pairs)  # it had 60 users


def test_predict_sees_what_partial_fits_change(random):
    matrix = random_matrix(random)
    model = ALS(factors=5, iterations=1)
    model.fit(matrix, verbose=0)
    for users, rows in (([0], [7]), ([60, 1], [8, 9]), ([2], [3])):
        model.partial_fit_users(users, matrix[rows])
        pairs = (np.array(users), np.zeros(len(users), int))
        wanted = model.user_factors[users] @ model.item_factors[0]
        np.testing.assert_allclose(model.predict(pairs, verbose=0), wanted, rtol=1e-5)
        np.testing.assert_allclose(model(pairs), wanted, rtol=1e-5)


def test_rows_may_be_as_wide_as_at_fit_after_partial_fits(random):
    """Who updates daily has the matrix of that day: newer users have nothing in it."""
    matrix = random_matrix(random)
    model = ALS(factors=5, iterations=2)
    model.fit(matrix, verbose=0)
    model.partial_fit_users([100], matrix[5])
    model.partial_fit_items([45], abs(matrix.T[[7]]))
    assert (model.num_users, model.num_items) == (101, 46)
    wide = scipy.sparse.csr_matrix(scipy.sparse.hstack([matrix.T, np.zeros((40, 41))]))
    np.testing.assert_array_equal(model.recalculate_items(matrix.T), model.recalculate_items(wide))
    between = scipy.sparse.csr_matrix(wide[:, :80])
    np.testing.assert_array_equal(model.recalculate_items(between), model.recalculate_items(wide))
    wide = scipy.sparse.csr_matrix(scipy.sparse.hstack([matrix, np.zeros((60, 6))]))
    answers = [model.recommend([3, 4], m[[3, 4]]) for m in (matrix, wide)]
    for narrow, padded in zip(*answers, strict=True):
        np.testing.assert_array_equal(narrow, padded)
    assert model.explain(matrix, 45, user=3)[0] == model.explain(wide, 45, user=3)[0]
    np.testing.assert_allclose(
        model(tf.sparse.from_dense(matrix[[3]].toarray())), model(tf.sparse.from_dense(wide[[3]].toarray()))
    )
    for width in (59, 102):
        message = rf"\('any', 101\), or have from 60 columns.\nReceived: shape \(1, {width}\)"
        with pytest.raises(InputError, match=message):
            model.partial_fit_items([0], scipy.sparse.csr_matrix((1, width)))
    # A new fit begins anew.
    model.fit(scipy.sparse.csr_matrix(scipy.sparse.vstack([wide, np.ones((41, 46))])), verbose=0)
    with pytest.raises(InputError, match=r"must be of shape \('any', 101\).\nReceived"):
        model.recalculate_items(matrix.T)


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "float64"])
def test_scores_are_float32_in_every_policy(random, policy):
    matrix = random_matrix(random) * 1e5  # beyond float16
    model = ALS(factors=5, iterations=2, dtype=policy)
    model.fit(matrix, verbose=0)
    pairs = model((keras.Input((), dtype="int32"), keras.Input((), dtype="int32")))
    rows = model(keras.Input((40,), sparse=True))
    found = model(tf.sparse.from_dense(matrix[[3, 4]].toarray()))
    assert pairs.dtype == rows.dtype == "float32"
    assert model((np.array([0]), np.array([1]))).dtype == model.scores(np.array([0])).dtype == found.dtype == tf.float32
    wanted = model.recalculate_users(matrix[[3, 4]]) @ model.item_factors.T
    np.testing.assert_allclose(found, wanted, atol=1e-2 * np.abs(wanted).max())


def test_call_takes_rows_in_any_order_and_none_twice_for_zeros(random):
    matrix = random_matrix(random)
    model = ALS(factors=5, iterations=2)
    model.fit(matrix, verbose=0)
    rows = tf.sparse.from_dense(matrix[[3, 4]].toarray())
    order = random.permutation(len(rows.values))
    shuffled = tf.SparseTensor(tf.gather(rows.indices, order), tf.gather(rows.values, order), rows.dense_shape)
    zeros = np.argwhere(matrix[[3, 4]].toarray() > -99)
    full = tf.SparseTensor(zeros, matrix[[3, 4]].toarray().ravel(), rows.dense_shape)
    for other in (shuffled, full):
        np.testing.assert_allclose(model(other), model(rows), atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="A row's factors are not finite"):
        model(tf.sparse.from_dense(np.full((1, 40), np.nan, np.float32)))
    traced = tf.function(lambda x: model(x), input_signature=[tf.SparseTensorSpec([None, None], tf.float32)])
    np.testing.assert_allclose(traced(rows), model(rows), atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Rows must have 40 columns"):
        traced(tf.sparse.from_dense(np.ones((1, 41), np.float32)))


def test_similar_items_of_very_small_and_very_large_factors():
    model = ALS(factors=2, num_users=1, num_items=4)
    model.items.table.assign(np.array([[1e-30, 0], [1e25, 1e25], [0, 1e-3], [0, 0]], np.float32))
    ids, scores = model.similar_items(0)
    assert ids.tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores, [1, np.sqrt(0.5), 0], atol=1e-6)


@pytest.mark.parametrize("objective", [{}, {"alpha": 3.0, "unobserved_weight": 0.2, "frequency_exponent": 1.0}])
@pytest.mark.parametrize("options", SOLVERS)
def test_training_loss_is_the_objective_and_falls(random, options, objective):
    matrix = random_matrix(random)
    losses = []
    model = ALS(factors=8, iterations=8, seed=1, **options, **objective)
    history = model.fit(
        matrix, callback=lambda i, s, loss: losses.append(loss), verbose=0, calculate_training_loss=True
    )
    full = {"alpha": 1.0, "regularization": 0.01, "unobserved_weight": 1.0, "frequency_exponent": 0.0, **objective}
    wanted = oracles.als_loss(matrix, model.user_factors, model.item_factors, **full)
    assert losses[-1] == history.history["loss"][-1]
    np.testing.assert_allclose([losses[-1], model.training_loss(matrix)], wanted, rtol=1e-5)
    assert (np.diff(losses) <= 1e-6 * np.array(losses[:-1])).all()


@pytest.mark.parametrize("values", [[[3.0]], [[1, 0, 2, 0, 0]], [[1], [0], [5], [0]], np.eye(10, 8)], ids=str)
@pytest.mark.parametrize("regularization", [0.0, 1e-8, 1e-6])
def test_more_factors_than_the_matrix_has_directions(values, regularization):
    """Without regularization nothing but the solver itself keeps factors out of directions that do not matter."""
    matrix = scipy.sparse.csr_matrix(np.array(values, np.float32))
    model = ALS(factors=16, regularization=regularization, seed=1)
    losses = model.fit(matrix, verbose=0, calculate_training_loss=True).history["loss"]
    assert abs(losses[-1]) < 1e-3
    assert np.abs(model.user_factors).max() < 100


@pytest.mark.parametrize(
    "factors", [64, pytest.param(128, marks=pytest.mark.slow), pytest.param(256, marks=pytest.mark.slow)]
)
def test_the_solvers_on_movielens_1m(real_data, factors):
    """Cholesky's loss falls in each iteration; after 15, CG and block are within .1 % of it, or below."""
    from tfrec.data import load

    matrix = load("ml-1m", str(real_data("ml-1m"))).to_csr()
    matrix.data[:] = matrix.data >= 4
    matrix.eliminate_zeros()
    losses = {}
    for solver in ("cholesky", "cg", "block"):
        model = ALS(factors=factors, solver=solver, seed=1)
        losses[solver] = model.fit(matrix, verbose=0, calculate_training_loss=True).history["loss"]
    assert (np.diff(losses["cholesky"]) < 0).all()
    for solver in ("cg", "block"):
        assert losses[solver][-1] <= losses["cholesky"][-1] * 1.001


def test_a_sweep_is_the_exact_solution_of_each_side(random):
    matrix = random_matrix(random)
    objective = {"alpha": 2.0, "regularization": 0.05, "unobserved_weight": 0.4, "frequency_exponent": 1.0}
    model = ALS(factors=7, iterations=1, solver="cholesky", seed=2, num_users=60, num_items=40, **objective)
    items = model.item_factors
    model.fit(matrix, verbose=0)
    users = oracles.als_rows(matrix.indptr, matrix.indices, matrix.data, items, **objective)
    transposed = scipy.sparse.csr_matrix(matrix.T)
    wanted = oracles.als_rows(transposed.indptr, transposed.indices, transposed.data, users, **objective)
    np.testing.assert_allclose(model.user_factors, users, atol=1e-4 * np.abs(users).max())
    np.testing.assert_allclose(model.item_factors, wanted, atol=1e-4 * np.abs(wanted).max())


def test_the_same_matrix_in_other_forms(random):
    matrix = random_matrix(random)
    coo = matrix.tocoo()
    shuffled = random.permutation(coo.nnz)
    forms = [
        scipy.sparse.coo_matrix((coo.data[shuffled], (coo.row[shuffled], coo.col[shuffled])), coo.shape),
        matrix.tocsc(),
        matrix.astype(np.float64),
        scipy.sparse.csr_array(matrix),
        tf.SparseTensor(np.stack([coo.row, coo.col], 1).astype(np.int64), coo.data, coo.shape),
    ]
    unsorted = matrix.copy()
    for u in range(60):
        part = slice(unsorted.indptr[u], unsorted.indptr[u + 1])
        unsorted.indices[part], unsorted.data[part] = unsorted.indices[part][::-1], unsorted.data[part][::-1]
    unsorted.has_sorted_indices = False
    found = []
    for form in [matrix, *forms, unsorted]:
        model = ALS(factors=4, iterations=2, seed=1)
        model.fit(form, verbose=0)
        found.append(model.item_factors)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_users_and_items_without_entries(random):
    matrix = random_matrix(random).tolil()
    matrix[5] = 0
    matrix[:, 9] = 0
    matrix = scipy.sparse.csr_matrix(matrix)
    model = ALS(factors=4, iterations=2)
    model.fit(matrix, verbose=0)
    assert not model.user_factors[5].any()
    assert not model.item_factors[9].any()
    assert model.recommend(5, matrix[5])[0].tolist() == []
    ids, scores = model.recommend([5, 6], matrix[[5, 6]], k=3)
    assert ids[0].tolist() == [-1, -1, -1]
    assert (scores[0] == -np.inf).all()
    assert (ids[1] >= 0).all()
    assert model.similar_items(9)[0].tolist() == []
    assert 9 not in model.similar_items(8, k=40)[0]
    score, items, parts = model.explain(matrix, 3, user=5)
    assert (score, len(items), len(parts)) == (0.0, 0, 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_smallest_shapes(shape):
    matrix = scipy.sparse.csr_matrix(np.ones(shape, np.float32))
    model = ALS(factors=3, iterations=2)
    model.fit(matrix, verbose=0)
    ids, _ = model.recommend(0, filter_seen=False, k=1)
    assert len(ids) == 1
    assert model.recommend(0, matrix[0])[0].tolist() == []


def test_call_scores_pairs_and_rows_of_new_users(random):
    matrix = random_matrix(random)
    model = ALS(factors=6, iterations=3, regularization=0.5, unobserved_weight=0.3, frequency_exponent=1.0, alpha=2.0)
    model.fit(matrix, verbose=0)
    users, items = np.array([0, 5, 7]), np.array([3, 3, 1])
    wanted = (model.user_factors[users] * model.item_factors[items]).sum(1)
    np.testing.assert_allclose(model((users, items)), wanted, atol=1e-5)
    np.testing.assert_allclose(model.scores(users, items[:, None])[:, 0], wanted, atol=1e-5)
    coo = matrix.tocoo()
    rows = tf.SparseTensor(np.stack([coo.row, coo.col], 1).astype(np.int64), coo.data, coo.shape)
    folded = model.recalculate_users(matrix) @ model.item_factors.T
    np.testing.assert_allclose(model(rows), folded, atol=1e-3 * np.abs(folded).max())
    in_graph = tf.function(lambda x: model(x), input_signature=[tf.SparseTensorSpec([None, 40], tf.float32)])
    np.testing.assert_allclose(in_graph(rows), model(rows), atol=1e-5)


def test_seeds_decide(random):
    matrix = random_matrix(random)

    def factors(seed):
        model = ALS(factors=4, iterations=1, seed=seed)
        model.fit(matrix, verbose=0)
        return model.item_factors

    np.testing.assert_array_equal(factors(0), factors(0))
    assert np.abs(factors(0) - factors(1)).max() > 1e-4


@pytest.mark.parametrize("options", SOLVERS)
def test_folding_in_is_exact_whatever_the_solver(random, options):
    """Also where the model itself takes one step of conjugate gradients, or blocks of two."""
    matrix = random_matrix(random)
    objective = {"alpha": 2.0, "regularization": 0.05, "unobserved_weight": 0.4, "frequency_exponent": 1.0}
    model = ALS(factors=7, iterations=1, seed=2, cg_steps=1, factor_dtype="float32", **objective, **options)
    model.fit(matrix, verbose=0)
    wanted = oracles.als_rows(matrix.indptr, matrix.indices, matrix.data, model.item_factors, **objective)
    np.testing.assert_allclose(model.recalculate_users(matrix), wanted, atol=1e-4 * np.abs(wanted).max())
    columns = scipy.sparse.csr_matrix(matrix.T)
    wanted = oracles.als_rows(columns.indptr, columns.indices, columns.data, model.user_factors, **objective)
    np.testing.assert_allclose(model.recalculate_items(columns), wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("solver", ["cg", "cholesky", "block"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_ranks_share_all_rows_evenly(random, solver, size):
    """Also of rows in order of length, of which equal numbers are no equal work."""
    lengths = (random.pareto(2.0, 5_000) * 30).astype(np.int64)
    # What a row of 32 factors costs besides its entries, as a number of entries.
    besides = {"cg": 32 / 3, "cholesky": 32 / 2, "block": 2}[solver]
    for rows in (lengths, np.sort(lengths)):
        edges = [balanced_range(rows, 32, Sweep(solver=solver), rank, size) for rank in range(size)]
        assert [e[0] for e in edges] + [5_000] == [0] + [e[1] for e in edges]
        work = [(rows[a:b] + besides).sum() for a, b in edges]
        assert max(work) < 1.3 * min(work)


def test_layers_fake_gpu_does_not_compile(monkeypatch):
    """Keras compiles with XLA where it sees a GPU; there is no XLA kernel for the half-sweep."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["GPU:0"])
    model = ALS(factors=2, num_users=3, num_items=4)
    assert not model.supports_jit
    assert not model.users.supports_jit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factors": 0}, "`factors` must be a whole number from 1 to 1024"),
        ({"factors": -3}, "Received: factors=-3"),
        ({"factors": 1025}, "Received: factors=1025"),
        ({"factors": 2.5}, "Received: factors=2.5"),
        ({"factor_dtype": "bfloat16"}, "`factor_dtype` must be 'float16' or 'float32'"),
        ({"regularization": -1.0}, "`regularization` must be at least 0"),
        ({"alpha": 0.0}, "`alpha` must be above 0"),
        ({"iterations": 0}, "`iterations` must be at least 1"),
        ({"seed": -1}, "`seed` must be a whole number from 0"),
        ({"solver": "sgd"}, "`solver` must be one of"),
    ],
)
def test_rejected_arguments(options, message):
    with pytest.raises(InputError, match=message):
        ALS(**options)


def _with(value):
    matrix = checkerboard(6)
    matrix.data[2] = value
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (scipy.sparse.csr_matrix((3, 4), dtype=np.float32), "must have entries"),
        (np.ones((3, 3)), "must be a SciPy sparse matrix"),
        (_with(np.nan), "NaN or infinity in row 1"),
        (_with(np.inf), "NaN or infinity in row 1"),
        (scipy.sparse.coo_matrix(([1.0, 2.0], ([0, 0], [1, 1])), (2, 3)), "occurs twice"),
        (scipy.sparse.csr_matrix((np.ones(2), [1, 1], [0, 2]), (1, 3)), "occurs twice"),
        (tf.SparseTensor([[0, 0], [0, 0]], [1.0, 1.0], [2, 2]), "occurs twice"),
    ],
)
def test_rejected_matrices(matrix, message):
    with pytest.raises(InputError, match=message):
        ALS(factors=2, iterations=1).fit(matrix, verbose=0)


def test_rejected_questions():
    matrix = checkerboard(6)
    model = ALS(factors=2, iterations=1)
    with pytest.raises(InputError, match=r"Call fit\(user_items\) first"):
        model.recommend(0, filter_seen=False)
    model.fit(matrix, verbose=0)
    for call, message in (
        (lambda: model.fit(checkerboard(7), verbose=0), r"must be of the model's shape, \(6, 6\)"),
        (lambda: model.recommend(6, filter_seen=False), "`users` must lie in 0 to 5.\nReceived: 6"),
        (lambda: model.recommend(-1, filter_seen=False), "Received: -1"),
        (lambda: model.recommend(0.5, filter_seen=False), "must be a whole number"),
        (lambda: model.recommend(0), "needs `user_items`"),
        (lambda: model.recommend(0, matrix), r"must be of shape \(1, 6\)"),
        (lambda: model.recommend(0, filter_seen=False, k=0), "`k` must be at least 1"),
        (lambda: model.recommend(0, filter_seen=False, items=[9]), "`items` must lie in 0 to 5"),
        (lambda: model.recommend(0, filter_seen=False, items=[1], filter_items=[2]), "not both"),
        (lambda: model.similar_items(6), "`items` must lie in 0 to 5"),
        (lambda: model.similar_items(0, recalculate=True), "needs `item_users`"),
        (lambda: model.recalculate_users(checkerboard(7)), r"must be of shape \('any', 6\)"),
        (lambda: model.partial_fit_users([1, 1], matrix[:2]), "may occur once"),
        (lambda: model.partial_fit_users([1], matrix[:2]), "A row is needed for each"),
        (lambda: model.explain(matrix, 7), "`item` must lie in 0 to 5"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_too_large_for_float16_is_said():
    model = ALS(
        factors=1,
        iterations=1,
        solver="cholesky",
        factor_dtype="float16",
        regularization=1e-13,
        unobserved_weight=0.0,
        num_users=6,
        num_items=6,
    )
    model.items.table.assign(np.full((6, 1), 1e-6))  # so that x = 1 / 1e-6
    with pytest.raises(InputError, match="factors of user 0 are not finite, or beyond float16's 65,504"):
        model.fit(checkerboard(6), verbose=0)
