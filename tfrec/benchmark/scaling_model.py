"""The time of a step on several ranks: computing + communicating, fitted on measurements.

    step = share * (compute + sum of k * buffer + a * rounds) + sum of max(share * c * sent, 8 * e * sent / rate)

``compute`` is a step's time on one rank alone, on one core. ``share`` is how many ranks share a core (1 where each has
its own): computing and copying slow down by it, and a message waits longer for its receiver. The sums go over the kinds
of exchange, of which `traffic` has the bytes:

    allreduce   gradients of the network and of replicated tables, gathered in one buffer. A rank sends 2 (n - 1) / n of
                it, around a ring
    alltoall    places and rows of sharded tables, fetched and sent back. A rank sends (n - 1) / n of them

What a fit finds: ``k``, the processor's seconds per byte of the buffer, before and after it travels; ``a``, seconds per
round of messages; ``c``, the processor's seconds per byte sent, and ``e``, seconds of the link per second that its rate
allows, of which the longer counts, since one goes on during the other. An e above 1 is packets' headers, and times in
which a link lies idle.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize

#: What `fit` finds, and about where it begins to look.
_START = {
    "buffer_seconds_per_byte_float32": 1e-9,
    "buffer_seconds_per_byte_float16": 2e-9,
    "seconds_per_round": 1e-3,
    "seconds_per_byte_float32": 2e-9,
    "seconds_per_byte_float16": 4e-9,
    "seconds_per_byte_alltoall": 8e-9,
    "link_seconds_allreduce": 1.05,
    "link_seconds_alltoall": 1.05,
}
NAMES = tuple(_START)
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
    """Messages of a step that wait for each other: log2(n) for each of its operations, which ranks agree on first."""
    return _OPERATIONS[step.tables] * math.log2(step.ranks)


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
    start = np.array(list(_START.values()))

    def relative(found: np.ndarray) -> np.ndarray:
        return errors(dict(zip(NAMES, found * start, strict=True)), measured, cores)

    # In units of where it starts: seconds per byte and per round differ by many powers of ten.
    solved = scipy.optimize.least_squares(relative, np.ones(len(start)), bounds=(0, np.inf), x_scale="jac", xtol=1e-12)
    return dict(zip(NAMES, (solved.x * start).tolist(), strict=True))


def predict(numbers: Mapping[str, float], step: Step, rate: float | None, compute: float, cores: int | None) -> float:
    """Seconds of a step.

    Args:
        numbers: of a fit.
        step: what travels.
        rate: of the links, bits per second; None: as fast as the processor.
        compute: seconds on one rank alone.
        cores: that the ranks share; None: each has its own.
    """
    sent, slow = traffic(step), share(step.ranks, cores)
    buffer = sent["allreduce"] * step.ranks / (2 * (step.ranks - 1))
    copying = numbers[f"buffer_seconds_per_byte_{step.wire}"] * buffer
    seconds = slow * (compute + copying + numbers["seconds_per_round"] * rounds(step))
    for kind, of_processor in (("allreduce", step.wire), ("alltoall", "alltoall")):
        processor = slow * numbers[f"seconds_per_byte_{of_processor}"] * sent[kind]
        link = 0.0 if rate is None else 8 / rate * numbers[f"link_seconds_{kind}"] * sent[kind]
        seconds += max(processor, link)
    return seconds


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
