"""What the OpenAPI document promises, for requests made of it: over a socket, with no answer of a failed service."""

import http.client
import json
import urllib.parse

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.test_process import port  # noqa: F401

#: Everything that could be typed, and what the data has.
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", "0", "1", "-1", "2147483648", "NaN", "null", "ada1", "eve16", "t001", "Late Taxi", "\x00", "٣"]
    ),
    st.sampled_from(["../../etc/passwd", "%00", "<script>", "' OR 1=1 --", "\u202e", "A" * 300, "t001,t002", "ease"]),
)
numbers = st.one_of(st.integers(-3, 130), st.integers(), st.floats(), st.booleans())
anything = st.recursive(
    st.one_of(st.none(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
ids = st.lists(st.one_of(st.sampled_from(["t001", "t002", "t119", ""]), texts), max_size=5)
SIGNATURES = [
    "recommend",
    "recommend_filtered",
    "top_10",
    "score",
    "similar_items",
    "serving_default",
    "vocabulary",
    "x",
]


def of_schema(schema):
    """What a schema describes, and now and then something else."""
    if "enum" in schema:
        return st.one_of(*3 * [st.sampled_from(schema["enum"])], texts)
    if schema.get("type") == "integer":
        return st.one_of(*2 * [st.integers(schema.get("minimum", 0), 120)], numbers, texts)
    return texts


def bodies():
    rows = st.lists(st.fixed_dictionaries({}, optional={n: st.one_of(ids, anything) for n in INPUTS}), max_size=3)
    columns = st.fixed_dictionaries(
        {}, optional={n: st.one_of(ids, st.lists(ids, max_size=3), anything) for n in INPUTS}
    )
    form = st.one_of(
        st.fixed_dictionaries({"signature_name": st.sampled_from(SIGNATURES), "instances": st.one_of(rows, anything)}),
        st.fixed_dictionaries({"signature_name": st.sampled_from(SIGNATURES), "inputs": st.one_of(columns, anything)}),
        anything,
    )
    return st.one_of(form.map(lambda value: json.dumps(value).encode()), st.binary(max_size=40))


INPUTS = ("item_ids", "exclude_ids", "among_ids", "candidate_ids", "k", "row_splits")


@st.composite
def requests(draw, document):
    """Method, path with its query, and a body."""
    path = draw(st.sampled_from([*document["paths"], *4 * ["/v1/models/{name}:predict"]]))
    method = draw(st.sampled_from(list(document["paths"][path])))
    operation = document["paths"][path][method]
    query = []
    for parameter in operation.get("parameters", []):
        schema, name = parameter["schema"], parameter["name"]
        if parameter["in"] == "path":
            filled = urllib.parse.quote(str(draw(of_schema(schema))), safe="")
            path = path.replace("{" + name + "}", filled)
        elif parameter.get("required", draw(st.booleans())):
            several = draw(st.lists(of_schema(schema["items"]), max_size=4)) if schema.get("type") == "array" else None
            query += [(name, value) for value in (several if several is not None else [draw(of_schema(schema))])]
    query += draw(st.one_of(st.just([]), st.lists(st.tuples(texts, texts), max_size=1)))
    encoded = urllib.parse.urlencode([(n, str(v)) for n, v in query], errors="surrogatepass")
    method = draw(st.sampled_from([*12 * [method], "post", "put", "delete", "head"]))
    body = draw(bodies()) if method == "post" else b""
    return operation, method.upper(), f"{path}?{encoded}" if encoded else path, body


def check(connection, document, asked):
    operation, method, address, body = asked
    connection.request(method, address, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status < 500, (asked, content)
    assert b"Traceback" not in content
    if method == "HEAD" or not answer.headers["content-type"].startswith("application/json"):
        return answer.status
    found = json.loads(content)
    if answer.status == 200:
        of_method = operation if "responses" in operation else None
        schema = of_method["responses"]["200"]["content"].get("application/json", {}).get("schema", {})
        jsonschema.validate(found, {**schema, "components": document["components"]})
    else:
        assert set(found) <= {"error", "field"}
        assert found["error"]
    return answer.status


@pytest.mark.parametrize("examples", [300, pytest.param(2_000, marks=pytest.mark.slow)])
def test_no_request_of_the_document_breaks_it(port, examples):  # noqa: F811
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/openapi.json")
    document = json.loads(connection.getresponse().read())
    met = {}

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(requests(document))
    def ask(asked):
        status = check(connection, document, asked)
        met[status] = met.get(status, 0) + 1

    ask()
    connection.request("GET", "/healthz")
    assert json.loads(connection.getresponse().read())["status"] == "ok"
    assert sum(met.values()) >= examples
    # Not everything is refused.
    assert met[200] > examples / 20
    print(met)
