"""Who is still there: each rank signs in with the launcher every second, so that the others can say who is missing.

Horovod's launcher keeps a small store of keys and values for its ranks to find each other (the Gloo rendezvous, over
HTTP). Each rank writes there where it is and for how long. A rank that waits long reads what the others wrote, and so
does one whose operation failed, to say which rank is gone. Under a launcher without such a store all this is silent.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_BEAT_SECONDS = 1.0
#: A rank that does not sign in for so long may be gone; where several do not, so much longer is waited for them.
_SILENT_SECONDS, _SURE_SECONDS = 3.0, 10.0
#: Horovod's own setting, and its default, for how long ranks wait for an answer over the network.
_TIMEOUT_VARIABLE, _TIMEOUT_SECONDS = "HOROVOD_GLOO_TIMEOUT_SECONDS", 30
#: Horovod's setting of when to say that ranks wait.
_STALL_VARIABLE, _STALL_SECONDS = "HOROVOD_STALL_CHECK_TIME_SECONDS", 60
_GIVE_UP_VARIABLE = "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"


@dataclass(frozen=True)
class Lost:
    """Ranks that are gone, and what to say after their names."""

    ranks: list[int]
    text: str
    told: bool = False
    """Whether they have printed why themselves."""


class Watch:
    """Signs this rank in, and looks after the others.

    Args:
        rank: of this process.
        size: number of processes.
        steps: how many steps of training this rank has begun.
    """

    def __init__(self, rank: int, size: int, steps: Callable[[], float]) -> None:
        self.rank, self.size, self._steps = rank, size, steps
        address, port = (os.environ.get(f"HOROVOD_GLOO_RENDEZVOUS_{x}") for x in ("ADDR", "PORT"))
        self._url = f"http://{address}:{port}/tfrec" if address and port else None
        # A proxy for the web is none for the machines of a job.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._lock = threading.Lock()
        self._beats = 0
        self._waits = 0
        self._since = time.monotonic()
        self._told = 0
        self._lost: list[int] = []
        self._stall = _number(_STALL_VARIABLE, _STALL_SECONDS)
        self._end: str | None = None
        if self._url is not None:
            # Before Horovod's own, which was registered earlier: the others then find out why it shuts down.
            atexit.register(self.sign_off, "done")
            threading.Thread(target=self._run, daemon=True, name="tfrec-watch").start()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for other ranks."""
        with self._lock:
            self._waits += 1
            self._since = time.monotonic()
            self._told = 0
        try:
            yield
        finally:
            with self._lock:
                self._waits -= 1
                self._since = time.monotonic()

    def sign_off(self, end: str) -> None:
        """Tell the others that this rank ends: ``done``, or ``told`` when it has printed an error."""
        with self._lock:
            if self._end is not None or self._url is None:
                return
            self._end = end
            with contextlib.suppress(OSError):
                self._put({"end": end})

    def stop(self) -> None:
        """Say nothing more, since the ranks get other numbers."""
        with self._lock:
            self._end = self._end or "stopped"

    def lost(self) -> Lost | None:
        """Which ranks are gone, after an operation has failed; None where that is unknown. Takes three seconds, and up
        to 13 where several do not answer."""
        if self._url is None:
            return None
        before = self._everyone()
        for r, one in before.items():
            if "end" in one and r != self.rank:
                self._lost = [x for x, other in before.items() if "end" in other]
                text = "has ended while others are still at work. Do all ranks make as many steps, and as many calls?"
                return Lost([r], text, told=one["end"] == "told")
        self._lost = [r for r in range(self.size) if r != self.rank]
        time.sleep(_SILENT_SECONDS - _BEAT_SECONDS)
        ends = time.monotonic() + _SURE_SECONDS
        while True:
            time.sleep(_BEAT_SECONDS)
            after = self._everyone()
            self._lost = [r for r in self._lost if before.get(r, {}) == after.get(r, {})]
            # On a machine with too much to do those who are there are slow to sign in, too.
            if len(self._lost) < 2 or time.monotonic() >= ends:
                break
        if not self._lost:
            return None
        limit = _number(_TIMEOUT_VARIABLE, _TIMEOUT_SECONDS)
        has, its = ("has", "its") if len(self._lost) == 1 else ("have", "their")
        return Lost(
            list(self._lost),
            f"{has} not answered for {limit:.0f} s, or {has} ended. Is {its} process paused or killed, {its} machine "
            f"asleep, out of memory or cut off?\nRanks wait for an answer for {_TIMEOUT_VARIABLE} seconds, now "
            f"{limit:.0f}; set it higher where pauses are to be expected.",
        )

    def first_left(self) -> int | None:
        """The lowest rank that `lost` has not found gone; None where that is not known."""
        if self._url is None:
            return None
        return next(r for r in range(self.size) if r not in self._lost)

    def _run(self) -> None:
        while True:
            with self._lock:
                self._beats += 1
                waits, since = self._waits > 0, time.monotonic() - self._since
            with contextlib.suppress(OSError):
                with self._lock:
                    if self._end is not None:
                        return
                    steps = self._steps()
                    self._put({"beats": self._beats, "waits": waits, "seconds": round(since, 1), "steps": steps})
                if waits and self._stall > 0 and since >= self._stall * (self._told + 1):
                    self._told += 1
                    self._tell(since)
            time.sleep(_BEAT_SECONDS)

    def _tell(self, seconds: float) -> None:
        """Print who is waited for; the lowest waiting rank prints it."""
        everyone = self._everyone()
        furthest = max(one.get("steps", 0) for one in everyone.values())
        # In a step all seem to wait; who waits for data has begun fewer of them.
        waiting = [r for r, one in everyone.items() if one.get("waits") and one["steps"] == furthest]
        if min([self.rank, *waiting]) != self.rank:
            return
        missing = [r for r in range(self.size) if r != self.rank and r not in waiting]
        who = ", ".join(f"rank {r} ({self._where(everyone, r)})" for r in missing) or "the others, which wait as well"
        limit = _number(_GIVE_UP_VARIABLE, 0)
        print(
            f"waiting: rank {self.rank} has waited {seconds:.0f} s for {who}. This is printed every {_STALL_VARIABLE} "
            f"seconds, now {self._stall:.0f}; "
            + (
                f"ranks give up after {_GIVE_UP_VARIABLE} seconds, now {limit:.0f}."
                if limit
                else f"{_GIVE_UP_VARIABLE} sets when ranks give up, now never."
            ),
            file=sys.stderr,
            flush=True,
        )

    @staticmethod
    def _where(everyone: dict[int, Any], rank: int) -> str:
        one = everyone.get(rank)
        if one is None:
            return "not heard of"
        if "end" in one:
            return f"on {one['host']}, which has ended"
        return f"on {one['host']}, at work of its own for {one['seconds']:.0f} s"

    def _put(self, value: dict[str, Any]) -> None:
        value = {**value, "host": os.uname().nodename}
        request = urllib.request.Request(f"{self._url}/{self.rank}", json.dumps(value).encode(), method="PUT")
        self._open(request, timeout=5).close()

    def _everyone(self) -> dict[int, dict[str, Any]]:
        found = {}
        for r in range(self.size):
            with contextlib.suppress(OSError, ValueError), self._open(f"{self._url}/{r}", timeout=5) as answer:
                found[r] = json.loads(answer.read())
        return found


def _number(variable: str, default: float) -> float:
    try:
        return float(os.environ.get(variable, default))
    except ValueError:
        return default
