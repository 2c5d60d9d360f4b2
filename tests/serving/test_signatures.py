"""Signatures that servers can batch: over all families the order of Python, filters, and requests put together."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models.test_contract import BOARD, FAMILIES, SIZE, learned
from tfrec import Recommender
from tfrec.errors import InputError
from tfrec.runs.vocabulary import Vocabulary
from tfrec.serving import export, signatures

K = 6
#: All models; those that differ in their numbers alone are a study.
MODELS = [pytest.param(n, marks=pytest.mark.slow if n.endswith(("int8", "-tt")) else ()) for n in FAMILIES]
ITEM_IDS = np.array([f"títle {i}" for i in range(SIZE)], dtype=object)
USER_IDS = np.arange(SIZE) + 1_000


def recommender(name):
    popularity = np.asarray(BOARD.sum(axis=0)).ravel()
    return Recommender(learned(name), Vocabulary(ITEM_IDS, ITEM_IDS, popularity, USER_IDS, BOARD))


_served = {}


def served(name):
    if name not in _served:
        _served[name] = recommender(name).served(k=(K, SIZE))
    return _served[name]


def padded(rows, width=None):
    width = max([1, *map(len, rows)]) if width is None else width
    return np.array([[*row, *[""] * (width - len(row))] for row in rows], dtype=object).reshape(len(rows), width)


def ask(name, signature, **inputs):
    """The answer as NumPy, for arrays or lists."""
    types = signatures.input_specs(served(name), signature)
    answer = served(name).signatures[signature](*(tf.constant(inputs[n], types[n].dtype) for n in types))
    return {n: v.numpy() for n, v in answer.items()}


def lists(answer):
    return [[i.decode() for i in ids[:count]] for ids, count in zip(answer["ids"], answer["counts"], strict=True)]


def of_table(table, users, column="user", item="item"):
    found = {user: [] for user in users}
    for row in table.to_pylist():
        found[row[column]].append(row[item])
    return list(found.values())


def by_user(name):
    return "user_ids" in signatures.input_specs(served(name), "recommend")


def history(user):
    return [ITEM_IDS[i] for i in BOARD[user].indices]


def query(name, users):
    if by_user(name):
        return {"user_ids": USER_IDS[users]}
    return {"item_ids": padded([history(u) for u in users], SIZE)}


@pytest.mark.parametrize("name", MODELS)
def test_lists_have_the_order_of_python(name):
    users = np.array([0, 3, 7])
    python, model = recommender(name), learned(name)
    for signature, k in (("recommend", K), (f"top_{K}", K), (f"top_{SIZE}", SIZE)):
        answer = ask(name, signature, **query(name, users))
        assert answer["ids"].shape == (3, k)
        assert answer["known"].all()
        assert set(lists(answer)[0]).isdisjoint(history(0))
        wanted = of_table(python.recommend(USER_IDS[users], k=k), USER_IDS[users])
        assert_same_order(lists(answer), wanted, model.scores(BOARD[users] if not by_user(name) else users).numpy())
    if "recommend_to" in served(name).signatures:
        answer = ask(name, "recommend_to", item_ids=padded([history(0), ["títle 1", "no such"]]))
        wanted = of_table(python.recommend_to([history(0), ["títle 1"]], k=K), [0, 1])
        assert lists(answer) == wanted


def assert_same_order(found, wanted, scores):
    """The same items; where two change places, their scores are equal but for rounding."""
    number = {raw: i for i, raw in enumerate(ITEM_IDS)}
    for a, b, row in zip(found, wanted, scores, strict=True):
        assert len(a) == len(b)
        np.testing.assert_allclose(row[[number[i] for i in a]], row[[number[i] for i in b]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [m for m in MODELS if FAMILIES[m.values[0]].similar])
def test_similar_items_have_the_order_of_python(name):
    items = ["títle 4", "títle 9"]
    answer = ask(name, "similar_items", item_ids=[*items, "no such"])
    assert answer["known"].tolist() == [True, True, False]
    assert answer["counts"][2] == 0
    table = recommender(name).similar_items(items, k=K)
    wanted = np.array(table["score"].to_numpy()).reshape(2, K)
    np.testing.assert_allclose(answer["scores"][:2], wanted, rtol=1e-4, atol=1e-5)
    assert all(item not in row for item, row in zip(items, lists(answer), strict=False))


@pytest.mark.parametrize("name", MODELS)
def test_scores_of_candidates(name):
    candidates = padded([["títle 2", "no such", "títle 5"]] * 2)
    argument = "item_ids" if by_user(name) else "candidate_ids"
    users = np.array([0, 7])
    answer = ask(name, "score", **query(name, users), **{argument: candidates})
    assert answer["known"].tolist() == [[True, False, True]] * 2
    everything = ask(name, f"top_{SIZE}", **query(name, users))
    for row, shown in enumerate(answer["scores"]):
        found = dict(zip(lists(everything)[row], everything["scores"][row], strict=False))
        for item, score in (("títle 2", shown[0]), ("títle 5", shown[2])):
            if item in found:
                assert score == pytest.approx(found[item], rel=1e-4, abs=1e-6)


ids = st.lists(st.sampled_from([*ITEM_IDS, "no such"]), max_size=SIZE)


@pytest.mark.parametrize("name", ["als", "vae-cf"])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests=st.lists(st.tuples(st.integers(0, SIZE - 1), ids, ids), min_size=1, max_size=4))
def test_filters(name, requests):
    """Nothing excluded, seen or unavailable appears; k are given wherever k remain; a batch answers as its requests."""
    users, exclude, among = map(list, zip(*requests, strict=True))
    answer = ask(
        name,
        "recommend_filtered",
        **query(name, np.array(users)),
        exclude_ids=padded(exclude, SIZE),
        among_ids=padded(among, SIZE),
    )
    for row, (user, without, only) in enumerate(requests):
        left = (set(only) if only else set(ITEM_IDS)) - set(without) - set(history(user)) - {"no such"}
        found = lists(answer)[row]
        assert len(found) == len(set(found)) == min(K, len(left))
        assert set(found) <= left
        alone = ask(
            name,
            "recommend_filtered",
            **query(name, np.array([user])),
            exclude_ids=padded([without]),
            among_ids=padded([only]),
        )
        scores = answer["scores"][row], alone["scores"][0]
        np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-6)
        python = recommender(name)
        if set(only) <= set(ITEM_IDS) and set(without) <= set(ITEM_IDS):
            table = python.recommend([USER_IDS[user]], k=K, exclude=without, among=only or None)
            np.testing.assert_allclose(scores[1][: len(found)], table["score"].to_numpy(), rtol=1e-4, atol=1e-6)


def test_nothing_is_left():
    one = query("als", np.array([0]))
    answer = ask("als", "recommend_filtered", **one, exclude_ids=padded([ITEM_IDS]), among_ids=padded([[]]))
    assert answer["counts"].tolist() == [0]
    assert set(answer["ids"].ravel()) == {b""}
    answer = ask("als", "recommend_filtered", **one, exclude_ids=padded([[]]), among_ids=padded([["no such"]]))
    assert answer["counts"].tolist() == [0]
    # No user, and no place for an id.
    none = np.zeros([0, 0], object)
    assert ask("als", "recommend_filtered", user_ids=[], exclude_ids=none, among_ids=none)["ids"].shape == (0, K)
    wide = np.zeros([1, 0], object)
    assert ask("als", "recommend_filtered", **one, exclude_ids=wide, among_ids=wide)["counts"].tolist() == [K]


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({"exclude_ids": padded([[], []])}, "`exclude_ids` must have a row for each query"),
        ({"among_ids": padded([[], []])}, "`among_ids` must have a row for each query"),
    ],
)
def test_rejects_another_number_of_rows(inputs, match):
    given = {"user_ids": USER_IDS[:1], "exclude_ids": padded([[]]), "among_ids": padded([[]])} | inputs
    with pytest.raises(tf.errors.InvalidArgumentError, match=match):
        ask("als", "recommend_filtered", **given)


def test_lists_longer_than_the_catalogue():
    with pytest.raises(InputError, match=r"must lie in \[1, 40\]"):
        recommender("als").served(k=(41,))


def test_the_id_that_stands_for_none():
    numbers = np.arange(SIZE) - 1
    made = Recommender(learned("als"), Vocabulary(numbers, ITEM_IDS, np.ones(SIZE), USER_IDS, BOARD))
    with pytest.raises(InputError, match=r"(?s)fills empty places with the id -1.*--no-raw-ids"):
        made.served()
    assert made.served(raw_ids=False).signatures


# ---- on disk -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "plays" / "3"
    made = recommender("als")
    return made.export(path, served=served("als"), about={"metrics": {"ndcg@10": 0.5}})


def test_signatures_are_described_with_examples(exported):
    described = json.loads((exported / "signatures.json").read_text())
    loaded = tf.saved_model.load(str(exported)).signatures
    assert set(described["signatures"]) == set(loaded)
    assert described["padding"] == ""
    assert described["about"] == {"metrics": {"ndcg@10": 0.5}}
    for name, said in described["signatures"].items():
        if said["batched"]:
            types = [*said["inputs"].values(), *said["outputs"].values()]
            assert all(t["shape"][0] is None for t in types), name
        if name == "vocabulary":
            continue
        example = said["example"]
        answer = loaded[name](**{n: tf.constant(v, said["inputs"][n]["dtype"]) for n, v in example["inputs"].items()})
        assert set(answer) == set(said["outputs"])
        for n, tensor in answer.items():
            assert tensor.dtype.name == said["outputs"][n]["dtype"]
            shown = tensor.numpy()
            if tensor.dtype == tf.string:
                shown = np.vectorize(bytes.decode, otypes=[object])(shown)
                assert shown.tolist() == example["outputs"][n]
            else:
                np.testing.assert_allclose(shown, example["outputs"][n], rtol=1e-5)


def test_each_weight_is_stored_once(exported):
    names = [n for n, _ in tf.train.list_variables(str(exported / "variables" / "variables"))]
    stored = sum(
        int(np.prod(shape)) for n, shape in tf.train.list_variables(str(exported / "variables" / "variables")) if shape
    )
    assert stored < 1.1 * sum(int(np.prod(w.shape)) for w in learned("als").weights), names


def test_warm_up_requests_are_read_by_the_servers_own_classes(exported):
    log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    loaded = tf.saved_model.load(str(exported)).signatures
    asked = {}
    for record in tf.data.TFRecordDataset(str(exported / "assets.extra" / "tf_serving_warmup_requests")):
        request = log.PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == "plays"
        name = request.model_spec.signature_name
        inputs = {n: tf.constant(tf.make_ndarray(t)) for n, t in request.inputs.items()}
        answer = loaded[name](**inputs)
        sizes = {len(t) for t in [*inputs.values(), *answer.values()]}
        assert len(sizes) == 1
        asked.setdefault(name, []).append(sizes.pop())
    assert set(asked) == set(signatures.batched(served("als")))
    assert all(sizes == [1, 8, 32, 64] for sizes in asked.values())


def test_configurations_are_read_by_the_servers_own_classes(exported):
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    triton = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    text = (exported.parent / "models.config").read_text()
    (model,) = text_format.Parse(text, config.ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path) == ("plays", "/models/plays")
    text = (exported.parent / "config.pbtxt").read_text()
    model = text_format.Parse(text, triton.ModelConfig())
    assert (model.name, model.max_batch_size) == ("plays", 64)
    assert model.parameters["TF_SIGNATURE_DEF"].string_value == "recommend"
    assert [i.name for i in model.input] == ["user_ids"]
    assert {o.name: list(o.dims) for o in model.output} == {"ids": [K], "scores": [K], "counts": [1], "known": [1]}


def test_a_folder_without_a_version_gets_no_files_of_servers(tmp_path):
    export(served("als"), tmp_path / "plain")
    assert [p.name for p in tmp_path.iterdir()] == ["plain"]


@pytest.mark.slow
def test_every_family_answers_in_a_process_without_tfrec(tmp_path):
    """The exports of all families, asked by a process that has TensorFlow alone."""
    users = np.array([0, 3, 7, 12])
    wanted = {}
    for name in FAMILIES:
        export(served(name), tmp_path / name)
        asked = query(name, users)
        wanted[name] = {
            "inputs": {n: v.tolist() for n, v in asked.items()},
            "lists": lists(ask(name, "recommend", **asked)),
        }
    (tmp_path / "asked.json").write_text(json.dumps(wanted))
    code = """
import json, sys
import tensorflow as tf
for name, said in json.load(open("asked.json")).items():
    serve = tf.saved_model.load(name).signatures["recommend"]
    found = serve(**{n: tf.constant(v, tf.string if n == "item_ids" else tf.int64) for n, v in said["inputs"].items()})
    lists = [[i.decode() for i in ids[:c]] for ids, c in zip(found["ids"].numpy(), found["counts"].numpy())]
    assert lists == said["lists"], (name, lists, said["lists"])
assert "tfrec" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2_000:]
