"""Reading 20 million ratings from CSV, and again from the cache, on a generated file of ml-20m's shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

_USERS, _ITEMS, _RATINGS = 138_493, 26_744, 20_000_263


def write_ratings(path: Path, ratings: int = _RATINGS, users: int = _USERS, items: int = _ITEMS) -> None:
    """A CSV like ml-20m's ratings.csv: sorted by user, long-tailed items, half stars, seconds."""
    import pyarrow as pa
    import pyarrow.csv

    random = np.random.default_rng(20)
    user = np.sort(random.integers(1, users + 1, ratings))
    item = np.minimum((random.pareto(1.2, ratings) * 300).astype(np.int64), items - 1)
    raw_items = np.sort(random.choice(131_262, items, replace=False)) + 1
    table = pa.table(
        {
            "userId": user,
            "movieId": raw_items[item],
            "rating": random.integers(1, 11, ratings) / 2,
            "timestamp": random.integers(789_652_009, 1_427_784_002, ratings),
        }
    )
    with path.open("wb") as stream:
        stream.write((",".join(table.column_names) + "\n").encode())
        pa.csv.write_csv(table, stream, pa.csv.WriteOptions(include_header=False))


def benchmark_data(rounds: int) -> dict[str, Any]:
    """Seconds and memory of the first load (CSV) and of later ones (cache), each in a new process."""
    with tempfile.TemporaryDirectory(prefix="tfrec-benchmark-") as name:
        folder = Path(name) / "ml-20m"
        folder.mkdir()
        write_ratings(folder / "ratings.csv")
        size = (folder / "ratings.csv").stat().st_size
        environment = {**os.environ, "XDG_CACHE_HOME": str(Path(name) / "cache")}
        runs = []
        for number in range(1 + rounds):
            done = subprocess.run(
                [sys.executable, "-m", "tfrec.benchmark.data", name],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            )
            runs.append(json.loads(done.stdout))
            print(f"load {number + 1}/{1 + rounds}: {runs[-1]}", file=sys.stderr, flush=True)
    cached = [r["seconds"] for r in runs[1:]]
    return {
        "benchmark": "data",
        "ratings": _RATINGS,
        "csv_bytes": size,
        "csv_seconds": runs[0]["seconds"],
        "csv_peak_mib": runs[0]["peak_mib"],
        "cache_seconds": {
            "median": round(float(np.median(cached)), 2), "min": min(cached), "max": max(cached)
        },
        "cache_peak_mib": runs[-1]["peak_mib"],
        "cache_private_mib": runs[-1]["private_mib"],
    }  # fmt: skip


if __name__ == "__main__":
    from tfrec.benchmark.memory import resident_bytes
    from tfrec.data import load

    start = time.perf_counter()
    events = load("ml-20m", sys.argv[1])
    seconds = round(time.perf_counter() - start, 2)
    # What is mapped from a file is shared with other processes, and the system may take it back.
    peak, private = (round(resident_bytes(what) / 2**20) for what in ("VmHWM", "RssAnon"))
    print(json.dumps({"events": len(events), "seconds": seconds, "peak_mib": peak, "private_mib": private}))
