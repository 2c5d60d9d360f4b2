"""The questions with an address of their own: lists, similar items, reasons."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any

from tfrec.errors import InputError
from tfrec.service.engine import Engine, ExplainQuestion, ListAnswer, ListQuestion
from tfrec.service.limits import Limits, Refused, shown
from tfrec.service.models import Loaded
from tfrec.service.reading import Fields

#: Fields of each address: those that may be given once, and those that may be given several times.
RECOMMEND = (("user", "k", "exclude_popular", "model"), ("history", "exclude", "among"))
SIMILAR = (("item", "k", "exclude_popular", "model"), ("exclude", "among"))
EXPLAIN = (("user", "item", "k", "model"), ("history",))
SEARCH = (("q", "what", "k", "model"), ())
HISTORY = (("user", "k", "model"), ())

_K = 10
#: Characters of a search.
_LONGEST = 200


async def recommend(fields: Fields, loaded: Loaded, limits: Limits) -> dict[str, Any]:
    """Items for a user of the data, or for a new one by a history."""
    engine, unknown = loaded.engine, _Unknown()
    about, who = _who(fields, engine, unknown)
    question = ListQuestion(_k(fields, engine, limits), **who, **_filters(fields, engine, unknown, limits))
    answer = await loaded.lists.ask(question)
    return {**about, "known": answer.known, **unknown.said(), "items": listed(engine, answer)}


async def similar(fields: Fields, loaded: Loaded, limits: Limits) -> dict[str, Any]:
    """Items like one."""
    engine, unknown = loaded.engine, _Unknown()
    if not engine.compares_items:
        raise Refused(400, "model", "This model cannot compare items.")
    number = _item(fields.needed("item"), engine)
    question = ListQuestion(_k(fields, engine, limits), similar_to=number, **_filters(fields, engine, unknown, limits))
    answer = await loaded.lists.ask(question)
    return {**named(engine, number), **unknown.said(), "items": listed(engine, answer)}


async def explain(fields: Fields, loaded: Loaded, limits: Limits) -> dict[str, Any]:
    """What each item of a history adds to an item's score."""
    engine, unknown = loaded.engine, _Unknown()
    number = _item(fields.needed("item"), engine)
    about, who = _who(fields, engine, unknown)
    if who == {"user": None}:
        raise Refused(404, "user", f"The data has no user {shown(fields.one('user'))}.")
    score, items, parts = await loaded.reasons.ask(ExplainQuestion(number, _k(fields, engine, limits), **who))
    because = [
        {"rank": rank, **named(engine, item), "contribution": finite(part)}
        for rank, (item, part) in enumerate(zip(items, parts, strict=True), 1)
    ]
    return {**about, **named(engine, number), "score": finite(score), **unknown.said(), "because": because}


async def search(fields: Fields, loaded: Loaded, limits: Limits) -> dict[str, Any]:
    """Items or users whose names have what was typed."""
    engine, what = loaded.engine, fields.one("what") or "items"
    if what not in ("items", "users"):
        raise Refused(400, "what", f"what must be items or users. Received: {shown(what)}.")
    text, k = fields.one("q") or "", fields.count("k", _K, limits.k)
    if len(text) > _LONGEST:
        raise Refused(400, "q", f"q may have {_LONGEST} characters. Received: {len(text)}.")
    names = engine.item_search if what == "items" else engine.user_search
    # Not in the thread that asks TensorFlow: typing waits for no batch.
    found = await asyncio.to_thread(names.find, text, k)
    if what == "users":
        return {"users": [{"user": engine.user_ids[number]} for number in found]}
    return {"items": [{**named(engine, number), "popularity": engine.popularity[number]} for number in found]}


async def history(fields: Fields, loaded: Loaded, limits: Limits) -> dict[str, Any]:
    """What a user has, the most popular items first; nothing for a user that the data does not have."""
    engine = loaded.engine
    user, k = fields.needed("user"), fields.count("k", _K, limits.k)
    number = engine.users.find(user)
    if number is None:
        return {"user": user, "known": False, "count": 0, "items": []}
    count, items = engine.history(number, k)
    found = [{**named(engine, item), "popularity": engine.popularity[item]} for item in items]
    return {"user": engine.user_ids[number], "known": True, "count": count, "items": found}


def about(loaded: Loaded) -> dict[str, Any]:
    """What a model can be asked, and how its run did."""
    engine = loaded.engine
    index = engine.recommender.indexed
    return {
        "num_items": engine.num_items,
        "num_users": len(engine.user_ids),
        "takes_histories": engine.takes_histories,
        "compares_items": engine.compares_items,
        "explains": engine.explains,
        "index": None if index is None else {"kind": index.kind, "dtype": index.dtype, "recall": index.recall},
        "run": loaded.facts,
    }


def listed(engine: Engine, answer: ListAnswer) -> list[dict[str, Any]]:
    """A list as JSON has it."""
    return [
        {"rank": rank, **named(engine, item), "score": finite(score), "popularity": engine.popularity[item]}
        for rank, (item, score) in enumerate(zip(answer.items, answer.scores, strict=True), 1)
    ]


def named(engine: Engine, number: int) -> dict[str, Any]:
    """An item's id and title."""
    return {"item": engine.item_ids[number], "title": engine.titles[number]}


def finite(value: float) -> float | None:
    """``value``, None for one that JSON does not have."""
    return value if math.isfinite(value) else None


class _Unknown:
    """Names of a request that fit no item, which are left out of the question and told."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def numbers(self, field: str, names: Iterable[str], engine: Engine) -> tuple[int, ...]:
        found = []
        for name in names:
            number = _find(field, name, engine)
            if number is None:
                self._names.setdefault(field, []).append(name)
            else:
                found.append(number)
        return tuple(found)

    def said(self) -> dict[str, Any]:
        return {"unknown": self._names} if self._names else {}


def _who(fields: Fields, engine: Engine, unknown: _Unknown) -> tuple[dict[str, Any], dict[str, Any]]:
    """Whom a question is about: for the answer, and for the model."""
    user, history = fields.one("user"), fields.all("history")
    if (user is None) == (history is None):
        raise Refused(400, "user", "Give one of user and history.")
    if user is not None:
        number = engine.users.find(user)
        return {"user": user if number is None else engine.user_ids[number]}, {"user": number}
    if not engine.takes_histories:
        raise Refused(400, "history", "This model answers users of its data only. Give user.")
    assert history is not None
    return {}, {"history": unknown.numbers("history", history, engine)}


def _filters(fields: Fields, engine: Engine, unknown: _Unknown, limits: Limits) -> dict[str, Any]:
    among: Sequence[str] | None = fields.all("among")
    popular = engine.by_popularity[: fields.count("exclude_popular", 0, limits.ids, least=0)].tolist()
    return {
        "exclude": (*unknown.numbers("exclude", fields.all("exclude") or (), engine), *popular),
        "among": None if among is None else unknown.numbers("among", among, engine),
    }


def _k(fields: Fields, engine: Engine, limits: Limits) -> int:
    return fields.count("k", _K, min(limits.k, engine.num_items))


def _item(name: str, engine: Engine) -> int:
    number = _find("item", name, engine)
    if number is None:
        raise Refused(404, "item", f"The model has no item {shown(name)}.")
    return number


def _find(field: str, name: str, engine: Engine) -> int | None:
    try:
        return engine.items.find(name)
    except InputError as error:
        raise Refused(400, field, " ".join(str(error).split())) from error
