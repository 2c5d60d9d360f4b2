"""Load on a service: prepared requests over many connections, each answer timed.

Closed loop: each connection sends its next request when the last is answered, which shows how many can be answered.
Open loop: requests begin at random times of a given rate, whether or not earlier ones are answered, as those of people
do; a request's time counts from when it should have begun (Tene, "How NOT to Measure Latency", 2013).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Answers:
    """What came back.

    Args:
        seconds: of each request.
        failed: why, of those without an answer of status 200.
        lasted: seconds from the first request to the last answer.
    """

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    lasted: float = 0.0

    def percentiles(self) -> dict[str, float]:
        """Milliseconds."""
        points = np.percentile(1e3 * np.array(self.seconds), [50, 90, 95, 99]) if self.seconds else [np.nan] * 4
        return {f"p{p}_ms": round(float(t), 3) for p, t in zip((50, 90, 95, 99), points, strict=True)}


def get(path: str) -> bytes:
    """A request."""
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    """A request with JSON."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def closed_loop(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Answers:
    """Ask ``requests`` again and again over some connections for a time."""
    with _no_pause():
        return asyncio.run(_closed(port, requests, connections, seconds))


def open_loop(
    port: int, requests: Sequence[bytes], rate: float, connections: int, seconds: float, seed: int = 0
) -> Answers:
    """Ask at random times, ``rate`` a second on average (a Poisson process), for a time, over some connections.

    A request that finds none free waits for one, and that counts.
    """
    with _no_pause():
        return asyncio.run(_open(port, requests, rate, connections, seconds, seed))


@contextlib.contextmanager
def _no_pause() -> Iterator[None]:
    """What this process has loaded is not looked through for garbage meanwhile."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Connection:
    """To a service at this machine's loopback; opened again where it has ended."""

    def __init__(self, port: int, answers: Answers) -> None:
        self._port, self._answers = port, answers
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, began: float) -> None:
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
            body = await reader.readexactly(int(length))
        except (OSError, EOFError, IndexError) as error:
            self._answers.failed.append(repr(error))
            self.close()
            return
        status = head[9:12]
        if status != b"200":
            self._answers.failed.append(f"{status.decode()} {body[:100].decode(errors='replace')}")
        self._answers.seconds.append(time.perf_counter() - began)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _closed(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Answers:
    answers = Answers()
    began = time.perf_counter()

    async def ask(first: int) -> None:
        connection = _Connection(port, answers)
        for request in itertools.islice(itertools.cycle(requests), first, None):
            now = time.perf_counter()
            if now > began + seconds:
                break
            await connection.ask(request, now)
        connection.close()

    await asyncio.gather(*(ask(first) for first in range(connections)))
    answers.lasted = time.perf_counter() - began
    return answers


async def _open(
    port: int, requests: Sequence[bytes], rate: float, connections: int, seconds: float, seed: int
) -> Answers:
    answers = Answers()
    random = np.random.default_rng(seed)
    # As many as come in this time, wherever they fall in it.
    times = np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))
    began = time.perf_counter()
    due = iter(zip((began + times).tolist(), itertools.cycle(requests), strict=False))

    async def ask() -> None:
        connection = _Connection(port, answers)
        # Each connection takes the next request that is not taken.
        for when, request in due:
            wait = when - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            await connection.ask(request, when)
        connection.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    answers.lasted = time.perf_counter() - began
    return answers
