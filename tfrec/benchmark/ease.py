"""EASE's closed form against the machine's matmul peak: seconds for the Gramian and the inverse, and peak memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from tfrec.benchmark.memory import resident_bytes
from tfrec.benchmark.timing import matmul_peak, spread
from tfrec.errors import InputError
from tfrec.models import EASE

_USERS, _ENTRIES = 100_000, 80


def generated(num_items: int, num_users: int = _USERS, entries: int = _ENTRIES, seed: int = 0) -> Any:
    """Ones, CSR ``[U, I]``: items long-tailed and in no order, histories log-normal with a mean of about ``entries``,
    from 5 to half of the items."""
    random = np.random.default_rng(seed)
    share = 1.0 / (np.arange(num_items) + 20.0) ** 0.9
    item_of_place = random.permutation(num_items)
    lengths = random.lognormal(np.log(entries) - 0.5, 1.0, num_users).astype(np.int64)
    lengths = np.clip(lengths, 5, max(5, num_items // 2))
    items = item_of_place[random.choice(num_items, size=lengths.sum(), p=share / share.sum())]
    users = np.repeat(np.arange(num_users), lengths)
    matrix = scipy.sparse.csr_matrix((np.ones(len(items), np.float32), (users, items)), (num_users, num_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def benchmark_ease(num_items: int, rounds: int) -> dict[str, Any]:
    """Fit a generated matrix with ``num_items`` items ``rounds`` times.

    ``inverse_of_peak`` is the inverse's operations per second, I^3 in all (a third for Cholesky's factor; a
    multiply-add counts as two), as a share of the fastest float32 matrix
    product measured in the same process before and after. ``memory_besides_weights_gib`` is how much more memory than
    before the model, with the matrix there already, the process had at its highest, less the weights.
    """
    if num_items < 1 or rounds < 1:
        raise InputError(
            f"`items` and `rounds` must be at least 1.\nReceived: items={num_items}, rounds={rounds}.\n"
            "Give for instance --items 5000 --rounds 3."
        )
    matrix = generated(num_items)
    peak = matmul_peak([])
    before = resident_bytes("VmRSS")
    model = EASE(num_items)
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, values in model.fit(matrix).history.items():
            seconds.setdefault(name, []).extend(values)
    highest = resident_bytes("VmHWM")
    peak = max(peak, matmul_peak([]))
    weights = 4.0 * num_items**2
    speed = num_items**3 / min(seconds["inverse_seconds"])
    return {
        "items": num_items,
        "users": matrix.shape[0],
        "entries": int(matrix.nnz),
        **{name: spread(seconds[name]) for name in ("gramian_seconds", "inverse_seconds", "weights_seconds")},
        "weight_error": max(seconds["weight_error"]),
        "matmul_gflops": round(peak / 1e9, 1),
        "inverse_gflops": round(speed / 1e9, 1),
        "inverse_of_peak": round(speed / peak, 3),
        "weights_gib": round(weights / 2**30, 3),
        "highest_gib": round(highest / 2**30, 3),
        "memory_besides_weights_gib": round((highest - before - weights) / 2**30, 3),
    }
