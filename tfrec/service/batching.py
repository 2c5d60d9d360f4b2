"""Questions that arrive together are answered together.

A question waits until a batch is full or a short time has passed; while one batch is answered, the next one gathers.
All of them are answered in one worker thread, so that TensorFlow has all cores for each batch.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tfrec.service.limits import Refused

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass
class _Waiting(Generic[Q]):
    question: Q
    rows: int
    answer: asyncio.Future[Any]


class Batcher(Generic[Q, A]):
    """A queue in front of one function.

    Args:
        function: answers several questions, in their order. Where it raises for several, each is asked alone, so that
            one that cannot be answered spoils no other.
        worker: runs ``function``.
        max_rows: rows of a batch; a question of more makes a batch of its own.
        wait_s: how long the first question of a batch waits for others.
        max_queue: rows that may wait.
        observe: is told the rows of each batch.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Q]], Sequence[A]],
        worker: Executor,
        *,
        max_rows: int,
        wait_s: float,
        max_queue: int,
        observe: Callable[[int], None],
    ) -> None:
        self._function, self._worker, self._observe = function, worker, observe
        self._max_rows, self._wait_s, self._max_queue = max_rows, wait_s, max_queue
        self._queue: deque[_Waiting[Q]] = deque()
        self._rows = 0
        self._full: asyncio.Event | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return self._rows

    async def ask(self, question: Q, rows: int = 1) -> A:
        """The answer to a question.

        Raises:
            Refused: 503, where too many wait.
        """
        if self._rows + rows > self._max_queue:
            raise Refused(503, None, "Too many requests wait for an answer. Ask again later.")
        waiting = _Waiting(question, rows, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._rows += rows
        if self._running is None:
            self._full = asyncio.Event()
            self._running = asyncio.create_task(self._run())
        if self._rows >= self._max_rows and self._full is not None:
            self._full.set()
        return await waiting.answer

    async def _run(self) -> None:
        """Answer until no request waits."""
        try:
            while self._queue:
                assert self._full is not None
                if self._rows < self._max_rows:
                    # A batch that is not full is answered, too.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._full.wait(), self._wait_s)
                self._full.clear()
                batch = self._take()
                if batch:
                    self._observe(sum(w.rows for w in batch))
                    await self._answer(batch)
        finally:
            self._running = None

    def _take(self) -> list[_Waiting[Q]]:
        """The next batch, without those who wait no more."""
        batch: list[_Waiting[Q]] = []
        rows = 0
        while self._queue and (not batch or rows + self._queue[0].rows <= self._max_rows):
            waiting = self._queue.popleft()
            self._rows -= waiting.rows
            if not waiting.answer.done():
                batch.append(waiting)
                rows += waiting.rows
        return batch

    async def _answer(self, batch: list[_Waiting[Q]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._worker, self._function, [w.question for w in batch])
        except Exception as error:
            if len(batch) == 1:
                _finish(batch[0], error)
                return
            for waiting in batch:
                if not waiting.answer.done():
                    await self._answer([waiting])
            return
        for waiting, answer in zip(batch, answers, strict=True):
            _finish(waiting, answer)


def _finish(waiting: _Waiting[Any], answer: Any) -> None:
    # Who waits no more has cancelled it.
    if waiting.answer.done():
        return
    if isinstance(answer, Exception):
        waiting.answer.set_exception(answer)
    else:
        waiting.answer.set_result(answer)
