"""Memory of each rank while ALS with its factors and its matrix in parts is fitted on 1, 2 and 4 ranks.

This process writes the matrix and starts the ranks, of which each runs this module and reads its share of the files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.benchmark.memory import resident_bytes
from tfrec.errors import InputError

FACTORS = 1_024
RANKS = (1, 2, 4)
#: Small compared with a rank's part of the tables: it does not fall with the number of ranks.
BLOCK_MIB = 8
#: Of an entry, while it is fitted: its number and value, by user and by item; and the numbers of the rows that blocks
#: fetch, at most one an entry in each direction.
ENTRY_BYTES = 16
ITERATIONS = 2
_ENTRIES = 10_000_000
_GROUP_ROWS = 1 << 18
_SECONDS = 3_600


def benchmark_als_sharded(
    entries: int = _ENTRIES, factors: int = FACTORS, ranks: Sequence[int] = RANKS, block_mib: int = BLOCK_MIB
) -> dict[str, Any]:
    """Fit the generated matrix on each number of ranks.

    A process has some hundred MiB before it has anything: Python, TensorFlow, Horovod and what their first fit leaves.
    ``above_before_mib`` is the highest resident memory since then, less what was resident before; ``peak_mib`` is all
    of it. Both are of the rank with the most.

    Args:
        entries: of the matrix, about.
        factors: F.
        ranks: numbers of ranks, the first of which others are compared with.
        block_mib: of `ShardedALS`.

    Raises:
        InputError: the ranks cannot be started.
    """
    from tfrec.benchmark.als import generate

    with tempfile.TemporaryDirectory() as folder:
        matrix = generate(entries)
        shape, stored = matrix.shape, int(matrix.nnz)
        path = _written(Path(folder), matrix)
        del matrix
        found = {size: _started(size, [str(path), *map(str, shape), str(factors), str(block_mib)]) for size in ranks}
    first = found[ranks[0]]
    tables = sum(shape) * factors * 4
    result: dict[str, Any] = {
        "benchmark": "als-sharded",
        "users": shape[0],
        "items": shape[1],
        "entries": stored,
        "factors": factors,
        "block_mib": block_mib,
        "iterations": ITERATIONS,
        "formula": "((U + I) F 4 + 16 entries) / N + 2 blocks",
    }
    for size, one in found.items():
        peak = max(one["above_before_bytes"])
        expected = first["above_before_bytes"][0] * ranks[0] / size
        result[f"ranks_{size}"] = {
            "above_before_mib": _mib(peak),
            "formula_mib": _mib((tables + ENTRY_BYTES * stored) / size + 2 * (block_mib << 20)),
            "times_the_first_over_ranks": round(peak / expected, 3),
            "peak_mib": _mib(max(one["peak_bytes"])),
            "before_mib": _mib(max(one["before_bytes"])),
            "of_each_rank_above_before_mib": [_mib(x) for x in one["above_before_bytes"]],
            "after_reading_above_before_mib": [_mib(x) for x in one["read_bytes"]],
            "seconds_per_iteration": one["seconds"],
            "fetched_mib_per_rank": [_mib(x) for x in one["traffic_bytes"]],
            "loss": one["loss"],
            "loss_relative_difference": abs(one["loss"] / first["loss"] - 1),
        }
    return result


def _mib(size: float) -> float:
    return round(size / 2**20, 1)


def _written(folder: Path, matrix: Any) -> Path:
    """The entries as a Parquet file of many row groups."""
    import pyarrow as pa
    import pyarrow.parquet

    entries, path = matrix.tocoo(), folder / "plays.parquet"
    table = pa.table({"user": entries.row, "item": entries.col, "value": entries.data})
    pa.parquet.write_table(table, path, row_group_size=_GROUP_ROWS)
    return path


def _started(size: int, arguments: list[str]) -> dict[str, Any]:
    """What rank 0 of so many writes."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "result.json")
        launcher = [str(Path(sys.executable).with_name("horovodrun")), "-np", str(size)]
        command = [*launcher, sys.executable, "-m", __name__, str(written), *arguments]
        threads = str(max(1, (os.cpu_count() or 1) // size))
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, env={**os.environ, "OMP_NUM_THREADS": threads}
        )
        if done.returncode != 0 or not written.is_file():
            raise InputError(
                f"{size} ranks must be able to train here.\nReceived: status {done.returncode} of "
                f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return dict(json.loads(written.read_text()))


def _run(written: Path, path: Path, shape: tuple[int, int], factors: int, block_mib: int) -> None:
    """One rank."""
    from tfrec import distributed
    from tfrec.data.sharded_matrix import ShardedMatrix
    from tfrec.models import ALS
    from tfrec.models.als_sharded import ShardedALS
    from tfrec.runs.report import write_json

    distributed.init()
    ranks = distributed.everyone()

    def model(rows: int) -> ShardedALS:
        return ShardedALS(ALS(factors, 0.01, iterations=ITERATIONS), ranks, rows)

    # What a process does once: libraries, threads, and Horovod's buffers.
    small = np.arange(64)
    model(block_mib).fit(ShardedMatrix.of_entries(*_mine(small, ranks), (64, 64), ranks), calculate_training_loss=True)
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    matrix = ShardedMatrix.of_parquet([path], shape, ranks)
    read = resident_bytes("VmHWM")
    seconds: list[float] = []
    fitted = model(block_mib)
    losses = fitted.fit(matrix, lambda number, took, loss: seconds.append(took), calculate_training_loss=True)
    peak = resident_bytes("VmHWM")

    def each(value: float) -> list[float]:
        return [float(x) for x in distributed.gather_across_ranks(np.array(float(value)))]

    result = {
        "before_bytes": each(before),
        "read_bytes": each(read - before),
        "peak_bytes": each(peak),
        "above_before_bytes": each(peak - before),
        "traffic_bytes": each(fitted.traffic.bytes),
        "seconds": [round(s, 2) for s in seconds],
        "loss": losses[-1],
    }
    if ranks.rank == 0:
        write_json(written, result)


def _mine(numbers: np.ndarray, ranks: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mine = numbers[ranks.rank :: ranks.size]
    return mine, mine, np.ones(len(mine), np.float32)


if __name__ == "__main__":
    from tfrec import commands

    commands.quiet_tensorflow()
    _run(Path(sys.argv[1]), Path(sys.argv[2]), (int(sys.argv[3]), int(sys.argv[4])), int(sys.argv[5]), int(sys.argv[6]))
