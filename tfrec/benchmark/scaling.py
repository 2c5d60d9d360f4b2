"""How long a data-parallel step of NeuMF takes on n ranks, from one rank's speed and a link's bandwidth.

    step = compute + communication
    compute = global_batch_size / (n * samples_per_second_of_one_rank)
    communication = dense: 2 (n - 1) / n * G / bandwidth     (ring allreduce; G: bytes of all gradients)
                    rows:  2 (n - 1) / n * H / bandwidth + (n - 1) * R / bandwidth
                           (H: bytes of what is not rows; R: bytes of one rank's rows, which all others collect)

Nothing of it is measured but the speed of one rank that you give: it is a plan, without latencies, overlap or
contention. ``gradient_bytes_per_step`` in a run's metrics.json is G, or H + R, of that run.
"""

from __future__ import annotations

import math
from typing import Any

#: Bytes per second and direction that a rank can count on, by link, as their makers state them.
LINKS = {"NVLink 4 (450 GB/s)": 450e9, "InfiniBand NDR (50 GB/s)": 50e9, "100 Gb Ethernet (12.5 GB/s)": 12.5e9}
_RANKS = (8, 16, 64)
#: The reference sizes on ml-20m.
_USERS, _ITEMS, _WIDTH, _NETWORK = 138_493, 26_744, 192, 256 * 256 + 256 * 128 + 128 * 64 + 256 + 128 + 64 + 129
_NEGATIVES = 4


def distinct(rows: int, draws: float) -> float:
    """How many different of ``rows`` are expected in as many equally likely draws."""
    return rows * -math.expm1(-draws / rows)


def step_seconds(
    ranks: int, global_batch_size: int, samples_per_second: float, bandwidth: float, *, rows: bool, item_bytes: int
) -> tuple[float, float]:
    """Seconds of computation and of communication in a step.

    Args:
        ranks: n.
        global_batch_size: samples per step over all ranks.
        samples_per_second: of one rank alone.
        bandwidth: bytes per second and direction.
        rows: embeddings' gradients travel as rows of the batch; False: as dense tensors.
        item_bytes: 4, or 2 with ``--training.compression float16``.
    """
    around = 2 * (ranks - 1) / ranks
    compute = global_batch_size / (ranks * samples_per_second)
    if not rows:
        return compute, around * ((_USERS + _ITEMS) * _WIDTH + _NETWORK) * item_bytes / bandwidth
    local = global_batch_size / ranks
    different = distinct(_USERS, local / (1 + _NEGATIVES)) + distinct(_ITEMS, local)
    own = different * (_WIDTH * item_bytes + 8)
    return compute, (around * _NETWORK * item_bytes + (ranks - 1) * own) / bandwidth


def plan(samples_per_second: float, global_batch_size: int = 1 << 20) -> dict[str, Any]:
    """Link -> way of sending -> ranks -> milliseconds of computation and communication, and speed-up over one rank."""
    ways: dict[str, Any] = {
        "dense float32": {"rows": False, "item_bytes": 4},
        "dense float16": {"rows": False, "item_bytes": 2},
        "rows float16": {"rows": True, "item_bytes": 2},
    }
    alone = global_batch_size / samples_per_second
    found: dict[str, Any] = {}
    for link, bandwidth in LINKS.items():
        found[link] = {}
        for way, options in ways.items():
            found[link][way] = {}
            for ranks in _RANKS:
                compute, communication = step_seconds(
                    ranks, global_batch_size, samples_per_second, bandwidth, **options
                )
                found[link][way][str(ranks)] = {
                    "compute_ms": round(1e3 * compute, 2),
                    "communication_ms": round(1e3 * communication, 2),
                    "speed_up": round(alone / (compute + communication), 1),
                }
    return {
        "benchmark": "scaling",
        "samples_per_second_of_one_rank": samples_per_second,
        "global_batch_size": global_batch_size,
        "planned_not_measured": found,
    }
