"""What needs TensorFlow Recommenders, in a process of its own: python -m tests.retrieval.tfrs_checks FILE

Which Keras `tf.keras` is can be decided once in a process, so that `tests/retrieval/test_tfrs.py` starts this one.
"""

import json
import sys
import tempfile
import traceback
from functools import cache

import numpy as np
import scipy.sparse
import tensorflow as tf

from tests.models.test_contract import BOARD, FAMILIES, SIZE, learned
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


@cache
def recommender(family, text=False):
    """One that has learned; of items with text for ids where asked for."""
    return Recommender(learned(family), vocabulary(text))


def vocabulary(text=False):
    more = scipy.sparse.csr_matrix(([1.0, 1.0], ([0, 0], [3, 9])), shape=(2, SIZE), dtype=np.float32)
    histories = scipy.sparse.csr_matrix(scipy.sparse.vstack([BOARD, more]), dtype=np.float32)
    popularity = np.bincount(BOARD.indices, minlength=SIZE).astype(np.float32) + np.arange(SIZE) % 7
    ids = np.array([f"i{i}" for i in ITEM_IDS], dtype=object) if text else ITEM_IDS
    return Vocabulary(ids, None, popularity, np.array(USERS[:-1], dtype=object), histories)


def same_order(scores, ours, theirs):
    """Items in one order, but for those whose scores are as good as equal, and with the scores of the model.

    Args:
        scores: item -> the model's score.
        ours: items, best first.
        theirs: items and scores, best first.
    """
    assert len(ours) == len(theirs) == len({item for item, _ in theirs}), (ours, theirs)
    for item, (other, given) in zip(ours, theirs, strict=True):
        near = TOLERANCE * max(1, abs(given))
        assert item == other or abs(scores[item] - scores[other]) <= near, (ours, theirs)
        assert abs(scores[other] - given) <= near, (ours, theirs)


def model_scores(recommender, user):
    """Item -> what the model ranks it by, where anything is known of the user; else what is popular."""
    counts, number = recommender.vocabulary.popularity, USERS.index(user)
    popular = user in ("unknown", "new without") or type(recommender.model).__name__ == "Popularity"
    scores = counts / counts.sum() if user in ("unknown", "new without") else recommender._scores(np.array([number]))[0]
    if popular and scores.max() > 1:
        scores = scores / scores.sum()
    return dict(zip(recommender.vocabulary.item_ids.tolist(), scores.tolist(), strict=True))


def items(found):
    return [item for item, _ in found]


def pairs(answer):
    """Items and scores of each row of a layer's answer."""
    scores, ids = (np.asarray(part) for part in answer)
    ids = [[i.decode() if isinstance(i, bytes) else i for i in row] for row in ids.tolist()]
    return [list(zip(i, s, strict=True)) for i, s in zip(ids, scores.tolist(), strict=True)]


def check_order(family):
    """What a user has left out, TFRS gives what `recommend` gives, at once as one by one, and after it was saved."""
    ours = recommender(family, text=family == "vae-cf")
    table = ours.recommend(USERS, k=6)
    index = to_tfrs(ours, k=6)
    queries, users = index.query_model, tf.constant(USERS)
    recommend = tf.function(
        lambda users: index.query_with_exclusions(users, queries.exclusions(users, width=SIZE - 6)),
        input_signature=[queries.signature],
    )
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(index, folder, signatures={"recommend": recommend})
        read = tf.saved_model.load(folder)
        saved = pairs(read(users))
        signature = read.signatures["recommend"](users)
    whole, streamed = pairs(index(users)), pairs(to_tfrs(ours, "streaming", k=6)(users))
    together = pairs(index.query_with_exclusions(users, queries.exclusions(users)))
    left_out = pairs((signature["output_0"], signature["output_1"]))
    for row, user in enumerate(USERS):
        scores = model_scores(ours, user)
        wanted = [i for u, i in zip(*(table[c].to_pylist() for c in ("user", "item")), strict=True) if u == user]
        same_order(scores, wanted, together[row])
        same_order(scores, wanted, left_out[row])
        one = tf.constant([user])
        same_order(scores, wanted, pairs(index.query_with_exclusions(one, queries.exclusions(one)))[0])
        same_order(scores, sorted(scores, key=lambda item: -scores[item])[:6], whole[row])
        same_order(scores, items(whole[row]), streamed[row])
        same_order(scores, items(whole[row]), saved[row])


def check_vectors(family):
    """Vectors in Python are those of the index, and their products are the model's scores."""
    ours = recommender(family)
    index = to_tfrs(ours)
    vectors = ours.query_vectors(USERS)
    np.testing.assert_allclose(vectors, index.query_model(tf.constant(USERS)), rtol=1e-5, atol=1e-6)
    products = vectors @ ours.item_vectors().T
    for user, row in zip(USERS, products, strict=True):
        np.testing.assert_allclose(row, [*model_scores(ours, user).values()], rtol=1e-4, atol=1e-5)


def check_histories(family):
    """New users by their items, in rows of any length."""
    ours = recommender(family)
    histories = [[1_004, 1_006], [1_003], [], [1_001, 1_005, 1_007, 1_009]]
    index = to_tfrs(ours, k=20, by="histories")
    # An unknown item counts for nothing, one that occurs twice counts once.
    padded = [[*row, *row[:1], 77, *[-1] * 4][:5] for row in histories]
    asked = tf.constant(padded, tf.int64)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(index, folder)
        saved = pairs(tf.saved_model.load(folder)(asked))
    vectors = ours.query_vectors(histories=histories)
    np.testing.assert_allclose(vectors, index.query_model(asked), rtol=1e-5, atol=1e-6)
    table = ours.recommend_to(histories, k=4)
    for row, (history, answer) in enumerate(zip(histories, pairs(index(asked)), strict=True)):
        scores = dict(zip(ITEM_IDS.tolist(), (ours.item_vectors() @ vectors[row]).tolist(), strict=True))
        wanted = [i for u, i in zip(*(table[c].to_pylist() for c in ("user", "item")), strict=True) if u == row]
        same_order(scores, wanted, [pair for pair in answer if pair[0] not in history][: len(wanted)])
        same_order(scores, items(answer), saved[row])


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
    found = pairs(index.query_with_exclusions(asked, index.query_model.exclusions(asked)))
    for row, user in enumerate(ids[users].tolist()):
        wanted = ours.recommend([user], k=5)["item"].to_pylist()
        scores = dict(zip(range(7, 57), ours._scores(np.array([user // 3]))[0].tolist(), strict=True))
        same_order(scores, wanted, found[row])


def error_of(call):
    try:
        call()
    except InputError as error:
        return str(error)
    raise AssertionError("there was no error")


def check_an_index_of_somewhere_else():
    """Without a query model, its own ids, a part of the catalogue, padding."""
    ours = recommender("als")
    table, ids = ours.item_vectors(), ITEM_IDS
    layers = load_tfrs().layers.factorized_top_k

    def vectors(users):
        return tf.constant(ours.query_vectors(users))

    wanted = ours.evaluate(targets(), METRICS)
    as_text = layers.BruteForce().index(tf.constant(table), tf.constant([str(i) for i in ids]))
    data = ours.vocabulary
    rows, columns = data.histories.nonzero()
    interactions = Interactions.from_frame(
        {"user": data.user_ids[rows], "item": ids[columns]}, user="user", item="item"
    )
    for given in (ours, interactions):
        found = from_tfrs(as_text, given, targets(), ("ndcg@5",), queries=vectors)
        if given is ours:
            assert abs(found.metrics["ndcg@5"] - wanted.metrics["ndcg@5"]) <= 1e-6
    stranger = layers.BruteForce().index(tf.constant(table), tf.constant(ids + 5))
    assert "ids of the catalogue's items.\nReceived: 104" in error_of(
        lambda: from_tfrs(stranger, ours, targets(), ("ndcg@5",), queries=vectors)
    )
    part = layers.BruteForce().index(tf.constant(table[:10]), tf.constant(ids[:10]))
    assert "must give lists of 24 items" in error_of(
        lambda: from_tfrs(part, ours, targets(), ("ndcg@5",), queries=vectors)
    )

    def padded(queries, k):
        """Finds nothing but a user's own number."""
        place = tf.argmax(tf.matmul(queries, table, transpose_b=True), axis=1)
        first = tf.gather(tf.constant(ids), place)[:, None]
        return tf.concat([tf.ones_like(first, tf.float32), tf.zeros([len(first), 3])], 1), tf.pad(
            first, [[0, 0], [0, 3]], constant_values=-1
        )

    found = from_tfrs(padded, ours, targets(), ("recall@5",), queries=vectors)
    best = np.asarray(ours.query_vectors(USERS[:-1]) @ table.T).argmax(axis=1)
    had = ours.vocabulary.histories.toarray()[np.arange(SIZE + 2), best] > 0
    hits = [
        np.mean([1_000 + b == t and not h for t in wanted_of]) * len(wanted_of) / min(5, len(wanted_of))
        for user, b, h in zip(USERS[:-1], best, had, strict=True)
        if (
            wanted_of := [
                t for t in targets()[user] if t != 99 and not ours.vocabulary.histories[USERS.index(user), t - 1_000]
            ]
        )
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
