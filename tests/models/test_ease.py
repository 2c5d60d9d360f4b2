"""EASE against a plain float64 inverse, and what people ask of it."""

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tests import oracles
from tfrec.data import load
from tfrec.data.splits import strong_generalization
from tfrec.errors import InputError
from tfrec.evaluation import evaluate_full_ranking
from tfrec.models import EASE, ease, ease_solve


def _counts(random, users=60, items=23, density=0.2):
    """Counts with a user without anything, and one with everything."""
    dense = np.where(random.random((users, items)) < density, random.integers(1, 5, (users, items)), 0)
    dense[3], dense[5] = 0, 1
    return scipy.sparse.csr_matrix(dense.astype(np.float32))


@pytest.fixture
def plays(random):
    return _counts(random)


@pytest.fixture
def model(plays):
    model = EASE(plays.shape[1], 3.0)
    model.fit(plays, verbose=0)
    return model


def _tensor(matrix):
    return tf.sparse.from_dense(matrix.toarray())


# ---- the closed form


def test_weights_are_the_closed_form(model, plays):
    weights = model.item_weights.numpy()
    np.testing.assert_allclose(weights, oracles.ease_weights(plays, 3.0), atol=2e-6)
    assert (np.diag(weights) == 0).all()


def test_an_item_of_nobody_says_nothing_and_nothing_speaks_for_it():
    model = EASE(3, 1.0)
    model.fit(scipy.sparse.csr_matrix([[1.0, 0, 1], [1, 0, 0]]), verbose=0)
    # G = [[3, 1], [1, 2]] for the two others, P = [[2, -1], [-1, 3]] / 5.
    np.testing.assert_allclose(model.item_weights, [[0, 0, 1 / 3], [0, 0, 0], [1 / 2, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("items", [1, 2, 63, 64, 65, 200])
@pytest.mark.parametrize("density", [0.02, 0.6])
def test_any_number_of_items_in_any_blocks(random, monkeypatch, items, density):
    """Panels, blocks and squares of a few rows, the last ones shorter, and rows that are multiplied either way."""
    monkeypatch.setattr(ease_solve, "_BLOCK", 300)
    monkeypatch.setattr(ease_solve, "_DENSE_BYTES", 4 * 7 * items)
    monkeypatch.setattr(ease_solve, "_SQUARE", 48)
    monkeypatch.setattr(ease_solve, "_INVERSE_BLOCK", 32)
    dense = np.where(random.random((90, items)) < density, random.integers(1, 4, (90, items)), 0)
    dense[0, 0] = 1
    plays = scipy.sparse.csr_matrix(dense.astype(np.float32))
    gram = np.full((items, items), np.nan, np.float32)
    ease_solve.fill_gramian(gram, plays, 50.0)
    np.testing.assert_array_equal(np.triu(gram), np.triu(dense.T @ dense + 50 * np.eye(items)))
    model = EASE(items, 50.0)
    history = model.fit(plays, verbose=0)
    found, wanted = model.item_weights.numpy(), oracles.ease_weights(plays, 50.0)
    np.testing.assert_allclose(found, wanted, atol=3e-6)
    assert history.history["weight_error"][0] < 3e-6


def test_known_figures_on_movielens_1m(real_data):
    """Steck's model on Liang's split: the figures of the float64 inverse, see tests/evaluation/test_full_ranking.py."""
    split = strong_generalization(load("ml-1m", real_data("ml-1m")), 600)
    model = EASE(split.train.shape[1], 800.0)
    history = model.fit(split.train, verbose=0)
    report = evaluate_full_ranking(lambda _, seen: model.scores(seen).numpy(), split.test_in, split.test_out)
    figures = [round(report.metrics[m], 4) for m in ("recall@20", "recall@50", "ndcg@100")]
    assert figures == [0.3557, 0.4777, 0.4252]
    # What the fit says of its error is true to a factor of 10.
    error = np.abs(model.item_weights.numpy() - oracles.ease_weights(split.train, 800)).max()
    assert error < 1e-5
    assert 0.1 < history.history["weight_error"][0] / error < 10


def test_input_forms_give_one_answer(model, plays):
    for given in (plays.tocsc(), scipy.sparse.coo_array(plays), plays.astype(np.int64), _tensor(plays)):
        other = EASE(plays.shape[1], 3.0)
        other.fit(given, verbose=0)
        np.testing.assert_array_equal(other.item_weights, model.item_weights)


def test_a_fit_starts_from_nothing(model, plays):
    wanted = model.item_weights.numpy()
    model.carry_over(EASE(4), None, None)
    np.testing.assert_array_equal(model.item_weights, wanted)
    model.item_weights.assign(np.full_like(wanted, 7.0))
    model.fit(plays, verbose=0)
    np.testing.assert_array_equal(model.item_weights, wanted)


def test_says_what_it_needs_and_took(plays, capsys):
    EASE(plays.shape[1]).fit(plays)
    before, after = capsys.readouterr().out.splitlines()
    assert "23 items" in before
    assert "GiB are free" in before
    assert "inverse" in after
    assert "the largest error of a weight is about" in after


# ---- memory


def test_weights_stay_where_they_are(plays):
    """A large weight would not fit twice."""
    model = EASE(plays.shape[1], 3.0)

    def place():
        return np.asarray(tf.convert_to_tensor(model.item_weights.value)).ctypes.data

    held = tf.convert_to_tensor(model.item_weights.value)
    before = place()
    model.fit(plays, verbose=0)
    assert place() == before
    assert np.asarray(held).any()


def test_weights_that_cannot_be_written_to_in_place(model, plays):
    """After an update of single rows TensorFlow gives copies to read."""
    other = EASE(plays.shape[1], 3.0)
    other.item_weights.value.scatter_nd_update([[0]], tf.ones([1, plays.shape[1]]))
    other.fit(plays, verbose=0)
    np.testing.assert_array_equal(other.item_weights, model.item_weights)


def test_refuses_what_does_not_fit(plays, monkeypatch):
    with pytest.raises(
        InputError, match=r"weights of 10,000,000 items need 372,529.0 GiB, .*\n.*\nLeave out rare items"
    ):
        EASE(10_000_000)
    model = EASE(plays.shape[1])
    monkeypatch.setattr(ease, "free_bytes", lambda: 1e6)
    with pytest.raises(InputError, match=r"fit, besides its weights, of 23 items need 0\.\d GiB, this machine has 0.0"):
        model.fit(plays, verbose=0)


# ---- what people ask


def test_scores(model, plays):
    wanted = plays.toarray() @ oracles.ease_weights(plays, 3.0)
    for queries in (plays, scipy.sparse.csr_array(plays), _tensor(plays)):
        np.testing.assert_allclose(model.scores(queries), wanted, atol=2e-5)
    np.testing.assert_allclose(model(plays.toarray()), wanted, atol=2e-5)
    found = model.scores(plays)
    np.testing.assert_array_equal(model.link(found, found), found)
    assert not found[3].numpy().any()
    assert model.answerable(plays).numpy().tolist() == (plays.getnnz(axis=1) > 0).tolist()


@pytest.mark.parametrize("candidates", [1, 2, 200])
@pytest.mark.parametrize("graph", [False, True])
def test_scores_of_candidates(model, plays, random, candidates, graph):
    """Few candidates are scored one by one, of many the scores of all items are taken."""
    items = random.integers(0, plays.shape[1], (plays.shape[0], candidates)).astype(np.int32)
    score = tf.function(model.scores) if graph else model.scores
    found = score(_tensor(plays), tf.constant(items))
    assert found.shape == items.shape
    np.testing.assert_allclose(found, np.take_along_axis(model.scores(plays).numpy(), items, axis=1), atol=1e-5)


def test_recommends_the_best_unseen(model, plays):
    ids, scores = model.recommend(plays, k=4)
    for user, (row, found) in enumerate(zip(model.scores(plays).numpy(), ids, strict=True)):
        if plays[user].nnz == 0:
            assert found.tolist() == [-1] * 4
            continue
        row[plays[user].indices] = -np.inf
        order = np.argsort(-row, kind="stable")[:4]
        wanted = np.where(np.isfinite(row[order]), order, -1)
        np.testing.assert_array_equal(found, wanted)
    assert (scores[5] == -np.inf).all()  # has everything
    row = scipy.sparse.csr_array(plays)[5]
    assert len(model.recommend(row)[0]) == 0


def test_similar_items_by_weight(model):
    weights = model.item_weights.numpy().copy()
    np.fill_diagonal(weights, -np.inf)
    ids, scores = model.similar_items([2, 11], k=3)
    wanted = np.argsort(-weights[[2, 11]], axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(ids, wanted)
    np.testing.assert_array_equal(scores, np.take_along_axis(weights[[2, 11]], wanted, axis=1))
    one, _ = model.similar_items(2, k=50)
    assert len(one) == 22
    assert 2 not in one
    among, _ = model.similar_items(2, k=50, among=[1, 2, 4])
    assert sorted(among) == [1, 4]


def test_reasons_add_up(model, plays):
    for user, item in ((0, 4), (5, 7), (5, 12), (10, 0)):
        score, items, parts = model.explain(plays, item, k=plays.shape[1], user=user)
        np.testing.assert_allclose(score, model.scores(plays)[user, item], atol=1e-6)
        np.testing.assert_allclose(parts.sum(dtype=np.float64), score, atol=1e-6)
        assert sorted(items) == plays[user].indices.tolist()
        assert (np.diff(parts) <= 0).all()
        counts = plays[user].toarray()[0, items]
        np.testing.assert_allclose(parts, counts * model.item_weights.numpy()[items, item], rtol=1e-6)
    first = model.explain(plays, 12, k=2, user=5)
    np.testing.assert_array_equal(first[1], model.explain(plays, 12, k=9, user=5)[1][:2])
    assert model.explain(plays, 0, user=3)[0] == 0.0
    assert len(model.explain(plays, 0, user=3)[1]) == 0


def test_saved_and_loaded_the_same(model, plays, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(loaded.item_weights, model.item_weights)
    np.testing.assert_array_equal(loaded.scores(plays), model.scores(plays))
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(Exception, match=r"must be of shape \(4, 4\)"):
        EASE(4).load_weights(tmp_path / "model.weights.h5")


# ---- what it does not take


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"num_items": 0}, "`num_items` must be at least 1"),
        ({"num_items": 2.5}, "`num_items` must be a whole number"),
        ({"regularization": 0.0}, "`regularization` must be above 0"),
        ({"regularization": float("nan")}, "`regularization` must be above 0"),
        ({"regularization": float("inf")}, "`regularization` must be above 0"),
    ],
)
def test_rejects_arguments(change, match):
    with pytest.raises(InputError, match=match):
        EASE(**{"num_items": 3, **change})


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (scipy.sparse.csr_matrix((2, 3)), "must have entries"),
        (scipy.sparse.csr_matrix(np.eye(2, 4)), "of shape"),
        (scipy.sparse.csr_matrix([[1.0, 0, 0], [0, -2, 0]]), "at least 0.\nReceived: -2.0 in row 1"),
        (scipy.sparse.csr_matrix([[1.0, 0, np.nan]]), "finite"),
        (scipy.sparse.csr_matrix([[1e20, 0, 1]]), r"squared counts.*\nReceived: 1e\+40 for item 0"),
        (np.eye(3), "SciPy sparse matrix"),
        (scipy.sparse.csr_matrix(([1.0, 1.0], [1, 1], [0, 2]), shape=(1, 3)), "each entry once"),
    ],
)
def test_rejects_matrices(rows, match):
    model = EASE(3)
    with pytest.raises(InputError, match=match):
        model.fit(rows, verbose=0)
    assert not model.item_weights.numpy().any()


@pytest.mark.parametrize("regularization", [1e-30, 1e-3])
def test_says_where_float32_is_not_enough(random, regularization):
    """Two items that the same users have, thousands of times: their weights come from the regularization alone."""
    column = random.integers(500, 2_000, (400, 1)).astype(np.float32)
    plays = scipy.sparse.csr_matrix(np.concatenate([column, column, random.integers(0, 2, (400, 3))], axis=1))
    model = EASE(5, regularization)
    with pytest.raises(InputError, match="too small for these counts.*\nRaise `regularization`"):
        model.fit(plays, verbose=0)
    assert not model.item_weights.numpy().any()


def test_knows_no_users_by_number(model, plays):
    with pytest.raises(InputError, match="has no users by number"):
        model.scores(tf.constant([1, 2]))
    with pytest.raises(InputError, match="has no users by number"):
        model.recommend(3, plays[3])
    with pytest.raises(InputError, match="23 columns"):
        model.scores(scipy.sparse.csr_matrix((2, 4)))
    with pytest.raises(InputError, match="`items` must lie in 0 to 22"):
        model.similar_items(23)
    with pytest.raises(InputError, match="`item` must lie in 0 to 22"):
        model.explain(plays, 23)
