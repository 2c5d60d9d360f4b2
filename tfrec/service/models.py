"""The models of a service: loaded from runs, and loaded again where a run has changed."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrec.errors import InputError
from tfrec.fitting import load_recommender
from tfrec.printing import printable
from tfrec.runs.folder import RunFolder
from tfrec.service.batching import Batcher
from tfrec.service.engine import Engine
from tfrec.service.facts import run_facts
from tfrec.service.limits import Limits
from tfrec.service.metrics import Metrics
from tfrec.service.predict import answer_predicts

log = logging.getLogger("tfrec.service")

#: What a name may be: a part of an address, without escapes.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: The size and time of each file of a run that is read.
State = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Batching:
    """How requests are put together."""

    max_rows: int = 64
    """Rows of a batch."""
    wait_ms: float = 1.0
    """How long the first request of a batch waits for others."""


class Loaded:
    """One version of a model, with a queue for each of its functions. Requests keep the one that they began with.

    Args:
        engine: that answers.
        version: from 1.
        batcher: makes a queue: its name, what answers.
        facts: see `tfrec.service.facts.run_facts`.
    """

    def __init__(
        self,
        engine: Engine,
        version: int,
        batcher: Callable[[str, Any], Batcher[Any, Any]],
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.engine, self.version, self.facts = engine, version, facts
        self.since = time.time()
        self.lists = batcher("lists", engine.answer_lists)
        self.reasons = batcher("explain", engine.explain)
        served = engine.served
        self.signatures = {
            name: batcher(name, lambda requests: answer_predicts(served, requests)) for name in served.functions
        }


class Model:
    """A run by its name, and the version of it that answers.

    Args:
        name: in addresses.
        path: of the run.
        batcher: see `Loaded`.
        metrics: of the service.

    Raises:
        InputError: there is no finished run.
    """

    def __init__(
        self, name: str, path: Path, batcher: Callable[[str, Any], Batcher[Any, Any]], metrics: Metrics
    ) -> None:
        self.name, self.path, self._batcher, self._metrics = name, path, batcher, metrics
        #: Whether the run has changed and cannot be loaded.
        self.stale = False
        self._replaced = False
        self._state: State | None = run_state(path)
        self._tried = self._state
        self._failed: State | None = None
        self.current = self._load(1)

    def _load(self, version: int) -> Loaded:
        engine = Engine(load_recommender(RunFolder.existing(self.path)))
        engine.warm_up()
        _settle()
        self._metrics.version.labels(self.name).set(version)
        self._metrics.stale.labels(self.name).set(0)
        return Loaded(engine, version, self._batcher, run_facts(self.path))

    def look(self) -> None:
        """Load the run again where it has changed, and keep the old model where that cannot be done.

        Files of a run are written one after another, so it is loaded once two looks find the same.
        """
        state = run_state(self.path)
        if self._replaced:
            # The old model has answered its last request by now.
            self._replaced = False
            _settle()
        if state == self._state:
            if self.stale:
                self._set_stale(False)  # what was there before is back
            self._tried = state
            return
        if state is None:
            if not self.stale:
                log.warning("%s: the run is not there any more; its model goes on.", self.name)
                self._set_stale(True)
            self._tried = state
            return
        if state != self._tried:
            self._tried = state
            return
        if state == self._failed:
            return
        try:
            loaded = self._load(self.current.version + 1)
        except Exception as error:  # whatever is wrong with a file, the model that answers goes on
            self._failed = state
            self._set_stale(True)
            log.warning("%s: the run has changed and cannot be loaded; its model goes on: %s", self.name, error)
            return
        self._state, self.current, self.stale, self._replaced = state, loaded, False, True
        log.info("%s: loaded version %d.", self.name, loaded.version)

    def _set_stale(self, stale: bool) -> None:
        self.stale = stale
        self._metrics.stale.labels(self.name).set(int(stale))


class Models:
    """All models of a service.

    Args:
        paths: name -> the run's folder; see `named_runs`.
        limits: bounds.
        batching: how requests are put together.
        metrics: of the service.

    Raises:
        InputError: one of them cannot be loaded.
    """

    def __init__(self, paths: dict[str, Path], limits: Limits, batching: Batching, metrics: Metrics) -> None:
        self.worker = ThreadPoolExecutor(1, "tfrec-answers")
        self._loader = ThreadPoolExecutor(1, "tfrec-loads")

        def batcher(model: str) -> Callable[[str, Any], Batcher[Any, Any]]:
            def make(name: str, function: Any) -> Batcher[Any, Any]:
                return Batcher(
                    function,
                    self.worker,
                    max_rows=batching.max_rows,
                    wait_s=batching.wait_ms / 1e3,
                    max_queue=limits.queue,
                    observe=metrics.batch_rows.labels(model, name).observe,
                )

            return make

        self.by_name = {name: Model(name, path, batcher(name), metrics) for name, path in paths.items()}

    @property
    def first(self) -> Model:
        """The one that answers where a request names none."""
        return next(iter(self.by_name.values()))

    async def watch(self, every_s: float) -> None:
        """Look at the runs again and again, while requests are answered."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(every_s)
            for model in self.by_name.values():
                await loop.run_in_executor(self._loader, model.look)

    def close(self) -> None:
        """End the threads."""
        self.worker.shutdown(cancel_futures=True)
        self._loader.shutdown(cancel_futures=True)


def named_runs(runs: Sequence[str]) -> dict[str, Path]:
    """Name -> folder, of ``PATH`` or ``NAME=PATH``; a path's name is that of its folder.

    Raises:
        InputError: two of one name, or a name that an address cannot have.
    """
    found: dict[str, Path] = {}
    for run in runs:
        given, separator, rest = run.partition("=")
        named = bool(separator) and not Path(run).exists()
        path = Path(rest if named else run)
        name = given if named else path.resolve().name
        if not _NAME.fullmatch(name):
            raise InputError(
                "The name of a model must be letters, digits, dots, - and _, as it is a part of an address.\n"
                f"Received: {printable(name)!r}.\nGive another one as NAME={printable(path)}."
            )
        if name in found:
            raise InputError(
                f"Each model must have a name of its own.\nReceived: {printable(name)} for {printable(found[name])} "
                f"and for {printable(path)}.\nGive names: {printable(name)}-2={printable(path)}."
            )
        found[name] = path
    return found


def _settle() -> None:
    """Take out garbage, and do not look among what is left again.

    With TensorFlow that is a million objects: Python would look through them for a fifth of a second now and then,
    while every request waits.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def run_state(path: Path) -> State | None:
    """What tells whether a run has changed; None where it is not there."""
    folder = RunFolder(path)
    found = []
    may_be_missing = (folder.metrics, *folder.index)
    for file in (folder.config, folder.model, folder.items, folder.users, *may_be_missing):
        try:
            status = file.stat()
        except OSError:
            if file in may_be_missing:
                continue
            return None
        found.append((file.name, status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(found)
