"""What VAECF does with rows of another width, wrong numbers, targets, weights and metrics."""

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tfrec.data.csr import ResidentMatrix, to_sparse_tensor
from tfrec.errors import InputError
from tfrec.evaluation import RankingCallback, evaluate_full_ranking
from tfrec.models import VAECF, NeuMF, Popularity

ITEMS, USERS = 12, 20
PAST = (np.random.default_rng(0).random((USERS, ITEMS)) < 0.4).astype(np.float32)
FUTURE = (np.random.default_rng(1).random((USERS, ITEMS)) < 0.4).astype(np.float32) * (1 - PAST)
WEIGHTS = np.random.default_rng(2).random(USERS).astype(np.float32) * 2
FORMS = {
    "dense": lambda x: x,
    "float64": lambda x: x.astype(np.float64),
    "tensor": tf.constant,
    "sparse": tf.sparse.from_dense,
    "csr": scipy.sparse.csr_matrix,
    "csr array": scipy.sparse.csr_array,
    "coo": scipy.sparse.coo_matrix,
}
SCIPY = ("csr", "csr array", "coo")


def make(**options):
    keras.utils.set_random_seed(0)
    model = VAECF(ITEMS, hidden_dims=(5,), latent_dim=2, dropout=0.0)
    model.compile(keras.optimizers.SGD(0.1), **options)
    return model


def batches(*parts):
    data = parts if len(parts) > 1 else parts[0]
    return tf.data.Dataset.from_tensor_slices(data).batch(USERS)


def state(model):
    return [*model.get_weights(), int(model.optimizer.iterations)]


def unchanged(model, before):
    return all(np.array_equal(a, b) for a, b in zip(before, state(model), strict=True))


@pytest.mark.parametrize("width", [ITEMS - 3, ITEMS + 3])
@pytest.mark.parametrize("form", FORMS)
def test_rows_of_another_width_are_refused_with_both_widths(form, width):
    model, x = make(), FORMS[form](np.ones((4, width), np.float32))
    good = np.ones((4, ITEMS), np.float32)
    calls = {
        "fit": lambda: model.fit(x, verbose=0),
        "fit, y": lambda: model.fit(good, x, verbose=0),
        "fit, validation": lambda: model.fit(good, validation_data=x, verbose=0),
        "fit, pair": lambda: model.fit(good, validation_data=(good, x), verbose=0),
        "evaluate": lambda: model.evaluate(x, verbose=0),
        "predict": lambda: model.predict(x, verbose=0),
        "train_on_batch": lambda: model.train_on_batch(x),
        "test_on_batch": lambda: model.test_on_batch(x),
        "predict_on_batch": lambda: model.predict_on_batch(x),
    }
    if form not in SCIPY:
        calls |= {
            "call": lambda: model(x),
            "graph": lambda: tf.function(model)(x),
            "popularity": lambda: Popularity(ITEMS)(x),
        }
    if form in SCIPY or isinstance(x, tf.SparseTensor):
        calls["scores"] = lambda: model.scores(x)
    before = state(model)
    for name, call in calls.items():
        with pytest.raises(InputError, match=f"rows of {ITEMS} columns(.|\n)*{width} columns"):
            call()
        assert unchanged(model, before), name


@pytest.mark.parametrize("width", [ITEMS - 3, ITEMS + 3])
def test_pipelines_and_symbolic_rows_of_another_width(width):
    model, x = make(), np.ones((4, width), np.float32)
    with pytest.raises(InputError, match=f"rows of {ITEMS} columns(.|\n)*{width} columns"):
        model.fit(batches(x), verbose=0)
    model.fit(batches(PAST), verbose=0)  # the failed trace does no harm
    with pytest.raises(InputError, match=f"{width} columns"):
        model.predict(batches(x), verbose=0)
    with pytest.raises(InputError, match=f"{width} columns"):
        model(keras.Input((width,), sparse=True))
    # Of a pipeline that does not tell its width.
    for spec, rows in (
        (tf.TensorSpec([None, None], tf.float32), x),
        (tf.SparseTensorSpec([None, None], tf.float32), tf.sparse.from_dense(x)),
    ):
        before = state(model)
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"rows of {ITEMS} columns"):
            model.fit(tf.data.Dataset.from_generator(lambda r=rows: [r], output_signature=spec), verbose=0)
        assert unchanged(model, before)


@pytest.mark.parametrize("shape", [(ITEMS,), (2, 3, ITEMS)])
def test_rows_of_another_rank(shape):
    with pytest.raises(InputError, match="rows of 12 columns"):
        make().fit(np.ones(shape, np.float32), verbose=0)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, 1e39])
@pytest.mark.parametrize("form", ["dense", "float64", "sparse", "csr"])
def test_numbers_that_are_no_counts(form, bad):
    x = PAST.astype(np.float64)
    x[3, 4] = bad
    x, model = FORMS[form](x), make()
    before = state(model)
    for call in (
        lambda: model.fit(x, verbose=0),
        lambda: model.fit(PAST, x, verbose=0),
        lambda: model.fit(PAST, validation_data=(x, None), verbose=0),
        lambda: model.evaluate(x, verbose=0),
        lambda: model.train_on_batch(x),
    ):
        with pytest.raises(InputError, match="finite and at least 0(.|\n)*in row 3; 1 such"):
            call()
    assert unchanged(model, before)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_numbers_of_a_pipeline_that_are_no_counts(bad):
    x, weights = PAST.copy(), WEIGHTS.copy()
    x[3, 4] = weights[5] = bad
    model = make()
    before = state(model)
    for data, what in (
        (batches(x), "`x` must be counts"),
        (batches(PAST, x), "`y` must be counts"),
        (batches(PAST, FUTURE, weights), "`sample_weight` must be finite"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=what):
            model.fit(data, verbose=0)
        assert unchanged(model, before)


def test_entries_out_of_order_and_twice():
    entries = tf.SparseTensor([[1, 2], [0, 3]], [1.0, 1.0], [2, ITEMS])
    rows = tf.sparse.to_dense(tf.sparse.reorder(entries))
    model = make()
    assert model.evaluate(entries, verbose=0)[0] == pytest.approx(model.evaluate(rows, verbose=0)[0], rel=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="in order of row"):
        model.train_step(entries)
    twice = scipy.sparse.coo_matrix((np.ones(3), ([1, 0, 0], [2, 3, 3])), shape=(2, ITEMS))
    once = scipy.sparse.csr_matrix(twice.toarray())
    assert model.evaluate(twice, verbose=0)[0] == pytest.approx(model.evaluate(once, verbose=0)[0], rel=1e-6)


def per_user(model, y=None):
    one = lambda m, i: None if m is None else m[i : i + 1]  # noqa: E731
    return np.array([model.evaluate(one(PAST, i), one(y, i), verbose=0)[0] for i in range(USERS)])


def test_weights_multiply_each_users_loss():
    model = make()
    for y in (None, FUTURE):
        wanted = np.mean(per_user(model, y) * WEIGHTS)
        found = [
            model.evaluate(PAST, y, sample_weight=WEIGHTS, batch_size=USERS, verbose=0)[0],
            model.evaluate(PAST, y, sample_weight=WEIGHTS[:, None], batch_size=7, verbose=0)[0],
            model.test_on_batch(PAST, y, sample_weight=WEIGHTS)[0],
        ]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    csr = scipy.sparse.csr_matrix(PAST)
    history = model.fit(csr, validation_data=(csr, None, WEIGHTS), sample_weight=WEIGHTS, epochs=2, verbose=0).history
    assert history["val_loss"][-1] == pytest.approx(np.mean(per_user(model) * WEIGHTS), rel=1e-5)


def test_weights_act_on_training():
    """A weight of 0 is a user who teaches nothing: the gradient is that of the others, on as many users."""
    weights = np.ones(USERS, np.float32)
    weights[5:] = 0
    found = []
    for x, given, rate in ((PAST, weights, 0.1), (PAST[:5], None, 0.1 * 5 / USERS)):
        keras.utils.set_random_seed(0)
        model = VAECF(ITEMS, hidden_dims=(5,), latent_dim=2, dropout=0.0, variational=False)
        model.compile(keras.optimizers.SGD(rate))
        model.fit(x, sample_weight=given, batch_size=USERS, verbose=0)
        found.append(model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("form", ["sparse", "csr"])
def test_the_target_is_y(form):
    """Trained on what came later, a row's own items get less and the later ones more."""
    model, x, y = make(), FORMS[form](PAST), FORMS[form](FUTURE)
    logits = model.predict(x, verbose=0)
    normal = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert model.evaluate(x, y, verbose=0, return_dict=True)["nll"] == pytest.approx(
        -(FUTURE * normal).sum() / USERS, rel=1e-5
    )
    itself = make()
    model.fit(x, y, epochs=20, batch_size=USERS, verbose=0)
    itself.fit(x, epochs=20, batch_size=USERS, verbose=0)
    assert model.evaluate(x, y, verbose=0)[0] < itself.evaluate(x, y, verbose=0)[0] - 0.1
    np.testing.assert_allclose(make().evaluate(x, x, verbose=0), make().evaluate(x, verbose=0), rtol=1e-6)


def test_what_cannot_be_used_is_refused():
    model = make()
    for call in (model.fit, model.train_on_batch):
        with pytest.raises(InputError, match="no classes to weight"):
            call(PAST, class_weight={0: 1.0})
    for weights, what in (
        (np.ones((USERS, ITEMS)), "one number for each row"),
        (-WEIGHTS, "finite and at least 0"),
        (WEIGHTS * np.nan, "finite and at least 0"),
    ):
        with pytest.raises(InputError, match=what):
            model.fit(PAST, sample_weight=weights, verbose=0)
    with pytest.raises(ValueError, match="same number of samples"):
        model.fit(PAST, sample_weight=WEIGHTS[:3], verbose=0)
    with pytest.raises(InputError, match="rows of 12 columns"):
        model.fit(PAST, np.ones(USERS), verbose=0)


def test_users_of_a_resident_matrix_with_weights_and_validation_rows():
    matrix = scipy.sparse.csr_matrix(PAST)
    by_rows, by_users = make(), make(gather=ResidentMatrix(matrix).gather)
    options = {"sample_weight": WEIGHTS, "shuffle": False, "verbose": 0}
    wanted = by_rows.fit(matrix, validation_data=(matrix, FUTURE), **options).history
    found = by_users.fit(np.arange(USERS), validation_data=(matrix, FUTURE), **options).history
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


class NDCG(keras.metrics.Mean):
    """As that of keras-rs, without ties."""

    def __init__(self, k, name="ndcg"):
        super().__init__(name=name)
        self.k = k

    def update_state(self, y_true, y_pred, sample_weight=None):
        discount = 1.0 / (tf.math.log(tf.range(self.k, dtype=tf.float32) + 2.0) / np.log(2.0))
        gained = tf.gather(y_true, tf.math.top_k(y_pred, self.k).indices, batch_dims=1)
        ideal = tf.math.top_k(y_true, self.k).values
        dcg, best = (tf.reduce_sum(gain * discount, axis=1) for gain in (gained, ideal))
        super().update_state(tf.math.divide_no_nan(dcg, best), sample_weight)


def test_ranking_metrics_per_epoch_of_fit():
    """Of the later items among those that a user has not; EarlyStopping may watch them."""
    csr, later = scipy.sparse.csr_matrix(PAST), scipy.sparse.csr_matrix(FUTURE)
    model = make(metrics=[NDCG(5), keras.metrics.Recall(top_k=5)])
    stop = keras.callbacks.EarlyStopping("val_ndcg", mode="max", patience=1)
    history = model.fit(csr, epochs=4, validation_data=(csr, later), callbacks=[stop], verbose=0).history
    assert {"ndcg", "recall", "val_ndcg", "val_recall", "val_loss", "nll"} <= history.keys()
    scores = np.where(PAST > 0, -np.inf, model.predict(csr, verbose=0))
    wanted = []
    for row, target in zip(scores, FUTURE, strict=True):
        gains = target[np.argsort(-row)[:5]]
        ideal = sum(1 / np.log2(r + 2) for r in range(min(5, int(target.sum()))))
        wanted.append(sum(g / np.log2(r + 2) for r, g in enumerate(gains)) / ideal if ideal else 0.0)
    assert history["val_ndcg"][-1] == pytest.approx(np.mean(wanted), rel=1e-5)
    assert model.evaluate(csr, later, verbose=0, return_dict=True)["ndcg"] == pytest.approx(np.mean(wanted), rel=1e-5)
    weighted = make(weighted_metrics=[NDCG(5)])
    weighted.set_weights(model.get_weights())
    found = weighted.evaluate(csr, later, sample_weight=WEIGHTS, verbose=0, return_dict=True)["ndcg"]
    assert found == pytest.approx(np.average(wanted, weights=WEIGHTS), rel=1e-5)


def test_a_callback_gives_the_evaluations_own_metrics():
    csr, later = scipy.sparse.csr_matrix(PAST), scipy.sparse.csr_matrix(FUTURE)
    model = make()
    ranking = RankingCallback(csr, later, ["ndcg@5", "recall@3"])
    stop = keras.callbacks.EarlyStopping("val_ndcg@5", mode="max", patience=0, min_delta=1.0)
    history = model.fit(csr, epochs=5, verbose=0, callbacks=[ranking, stop]).history
    assert len(history["val_ndcg@5"]) == 2  # stopped: no epoch is better by 1
    wanted = evaluate_full_ranking(lambda _, rows: model(to_sparse_tensor(rows)), csr, later, ["ndcg@5", "recall@3"])
    for name, value in wanted.metrics.items():
        assert history[f"val_{name}"][-1] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("options", [{"steps_per_execution": 3}, {"run_eagerly": True}])
def test_metrics_however_steps_run(options):
    wanted = make(metrics=[NDCG(5)]).fit(PAST, FUTURE, batch_size=6, shuffle=False, verbose=0).history["ndcg"]
    found = make(metrics=[NDCG(5)], **options).fit(PAST, FUTURE, batch_size=6, shuffle=False, verbose=0).history["ndcg"]
    # Of several steps at once Keras reports at their end.
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def neumf():
    keras.utils.set_random_seed(0)
    model = NeuMF(6, ITEMS, mf_dim=3, layer_dims=(4, 5, 3))
    model.compile(keras.optimizers.SGD(0.1))
    return model


PAIR = (np.array([0, 5, 2]), np.array([[1, 2], [0, 3], [11, 0]]))
LABELS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


@pytest.mark.parametrize("bad", [-1.0, 2.0, 5.0, np.nan])
def test_labels_of_neumf_lie_between_0_and_1(bad):
    """A rating of 5 as a label makes the loss negative without end."""
    labels, model = LABELS.copy(), neumf()
    labels[0, 0] = bad
    before = state(model)
    for call in (
        lambda: model.fit(PAIR, labels, verbose=0),
        lambda: model.fit(PAIR, LABELS, validation_data=(PAIR, labels), verbose=0),
        lambda: model.evaluate(PAIR, labels, verbose=0),
        lambda: model.train_on_batch(PAIR, labels),
    ):
        with pytest.raises(InputError, match=r"must lie in \[0, 1\]"):
            call()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"`labels` must lie in \[0, 1\]"):
        model.fit(tf.data.Dataset.from_tensors((PAIR, labels)), verbose=0)
    if bad != bad or bad < 0:
        with pytest.raises(tf.errors.InvalidArgumentError, match="`sample_weight` must be finite"):
            model.fit(tf.data.Dataset.from_tensors((PAIR, LABELS, labels)), verbose=0)
    assert unchanged(model, before)


def test_weights_of_neumf():
    model = neumf()
    with pytest.raises(InputError, match="finite and at least 0"):
        model.fit(PAIR, LABELS, sample_weight=-np.ones(3), verbose=0)
    with pytest.raises(InputError, match="`class_weight` goes with one item"):
        model.fit(PAIR, LABELS, class_weight={0: 1.0, 1: 2.0}, verbose=0)
    one = (PAIR[0], PAIR[1][:, 0])
    wanted = neumf().fit(one, LABELS[:, 0], sample_weight=np.where(LABELS[:, 0] == 1, 2.0, 0.5), verbose=0).history
    assert model.fit(one, LABELS[:, 0], class_weight={0: 0.5, 1: 2.0}, verbose=0).history["loss"] == wanted["loss"]


def test_neumf_takes_items_of_either_rank_in_turn():
    model = neumf()
    for pair in (PAIR, (PAIR[0], PAIR[1][:, 0]), (PAIR[0][:, None], PAIR[1][:, 0]), PAIR):
        wanted = model((PAIR[0], pair[1])).numpy()
        np.testing.assert_allclose(model.predict(pair, verbose=0), wanted, rtol=1e-5)
