"""The recommender: raw ids in, raw ids out, around any model."""

import csv
from dataclasses import replace

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import tensorflow as tf

from tests.models.test_als import checkerboard
from tfrec import Recommender
from tfrec.data import Interactions
from tfrec.errors import InputError
from tfrec.models import ALS, EASE, VAECF, NeuMF, Popularity
from tfrec.runs.vocabulary import Vocabulary

#: Of the checkerboard.
USERS, ITEMS = checkerboard().shape
USER_IDS = np.array([f"käufer {u}" for u in range(USERS)] + ["new with one", "new without"], dtype=object)
TITLES = np.array([f"Tïtle 🎬 {i}" for i in range(ITEMS)], dtype=object)
#: Even numbers of users have items of even numbers, odd ones those of odd numbers.
ITEM_IDS = np.arange(ITEMS) + 1_000


@pytest.fixture(scope="module")
def vocabulary():
    """Two users that the models do not know by number: one has item 3, one has nothing."""
    more = scipy.sparse.csr_matrix(([1.0], ([0], [3])), shape=(2, ITEMS), dtype=np.float32)
    histories = scipy.sparse.csr_matrix(scipy.sparse.vstack([checkerboard(), more]), dtype=np.float32)
    popularity = np.bincount(checkerboard().indices, minlength=ITEMS).astype(np.float32)
    popularity[7] += 50
    return Vocabulary(ITEM_IDS, TITLES, popularity, USER_IDS, histories)


@pytest.fixture(scope="module")
def models():
    keras.utils.set_random_seed(1)
    als = ALS(factors=2, regularization=0.1, iterations=10, alpha=20.0, seed=1)
    als.fit(checkerboard(), verbose=0)
    popularity = Popularity(ITEMS)
    popularity.adapt(checkerboard())
    ease = EASE(ITEMS, regularization=1.0)
    ease.fit(scipy.sparse.csr_matrix(checkerboard(), dtype=np.float32), verbose=0)
    return {
        "als": als,
        "ease": ease,
        "popularity": popularity,
        "vae": VAECF(ITEMS, hidden_dims=(8,), latent_dim=4),
        "neumf": NeuMF(USERS, ITEMS, mf_dim=4, layer_dims=(8, 4)),
    }


@pytest.fixture
def als(models, vocabulary):
    return Recommender(models["als"], vocabulary)


@pytest.fixture(params=["als", "ease", "popularity", "vae", "neumf"])
def recommender(request, models, vocabulary):
    return Recommender(models[request.param], vocabulary)


def items_of(vocabulary, user):
    row = vocabulary.histories[USER_IDS.tolist().index(user)]
    return set(ITEM_IDS[row.indices].tolist())


def lists(table, key="user", value="item"):
    found = {}
    for row in table.to_pylist():
        found.setdefault(row[key], []).append(row[value])
    return found


def test_a_table_of_raw_ids(recommender, vocabulary):
    users = ["käufer 3", "käufer 0", "new with one"]
    table = recommender.recommend(users, k=4)
    assert table.column_names == ["user", "rank", "item", "title", "score"]
    assert list(lists(table)) == users
    for row in table.to_pylist():
        assert row["title"] == TITLES[row["item"] - 1_000]
    for user, items in lists(table).items():
        assert len(items) == len(set(items)) == 4
        assert not set(items) & items_of(vocabulary, user)
    assert lists(table, value="rank") == {user: [1, 2, 3, 4] for user in users}
    for scores in lists(table, value="score").values():
        assert scores == sorted(scores, reverse=True)


def test_what_was_learned(als):
    """Everybody misses the item of their own number alone."""
    assert lists(als.recommend(["käufer 4", "käufer 1"], k=1)) == {"käufer 4": [1_004], "käufer 1": [1_001]}
    assert {item % 2 for item in als.recommend_to([[TITLES[3], 1_005]], k=3)["item"].to_pylist()} == {1}


def test_users_of_whom_nothing_is_known_get_what_is_popular(recommender, vocabulary):
    best = ITEM_IDS[np.argsort(-vocabulary.popularity, kind="stable")[:3]].tolist()
    found = lists(recommender.recommend(["nobody", "new without"], k=3))
    assert found == {"nobody": best, "new without": best}
    if recommender.model.takes_histories:
        assert lists(recommender.recommend_to([[]], k=3)) == {0: best}
    else:
        # One who is not among the model's users, whatever they have.
        assert lists(recommender.recommend(["new with one"], k=3))["new with one"] == [i for i in best if i != 1_003]


def test_exclude_and_among(recommender):
    user = ["käufer 2"]
    best = recommender.recommend(user, k=5)["item"].to_pylist()
    without = recommender.recommend(user, k=4, exclude=[TITLES[best[0] - 1_000]])["item"].to_pylist()
    assert without == best[1:]
    among = [best[4], best[1], best[2]]
    assert recommender.recommend(user, k=5, among=among)["item"].to_pylist() == [best[1], best[2], best[4]]
    assert recommender.recommend(user, k=5, among=among, exclude=[best[1]])["item"].to_pylist() == [best[2], best[4]]
    assert recommender.recommend(user, k=5, among=[]).num_rows == 0
    popular = recommender.recommend(["nobody"], k=3, exclude=[1_007])["item"].to_pylist()
    assert 1_007 not in popular
    assert recommender.recommend(["nobody"], k=3, among=[1_007])["item"].to_pylist() == [1_007]


def test_a_user_who_has_nearly_everything_gets_what_is_left(models):
    has = np.ones((1, ITEMS), np.float32)
    has[0, [4, 6]] = 0
    found = Vocabulary(ITEM_IDS, None, np.ones(ITEMS), np.array(["ada"], dtype=object), scipy.sparse.csr_matrix(has))
    table = Recommender(models["vae"], found).recommend(["ada"], k=10)
    assert set(table["item"].to_pylist()) == {1_004, 1_006}
    assert set(table["title"].to_pylist()) == {"1004", "1006"}


def test_what_was_met_without_being_liked_is_not_recommended(models):
    histories = scipy.sparse.csr_matrix((np.array([1, 0, -1], np.float32), [2, 4, 6], [0, 3]), shape=(1, ITEMS))
    found = Vocabulary(ITEM_IDS, None, np.ones(ITEMS), np.array([5]), histories)
    for name in ("vae", "ease"):
        table = Recommender(models[name], found).recommend([5], k=ITEMS)
        assert not {1_002, 1_004, 1_006} & set(table["item"].to_pylist())
        assert table.num_rows == ITEMS - 3


def test_an_unfit_question_is_told(recommender):
    for k in (0, -1, ITEMS + 1):
        with pytest.raises(InputError, match=rf"`k` must lie in \[1, {ITEMS}\]"):
            recommender.recommend(["käufer 1"], k=k)
    with pytest.raises(InputError, match=r"(?s)`users` must be a list of names.*Give \['käufer 1'\]"):
        recommender.recommend("käufer 1")
    with pytest.raises(InputError, match="`exclude` must be a list"):
        recommender.recommend(["käufer 1"], exclude=TITLES[0])
    with pytest.raises(InputError, match="must be the title or id of one of the model's items"):
        recommender.recommend(["käufer 1"], among=["Nothing of the kind"])
    if recommender.model.takes_histories:
        with pytest.raises(InputError, match="`histories` must be a list"):
            recommender.recommend_to([TITLES[0]])
        with pytest.raises(InputError, match="must be one of the model's"):
            recommender.recommend_to([[999]])
    else:
        with pytest.raises(InputError, match="(?s)recommends to its training users only.*vae-cf, als or ease"):
            recommender.recommend_to([[TITLES[0]]])
    assert recommender.recommend([]).num_rows == 0


def test_similar_items(als, models, vocabulary):
    table = als.similar_items([TITLES[3], 1_004], k=5)
    assert table.column_names == ["item", "title", "rank", "similar_item", "similar_title", "score"]
    found = lists(table, "item", "similar_item")
    assert list(found) == [1_003, 1_004]
    for item, similar in found.items():
        assert item not in similar
        assert len(similar) == 5
        assert {other % 2 for other in similar} == {item % 2}
    without = als.similar_items([1_003], k=4, exclude=[found[1_003][0]])["similar_item"].to_pylist()
    assert without == found[1_003][1:]
    among = als.similar_items([1_003], k=4, among=[1_004, 1_003, 1_005])["similar_item"].to_pylist()
    assert among == [1_005, 1_004]
    assert als.similar_items([1_003], k=ITEMS).num_rows == ITEMS - 1
    for name in ("popularity", "neumf"):
        with pytest.raises(InputError, match="als"):
            Recommender(models[name], vocabulary).similar_items([1_003])


def test_explain(als, models, vocabulary):
    """The reasons are items of the user's own, those that speak for the item first; of somebody new, too."""
    row = vocabulary.histories[3]
    item = int(next(i for i in range(1, ITEMS, 2) if i not in row.indices))
    found = als.explain("käufer 3", TITLES[item], k=4)
    assert (found.item, found.title) == (1_000 + item, TITLES[item])
    reasons = found.because.to_pylist()
    assert {r["item"] for r in reasons} <= items_of(vocabulary, "käufer 3")
    assert [r["contribution"] for r in reasons] == sorted((r["contribution"] for r in reasons), reverse=True)
    score, ids, contributions = models["als"].explain(row, item, k=4)
    assert found.score == pytest.approx(float(score))
    assert [r["item"] for r in reasons] == ITEM_IDS[ids].tolist()
    np.testing.assert_allclose([r["contribution"] for r in reasons], contributions)
    found = als.explain([1_001, 1_003, 1_008], 1_009, k=2)
    assert {r["item"] for r in found.because.to_pylist()} == {1_001, 1_003}
    whole = als.explain([1_001, 1_003, 1_008], 1_009, k=3)
    assert sum(whole.because["contribution"].to_pylist()) == pytest.approx(whole.score, rel=1e-4)
    with pytest.raises(InputError, match="must be one of the data's"):
        als.explain("nobody", 1_009)
    for name in ("popularity", "neumf"):
        with pytest.raises(InputError, match="als"):
            Recommender(models[name], vocabulary).explain("käufer 3", TITLES[item])


def read_back(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="," if path.suffix == ".csv" else "\t"))
    numbers = {"rank": int, "item": int, "similar_item": int, "score": float}
    return [{name: numbers.get(name, str)(value) for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv"])
def test_everybodys_lists(als, tmp_path, suffix, capsys):
    path = als.write(tmp_path / f"recs{suffix}", k=3)
    assert path == tmp_path / f"recs{suffix}"
    rows = read_back(path)
    assert f"Wrote {len(rows):,} lines to {path}" in capsys.readouterr().out
    asked = als.recommend(USER_IDS.tolist(), k=3).to_pylist()
    assert [(r["user"], r["rank"], r["item"], r["title"]) for r in rows] == [
        (r["user"], r["rank"], r["item"], r["title"]) for r in asked
    ]
    np.testing.assert_allclose([r["score"] for r in rows], [r["score"] for r in asked], rtol=1e-5, atol=1e-6)
    rows = read_back(als.write(tmp_path / f"similar{suffix}", k=2, what="similar_items", exclude=[1_000]))
    assert {r["rank"] for r in rows} == {1, 2}
    assert 1_000 not in {int(r["similar_item"]) for r in rows}


def test_lists_that_cannot_be_written(als, tmp_path):
    with pytest.raises(InputError, match=r"\.parquet, \.csv or \.tsv"):
        als.write(tmp_path / "recs.json")
    with pytest.raises(InputError, match="`what` must be"):
        als.write(tmp_path / "recs.csv", what="users")
    with pytest.raises(InputError, match="`k` must lie in"):
        als.write(tmp_path / "recs.csv", k=0)
    assert list(tmp_path.iterdir()) == []


def test_evaluate(models, vocabulary):
    """What is unknown or had already is left out and counted; the rest is ranked among all that the user has not."""
    vae = Recommender(models["vae"], vocabulary)  # whose scores are all different
    row = set(vocabulary.histories[0].indices.tolist())
    unseen = next(i for i in range(0, ITEMS, 2) if i not in row)
    had = min(row)
    targets = {
        "käufer 0": [1_000 + unseen, 1_000 + had, 9_999],
        "käufer 1": [1_002],
        "new with one": [1_005],
        "nobody": [1_000, 1_001],
    }
    found = vae.evaluate(targets, metrics=["hit_rate@3", "mrr"])
    assert found.users == 3
    assert found.left_out == {
        "of users unknown to the model": 2,
        "of items unknown to the model": 1,
        "that the user has already": 1,
    }
    best = {user: vae.recommend([user], k=ITEMS)["item"].to_pylist() for user in list(targets)[:3]}
    ranks = [
        1 + best["käufer 0"].index(1_000 + unseen),
        1 + best["käufer 1"].index(1_002),
        1 + best["new with one"].index(1_005),
    ]
    assert found.metrics["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]), rel=1e-6)
    assert found.metrics["hit_rate@3"] == pytest.approx(np.mean([rank <= 3 for rank in ranks]))
    pairs = [(user, item) for user, items in targets.items() for item in items]
    users, items = sorted(targets), sorted({item for _, item in pairs})
    events = Interactions(
        np.array([users.index(u) for u, _ in pairs], np.int32), np.array([items.index(i) for _, i in pairs], np.int32),
        np.ones(len(pairs), np.float32), np.array(users, dtype=object), np.array(items),
    )  # fmt: skip
    assert vae.evaluate(events, metrics=["hit_rate@3", "mrr"]) == found
    with pytest.raises(InputError, match="(?s)No target is left to measure.*unknown to the model': 1"):
        vae.evaluate({"nobody": [1_000]})
    # Who is unknown to a model by number is ranked by what is popular.
    neumf = Recommender(models["neumf"], vocabulary)
    assert neumf.evaluate({"new without": [1_007]}, metrics=["mrr"]).metrics == {"mrr": 1.0}


def test_saved_and_loaded_it_gives_the_same_answers(recommender, tmp_path):
    folder = recommender.save(tmp_path / "mine")
    loaded = Recommender.load(folder)
    users = [*USER_IDS.tolist(), "nobody"]
    assert loaded.recommend(users, k=6).equals(recommender.recommend(users, k=6))
    with pytest.raises(InputError, match="exists already"):
        recommender.save(folder)
    (folder / "users.arrow").unlink()
    with pytest.raises(InputError, match=r"has no recommender: users.arrow not found"):
        Recommender.load(folder)


def test_export_answers_the_same(recommender, tmp_path):
    path = recommender.export(tmp_path / "served" / "1")
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    known = recommender.model.num_users
    if known is None:
        histories = [[1_003, 1_005], [1_008]]
        answer = served(
            item_ids=tf.constant([*histories[0], *histories[1]], tf.int64),
            row_splits=tf.constant([0, 2, 3], tf.int64),
            k=tf.constant(4),
        )
        table = recommender.recommend_to(histories, k=4)
    elif recommender.model.takes_histories:
        # It knows some of the users by number and all of them by their items.
        answer = served(
            item_ids=tf.constant([1_003], tf.int64), row_splits=tf.constant([0, 1], tf.int64), k=tf.constant(4)
        )
        table = recommender.recommend(["new with one"], k=4)
    else:
        answer = served(user_ids=tf.constant(["käufer 1", "käufer 2"]), k=tf.constant(4))
        table = recommender.recommend(["käufer 1", "käufer 2"], k=4)
    assert answer["ids"].numpy().ravel().tolist() == table["item"].to_pylist()
    np.testing.assert_allclose(answer["scores"].numpy().ravel(), table["score"].to_numpy(), rtol=1e-4, atol=1e-5)


def test_around_interactions():
    """Numbers as ids, without titles; a float score of one's own model with the two hooks."""
    events = Interactions(
        np.array([0, 0, 1], np.int32), np.array([0, 1, 1], np.int32), np.ones(3, np.float32), np.array([7, 8]),
        np.array([70, 80, 90]),
    )  # fmt: skip
    model = Popularity(3)
    model.adapt(events.to_csr())
    made = Recommender(model, events)
    assert lists(made.recommend([8, "7", 9], k=2)) == {"8": [70, 90], "7": [90], "9": [80, 70]}
    assert lists(made.recommend([8, 7], k=1)) == {8: [70], 7: [90]}
    with pytest.raises(InputError, match="(?s)equally many items.*4, data of 3"):
        Recommender(Popularity(4), events)
    with pytest.raises(InputError, match="(?s)equally many users.*5, data of 2"):
        Recommender(NeuMF(5, 3, mf_dim=2, layer_dims=(4, 2)), events)


def test_describe(als):
    assert als.describe("new with one") == f"new with one has 1 item: {TITLES[3]}"
    assert als.describe("new without") == "new without has 0 items."
    with pytest.raises(InputError, match="(?s)must be one of the data's.*käufer 0"):
        als.describe("nobody")


def test_weights_of_items_are_what_somebody_news_history_has(models, vocabulary):
    """As an item weighs among those who like it, so it does for somebody new."""
    weights = np.linspace(0.5, 3, ITEMS).astype(np.float32)
    made = Recommender(models["als"], replace(vocabulary, weights=weights))
    row = scipy.sparse.csr_matrix((weights[[3, 8]], ([0, 0], [3, 8])), shape=(1, ITEMS))
    scores = models["als"].scores(row).numpy()[0]
    table = made.recommend_to([[1_008, 1_003]], k=5)
    np.testing.assert_allclose(table["score"].to_numpy(), scores[table["item"].to_numpy() - 1_000], rtol=1e-5)


@pytest.mark.parametrize("kind", ["list", "tuple", "numpy", "pandas", "polars", "pyarrow"])
def test_ids_of_every_library(als, kind):
    """Users of text, and items of numbers, as a column of each library has them."""
    import pandas
    import polars
    import pyarrow as pa

    make = {
        "list": list, "tuple": tuple, "numpy": np.array, "pandas": pandas.Series, "polars": polars.Series,
        "pyarrow": pa.array,
    }[kind]  # fmt: skip
    users, items = ["käufer 3", "käufer 0"], [1_003, 1_005]
    assert als.recommend(make(users), k=3).equals(als.recommend(users, k=3))
    assert als.recommend_to([make(items)], k=3).equals(als.recommend_to([items], k=3))
    assert als.similar_items(make(items), k=3).equals(als.similar_items(items, k=3))
    assert als.recommend(users, k=3, exclude=make(items)).equals(als.recommend(users, k=3, exclude=items))
    assert als.explain(make(items), 1_001).because.equals(als.explain(items, 1_001).because)


def test_numbers_with_gaps_are_numbers_and_the_rest_is_refused(als):
    import pandas

    frame = pandas.DataFrame({"item": [1_003, None]})
    whole = als.similar_items(frame["item"].dropna(), k=3)
    assert whole.equals(als.similar_items([1_003], k=3))
    for wrong in (frame["item"], frame, {"item": 1_003}, np.array([[1_003]]), [1_003.5], [[1_003]], [None]):
        with pytest.raises(InputError, match="`items` must"):
            als.similar_items(wrong, k=3)
