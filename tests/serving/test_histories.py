"""The SavedModel, in this process and in a fresh one with TensorFlow only."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.models import VAECF, Popularity
from tfrec.serving import ServedHistories, export

ITEMS = 12
IDS = np.array([5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43])
NAMES = np.array([f"títle {i}" for i in range(ITEMS)], dtype=object)
COUNTS = np.arange(ITEMS, 0, -1, dtype=np.float64)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return VAECF(ITEMS, hidden_dims=(8,), latent_dim=3)


@pytest.fixture(scope="module")
def recommender(model):
    return ServedHistories(model, IDS, NAMES, COUNTS)


def ask(recommender, histories, k, dtype=tf.int64):
    flat = [i for h in histories for i in h]
    splits = np.cumsum([0, *map(len, histories)])
    answer = recommender.recommend(tf.constant(flat, dtype), tf.constant(splits, tf.int64), tf.constant(k, tf.int32))
    return {name: value.numpy() for name, value in answer.items()}


def test_is_the_models_ranking_without_the_history(model, recommender):
    answer = ask(recommender, [[7, 23], [43]], 4)
    for row, history in enumerate([[1, 6], [11]]):
        dense = np.zeros((1, ITEMS), np.float32)
        dense[0, history] = 1
        probabilities = tf.nn.softmax(model.scores(tf.sparse.from_dense(dense))).numpy()[0]
        left = [i for i in np.argsort(-probabilities) if i not in history][:4]
        assert answer["ids"][row].tolist() == IDS[left].tolist()
        np.testing.assert_allclose(answer["scores"][row], probabilities[left], rtol=1e-5)
    assert answer["counts"].tolist() == [4, 4]


def test_unknown_repeated_and_unordered_ids(recommender):
    plain = ask(recommender, [[7, 23]], 3)
    for history in ([23, 7], [7, 7, 23, 7], [999, 7, -4, 23]):
        other = ask(recommender, [history], 3)
        assert other["ids"].tolist() == plain["ids"].tolist()
        np.testing.assert_allclose(other["scores"], plain["scores"], rtol=1e-6)


def test_empty_histories_get_the_most_popular(recommender):
    answer = ask(recommender, [[], [7], [999]], 3)
    for row in (0, 2):
        assert answer["ids"][row].tolist() == [5, 7, 11]
        np.testing.assert_allclose(answer["scores"][row], COUNTS[:3] / COUNTS.sum(), rtol=1e-6)
    assert 7 not in answer["ids"][1]
    assert ask(recommender, [], 3)["ids"].shape == (0, 3)


def test_fewer_left_than_asked_for(recommender):
    answer = ask(recommender, [IDS[:10].tolist()], 5)
    assert answer["counts"].tolist() == [2]
    assert sorted(answer["ids"][0][:2]) == [41, 43]
    assert answer["ids"][0][2:].tolist() == [-1] * 3
    assert answer["scores"][0][2:].tolist() == [0] * 3


def test_text_ids_and_numbers(model):
    by_name = ServedHistories(model, NAMES, NAMES, COUNTS)
    by_number = ServedHistories(model, IDS, NAMES, COUNTS, raw_ids=False)
    numbers = ask(by_number, [[1, 6]], 4)["ids"][0]
    names = ask(by_name, [[NAMES[1], NAMES[6], "nobody knows"]], 4, tf.string)["ids"][0]
    assert [n.decode() for n in names] == [NAMES[i] for i in numbers]
    assert ask(by_number, [[-5, 12, 10**12]], 1)["ids"].tolist() == [[0]]


@pytest.mark.parametrize(
    ("splits", "k", "match"),
    [
        ([0, 1], 0, "`k` must lie in"),
        ([0, 1], 13, "`k` must lie in"),
        ([0, 2], 3, "row_splits"),
        ([1, 1], 3, "row_splits"),
        ([0, 3, 1], 3, "row_splits"),
        ([], 3, "row_splits"),
    ],
)
def test_rejects_a_wrong_call(recommender, splits, k, match):
    with pytest.raises(tf.errors.InvalidArgumentError, match=match):
        recommender.recommend(tf.constant([7], tf.int64), tf.constant(splits, tf.int64), tf.constant(k))


def test_rejects_wrong_vocabulary(model):
    with pytest.raises(InputError, match="labels"):
        ServedHistories(model, IDS, NAMES[:3], COUNTS)


@pytest.mark.parametrize("kind", ["vae", "popularity"])
def test_fresh_process_with_tensorflow_only(tmp_path, model, kind):
    if kind == "popularity":
        model = Popularity(ITEMS)
        model.counts.assign(COUNTS)
    recommender = ServedHistories(model, IDS, NAMES, COUNTS)
    path = export(recommender, tmp_path / "model" / "1")
    code = f"""
import sys, json
import tensorflow as tf
loaded = tf.saved_model.load({str(path)!r})
serve = loaded.signatures["serving_default"]
answer = serve(item_ids=tf.constant([7, 23, 999], tf.int64), row_splits=tf.constant([0, 2, 3], tf.int64),
               k=tf.constant(3))
labels = loaded.signatures["vocabulary"]()["labels"]
assert "tfrec" not in sys.modules
print(json.dumps([answer["ids"].numpy().tolist(), answer["counts"].numpy().tolist(), labels[1].numpy().decode()]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ids, counts, label = json.loads(done.stdout.splitlines()[-1])
    assert ids == ask(recommender, [[7, 23], [999]], 3)["ids"].tolist()
    assert counts == [3, 3]
    assert label == NAMES[1]


def test_export_never_overwrites(tmp_path, recommender):
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists already"):
        export(recommender, tmp_path / "there")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        export(recommender, tmp_path / "file" / "x")


def test_agrees_with_the_model_under_float16(recommender, model):
    half = VAECF(ITEMS, hidden_dims=(8,), latent_dim=3, dtype="mixed_float16")
    half.set_weights(model.get_weights())
    a = ask(recommender, [[7, 23]], 12)
    b = ask(ServedHistories(half, IDS, NAMES, COUNTS), [[7, 23]], 12)
    scores = [dict(zip(x["ids"][0], x["scores"][0], strict=True)) for x in (a, b)]
    for item, score in scores[0].items():
        np.testing.assert_allclose(scores[1][item], score, rtol=5e-3)
