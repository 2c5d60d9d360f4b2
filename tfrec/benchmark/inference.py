"""How fast a run answers, as a SavedModel and as a service: latency, throughput, cold start and memory.

The requests are users of the run's data, drawn at random: by id, or by 64 of their items at most, as the export is
asked. Each export is asked in processes of its own that have TensorFlow alone; one caller waits for each answer. In
each round the same requests go to `tfrec serve` over HTTP.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.benchmark.inference_service import measure_service
from tfrec.benchmark.timing import spread
from tfrec.errors import InputError
from tfrec.printing import printable

#: Users in one request.
BATCHES = (1, 8, 32, 64, 512)
#: Different requests of each size, asked in turn.
REQUESTS = 16
#: Items of a history at most.
HISTORY = 64

_CLIENT = Path(__file__).with_name("inference_client.py")


def benchmark_inference(
    runs: Sequence[Path], rounds: int, seconds: float = 2.0, load_seconds: float = 10.0
) -> dict[str, Any]:
    """Measure the exports of finished runs, and services of them.

    Args:
        runs: their folders.
        rounds: processes for each.
        seconds: how long each process asks requests of one size, 20 at least.
        load_seconds: how long a service is asked in open loop.

    Returns:
        for each run: of each batch size the percentiles of a request's milliseconds over all processes, and users
        answered per second, a process each; seconds to the first answer; MiB. The same of the service, with its users
        per second as a part of the export's in the same round; and its lists for one user each, in closed loop, and in
        open loop at .8 of that.

    Raises:
        InputError: no run, or an export that cannot be asked.
    """
    if not runs:
        raise InputError("inference measures finished runs.\nReceived: none.\nName one: tfrec benchmark inference RUN.")
    from tfrec.fitting import load_recommender
    from tfrec.runs.folder import RunFolder

    with tempfile.TemporaryDirectory(prefix="tfrec-benchmark-") as temporary:
        exported = []
        for number, run in enumerate(runs):
            recommender = load_recommender(RunFolder.existing(run))
            export, requests = Path(temporary) / f"run{number}" / "1", Path(temporary) / f"run{number}.npz"
            recommender.export(export)
            np.savez(requests, allow_pickle=False, **_requests(recommender))
            exported.append((export, requests, sum(p.stat().st_size for p in export.rglob("*") if p.is_file())))
        found: list[list[dict[str, Any]]] = [[] for _ in runs]
        for round_ in range(rounds):
            for (export, requests, _), of_run, run in zip(exported, found, runs, strict=True):
                print(f"round {round_ + 1} of {rounds}: {printable(run)}", flush=True)
                asked = dict(np.load(requests))
                argument = "item_ids" if next(iter(asked.values())).ndim == 3 else "user_ids"
                service = measure_service(run, asked, argument, seconds, load_seconds)
                of_run.append({**_ask(export, requests, seconds), "service": service})
    return {
        "runs": {
            str(run): {"export_mib": round(size / 2**20, 1), **_summary(of_run)}
            for run, (_, _, size), of_run in zip(runs, exported, found, strict=True)
        }
    }


def _requests(recommender: Any) -> dict[str, np.ndarray]:
    """Batch size -> ids of the requests, ``[REQUESTS, B]`` or ``[REQUESTS, B, HISTORY]``."""
    from tfrec.serving.signatures import input_specs

    v, random = recommender.vocabulary, np.random.default_rng(0)
    by_user = "user_ids" in input_specs(recommender.served(), "recommend")
    found = {}
    for batch in BATCHES:
        users = random.integers(len(v.user_ids), size=(REQUESTS, batch))
        if by_user:
            found[str(batch)] = _plain(v.user_ids[users])
            continue
        text = v.item_ids.dtype == object
        ids = np.full((REQUESTS, batch, HISTORY), "" if text else -1, object if text else np.int64)
        for place, user in np.ndenumerate(users):
            items = v.histories[int(user)].indices[-HISTORY:]
            ids[place][: len(items)] = v.item_ids[items]
        found[str(batch)] = _plain(ids)
    return found


def _plain(ids: np.ndarray) -> np.ndarray:
    """Text as NumPy's own type, which needs no pickle."""
    return ids.astype(str) if ids.dtype == object else ids


def _ask(export: Path, requests: Path, seconds: float) -> dict[str, Any]:
    command = [sys.executable, str(_CLIENT), str(export), str(requests), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(
            f"An export could not be asked.\nReceived: exit status {done.returncode} and\n{done.stderr[-1_000:]}\n"
            "Look at the end of that message."
        )
    return json.loads(done.stdout.splitlines()[-1])


def _summary(of_run: list[dict[str, Any]]) -> dict[str, Any]:
    batches = {}
    for name in of_run[0]["times"]:
        times = 1e3 * np.concatenate([p["times"][name] for p in of_run])
        points = np.percentile(times, [50, 90, 95, 99])
        batches[name] = {
            "requests": len(times),
            **{f"p{p}_ms": round(float(t), 3) for p, t in zip((50, 90, 95, 99), points, strict=True)},
            "users_per_second": spread([int(name) / float(np.mean(p["times"][name])) for p in of_run]),
        }
    return {
        "batch": batches,
        "service": _service([p["service"] for p in of_run], of_run),
        "import_tensorflow_seconds": spread([p["import_seconds"] for p in of_run]),
        "load_and_first_answer_seconds": spread([p["first_answer_seconds"] for p in of_run]),
        "loaded_mib": spread([p["loaded_bytes"] / 2**20 for p in of_run]),
        "peak_mib": spread([p["peak_bytes"] / 2**20 for p in of_run]),
    }


def _service(services: list[dict[str, Any]], of_run: list[dict[str, Any]]) -> dict[str, Any]:
    def medians(parts: list[dict[str, Any]]) -> dict[str, float]:
        return {name: round(float(np.median([p[name] for p in parts])), 3) for name in parts[0] if name.startswith("p")}

    batches = {}
    for name in of_run[0]["times"]:
        parts = [s["batch"][name] for s in services]
        bare = [int(name) / float(np.mean(p["times"][name])) for p in of_run]
        rates = [part["users_per_second"] for part in parts]
        batches[name] = {
            "requests": sum(part["requests"] for part in parts),
            **medians(parts),
            "users_per_second": spread(rates),
            "part_of_the_export": spread([rate / other for rate, other in zip(rates, bare, strict=True)]),
        }
    lists, loads = [s["lists"] for s in services], [s["load"] for s in services]
    return {
        "start_seconds": spread([s["start_seconds"] for s in services]),
        "batch": batches,
        "lists": {**medians(lists), "users_per_second": spread([part["users_per_second"] for part in lists])},
        "load": {
            **medians(loads),
            "requests": sum(load["requests"] for load in loads),
            "failed": sum(load["failed"] for load in loads),
            "requests_per_second": spread([load["requests_per_second"] for load in loads]),
        },
    }
