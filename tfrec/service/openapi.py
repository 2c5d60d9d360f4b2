"""The description of a service in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from tfrec.service.limits import Limits

_ID = {"oneOf": [{"type": "string"}, {"type": "integer"}]}
_SCORE = {"type": ["number", "null"]}
_RANK = {"type": "integer", "minimum": 1}
_COUNT = {"type": "integer", "minimum": 0}
_NAMED = {"item": _ID, "title": {"type": "string"}, "popularity": _COUNT}


def openapi(limits: Limits, models: list[str], token: bool) -> dict[str, Any]:
    """All addresses with what they take and give.

    Args:
        limits: bounds that the schemas state.
        models: their names.
        token: whether requests must bring one.
    """
    user = _field("user", "Raw id of a user of the data.")
    item = _field("item", "Raw id or title of an item.", required=True)
    history = _several("history", "Raw ids or titles of a new user's items; in place of user.", limits)
    filters = [
        _several("exclude", "Raw ids or titles that are left out.", limits),
        _several("among", "Raw ids or titles to choose among.", limits),
    ]
    popular = {"type": "integer", "minimum": 0, "maximum": limits.ids}
    filters.append({**_field("exclude_popular", "Leaves out this many of the most popular items."), "schema": popular})
    common = [
        {**_field("k", "Length of the list."), "schema": {"type": "integer", "minimum": 1, "maximum": limits.k}},
        {**_field("model", "Name of the model; the first, where none is given."), "schema": _names(models)},
    ]
    name = {"name": "name", "in": "path", "required": True, "schema": _names(models)}
    listed = {"items": {"type": "array", "items": {"$ref": "#/components/schemas/Listed"}}}
    paths = {
        "/recommend": _get("Items for a user, or for a history.", [user, history, *filters, *common], {
            "user": _ID, "known": {"type": "boolean"}, **listed
        }),
        "/similar": _get("Items like one.", [item, *filters, *common], {
            "item": _ID, "title": {"type": "string"}, **listed
        }),
        "/explain": _get("What each item of a history adds to a score.", [item, user, history, *common], {
            "item": _ID, "title": {"type": "string"}, "score": _SCORE,
            "because": {"type": "array", "items": _object({
                "rank": _RANK, "item": _ID, "title": {"type": "string"}, "contribution": _SCORE
            })},
        }),
        "/search": _get("Items or users by a part of their names.", [
            _field("q", "What was typed; nothing: what is popular."),
            {**_field("what", "What is looked for."), "schema": {"type": "string", "enum": ["items", "users"]}},
            *common,
        ], {
            "items": {"type": "array", "items": _object(_NAMED)},
            "users": {"type": "array", "items": _object({"user": _ID})},
        }),
        "/history": _get("What a user has, the most popular items first.", [{**user, "required": True}, *common], {
            "user": _ID, "known": {"type": "boolean"}, "count": _COUNT,
            "items": {"type": "array", "items": _object(_NAMED)}
        }),
        "/models": _get("What the models can be asked, and how their runs did.", [], {
            "models": {"type": "array", "items": _object({"name": {"type": "string"}, "version": _RANK})}
        }),
        "/": {"get": {"summary": "A page to look at recommendations.", "responses": {"200": {
            "description": "HTML.", "content": {"text/html": {"schema": {"type": "string"}}}
        }}}},
        "/v1/models/{name}": _get("Status, as TensorFlow Serving gives it.", [name], {}),
        "/v1/models/{name}/metadata": _get("Signatures, as TensorFlow Serving gives them.", [name], {}),
        "/v1/models/{name}:predict": {"post": {
            "summary": "A signature, as TensorFlow Serving's REST API takes it.",
            "parameters": [name],
            "requestBody": {"required": True, "content": {"application/json": {"schema": _object({
                "signature_name": {"type": "string", "default": "serving_default"},
                "instances": {"type": "array", "minItems": 1, "maxItems": limits.instances},
                "inputs": {},
            })}}},
            "responses": _responses(_object({"predictions": {"type": "array"}, "outputs": {}})),
        }},
        "/healthz": _get("Whether the service answers, and with which models.", [], {"status": {"type": "string"}}),
        "/metrics": {"get": {"summary": "Counters for Prometheus.", "responses": {"200": {
            "description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}
        }}}},
    }  # fmt: skip
    from tfrec import __version__

    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "tfrec", "version": __version__, "description": "Recommendations from finished runs."},
        "paths": paths,
        "components": {
            "schemas": {
                "Listed": _object({"rank": _RANK, "score": _SCORE, **_NAMED}),
                "Error": _object({"error": {"type": "string"}, "field": {"type": "string"}}),
            }
        },
    }
    if token:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"token": []}]
        paths["/healthz"]["get"]["security"] = []
    return described


def _get(summary: str, parameters: list[dict[str, Any]], properties: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"summary": summary, "parameters": parameters, "responses": _responses(_object(properties))}}


def _responses(schema: dict[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "200": {"description": "The answer.", "content": {"application/json": {"schema": schema}}},
        "default": {"description": "Why there is none.", "content": error},
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _field(name: str, description: str, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "description": description, "schema": {"type": "string"}}


def _several(name: str, description: str, limits: Limits) -> dict[str, Any]:
    schema = {"type": "array", "items": {"type": "string"}, "maxItems": limits.ids}
    return {**_field(name, description), "schema": schema, "style": "form", "explode": True}


def _names(models: list[str]) -> dict[str, Any]:
    return {"type": "string", "enum": models}
