"""What is served is in the order that evaluation ranks by, however near to each other the shown scores are."""

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tfrec.models import VAECF, NeuMF, Popularity
from tfrec.quantization import calibrate, quantize
from tfrec.serving import ServedHistories, ServedUsers

USERS, ITEMS = 1_000, 3_000


def in_order(scores, served, places):
    """No item before one with a higher score; equal ones by number."""
    for row, ids, count in zip(scores, served, places, strict=True):
        of_list = row[ids[:count]]
        assert (np.diff(of_list) <= 0).all()
        tied = np.diff(of_list) == 0
        assert (np.diff(ids[:count])[tied] > 0).all()


def nothing_seen(users=USERS):
    return scipy.sparse.csr_matrix((users, ITEMS), dtype=np.float32)


def served_by(model, users=USERS):
    numbers = np.arange(ITEMS)
    recommender = ServedUsers(
        model, np.arange(users), numbers, numbers.astype(str).astype(object), np.ones(ITEMS), nothing_seen(users)
    )
    return recommender.recommend(tf.range(users, dtype=tf.int64), tf.constant(ITEMS))


@pytest.fixture(scope="module")
def model():
    """Logits about five times as large as a training makes them: up to some 30 and beyond."""
    random = np.random.default_rng(0)
    made = NeuMF(USERS, ITEMS, mf_dim=8, layer_dims=(16, 16, 8))
    for weight in made.trainable_variables:
        scale = 5.0 if weight.name.startswith("final") else 1.0
        weight.assign(random.normal(0, 0.9, weight.shape) * scale)
    return made


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_no_pair_out_of_order_of_all_users_and_items(model, kind):
    if kind == "int8":
        seen = scipy.sparse.random(USERS, ITEMS, 0.01, format="csr", random_state=1, dtype=np.float32)
        seen.data[:] = 1
        model = quantize(model, calibrate(model, seen))
    logits = model.scores(tf.range(USERS)).numpy()
    probabilities = tf.sigmoid(logits).numpy()
    # Or there would be nothing to see: many a probability stands for several logits.
    if kind == "float":
        different = [sum(len(np.unique(row)) for row in rows) for rows in (probabilities, logits)]
        assert different[0] < 0.9 * different[1]
    answer = served_by(model)
    assert (answer["counts"].numpy() == ITEMS).all()
    in_order(logits, answer["ids"].numpy(), answer["counts"].numpy())
    shown = np.take_along_axis(probabilities, answer["ids"].numpy(), axis=1)
    np.testing.assert_allclose(answer["scores"], shown, rtol=1e-5, atol=1e-7)


def test_logits_that_one_probability_stands_for():
    """9,001 logits from 8 to 17 in steps of .001, as a model's whole score."""
    logits = np.random.default_rng(0).permutation(np.arange(8, 17.0005, 0.001).astype(np.float32))[:ITEMS]
    assert len(np.unique(tf.sigmoid(logits))) < 0.6 * len(np.unique(logits))
    made = NeuMF(1, ITEMS, mf_dim=1, branch="gmf", gmf_weights="ones")
    made.user_embedding.assign([[1.0]])
    made.item_embedding.assign(logits[:, None])
    answer = served_by(made, users=1)
    assert answer["ids"][0].numpy().tolist() == np.argsort(-logits, kind="stable").tolist()


@pytest.mark.parametrize("kind", ["vae", "popularity"])
def test_histories_are_ranked_by_logits_and_counts(kind, random):
    if kind == "vae":
        model = VAECF(ITEMS, hidden_dims=(), latent_dim=4)
        for weight in model.trainable_variables:
            weight.assign(random.normal(0, 0.05, weight.shape))
        # Two logits near 0 whose difference the softmax, near a maximum, does not show.
        model.item_bias.assign(np.linspace(0, 1e-6, ITEMS))
        model.item_kernel.assign(np.zeros(model.item_kernel.shape))
    else:
        model = Popularity(ITEMS)
        model.counts.assign(2.0**24 - random.permutation(ITEMS))
    numbers = np.arange(ITEMS)
    recommender = ServedHistories(model, numbers, numbers.astype(str).astype(object), np.ones(ITEMS))
    history = tf.constant([3, 7], tf.int64)
    answer = recommender.recommend(history, tf.constant([0, 2], tf.int64), tf.constant(ITEMS))
    row = np.zeros((1, ITEMS), np.float32)
    row[0, [3, 7]] = 1
    scores = model(row).numpy()
    probabilities = model.link(tf.constant(scores), tf.constant(scores)).numpy()
    assert len(np.unique(probabilities)) < len(np.unique(scores))
    count = int(answer["counts"][0])
    assert count == ITEMS - 2
    in_order(scores, answer["ids"].numpy(), [count])
    shown = probabilities[0, answer["ids"].numpy()[0, :count]]
    np.testing.assert_allclose(answer["scores"][0, :count], shown, rtol=1e-5)
