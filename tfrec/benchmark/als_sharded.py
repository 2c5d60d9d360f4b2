"""ALS whose tables and matrix lie in parts on 1, 2 and 4 ranks: the peak memory of a rank, next to what it should be.

The matrix of ten million entries is generated in blocks of users, each from a seed of its own, so that a rank makes its
share alone and any number of ranks has the same matrix. This process starts the ranks, of which each runs this module.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.benchmark.memory import resident_bytes
from tfrec.benchmark.ranks import started
from tfrec.errors import InputError

USERS, ITEMS, ENTRIES = 1_000_000, 200_000, 10_000_000
FACTORS = 256
BLOCK_MIB = 4
RANKS = (1, 2, 4)
_BLOCK_USERS = 500
#: Bytes of an entry in both directions, each a column and a value.
_ENTRY = 2 * (4 + 4)


def benchmark_als_sharded(
    ranks: tuple[int, ...] = RANKS, entries: int = ENTRIES, users: int = USERS, items: int = ITEMS
) -> dict[str, Any]:
    """One iteration on each number of ranks; bytes are of the rank with the highest peak.

    ``peak_bytes`` is the highest resident memory of the process, and ``before_bytes`` what it had after its imports,
    the start of Horovod and a fit of a tiny matrix. The difference, ``above_before_bytes``, is what the data costs; it
    is compared with

        ((U + I) F 4 + 16 entries) / ranks + 2 block

    which counts the tables, both directions of the matrix, and the rows that a rank has fetched and sends meanwhile.

    Args:
        ranks: numbers of ranks, one after another.
        entries: about as many.
        users: U.
        items: I.

    Raises:
        InputError: an argument out of range.
    """
    if not ranks or min(ranks) < 1 or min(entries, users, items) < 1:
        raise InputError(
            "`ranks` must be numbers from 1, and the matrix have a user, an item and an entry.\n"
            f"Received: ranks={ranks}, entries={entries}, users={users}, items={items}."
        )
    found = {size: started(size, __name__, [str(n) for n in (entries, users, items)]) for size in ranks}
    first = found[ranks[0]]
    for size, one in found.items():
        share = ranks[0] / size
        one["of_the_first"] = round(one["above_before_bytes"] / first["above_before_bytes"], 3)
        one["of_the_first_if_1_over_n"] = round(share, 3)
        one["from_1_over_n"] = round(one["of_the_first"] / share - 1, 3)
    return {
        "benchmark": "als-sharded",
        "users": users,
        "items": items,
        "factors": FACTORS,
        "block_mib": BLOCK_MIB,
        "ranks": {str(size): one for size, one in found.items()},
    }


def shares(entries: int, users: int, items: int, rank: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A rank's share of the entries of a generated matrix of play counts, long-tailed on both sides.

    Blocks of users are dealt among the ranks; all of them together are the same matrix for any ``size``.

    Returns:
        users int32, items int32, and counts float32, ``[n]`` each, each pair once.
    """
    popularity = 1.0 / np.arange(20, items + 20)
    up_to = np.cumsum(popularity / popularity.sum())
    # Repeated pairs become one, so more are drawn.
    mean = 1.25 * entries / (users * math.exp(0.5))
    parts: list[list[np.ndarray]] = [[], [], []]
    for number in range(rank, -(-users // _BLOCK_USERS), size):
        first = number * _BLOCK_USERS
        random = np.random.default_rng([0, number])
        count = min(_BLOCK_USERS, users - first)
        lengths = random.poisson(mean * random.lognormal(0.0, 1.0, count))
        user = np.repeat(np.arange(first, first + count), lengths)
        item = np.minimum(np.searchsorted(up_to, random.random(len(user))), items - 1)
        pairs, times = np.unique(user * items + item, return_counts=True)
        for part, values in zip(parts, (pairs // items, pairs % items, times), strict=True):
            part.append(values.astype(np.float32 if part is parts[2] else np.int32))
    kinds = (np.int32, np.int32, np.float32)
    return tuple(np.concatenate([np.zeros(0, k), *part]) for k, part in zip(kinds, parts, strict=True))  # type: ignore


def _measured(entries: int, users: int, items: int) -> dict[str, Any]:
    """On one rank."""
    from tfrec import distributed
    from tfrec.data.sharded_matrix import ShardedMatrix
    from tfrec.models import ALS
    from tfrec.models.als_sharded import ShardedALS

    ranks = distributed.everyone()

    def fit(entries: int, users: int, items: int, factors: int) -> tuple[ShardedALS, ShardedMatrix, list[float], float]:
        start = time.perf_counter()
        given = shares(entries, users, items, ranks.rank, ranks.size)
        matrix = ShardedMatrix.of_entries(*given, (users, items), ranks)
        del given
        ready = time.perf_counter() - start
        after = float(resident_bytes("VmHWM"))
        model = ShardedALS(ALS(factors, 0.1, iterations=1), ranks, BLOCK_MIB)
        seconds: list[float] = []
        model.fit(matrix, callback=lambda _, second, loss: seconds.append(second))
        return model, matrix, [ready, *seconds], after

    fit(1_000, 100, 50, 16)
    before = float(resident_bytes("VmRSS"))
    model, matrix, seconds, prepared = fit(entries, users, items, FACTORS)
    peak = float(resident_bytes("VmHWM"))
    all_ranks = distributed.gather_across_ranks(np.array([before, peak, prepared, float(model.traffic.bytes)]))
    highest = all_ranks[int(np.argmax(all_ranks[:, 1] - all_ranks[:, 0]))]
    formula = ((users + items) * FACTORS * 4 + _ENTRY * matrix.num_entries) / ranks.size + 2 * (BLOCK_MIB << 20)
    return {
        "entries": matrix.num_entries,
        "before_bytes": int(highest[0]),
        "peak_bytes": int(highest[1]),
        "above_before_bytes": int(highest[1] - highest[0]),
        "above_before_when_the_matrix_was_ready_bytes": int(highest[2] - highest[0]),
        "formula_bytes": int(formula),
        "fetched_and_sent_bytes": int(highest[3]),
        "seconds_to_the_matrix": round(seconds[0], 1),
        "seconds_of_the_iteration": round(seconds[1], 1),
    }


def _run(written: Path, *numbers: str) -> None:
    """One rank."""
    from tfrec import commands, distributed
    from tfrec.runs.report import write_json

    commands.quiet_tensorflow()
    distributed.init()
    result = _measured(*(int(n) for n in numbers))
    if distributed.rank() == 0:
        write_json(written, result)


if __name__ == "__main__":
    _run(Path(sys.argv[1]), *sys.argv[2:])
