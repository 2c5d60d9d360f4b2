"""What every model offers (`tfrec.models.recommends.Recommends`), each line over all of them.

A new model is one more entry of `FAMILIES`.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.models import ALS, EASE, VAECF, NeuMF, Popularity
from tfrec.quantization import ALSQueries, QuantizedItems, VAECFQueries, calibrate, quantize
from tfrec.serving import ServedHistories, ServedUsers

SIZE = 40


def checkerboard(size=SIZE):
    """Even users have even items, odd ones odd items; all miss one, the item of their own number."""
    dense = (np.add.outer(np.arange(size), np.arange(size)) % 2 == 0).astype(np.float32)
    np.fill_diagonal(dense, 0)
    return scipy.sparse.csr_matrix(dense)


BOARD = checkerboard()


@dataclass(frozen=True)
class Family:
    """A model class and what it can.

    Args:
        make: an untrained model of so many users and items; two of these have the same options.
        learn: fits a model to a checkerboard.
        by_users: it knows users by number.
        by_histories: it takes histories.
        learns: whether it finds the missing item; popularity cannot.
        similar: it says which items are similar.
        itself: by a cosine, to which an item itself comes first; else it is left out.
        explains: it says which items of a history speak for one.
        carries: it can start from an earlier model; None: it has no start, so there is nothing to carry.
    """

    make: Callable
    learn: Callable
    by_users: bool = False
    by_histories: bool = False
    learns: bool = True
    similar: bool = False
    itself: bool = True
    explains: bool = False
    carries: bool | None = True


def make_als(users, items):
    return ALS(factors=2, regularization=0.1, alpha=20.0, iterations=10, seed=1, num_users=users, num_items=items)


def learn_vae_cf(model):
    model.compile(keras.optimizers.Adam(0.02))
    model.fit(BOARD, epochs=60, batch_size=SIZE, verbose=0)


def make_neumf(users, items, **form):
    return NeuMF(users, items, mf_dim=4, layer_dims=(8, 8), branch="gmf", gmf_weights="ones", **form)


def learn_neumf(model):
    # Of each user's items all but the missing one, which would be a negative.
    items = np.array([[i for i in range(SIZE) if i != u] for u in range(SIZE)])
    labels = np.take_along_axis(BOARD.toarray(), items, axis=1)
    model.compile(keras.optimizers.Adam(0.05))
    model.fit((np.arange(SIZE), items), labels, epochs=40, batch_size=SIZE, verbose=0)


def learned_quantized(model):
    learn_neumf(model)
    return quantize(model, calibrate(model, BOARD, fraction=1.0))


def make_vae_cf(users, items):
    return VAECF(items, hidden_dims=(16,), latent_dim=4, dropout=0.2, kl_cap=0.01)


def learned_int8_als(model):
    model.fit(BOARD, verbose=0)
    return QuantizedItems.of(model, ALSQueries.of(model))


def learned_int8_vae_cf(model):
    learn_vae_cf(model)
    return QuantizedItems.of(model, VAECFQueries.of(model))


FAMILIES = {
    "als": Family(
        make_als,
        lambda model: model.fit(BOARD, verbose=0),
        by_users=True,
        by_histories=True,
        similar=True,
        explains=True,
    ),
    "vae-cf": Family(
        make_vae_cf,
        learn_vae_cf,
        by_histories=True,
        similar=True,
        explains=True,
    ),
    "ease": Family(
        lambda users, items: EASE(items, regularization=5.0),
        lambda model: model.fit(BOARD, verbose=0),
        by_histories=True,
        similar=True,
        itself=False,
        explains=True,
        carries=None,
    ),
    "neumf": Family(make_neumf, learn_neumf, by_users=True),
    "neumf-tt": Family(
        lambda users, items: make_neumf(users, items, item_embedding="tt", embedding_ranks=4, embedding_group=1),
        learn_neumf,
        by_users=True,
        carries=None,  # with the same rows in the same order only, see test_neumf_tt.py
    ),
    "neumf-int8": Family(make_neumf, learned_quantized, by_users=True, carries=False),
    "als-int8": Family(
        make_als,
        learned_int8_als,
        by_users=True,
        by_histories=True,
        similar=True,
        explains=True,
        carries=False,
    ),
    "vae-cf-int8": Family(
        make_vae_cf,
        learned_int8_vae_cf,
        by_histories=True,
        similar=True,
        explains=True,
        carries=False,
    ),
    "popularity": Family(
        lambda users, items: Popularity(items),
        lambda model: model.adapt(BOARD),
        by_users=True,
        by_histories=True,
        learns=False,
    ),
}


@cache
def learned(name):
    """One trained model of each family; no test changes it."""
    keras.utils.set_random_seed(0)
    family = FAMILIES[name]
    model = family.make(SIZE, SIZE)
    found = family.learn(model)
    return found if isinstance(found, keras.Model) and found is not model else model


def of(condition=lambda family: True):
    """Once for each family that can."""
    return pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if condition(f)])


def ways(name):
    """All users of the board as this model may be asked about them: numbers, histories, or both."""
    family = FAMILIES[name]
    return ([np.arange(SIZE)] if family.by_users else []) + ([BOARD] if family.by_histories else [])


def same_list(found, wanted):
    """Two lists of items and scores, but for places that rounding may exchange, and for padding."""
    (ids, scores), (other_ids, other_scores) = ((i[i >= 0], s[i >= 0]) for i, s in (found, wanted))
    np.testing.assert_allclose(scores, other_scores, rtol=1e-4, atol=1e-5)
    order, other_order = np.argsort(ids), np.argsort(other_ids)
    assert ids[order].tolist() == other_ids[other_order].tolist()
    np.testing.assert_allclose(scores[order], other_scores[other_order], rtol=1e-4, atol=1e-5)


def tensor(matrix):
    entries = scipy.sparse.csr_matrix(matrix).tocoo()
    index = np.stack([entries.row, entries.col], axis=1).astype(np.int64)
    return tf.SparseTensor(index, entries.data.astype(np.float32), entries.shape)


@of()
def test_it_says_what_it_is(name):
    family, model = FAMILIES[name], learned(name)
    assert model.num_items == SIZE
    assert model.takes_histories == family.by_histories
    # Popularity answers any user, and so knows no number of them.
    assert model.num_users == (SIZE if family.by_users and name != "popularity" else None)


@of(lambda family: family.learns)
def test_the_missing_square_is_recommended(name):
    for queries in ways(name):
        ids, _ = learned(name).recommend(queries, BOARD, k=1)
        assert ids[:, 0].tolist() == list(range(SIZE))


@of()
def test_nothing_seen_is_recommended_and_what_is_left_ends_in_padding(name):
    dense = BOARD.toarray()
    for queries in ways(name):
        ids, scores = learned(name).recommend(queries, BOARD, k=SIZE + 5)
        assert ids.shape == scores.shape == (SIZE, SIZE)
        assert (ids.dtype, scores.dtype) == (np.int32, np.float32)
        for user in range(SIZE):
            left = np.flatnonzero(dense[user] == 0)
            assert sorted(ids[user, : len(left)].tolist()) == left.tolist()
        assert (ids[:, SIZE - 19 :] == -1).all()
        assert (scores[:, SIZE - 19 :] == -np.inf).all()
        everything = learned(name).recommend(queries, BOARD, k=SIZE, filter_seen=False)[0]
        assert (np.sort(everything, axis=1) == np.arange(SIZE)).all()


@of()
def test_the_order_is_that_of_the_scores_and_of_equal_ones_the_lower_number_is_first(name):
    model = learned(name)
    for queries in ways(name):
        scores = model.scores(queries).numpy()
        assert (scores.dtype, scores.shape) == (np.float32, (SIZE, SIZE))
        ids, found = model.recommend(queries, BOARD, k=SIZE, filter_seen=False)
        np.testing.assert_allclose(found, np.take_along_axis(scores, ids, axis=1), rtol=1e-4, atol=1e-5)
        steps = np.diff(found, axis=1)
        assert (steps <= 0).all()
        assert (np.diff(ids, axis=1)[steps == 0] > 0).all()


@of()
def test_one_user_is_answered_in_one_dimension(name):
    model = learned(name)
    for queries in ways(name):
        ids, scores = model.recommend(queries, BOARD, k=SIZE)
        one = queries[3] if isinstance(queries, np.ndarray) else scipy.sparse.csr_array(queries)[3]
        mine, my_scores = model.recommend(one, BOARD[[3]], k=SIZE)
        same_list((mine, my_scores), (ids[3], scores[3]))


@of()
def test_scores_of_candidates_and_in_a_graph(name):
    model, random = learned(name), np.random.default_rng(0)
    items = random.integers(0, SIZE, (SIZE, 7))
    for queries in ways(name):
        everything = model.scores(queries).numpy()
        np.testing.assert_allclose(
            model.scores(queries, items), np.take_along_axis(everything, items, axis=1), rtol=1e-4, atol=1e-5
        )
        symbolic = tf.constant(queries) if isinstance(queries, np.ndarray) else tensor(queries)
        for call in (model.scores, tf.function(lambda q: model.scores(q))):
            np.testing.assert_allclose(call(symbolic), everything, rtol=1e-4, atol=1e-5)
        assert model.scores(queries[:0]).shape == (0, SIZE)
        assert model.recommend(queries[:0], BOARD[:0], k=3)[0].shape == (0, 3)


@of()
def test_what_is_shown_keeps_the_order(name):
    model = learned(name)
    for queries in ways(name):
        scores = model.scores(queries)
        best, ids = tf.math.top_k(scores, 9)
        shown = model.link(best, scores).numpy()
        assert shown.shape == (SIZE, 9)
        assert (np.diff(shown, axis=1) <= 0).all()
        np.testing.assert_array_equal(
            shown, np.take_along_axis(model.link(scores, scores).numpy(), ids.numpy(), axis=1)
        )


@of()
def test_choosing_and_leaving_out(name):
    model = learned(name)
    for queries in ways(name):
        everything, scores = model.recommend(queries, BOARD, k=SIZE)
        for options, kept in (
            ({"items": [11, 3, 5, 8]}, [3, 5, 8, 11]),
            ({"filter_items": [0, 1, 2]}, list(range(3, SIZE))),
        ):
            ids, found = model.recommend(queries, BOARD, k=SIZE, **options)
            for row in range(SIZE):
                places = np.isin(everything[row], kept)
                same_list((ids[row], found[row]), (everything[row, places], scores[row, places]))
        with pytest.raises(InputError, match="not both"):
            model.recommend(queries, BOARD, items=[1], filter_items=[2])
        with pytest.raises(InputError, match=f"`items` must lie in 0 to {SIZE - 1}"):
            model.recommend(queries, BOARD, items=[SIZE])
        # Who scrolls on: others are seen than are the model's input.
        ids, _ = model.recommend(queries, BOARD[::-1], k=SIZE)
        assert not BOARD[::-1].toarray()[np.nonzero(ids >= 0)[0], ids[ids >= 0]].any()


@of()
def test_users_that_the_model_does_not_know(name):
    family, model = FAMILIES[name], learned(name)
    if not family.by_users:
        with pytest.raises(InputError, match=r"has no users by number.\n.*als or neumf"):
            model.recommend(0, filter_seen=False)
        with pytest.raises(InputError, match="has no users by number"):
            model.scores(np.array([0]))
        return
    with pytest.raises(InputError, match="`users` must (lie in 0|be at least 0)"):
        model.recommend([0, -1], filter_seen=False)
    with pytest.raises(InputError, match="`filter_seen` needs `user_items`"):
        model.recommend(0)
    with pytest.raises(InputError, match="`user_items` must be of shape"):
        model.recommend([0, 1, 2], BOARD[:2])
    if name == "popularity":
        assert model.recommend(10**9, filter_seen=False, k=3)[0].shape == (3,)
        return
    with pytest.raises(InputError, match=f"`users` must lie in 0 to {SIZE - 1}.\nReceived: {SIZE}"):
        model.recommend(SIZE, filter_seen=False)


@of()
def test_histories_that_the_model_does_not_take(name):
    family, model = FAMILIES[name], learned(name)
    if not family.by_histories:
        with pytest.raises(InputError, match="users by number only.\n.*als, vae-cf or ease"):
            model.recommend(BOARD)
        for histories in (BOARD, tensor(BOARD)):
            with pytest.raises(InputError, match="users by number only"):
                model.scores(histories)
        return
    with pytest.raises(InputError, match=rf"`users` must be of shape .*\nReceived: shape \({SIZE}, {SIZE - 1}\)"):
        model.recommend(BOARD[:, :-1])
    with pytest.raises(InputError):
        model.scores(tensor(BOARD[:, :-1]))
    with pytest.raises(InputError, match="number"):
        model.recommend(BOARD.toarray())


@of(lambda family: family.by_histories)
def test_an_empty_history(name):
    model, nothing = learned(name), scipy.sparse.csr_matrix((2, SIZE), dtype=np.float32)
    for histories in (nothing, tensor(nothing)):
        silent = ~model.answerable(histories).numpy()
        ids, scores = model.recommend(histories, k=3)
        assert silent.shape == (2,)
        assert ((ids == -1) == silent[:, None]).all()
        assert ((scores == -np.inf) == silent[:, None]).all()
        assert np.isfinite(model.scores(histories)).all()


@of()
def test_who_can_be_answered(name):
    for queries in ways(name):
        assert learned(name).answerable(queries).numpy().tolist() == [True] * SIZE


@of()
def test_saved_and_loaded_it_is_the_same(name, tmp_path):
    model = learned(name)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    for queries in ways(name):
        np.testing.assert_array_equal(again.scores(queries), model.scores(queries))
        for a, b in zip(again.recommend(queries, BOARD), model.recommend(queries, BOARD), strict=True):
            np.testing.assert_array_equal(a, b)


@of()
def test_it_is_served_in_the_same_order(name):
    family, model = FAMILIES[name], learned(name)
    numbers = np.arange(SIZE)
    titles, counts = numbers.astype(str).astype(object), np.ones(SIZE)
    answers = []
    if model.num_users is not None:
        served = ServedUsers(model, numbers, numbers, titles, counts, BOARD)
        answers.append((served.recommend(tf.constant(numbers), tf.constant(9)), numbers))
    if family.by_histories:
        histories = ServedHistories(model, numbers, titles, counts)
        items, splits = tf.constant(BOARD.indices, tf.int64), tf.constant(BOARD.indptr, tf.int64)
        answers.append((histories.recommend(items, splits, tf.constant(9)), BOARD))
    for answer, queries in answers:
        scores = model.scores(queries).numpy()
        scores[BOARD.toarray() > 0] = -np.inf
        found = np.take_along_axis(scores, answer["ids"].numpy(), axis=1)
        np.testing.assert_allclose(found, -np.sort(-scores, axis=1)[:, :9], rtol=1e-4, atol=1e-5)
        wanted = model.link(tf.constant(found), model.scores(queries))
        np.testing.assert_allclose(answer["scores"], wanted, rtol=1e-4, atol=1e-5)


@of()
def test_similar_items(name):
    model = learned(name)
    if not FAMILIES[name].similar:
        with pytest.raises(InputError, match=rf"{type(model).__name__} has no vectors .*\n.*als, vae-cf or ease"):
            model.similar_items(0)
        return
    ids, scores = model.similar_items(np.arange(SIZE), k=SIZE)
    assert (ids[:, :5] % 2 == np.arange(SIZE)[:, None] % 2).all()
    themselves = ids == np.arange(SIZE)[:, None]
    if FAMILIES[name].itself:
        # Before the item itself there are at most others of the same direction.
        np.testing.assert_allclose(scores[themselves], scores[:, 0], rtol=1e-6)
        np.testing.assert_allclose(scores[:, 0], np.ones(SIZE), rtol=1e-5)
    else:
        assert not themselves.any()
    alike = [1, 7, 9] if FAMILIES[name].itself else [1, 9]
    one, _ = model.similar_items(7, k=len(alike), among=[1, 2, 7, 9])
    assert sorted(one.tolist()) == alike
    assert 8 not in model.similar_items(7, k=SIZE, filter_items=[8])[0]
    with pytest.raises(InputError, match=f"`items` must lie in 0 to {SIZE - 1}"):
        model.similar_items(SIZE)


@of()
def test_explain(name):
    model = learned(name)
    if not FAMILIES[name].explains:
        with pytest.raises(InputError, match=rf"{type(model).__name__} cannot explain .*\n.*als, vae-cf or ease"):
            model.explain(BOARD, 3)
        return
    score, items, parts = model.explain(BOARD, 8, k=SIZE, user=8)
    np.testing.assert_allclose(score, model.scores(BOARD[[8]])[0, 8], rtol=1e-3, atol=1e-3)
    assert sorted(items.tolist()) == BOARD[8].indices.tolist()
    assert (np.diff(parts) <= 0).all()
    assert parts.sum() > 0  # all of it has the item's colour
    assert model.explain(BOARD, 8, k=4, user=8)[1].tolist() == items[:4].tolist()
    one = model.explain(scipy.sparse.csr_array(BOARD)[8], 8, k=SIZE)
    assert one[1].tolist() == items.tolist()
    empty = model.explain(scipy.sparse.csr_matrix((1, SIZE), dtype=np.float32), 8)
    assert [len(part) for part in empty[1:]] == [0, 0]
    with pytest.raises(InputError, match=f"`item` must lie in 0 to {SIZE - 1}"):
        model.explain(BOARD, SIZE)


@of()
def test_unknown_arguments_are_errors(name):
    model = learned(name)
    with pytest.raises((TypeError, ValueError), match="surprise"):
        type(model)(**model.get_config(), surprise=1)
    for question in (model.recommend, model.scores, model.similar_items, model.explain):
        with pytest.raises(TypeError, match="surprise"):
            question(0, surprise=1)


#: Of a later day: users 1 and 0 have changed places, two are new, and user 39 is gone; the same with items 2 and 3.
USERS = np.array([1, 0, -1, *range(2, SIZE - 1), -1])
ITEMS = np.array([0, 1, 3, 2, *range(4, SIZE), -1, -1])


@of(lambda family: family.carries)
def test_carry_over(name):
    old, family = learned(name), FAMILIES[name]
    keras.utils.set_random_seed(7)
    new, untouched = (family.make(len(USERS), len(ITEMS)) for _ in range(2))
    untouched.set_weights(new.get_weights())
    new.carry_over(old, USERS, ITEMS)
    axes = {id(weight): (side, axis) for weight, side, axis in new.row_axes()}
    assert axes
    for weight, first, source in zip(new.weights, untouched.weights, old.weights, strict=True):
        found, first, source = weight.numpy(), first.numpy(), source.numpy()
        if id(weight) not in axes:
            np.testing.assert_array_equal(found, source)
            continue
        side, axis = axes[id(weight)]
        numbers = USERS if side == "user" else ITEMS
        for row, number in enumerate(numbers):
            wanted = first.take(row, axis) if number < 0 else source.take(number, axis)
            np.testing.assert_array_equal(found.take(row, axis), wanted)
    # The same users score the same items alike.
    users, items = np.flatnonzero(USERS >= 0), np.flatnonzero(ITEMS >= 0)
    for queries in ways(name):
        before = old.scores(queries).numpy()
        if isinstance(queries, np.ndarray):
            found, wanted = new.scores(users).numpy(), before[USERS[users]]
        elif name == "als":
            continue  # the factors of a history depend on all items' factors, the new ones too
        else:
            wide = np.zeros((SIZE, len(ITEMS)), np.float32)
            wide[:, items] = BOARD.toarray()[:, ITEMS[items]]
            found, wanted = new.scores(scipy.sparse.csr_matrix(wide)).numpy(), before
        np.testing.assert_allclose(found[:, items], wanted[:, ITEMS[items]], rtol=1e-4, atol=1e-4)


@of(lambda family: family.carries)
def test_carry_over_refuses(name):
    old, family = learned(name), FAMILIES[name]
    new = family.make(len(USERS), len(ITEMS))
    before = new.get_weights()
    other = Popularity(SIZE) if name != "popularity" else VAECF(SIZE)
    cases = [
        ((other, USERS, ITEMS), f"`old` must be a {type(new).__name__}"),
        ((old, USERS, ITEMS[:-1]), f"`items` must be {len(ITEMS)} whole numbers"),
        ((old, USERS, ITEMS.astype(float)), "`items` must be .* whole numbers"),
        ((old, USERS, np.where(ITEMS < 0, -2, ITEMS)), "must be -1 for what is new"),
        ((old, USERS, np.where(ITEMS < 0, SIZE, ITEMS)), f"`items` must lie in 0 to {SIZE - 1}"),
    ]
    if new.num_users is not None:
        cases.append(((old, np.where(USERS < 0, SIZE, USERS), ITEMS), f"`users` must lie in 0 to {SIZE - 1}"))
    for arguments, message in cases:
        with pytest.raises(InputError, match=message):
            new.carry_over(*arguments)
        for a, b in zip(before, new.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (VAECF(9, hidden_dims=(4,), latent_dim=2), VAECF(9, hidden_dims=(5,), latent_dim=2)),
        (VAECF(9, hidden_dims=(4,), latent_dim=2), VAECF(9, hidden_dims=(), latent_dim=2)),
        (NeuMF(9, 9, mf_dim=4, layer_dims=(4, 4)), NeuMF(9, 9, mf_dim=6, layer_dims=(4, 4))),
        (ALS(4, num_users=9, num_items=9), ALS(5, num_users=9, num_items=9)),
    ],
)
def test_carry_over_from_another_form(new, old):
    with pytest.raises(InputError, match="`old` must have the form of this model"):
        new.carry_over(old, np.arange(9), np.arange(9))


@of(lambda family: family.carries is False)
def test_who_cannot_carry_over_says_what_to_do(name):
    with pytest.raises(InputError, match="Carry over the float"):
        learned(name).carry_over(learned(name), np.arange(SIZE), np.arange(SIZE))


def test_many_users_are_scored_in_blocks(monkeypatch):
    """The lists of one block are those of many."""
    model = learned("neumf")
    whole = model.recommend(np.arange(SIZE), BOARD, k=6)
    monkeypatch.setattr(importlib.import_module("tfrec.ops.dot_top_k"), "BLOCK_SCORES", 3 * SIZE)
    sizes = []
    scores = model.scores
    monkeypatch.setattr(type(model), "scores", lambda self, q, items=None: sizes.append(len(q)) or scores(q, items))
    for options in ({}, {"items": np.arange(SIZE)}):
        sizes.clear()
        found = model.recommend(np.arange(SIZE), BOARD, k=6, **options)
        np.testing.assert_array_equal(found[0], whole[0])
        assert sizes == [3] * 13 + [1]
