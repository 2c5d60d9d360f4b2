"""Indexes of large catalogues against a full search: build time, memory, recall@10 and queries per second.

No public data set has ten million items. The vectors are made from real ones: factors of ALS on Last.fm 2K, each new
vector on the line between an item's and that of one of its ten nearest, moved by noise of .3 of its norm; queries the
same from users. Each index is built in a process of its own, where queries through it and a full search alternate.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.benchmark.ann_candidate import CANDIDATES

#: Width of the vectors, and queries of the comparison.
FACTORS, QUERIES = 64, 1_024
_NOISE, _NEAR, _BLOCK = 0.3, 10, 1 << 18


def benchmark_ann(num_items: int, only: tuple[str, ...], rounds: int, data_dir: Path | None = None) -> dict[str, Any]:
    """Each candidate's figures.

    Args:
        num_items: I.
        only: names of candidates; none: all.
        rounds: how often queries and full search alternate.
        data_dir: with Last.fm 2K, see `tfrec.load`.
    """
    found: dict[str, Any] = {"benchmark": "ann", "items": num_items, "factors": FACTORS, "queries": QUERIES}
    with tempfile.TemporaryDirectory(prefix="tfrec-benchmark-") as temporary:
        items, queries = Path(temporary) / "items.npy", Path(temporary) / "queries.npy"
        users, catalogue = _factors(data_dir)
        rng = np.random.default_rng(0)
        _grow(catalogue, num_items, rng, items)
        _grow(users, QUERIES, rng, queries)
        for name in only or CANDIDATES:
            command = [sys.executable, "-m", "tfrec.benchmark.ann_candidate", name, str(items), str(queries)]
            ended = subprocess.run([*command, str(rounds)], capture_output=True, text=True, check=False)
            lines = ended.stdout.strip().splitlines()
            found[name] = json.loads(lines[-1]) if ended.returncode == 0 else {"failed": ended.stderr[-500:]}
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def _factors(data_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Factors of users and of items who have any."""
    import tfrec

    data = tfrec.load("lastfm-2k", data_dir=data_dir)
    model = tfrec.ALS(factors=FACTORS, iterations=10)
    model.fit(data.to_csr(), verbose=0)
    users, items = (np.asarray(table) for table in (model.user_factors, model.item_factors))
    return users, items[np.linalg.norm(items, axis=1) > 1e-6]


def _grow(rows: np.ndarray, count: int, rng: np.random.Generator, path: Path) -> None:
    """Write ``count`` vectors like some, float32."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    near = np.argpartition(-(unit @ unit.T), _NEAR + 1, axis=1)[:, : _NEAR + 1]
    made = np.lib.format.open_memmap(path, "w+", np.float32, (count, rows.shape[1]))
    for first in range(0, count, _BLOCK):
        size = min(_BLOCK, count - first)
        one = rng.integers(len(rows), size=size)
        other = near[one, rng.integers(_NEAR + 1, size=size)]
        between = rows[one] + rng.random((size, 1), np.float32) * (rows[other] - rows[one])
        noise = rng.standard_normal(between.shape, np.float32) / np.sqrt(rows.shape[1])
        made[first : first + size] = between + _NOISE * np.linalg.norm(between, axis=1, keepdims=True) * noise
    made.flush()
