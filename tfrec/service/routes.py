"""The addresses of a service, as a Starlette application."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tfrec.service import questions
from tfrec.service.limits import Limits, Refused, shown
from tfrec.service.metrics import CONTENT_TYPE, Metrics
from tfrec.service.models import Model, Models
from tfrec.service.openapi import openapi
from tfrec.service.page import HEADERS as PAGE_HEADERS
from tfrec.service.page import files
from tfrec.service.predict import metadata, predicted, read_predict, status
from tfrec.service.reading import Fields, read_json

log = logging.getLogger("tfrec.service")

Handler = Callable[[Request], Awaitable[Response]]

_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


@dataclass(frozen=True)
class Settings:
    """What a service is told besides its models."""

    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    """What a request must bring as `Authorization: Bearer TOKEN`; None: nothing."""
    reload_s: float = 5.0
    """How often the runs are looked at; 0: never."""
    host_names: frozenset[str] | None = None
    """What a request may have as its Host, without the port; None: anything."""


class Service:
    """Routes around models.

    Args:
        models: that answer.
        metrics: counted into.
        settings: see `Settings`.
    """

    def __init__(self, models: Models, metrics: Metrics, settings: Settings) -> None:
        self.models, self.metrics, self.settings = models, metrics, settings
        self.limits = settings.limits
        self._token = None if settings.token is None else settings.token.encode()

    def application(self) -> Starlette:
        """The ASGI application."""
        get = [
            ("/recommend", self._question(questions.recommend, questions.RECOMMEND)),
            ("/similar", self._question(questions.similar, questions.SIMILAR)),
            ("/explain", self._question(questions.explain, questions.EXPLAIN)),
            ("/search", self._question(questions.search, questions.SEARCH)),
            ("/history", self._question(questions.history, questions.HISTORY)),
            ("/models", self._models),
            ("/metrics", self._metrics),
            ("/openapi.json", self._openapi),
            ("/v1/models/{name}", self._status),
            ("/v1/models/{name}/versions/{version}", self._status),
            ("/v1/models/{name}/metadata", self._metadata),
            ("/v1/models/{name}/versions/{version}/metadata", self._metadata),
        ]
        post = ["/v1/models/{name}:predict", "/v1/models/{name}/versions/{version}:predict"]
        # Routes are tried in this order.
        routes = [Route(path, self._guarded(path, self._predict), methods=["POST"]) for path in post]
        routes += [Route(path, self._guarded(path, handler)) for path, handler in get]
        routes.append(Route("/healthz", self._guarded("/healthz", self._health, is_open=True)))
        # Without anything of the models: it asks for the token itself.
        routes += [Route(path, self._guarded(path, self._file(*file), is_open=True)) for path, file in files().items()]
        return Starlette(routes=routes, exception_handlers={HTTPException: self._no_route}, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        every = self.settings.reload_s
        watching = asyncio.create_task(self.models.watch(every)) if every else None
        try:
            yield
        finally:
            if watching is not None:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching

    # ---- around each request ---------------------------------------------------------------------------------------

    def _guarded(self, route: str, handler: Handler, is_open: bool = False) -> Handler:
        """``handler`` behind the token and the time limit; counts, and turns what goes wrong into an answer."""

        async def answer(request: Request) -> Response:
            started = time.perf_counter()
            try:
                self._check_host(request)
                if not is_open:
                    self._check_token(request)
                async with asyncio.timeout(self.limits.seconds):
                    response = await handler(request)
            except Refused as refused:
                response = _refusal(refused)
            except TimeoutError:
                response = _refusal(Refused(504, None, f"There was no answer within {self.limits.seconds:g} seconds."))
            except ClientDisconnect:
                response = _refusal(Refused(400, "body", "The body ended early."))
            except Exception:
                log.exception("%s: cannot be answered.", route)
                response = _refusal(Refused(500, None, "The service failed. Its log says why."))
            self._count(route, response.status_code, started)
            return response

        return answer

    def _check_host(self, request: Request) -> None:
        names = self.settings.host_names
        given = request.headers.get("host", "").lower()
        name = given[1 : given.find("]")] if given.startswith("[") else given.partition(":")[0]
        if names is not None and name not in names:
            raise Refused(421, "host", f"The service does not answer for the host {shown(name)}: see --host-names.")

    def _check_token(self, request: Request) -> None:
        if self._token is None:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        # Compared as bytes, in a time that does not tell how much of it is right.
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)
        if kind.lower() != "bearer" or not right:
            raise Refused(401, "authorization", "Send the header `Authorization: Bearer TOKEN`.")

    def _count(self, route: str, code: int, started: float) -> None:
        self.metrics.requests.labels(route, str(code)).inc()
        self.metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        self._count("other", error.status_code, time.perf_counter())
        message = {404: "There is nothing at this address; /openapi.json lists what there is."}.get(
            error.status_code, "This address does not take this method."
        )
        return as_json({"error": message}, error.status_code, error.headers)

    # ---- answers ---------------------------------------------------------------------------------------------------

    def _question(self, ask: Any, names: tuple[tuple[str, ...], tuple[str, ...]]) -> Handler:
        async def answer(request: Request) -> Response:
            fields = Fields(request, *names, self.limits)
            name = fields.one("model")
            model = self.models.first if name is None else self._model(name, "model")
            loaded = model.current
            found = await ask(fields, loaded, self.limits)
            return as_json({"model": model.name, "version": loaded.version, **found})

        return answer

    def _file(self, content: bytes, kind: str) -> Handler:
        async def answer(request: Request) -> Response:
            return Response(content, headers={**_HEADERS, **PAGE_HEADERS, "content-type": kind})

        return answer

    async def _models(self, request: Request) -> Response:
        models = [
            {"name": name, "version": model.current.version, **questions.about(model.current)}
            for name, model in self.models.by_name.items()
        ]
        return as_json({"models": models})

    async def _predict(self, request: Request) -> Response:
        loaded = self._versioned(request).current
        body = await read_json(request, self.limits)
        asked = read_predict(body, loaded.engine.served, self.limits)
        found = await loaded.signatures[asked.signature].ask(asked, asked.rows)
        return as_json(predicted(found, asked))

    async def _status(self, request: Request) -> Response:
        return as_json(status(self._versioned(request).current.version))

    async def _metadata(self, request: Request) -> Response:
        model = self._versioned(request)
        return as_json(metadata(model.name, model.current.version, model.current.engine.served))

    async def _health(self, request: Request) -> Response:
        models = {
            name: {
                "version": model.current.version,
                "loaded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(model.current.since)),
                # What is wrong stands in the log: this address is open, and the reason has names of the host.
                "problem": "The run cannot be loaded again; an earlier model answers." if model.stale else None,
            }
            for name, model in self.models.by_name.items()
        }
        stale = any(model.stale for model in self.models.by_name.values())
        return as_json({"status": "stale" if stale else "ok", "models": models})

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), headers={**_HEADERS, "content-type": CONTENT_TYPE})

    async def _openapi(self, request: Request) -> Response:
        return as_json(openapi(self.limits, list(self.models.by_name), self._token is not None))

    def _versioned(self, request: Request) -> Model:
        model = self._model(request.path_params["name"], "name")
        version = request.path_params.get("version")
        if version is not None and version != str(model.current.version):
            raise Refused(
                404, "version", f"Model {model.name} has version {model.current.version}. Received: {shown(version)}."
            )
        return model

    def _model(self, name: str, where: str) -> Model:
        found = self.models.by_name.get(name)
        if found is None:
            raise Refused(404, where, f"There is no model {shown(name)}. There are {', '.join(self.models.by_name)}.")
        return found


def as_json(content: Any, code: int = 200, headers: Any = None) -> Response:
    """An answer."""
    try:
        text = orjson.dumps(content)
    except TypeError:  # halves of characters in titles, which orjson does not write
        text = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return Response(text, code, headers={**(headers or {}), **_HEADERS, "content-type": "application/json"})


def _refusal(refused: Refused) -> Response:
    headers = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}.get(refused.status)
    return as_json(refused.body(), refused.status, headers)
