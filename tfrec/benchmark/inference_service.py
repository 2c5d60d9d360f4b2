"""How fast `tfrec serve` answers over HTTP on this machine's loopback, server and client on the same cores."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.benchmark.load import Answers, closed_loop, get, open_loop, post
from tfrec.errors import InputError

#: Connections of a predict request's closed loop; of lists for one user each, and in open loop.
PREDICT_CONNECTIONS, LIST_CONNECTIONS, LOAD_CONNECTIONS = 4, 32, 128
#: What part of the peak is asked in open loop.
LOAD = 0.8


@contextlib.contextmanager
def serving(run: Path, *options: str) -> Iterator[int]:
    """The port of a service in a process of its own.

    Raises:
        InputError: it does not start.
    """
    command = [sys.executable, "-m", "tfrec", "serve", f"run={run}", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("Serving"):
            _, err = process.communicate()
            raise InputError(f"The service does not start.\nReceived: {err[-1_000:]}\nTry `tfrec serve {run}`.")
        try:
            yield int(line.split(";")[0].rsplit(":", 1)[1])
        finally:
            process.terminate()
            process.communicate()


def measure_service(
    run: Path, requests: dict[str, np.ndarray], argument: str, seconds: float, load_seconds: float
) -> dict[str, Any]:
    """One process of a service.

    Args:
        run: the run's folder.
        requests: batch size -> ids, as an export is asked.
        argument: what they are: ``user_ids`` or ``item_ids``.
        seconds: of each closed loop.
        load_seconds: of the open loop.
    """
    sizes = max(int(size) for size in requests)
    started = time.perf_counter()
    with serving(run, "--max-instances", str(sizes), "--max-body-bytes", "100000000", "--max-queue", "10000") as port:
        found: dict[str, Any] = {"start_seconds": time.perf_counter() - started, "batch": {}}
        for size, batches in requests.items():
            asked = [post("/v1/models/run:predict", _body(ids, argument)) for ids in batches]
            closed_loop(port, asked, PREDICT_CONNECTIONS, seconds / 4)
            found["batch"][size] = _closed(closed_loop(port, asked, PREDICT_CONNECTIONS, seconds), int(size))
        lists = [get(f"/recommend?{_query(ids[0], argument)}") for batches in requests.values() for ids in batches]
        closed_loop(port, lists, LIST_CONNECTIONS, seconds / 4)
        found["lists"] = _closed(closed_loop(port, lists, LIST_CONNECTIONS, seconds), 1)
        rate = LOAD * found["lists"]["users_per_second"]
        answers = open_loop(port, lists, rate, LOAD_CONNECTIONS, load_seconds)
        found["load"] = {
            "requests_per_second": rate,
            "requests": len(answers.seconds),
            "failed": len(answers.failed),
            **answers.percentiles(),
        }
    return found


def _closed(answers: Answers, users: int) -> dict[str, Any]:
    if answers.failed:
        raise InputError(
            f"A service must answer each request.\nReceived: {answers.failed[0]}.\nLook at the log of `tfrec serve`."
        )
    rate = users * len(answers.seconds) / answers.lasted
    return {"requests": len(answers.seconds), "users_per_second": rate, **answers.percentiles()}


def _body(ids: np.ndarray, argument: str) -> bytes:
    rows = [_known(row) if argument == "item_ids" else row for row in ids]
    instances = [{argument: row.tolist()} for row in rows]
    return json.dumps({"signature_name": "recommend", "instances": instances}).encode()


def _query(ids: Any, argument: str) -> str:
    if argument == "user_ids":
        return urllib.parse.urlencode({"user": ids})
    return urllib.parse.urlencode({"history": _known(ids).tolist()}, doseq=True)


def _known(row: np.ndarray) -> np.ndarray:
    """A history without what fills it up."""
    return row[row != ("" if row.dtype.kind == "U" else -1)]
