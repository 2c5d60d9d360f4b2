"""The time of a step on several ranks: computing + communicating, fitted on measurements.

    step      = share * (compute + sum of c_k * bytes_k) + a * rounds + 8 / rate * sum of e_k * bytes_k

``compute`` is a step's time on one rank alone, on one core. ``share`` is how many ranks share a core (1 where each has
its own): computing, copying and adding up slow down by it. ``bytes_k`` is what a rank sends in one kind of exchange,
which follows from the sizes (`traffic`):

    allreduce   gradients of the network and of replicated tables: 2 (n - 1) / n of their bytes, around a ring
    alltoall    places and rows of sharded tables, fetched and sent back: (n - 1) / n of their bytes

The five kinds of numbers a fit finds: ``c``, the processor's seconds per byte (of allreduce in float32, of allreduce in
float16, of alltoall); ``a``, seconds per round of messages; ``e``, seconds of the link per second that its rate allows
(of allreduce, of alltoall). An e above 1 is packets' headers, and waiting in which a link lies idle.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize

#: What `fit` finds, in order.
NAMES = (
    "seconds_per_byte_allreduce_float32",
    "seconds_per_byte_allreduce_float16",
    "seconds_per_byte_alltoall",
    "seconds_per_round",
    "link_seconds_allreduce",
    "link_seconds_alltoall",
)
_ITEM_BYTES = {"float32": 4, "float16": 2}
#: A place of a row at its owner, int32.
_PLACE_BYTES = 4
#: Horovod's operations in a step: all ranks meet, and one group of gradients is added up; for each of two sharded
#: tables places and rows, fetched and sent back.
_OPERATIONS = {"replicated": 2, "sharded": 2 + 2 * 4}


def distinct(rows: int, draws: float) -> float:
    """How many different of ``rows`` are expected in as many equally likely draws."""
    return rows * -math.expm1(draws * math.log1p(-1 / rows)) if rows > 1 else float(min(rows, draws))


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of NeuMF, as far as what travels is concerned.

    Args:
        ranks: n.
        users: rows of the user table.
        items: rows of the item table.
        width: numbers in a row.
        network: numbers in the other weights.
        batch: samples of one rank.
        per_user: samples of one user, a positive and its negatives.
        tables: ``replicated`` or ``sharded``.
        wire: type of the gradients on the wire; rows are fetched in float32.
    """

    ranks: int
    users: int
    items: int
    width: int
    network: int
    batch: int
    per_user: int
    tables: str
    wire: str

    @property
    def rows(self) -> float:
        """Different rows of a rank's batch, of both tables."""
        return distinct(self.users, self.batch / self.per_user) + distinct(self.items, self.batch)


def traffic(step: Step) -> dict[str, float]:
    """Bytes that a rank sends in a step, by kind of exchange, without headers."""
    part = (step.ranks - 1) / step.ranks
    item = _ITEM_BYTES[step.wire]
    if step.tables == "replicated":
        numbers = (step.users + step.items) * step.width + step.network
        return {"allreduce": 2 * part * numbers * item, "alltoall": 0.0}
    there = step.rows * (_PLACE_BYTES + step.width * 4)
    back = step.rows * (_PLACE_BYTES + step.width * item)
    return {"allreduce": 2 * part * step.network * item, "alltoall": part * (there + back)}


def rounds(step: Step) -> float:
    """Messages that wait for each other: each of an operation's goes to all other ranks, one after another."""
    return float(_OPERATIONS[step.tables] * (step.ranks - 1))


def terms(step: Step, rate: float | None, cores: int | None) -> np.ndarray:
    """What is multiplied by the numbers of a fit, in the order of `NAMES`.

    Args:
        step: what travels.
        rate: bits per second and direction of a rank's link; None: as fast as the processor.
        cores: that the ranks share; None: each has its own.
    """
    sent = traffic(step)
    slow = share(step.ranks, cores)
    per_bit = 0.0 if rate is None else 8 / rate
    half = step.wire == "float16"
    return np.array(
        [
            slow * sent["allreduce"] * (not half),
            slow * sent["allreduce"] * half,
            slow * sent["alltoall"],
            slow * rounds(step),
            per_bit * sent["allreduce"],
            per_bit * sent["alltoall"],
        ]
    )


def share(ranks: int, cores: int | None) -> float:
    """How many ranks share a core."""
    return 1.0 if cores is None else max(1.0, ranks / cores)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A step that was timed.

    Args:
        step: what travels.
        rate: of the links, bits per second; None: no limit.
        compute: seconds on one rank alone.
        seconds: on all ranks.
    """

    step: Step
    rate: float | None
    compute: float
    seconds: float


def fit(measured: Sequence[Measured], cores: int) -> dict[str, float]:
    """The numbers that make the sum of squared relative errors least; none is negative.

    Args:
        measured: steps on several ranks.
        cores: that the ranks share.
    """
    weight = np.array([1 / m.seconds for m in measured])
    matrix = np.stack([terms(m.step, m.rate, cores) for m in measured])
    target = np.array([m.seconds - share(m.step.ranks, cores) * m.compute for m in measured])
    # Columns of one size: bytes and rounds differ by many powers of ten.
    scale = np.abs(matrix * weight[:, None]).max(axis=0)
    scale[scale == 0] = 1.0
    found, _ = scipy.optimize.nnls(matrix * weight[:, None] / scale, target * weight)
    return dict(zip(NAMES, (found / scale).tolist(), strict=True))


def predict(numbers: Mapping[str, float], step: Step, rate: float | None, compute: float, cores: int | None) -> float:
    """Seconds of a step.

    Args:
        numbers: of a fit.
        step: what travels.
        rate: of the links, bits per second.
        compute: seconds on one rank alone.
        cores: that the ranks share; None: each has its own.
    """
    found = np.array([numbers[name] for name in NAMES])
    return share(step.ranks, cores) * compute + float(found @ terms(step, rate, cores))


def errors(numbers: Mapping[str, float], measured: Sequence[Measured], cores: int) -> np.ndarray:
    """``predicted / measured - 1`` of each."""
    return np.array(
        [predict(numbers, m.step, m.rate, m.compute, cores) / m.seconds - 1 for m in measured], dtype=np.float64
    )


def crossover_rows(numbers: Mapping[str, float], step: Step, rate: float | None, most: int = 1 << 40) -> int | None:
    """From how many rows of both tables on sharding is the faster of the two, with equal computing.

    Args:
        numbers: of a fit.
        step: ranks, batch, width and wire; the tables grow in its proportion of users and items.
        rate: of the links, bits per second.
        most: rows that are looked at.

    Returns:
        Rows of both tables, to a hundredth; None where replication wins for all of them.
    """
    total = step.users + step.items

    def difference(rows: float) -> float:
        users = max(1, round(rows * step.users / total))
        sized = dataclasses.replace(step, users=users, items=max(1, round(rows) - users))
        ways = (dataclasses.replace(sized, tables=tables) for tables in ("replicated", "sharded"))
        replicated, sharded = (predict(numbers, way, rate, 0.0, None) for way in ways)
        return replicated - sharded

    low, high = 2.0, float(most)
    if difference(high) <= 0:
        return None
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if difference(middle) > 0 else (middle, high)
    return round(high)
