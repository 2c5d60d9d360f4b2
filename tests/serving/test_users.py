"""The SavedModel of a model of users and items."""

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.models import NeuMF
from tfrec.serving import ServedUsers, export

USERS = np.array(["ada", "grace", "ünal"], dtype=object)
ITEMS = np.array([10, 20, 30, 40, 50])
LABELS = np.array(["a", "b", "c", "d", "電影 🎬"], dtype=object)
SEEN = scipy.sparse.csr_matrix(np.array([[1, 0, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], np.float32))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    model = NeuMF(3, 5, mf_dim=4, layer_dims=(8, 6))
    for weight in model.trainable_variables:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    recommender = ServedUsers(model, USERS, ITEMS, LABELS, np.array([2.0, 1, 1, 2, 3]), SEEN)
    path = export(recommender, tmp_path_factory.mktemp("served") / "1")
    return model, tf.saved_model.load(str(path))


def probabilities(model):
    return 1 / (1 + np.exp(-model.scores(tf.range(3)).numpy()))


def test_recommend(parts):
    model, served = parts
    answer = served.signatures["serving_default"](user_ids=tf.constant(["ünal", "ada", "grace"]), k=tf.constant(5))
    expected = probabilities(model)
    order = np.argsort(-expected[2])
    assert answer["ids"][0].numpy().tolist() == ITEMS[order].tolist()
    np.testing.assert_allclose(answer["scores"][0], expected[2][order], rtol=1e-5)
    assert answer["counts"].numpy().tolist() == [5, 3, 0]
    assert set(answer["ids"][1, :3].numpy()) == {20, 30, 50}
    assert answer["ids"][1, 3:].numpy().tolist() == [-1, -1]
    assert answer["scores"][1, 3:].numpy().tolist() == [0, 0]
    assert answer["known"].numpy().all()


def test_unknown_users_get_what_is_popular(parts):
    _, served = parts
    answer = served.signatures["serving_default"](user_ids=tf.constant(["nobody"]), k=tf.constant(2))
    assert answer["known"].numpy().tolist() == [False]
    assert answer["ids"][0, 0].numpy() == 50
    assert answer["scores"][0, 0].numpy() == pytest.approx(1.0)
    # All items: nothing that user 0 has is taken from them; their shares of the 3 users.
    answer = served.signatures["serving_default"](user_ids=tf.constant(["nobody", "ada"]), k=tf.constant(5))
    assert answer["counts"].numpy().tolist() == [5, 3]
    assert answer["ids"][0].numpy().tolist() == [50, 10, 40, 20, 30]
    np.testing.assert_allclose(answer["scores"][0], np.array([3, 2, 2, 1, 1]) / 3, rtol=1e-6)


def test_score(parts):
    model, served = parts
    answer = served.signatures["score"](
        user_ids=tf.constant(["grace", "nobody"]), item_ids=tf.constant([[20, 50, 7], [10, 20, 30]], tf.int64)
    )
    assert answer["known"].numpy().tolist() == [[True, True, False], [False] * 3]
    np.testing.assert_allclose(answer["scores"][0, :2], probabilities(model)[1, [1, 4]], rtol=1e-5)
    assert (answer["scores"].numpy()[~answer["known"].numpy()] == 0).all()


def test_empty_requests(parts):
    _, served = parts
    answer = served.signatures["serving_default"](user_ids=tf.constant([], tf.string), k=tf.constant(2))
    assert answer["ids"].shape == (0, 2)
    answer = served.signatures["score"](user_ids=tf.constant(["ada"]), item_ids=tf.zeros([1, 0], tf.int64))
    assert answer["scores"].shape == (1, 0)


@pytest.mark.parametrize("k", [0, 6, -1])
def test_rejects_k(parts, k):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must lie in \[1, 5\]"):
        parts[1].signatures["serving_default"](user_ids=tf.constant(["ada"]), k=tf.constant(k))


def test_rejects_shapes(parts):
    with pytest.raises(tf.errors.InvalidArgumentError, match="a row for each"):
        parts[1].signatures["score"](user_ids=tf.constant(["ada"]), item_ids=tf.zeros([2, 3], tf.int64))


def test_vocabulary(parts):
    found = parts[1].signatures["vocabulary"]()
    assert found["ids"].numpy().tolist() == ITEMS.tolist()
    assert [label.decode() for label in found["labels"].numpy()] == LABELS.tolist()


def test_numbers_instead_of_raw_ids():
    model = NeuMF(3, 5, mf_dim=4, layer_dims=(8, 6))
    recommender = ServedUsers(model, USERS, ITEMS, LABELS, np.ones(5), SEEN, raw_ids=False)
    answer = recommender.recommend(tf.constant([0, 3], tf.int64), tf.constant(3))
    assert set(answer["ids"][0].numpy()) == {1, 2, 4}
    assert answer["known"].numpy().tolist() == [True, False]


def test_rejects_what_does_not_fit():
    model = NeuMF(3, 5, mf_dim=4, layer_dims=(8, 6))
    with pytest.raises(InputError, match="`user_ids` must be of size 3"):
        ServedUsers(model, USERS[:2], ITEMS, LABELS, np.ones(5), SEEN)
    with pytest.raises(InputError, match="`seen` must be of size"):
        ServedUsers(model, USERS, ITEMS, LABELS, np.ones(5), SEEN[:2])
