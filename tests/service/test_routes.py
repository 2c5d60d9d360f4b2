"""What is asked over HTTP is what Python answers; what is refused says why."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfrec
from tests.service.conftest import serving
from tfrec.errors import InputError
from tfrec.service.limits import Limits
from tfrec.service.models import named_runs

MODELS = ("als", "ease")


@pytest.fixture(scope="module", params=MODELS)
def both(request, runs, client):
    return request.param, tfrec.Recommender.load(runs / request.param)


def check_same(items, rows, prefix=""):
    assert [i["item"] for i in items] == [r[f"{prefix}item"] for r in rows]
    assert [i["title"] for i in items] == [r[f"{prefix}title"] for r in rows]
    assert [i["rank"] for i in items] == [r["rank"] for r in rows]
    np.testing.assert_allclose([i["score"] for i in items], [r["score"] for r in rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chosen", [{}, {"exclude": ["t001", "t086"]}, {"among": ["t001", "t002", "t086", "t099"]}])
@pytest.mark.parametrize("user", ["ada1", "eve16", "nobody"])
def test_lists_are_those_of_python(client, both, user, chosen):
    name, recommender = both
    answer = client.get("/recommend", params={"user": user, "k": 7, "model": name, **chosen}).json()
    check_same(answer["items"], recommender.recommend([user], 7, **chosen).to_pylist())
    assert answer["known"] == (user != "nobody")


def test_histories_similar_items_and_reasons_are_those_of_python(client, both):
    name, recommender = both
    history = ["t001", "Late Taxi"]
    answer = client.get("/recommend", params={"history": history, "k": 5, "model": name}).json()
    check_same(answer["items"], recommender.recommend_to([history], 5).to_pylist())
    answer = client.get("/similar", params={"item": "t001", "k": 5, "exclude": "t008", "model": name}).json()
    check_same(answer["items"], recommender.similar_items(["t001"], 5, exclude=["t008"]).to_pylist(), "similar_")
    answer = client.get("/explain", params={"user": "ada1", "item": "t087", "k": 3, "model": name}).json()
    expected = recommender.explain("ada1", "t087", 3)
    assert [r["item"] for r in answer["because"]] == expected.because["item"].to_pylist()
    assert answer["score"] == pytest.approx(expected.score, rel=1e-4)


def test_unknown_items_are_left_out_and_told(client):
    answer = client.get("/recommend", params={"history": ["t001", "zz"], "among": "yy", "model": "ease"}).json()
    assert answer["unknown"] == {"history": ["zz"], "among": ["yy"]}
    assert answer["items"] == []


def test_names_are_found_by_their_parts(client):
    def found(**fields):
        answer = client.get("/search", params=fields).json()
        return [entry.get("title", entry.get("user")) for entry in answer.get("items", answer.get("users"))]

    assert found(q="late TAXI")[0] == "Late Taxi"
    assert found(q="taxi late")[0] == "Late Taxi"
    assert found(q="t001", k=1) == [client.get("/explain", params={"user": "ada1", "item": "t001"}).json()["title"]]
    assert found(what="users", q="ada1", k=2) == ["ada1", "ada10"]
    assert found(q="no such title") == []
    popular = client.get("/search", params={"k": 5}).json()["items"]
    assert [i["item"] for i in popular] == [i["item"] for i in client.get("/recommend?user=nobody&k=5").json()["items"]]


def test_what_a_user_has(client, runs):
    recommender = tfrec.Recommender.load(runs / "als")
    answer = client.get("/history", params={"user": "ada1", "k": 1_000}).json()
    row = recommender.vocabulary.histories[recommender.vocabulary.user_ids.tolist().index("ada1")]
    assert {i["item"] for i in answer["items"]} == set(recommender.vocabulary.item_ids[row.indices])
    assert answer["count"] == row.nnz
    counts = [i["popularity"] for i in answer["items"]]
    assert counts == sorted(counts, reverse=True)
    assert client.get("/history?user=nobody").json() | {"model": 0, "version": 0} == {
        "model": 0, "version": 0, "user": "nobody", "known": False, "count": 0, "items": []
    }  # fmt: skip


def test_popular_items_can_be_left_out(client):
    most = {i["item"] for i in client.get("/search", params={"k": 30, "model": "ease"}).json()["items"]}
    answer = client.get("/recommend", params={"user": "ada1", "k": 10, "exclude_popular": 30, "model": "ease"}).json()
    assert len(answer["items"]) == 10
    assert not most & {i["item"] for i in answer["items"]}


def test_models_say_what_they_can_be_asked(client):
    found = {m["name"]: m for m in client.get("/models").json()["models"]}
    assert list(found) == ["als", "ease"]
    assert found["ease"]["explains"]
    assert found["ease"]["compares_items"]
    assert found["ease"]["index"] is None
    run = found["als"]["run"]
    assert run["recipe"] == "als"
    assert 0 < run["test"]["recall@20"]["popularity"] < 1
    assert run["data"]["name"] == "plays.csv" or "/" not in run["data"]["name"]
    assert run["split"] != found["ease"]["run"]["split"]


def test_batched_is_single(runs, client):
    questions = [
        {"user": user, "k": k, "exclude": exclude}
        for user, k, exclude in zip(
            ["ada1", "eve16", "nobody", "dan7"] * 10, range(1, 41), [["t001"], [], ["t015"], []] * 10, strict=True
        )
    ]
    single = [client.get("/recommend", params=q).json()["items"] for q in questions]
    from tfrec.service.models import Batching

    with serving({"als": runs / "als"}, batching=Batching(64, 50.0)) as other:
        start = threading.Barrier(20)

        def ask(question):
            if question["k"] <= 20:
                start.wait()
            return other.get("/recommend", params=question).json()["items"]

        with ThreadPoolExecutor(20) as pool:
            together = list(pool.map(ask, questions))
        text = other.get("/metrics").text
    for one, many in zip(single, together, strict=True):
        assert [i["item"] for i in one] == [i["item"] for i in many]
        np.testing.assert_allclose([i["score"] for i in one], [i["score"] for i in many], rtol=1e-4, atol=1e-5)
    batches = float(text.split('tfrec_batch_rows_count{function="lists",model="als"} ')[1].split()[0])
    assert batches < len(questions)


def test_predict_by_rows_and_columns(client):
    rows = client.post("/v1/models/als:predict", json={"signature_name": "recommend", "instances": ["ada1", "zz"]})
    columns = client.post("/v1/models/als:predict", json={"signature_name": "recommend", "inputs": ["ada1", "zz"]})
    predictions, outputs = rows.json()["predictions"], columns.json()["outputs"]
    assert [p["ids"] for p in predictions] == outputs["ids"]
    assert [p["known"] for p in predictions] == [True, False]
    asked = client.get("/recommend", params={"user": "ada1"}).json()["items"]
    assert predictions[0]["ids"] == [i["item"] for i in asked]
    filtered = {"item_ids": ["t001", "t002"], "exclude_ids": ["t008"], "among_ids": []}
    shorter = {"item_ids": ["t001"], "exclude_ids": [], "among_ids": ["t003", "t004"]}
    body = {"signature_name": "recommend_to_filtered", "instances": [filtered, shorter]}
    answer = client.post("/v1/models/als:predict", json=body).json()["predictions"]
    assert "t008" not in answer[0]["ids"]
    assert sorted(answer[1]["ids"][: answer[1]["counts"]]) == ["t003", "t004"]
    default = {"inputs": {"user_ids": ["ada1"], "k": 3}}
    assert client.post("/v1/models/als/versions/1:predict", json=default).json()["outputs"]["ids"] == [
        predictions[0]["ids"][:3]
    ]


def test_status_and_metadata(client):
    status = client.get("/v1/models/als").json()["model_version_status"][0]
    assert status["state"] == "AVAILABLE"
    signatures = client.get("/v1/models/ease/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert signatures["recommend"]["inputs"]["item_ids"]["dtype"] == "DT_STRING"
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) >= {"/recommend", "/similar", "/explain", "/healthz", "/metrics"}


@pytest.mark.parametrize(
    ("address", "status", "field"),
    [
        ("/recommend", 400, "user"),
        ("/recommend?user=a&history=t001", 400, "user"),
        ("/recommend?user=ada1&user=b", 400, "user"),
        ("/recommend?user=ada1&k=0", 400, "k"),
        ("/recommend?user=ada1&k=121", 400, "k"),
        ("/recommend?user=ada1&k=x", 400, "k"),
        ("/recommend?user=ada1&kk=3", 400, "kk"),
        ("/recommend?user=ada1&model=no", 404, "model"),
        ("/recommend?user=ada1&model=../als", 404, "model"),
        ("/recommend?history=" + "&history=".join(["t001"] * 1001), 400, "history"),
        ("/similar?item=no", 404, "item"),
        ("/explain?item=t001", 400, "user"),
        ("/explain?item=t001&user=no", 404, "user"),
        ("/v1/models/no", 404, "name"),
        ("/v1/models/als/versions/7", 404, "version"),
        ("/..%2f..%2fetc/passwd", 404, None),
    ],
)
def test_refused_addresses(client, address, status, field):
    answer = client.get(address)
    assert (answer.status_code, answer.json().get("field")) == (status, field)
    assert answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ("{", 400, "body"),
        ("[" * 100_000, 400, "body"),
        ('{"inputs": {"user_ids": ["a"], "k": NaN}}', 400, "body"),
        ('{"inputs": {"user_ids": ["a"], "k": 1e999}}', 400, "body"),
        ('{"inputs": {"user_ids": ["a"], "k": ' + "9" * 5_000 + "}}", 400, "body"),
        ('{"inputs": {"user_ids": ["a"], "k": 99999999999}}', 400, "k"),
        ('{"inputs": {"user_ids": ["a"], "k": true}}', 400, "k"),
        ('{"inputs": {"user_ids": ["a"], "k": 500}}', 400, "k"),
        ('{"inputs": {"user_ids": ["\\ud800"], "k": 5}}', 400, "body"),
        ('{"inputs": {"user_ids": [5], "k": 5}}', 400, "user_ids"),
        ('{"inputs": {"k": 5}}', 400, "inputs"),
        ('{"instances": [{"user_ids": "a"}]}', 400, "instances"),
        ('{"signature_name": "no", "instances": ["a"]}', 400, "signature_name"),
        ('{"signature_name": "recommend", "instances": []}', 400, "instances"),
        (json.dumps({"signature_name": "recommend", "instances": ["a"] * 257}), 400, "instances"),
        (json.dumps({"signature_name": "recommend_to", "instances": [["t001"] * 1_001]}), 400, "item_ids"),
        ('{"signature_name": "score", "inputs": {"user_ids": ["a", "b"], "item_ids": [["t001"]]}}', 400, "item_ids"),
        (" " * 1_000_001, 413, "body"),
    ],
)
def test_refused_bodies(client, body, status, field):
    answer = client.post("/v1/models/als:predict", content=body)
    assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text


def test_time_and_queue(runs):
    with serving({"als": runs / "als"}, limits=Limits(seconds=1e-9)) as client:
        assert client.get("/recommend?user=ada1").status_code == 504
    with serving({"als": runs / "als"}, limits=Limits(queue=1)) as client:
        body = {"signature_name": "recommend", "instances": ["a", "b"]}
        answer = client.post("/v1/models/als:predict", json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_token(runs):
    with serving({"als": runs / "als"}, token="0123456789abcdef") as client:
        for header in ({}, {"authorization": "Bearer no"}, {"authorization": "Basic 0123456789abcdef"}):
            for address in ("/recommend?user=ada1", "/metrics", "/openapi.json", "/v1/models/als"):
                assert client.get(address, headers=header).status_code == 401
        assert client.get("/healthz").status_code == 200
        right = {"authorization": "Bearer 0123456789abcdef"}
        assert client.get("/recommend?user=ada1", headers=right).status_code == 200


def test_names(tmp_path):
    assert named_runs(["runs/a", "b=runs/a"]).keys() == {"a", "b"}
    with pytest.raises(InputError, match="NAME|Give names"):
        named_runs(["runs/a", "other/a"])
    with pytest.raises(InputError, match="part of an address"):
        named_runs(["runs/a b"])


words = st.one_of(st.sampled_from(["ada1", "t001", "als", "ease", "3", "", "recommend", "score"]), st.text(max_size=8))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=3)),
    max_leaves=8,
)
names = st.sampled_from(["user", "item", "k", "model", "history", "exclude", "among", "other"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["/recommend", "/similar", "/explain"]), st.lists(st.tuples(names, words), max_size=5))
def test_no_address_breaks_it(client, path, fields):
    answer = client.get(path, params=fields)
    assert answer.status_code in (200, 400, 404)
    answer.json()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(MODELS),
    st.sampled_from(
        ["recommend", "score", "serving_default", "vocabulary", "similar_items", "recommend_filtered", "recommend_to"]
    ),
    st.sampled_from(["instances", "inputs"]),
    st.one_of(
        values,
        st.fixed_dictionaries(
            {},
            optional={
                name: values
                for name in ("user_ids", "item_ids", "k", "row_splits", "exclude_ids", "among_ids", "candidate_ids")
            },
        ),
        st.lists(st.lists(words, max_size=3), max_size=3),
    ),
)
def test_no_body_breaks_it(client, model, signature, form, content):
    body = json.dumps({"signature_name": signature, form: content})
    answer = client.post(f"/v1/models/{model}:predict", content=body)
    assert answer.status_code in (200, 400), answer.text
    assert "Traceback" not in answer.text
