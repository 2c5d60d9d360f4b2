"""What needs TensorFlow Recommenders, in a process of its own: python -m tests.retrieval.tfrs_checks FILE

Which Keras `tf.keras` is can be decided once in a process, so that `tests/retrieval/test_tfrs.py` starts this one.
"""

import json
import sys
import tempfile
import traceback

import numpy as np
import scipy.sparse
import tensorflow as tf

from tests.models.test_contract import BOARD, FAMILIES, SIZE
from tfrec import Interactions, Recommender
from tfrec.errors import InputError
from tfrec.models import ALS
from tfrec.retrieval import from_tfrs, load_tfrs, to_tfrs
from tfrec.runs.vocabulary import Vocabulary

#: Those of which no scores are inner products of vectors of users and items.
WITHOUT = ("neumf", "neumf-tt", "neumf-int8", "als-int8", "vae-cf-int8")
WITH = tuple(name for name in FAMILIES if name not in WITHOUT)
#: The last three: no user by number but with a history; without one; not in the data.
USERS = [*(f"ü{u}" for u in range(SIZE)), "new with some", "new without", "unknown"]
ITEM_IDS = np.arange(SIZE) + 1_000
METRICS = ("recall@1", "ndcg@5", "auc", "coverage@3")
#: Of a score, for sums of at most 40 float32 products in another order; float16's factors are summed in float32, too.
TOLERANCE = 1e-5


def recommender(family, text=False):
    """One that has learned; of items with text for ids where asked for."""
    model = FAMILIES[family].make(SIZE, SIZE)
    model = FAMILIES[family].learn(model) or model
    model = model if hasattr(model, "num_items") else made(family)
    return Recommender(model, vocabulary(text))


def made(family):
    """A model whose `learn` gives a history in place of the model."""
    model = FAMILIES[family].make(SIZE, SIZE)
    FAMILIES[family].learn(model)
    return model


def vocabulary(text=False):
    more = scipy.sparse.csr_matrix(([1.0, 1.0], ([0, 0], [3, 9])), shape=(2, SIZE), dtype=np.float32)
    histories = scipy.sparse.csr_matrix(scipy.sparse.vstack([BOARD, more]), dtype=np.float32)
    popularity = np.bincount(BOARD.indices, minlength=SIZE).astype(np.float32) + np.arange(SIZE) % 7
    ids = np.array([f"i{i}" for i in ITEM_IDS], dtype=object) if text else ITEM_IDS
    return Vocabulary(ids, None, popularity, np.array(USERS[:-1], dtype=object), histories)


def same_order(ours, theirs):
    """Lists of (item, score), best first: equal, but for items whose scores are as good as equal."""
    assert len(ours) == len(theirs), (ours, theirs)
    score = dict(ours)
    for (item, of_item), (other, of_other) in zip(ours, theirs, strict=True):
        assert item == other or abs(score.get(other, np.inf) - of_item) <= TOLERANCE, (ours, theirs)
        assert abs(of_item - of_other) <= TOLERANCE * max(1, abs(of_item)), (ours, theirs)


def own_scores(recommender, user, items):
    """What the model ranks these items by."""
    number = USERS.index(user)
    if number == len(USERS) - 1:
        scores = recommender.vocabulary.popularity / recommender.vocabulary.popularity.sum()
    else:
        scores = recommender._scores(np.array([number]))[0]
        if user == "new without" or (user == "new with some" and not recommender.model.takes_histories):
            scores = scores / recommender.vocabulary.popularity.sum()
        elif type(recommender.model).__name__ == "Popularity":
            scores = scores / scores.sum()
    return scores[[recommender.vocabulary.item_ids.tolist().index(i) for i in items]].tolist()


def lists(recommender, k):
    """User -> (item, score the model ranks by), as `recommend` gives them."""
    table = recommender.recommend(USERS, k=k)
    found = {user: [] for user in USERS}
    for user, item in zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True):
        found[user].append(item)
    return {
        user: list(zip(items, own_scores(recommender, user, items), strict=True)) for user, items in found.items()
    }


def pairs(answer):
    scores, ids = (np.asarray(part) for part in answer)
    ids = [[i.decode() if isinstance(i, bytes) else i for i in row] for row in ids.tolist()]
    return [list(zip(i, s, strict=True)) for i, s in zip(ids, scores.tolist(), strict=True)]


def check_order(family):
    """What a user has left out, TFRS gives what `recommend` gives, at once as one by one, and after it was saved."""
    ours = recommender(family, text=family == "vae-cf")
    wanted = lists(ours, 6)
    index = to_tfrs(ours, k=6)
    queries = index.query_model
    users = tf.constant(USERS)
    together = pairs(index.query_with_exclusions(users, queries.exclusions(users)))
    for user, found in zip(USERS, together, strict=True):
        same_order(wanted[user], found)
        one = tf.constant([user])
        same_order(found, pairs(index.query_with_exclusions(one, queries.exclusions(one)))[0])
    whole = pairs(index(users))
    for found, streamed in zip(whole, pairs(to_tfrs(ours, "streaming", k=6)(users)), strict=True):
        same_order(found, streamed)
    recommend = tf.function(
        lambda users: index.query_with_exclusions(users, queries.exclusions(users, width=SIZE - 6)),
        input_signature=[queries.signature],
    )
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(index, folder, signatures={"recommend": recommend})
        read = tf.saved_model.load(folder)
        for found, again in zip(whole, pairs(read(users)), strict=True):
            same_order(found, again)
        named = read.signatures["recommend"](users)
        answer = (named["output_0"], named["output_1"])
        for found, again in zip(together, pairs(answer), strict=True):
            same_order(found, again)


def check_vectors(family):
    """Vectors in Python are those of the index, and their products are the model's scores."""
    ours = recommender(family)
    index = to_tfrs(ours)
    vectors = ours.query_vectors(USERS)
    np.testing.assert_allclose(vectors, index.query_model(tf.constant(USERS)), rtol=1e-5, atol=1e-6)
    products = vectors @ ours.item_vectors().T
    for user, row in zip(USERS, products, strict=True):
        np.testing.assert_allclose(row, own_scores(ours, user, ITEM_IDS.tolist()), rtol=1e-4, atol=1e-5)


def check_histories(family):
    """New users by their items, in rows of any length."""
    ours = recommender(family)
    histories = [[1_004, 1_006], [1_003], [], [1_001, 1_005, 1_007, 1_009]]
    index = to_tfrs(ours, k=20, by="histories")
    # An unknown item counts for nothing, one that occurs twice counts once.
    padded = [[*row, *row[:1], 77, *[-1] * 4][:5] for row in histories]
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(index, folder)
        read = tf.saved_model.load(folder)
        answers = pairs(index(tf.constant(padded, tf.int64)))
        for found, again in zip(answers, pairs(read(tf.constant(padded, tf.int64))), strict=True):
            same_order(found, again)
    vectors = ours.query_vectors(histories=histories)
    np.testing.assert_allclose(vectors, index.query_model(tf.constant(padded, tf.int64)), rtol=1e-5, atol=1e-6)
    table = ours.recommend_to(histories, k=4)
    scores = vectors @ ours.item_vectors().T
    for row, (history, answer) in enumerate(zip(histories, answers, strict=True)):
        wanted = [item for user, item in zip(*(table[c].to_pylist() for c in ("user", "item")), strict=True) if user == row]
        left = [(item, score) for item, score in answer if item not in history][: len(wanted)]
        same_order([(item, scores[row, item - 1_000]) for item in wanted], left)


def check_refused(family):
    ours = recommender(family)
    for refused in (lambda: to_tfrs(ours), ours.item_vectors, lambda: ours.query_vectors(["ü1"])):
        text = error_of(refused)
        assert text.startswith(type(ours.model).__name__), text
        assert "inner product" in text, text


def targets():
    """The item that a user misses, and others; for the new ones, too; items and users that are not known."""
    wanted = {f"ü{u}": [1_000 + u, 1_000 + (u + 3) % SIZE] for u in range(SIZE)}
    return {**wanted, "new with some": [1_005, 1_003], "new without": [1_001], "unknown": [1_001], "ü0": [1_000, 99]}


def check_evaluation(family):
    """Measured through TFRS as without it, with ties by each rule."""
    ours = recommender(family)
    index = to_tfrs(ours)
    for ties in ("expected", "pessimistic", "optimistic"):
        wanted = ours.evaluate(targets(), METRICS, ties)
        found = from_tfrs(index, ours, targets(), METRICS, ties)
        assert (found.users, found.left_out) == (wanted.users, wanted.left_out)
        for name in METRICS:
            assert abs(found.metrics[name] - wanted.metrics[name]) <= 1e-6, (ties, name, found, wanted)


def check_float16():
    """Factors of 16 bits, on data of which nothing is tied."""
    random = np.random.default_rng(0)
    matrix = scipy.sparse.random(60, 50, 0.2, "csr", np.float32, random_state=0)
    matrix.data[:] = 1
    model = ALS(factors=8, iterations=4, factor_dtype="float16", seed=2)
    model.fit(matrix, verbose=0)
    ids = np.arange(60) * 3
    users = random.permutation(60)[:20]
    popularity = np.bincount(matrix.indices, minlength=50).astype(np.float32)
    ours = Recommender(model, Vocabulary(np.arange(50) + 7, None, popularity, ids, matrix))
    index = to_tfrs(ours, k=5)
    asked = tf.constant(ids[users])
    table = ours.recommend(ids[users], k=5)
    answer = index.query_with_exclusions(asked, index.query_model.exclusions(asked))
    found = [pair for row in pairs(answer) for pair in row]
    same_order(list(zip(table["item"].to_pylist(), table["score"].to_pylist(), strict=True)), found)


def error_of(call):
    try:
        call()
    except InputError as error:
        return str(error)
    raise AssertionError("there was no error")


def check_an_index_of_somewhere_else():
    """Without a query model, its own ids, a part of the catalogue, padding."""
    ours = recommender("als")
    items, ids = ours.item_vectors(), ITEM_IDS
    layers = load_tfrs().layers.factorized_top_k

    def vectors(users):
        return tf.constant(ours.query_vectors(users))

    wanted = ours.evaluate(targets(), METRICS)
    as_text = layers.BruteForce().index(tf.constant(items), tf.constant([str(i) for i in ids]))
    data = ours.vocabulary
    rows, columns = data.histories.nonzero()
    interactions = Interactions.from_frame({"user": data.user_ids[rows], "item": ids[columns]}, user="user", item="item")
    for given in (ours, interactions):
        found = from_tfrs(as_text, given, targets(), ("ndcg@5",), queries=vectors)
        if given is ours:
            assert abs(found.metrics["ndcg@5"] - wanted.metrics["ndcg@5"]) <= 1e-6
    stranger = layers.BruteForce().index(tf.constant(items), tf.constant(ids + 5))
    assert "ids of the catalogue's items.\nReceived: 104" in error_of(
        lambda: from_tfrs(stranger, ours, targets(), ("ndcg@5",), queries=vectors)
    )
    part = layers.BruteForce().index(tf.constant(items[:10]), tf.constant(ids[:10]))
    assert "must give lists of 24 items" in error_of(
        lambda: from_tfrs(part, ours, targets(), ("ndcg@5",), queries=vectors)
    )

    def padded(queries, k):
        """Finds nothing but a user's own number."""
        place = tf.argmax(tf.matmul(queries, items, transpose_b=True), axis=1)
        first = tf.gather(tf.constant(ids), place)[:, None]
        return tf.concat([tf.ones_like(first, tf.float32), tf.zeros([len(first), 3])], 1), tf.pad(
            first, [[0, 0], [0, 3]], constant_values=-1
        )

    found = from_tfrs(padded, ours, targets(), ("recall@5",), queries=vectors)
    best = np.asarray(ours.query_vectors(USERS[:-1]) @ items.T).argmax(axis=1)
    had = ours.vocabulary.histories.toarray()[np.arange(SIZE + 2), best] > 0
    hits = [
        np.mean([1_000 + b == t and not h for t in wanted_of]) * len(wanted_of) / min(5, len(wanted_of))
        for user, b, h in zip(USERS[:-1], best, had, strict=True)
        if (wanted_of := [t for t in targets()[user] if t != 99 and not ours.vocabulary.histories[USERS.index(user), t - 1_000]])
    ]
    assert abs(found.metrics["recall@5"] - np.mean(hits)) <= 1e-6, (found, np.mean(hits))
    for metric in ("coverage@5", "auc"):
        assert f"for {metric}.\nReceived: " in error_of(
            lambda metric=metric: from_tfrs(padded, ours, targets(), (metric,), queries=vectors)
        )


def check_arguments():
    ours = recommender("ease")
    for options in ({"kind": "scann"}, {"k": 0}, {"k": SIZE + 1}, {"by": "items"}):
        assert f"`{next(iter(options))}` must be" in error_of(lambda options=options: to_tfrs(ours, **options))
    assert "No target is left" in error_of(lambda: from_tfrs(to_tfrs(ours), ours, {"unknown": [1_001]}))
    assert "Received: both" in error_of(lambda: ours.query_vectors(["ü1"], histories=[[1_001]]))


def checks():
    """Name -> what is called."""
    made = {
        f"{name} {family}": (lambda check=check, family=family: check(family))
        for name, check in (
            ("order", check_order),
            ("vectors", check_vectors),
            ("histories", check_histories),
            ("evaluation", check_evaluation),
        )
        for family in WITH
    }
    made |= {f"refused {family}": (lambda family=family: check_refused(family)) for family in WITHOUT}
    singles = (check_float16, check_an_index_of_somewhere_else, check_arguments)
    return made | {check.__name__.removeprefix("check_").replace("_", " "): check for check in singles}


def main():
    load_tfrs()
    results = {}
    for name, check in checks().items():
        try:
            check()
            results[name] = ""
        except Exception:
            results[name] = traceback.format_exc()
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main()
