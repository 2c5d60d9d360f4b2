"""How long a step of NeuMF takes on several ranks: measured on slow links, fitted, and planned for more ranks.

Ranks run on hosts made of network namespaces (`tfrec.benchmark.namespaces`), whose links have the rates below, with
tables whole on every rank or divided among the ranks, and gradients in float32 or float16. The model of a step
(`tfrec.benchmark.scaling_model`) is fitted on a part of the measurements and has to predict the others, above all those
on more ranks than it has seen. The plan for GPUs takes computing from a measured speed of one GPU and the rest from the
fit.

A time is the lower quartile of all steps that were timed, in rounds that go through all cases in turn: other work on
the machine only adds to a step, in bursts. The median is reported with it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrec.benchmark.namespaces import Hosts, why_not
from tfrec.benchmark.scaling_model import (
    Measured,
    Step,
    crossover_rows,
    errors,
    fit,
    predict,
    traffic,
)
from tfrec.benchmark.scaling_rank import LAYER_DIMS, MF_DIM, PER_USER, WIDTH, Workload
from tfrec.errors import InputError

RANKS = (1, 2, 4)
#: Bits per second and direction of each host's link; None: as fast as the machine can.
RATES = (None, 10e9, 1e9, 100e6)
#: What the model is fitted on: the fewest ranks, and links on which either the processor or the link is the slower.
FITTED_RANKS, FITTED_RATES = (2,), (None, 1e9, 100e6)
WORKLOADS = tuple(
    Workload(users, 10_000, batch, tables, wire)
    for users in (30_000, 100_000)
    for batch in (2_560, 15_360)
    for tables in ("replicated", "sharded")
    for wire in ("float32", "float16")
)
_STEPS, _STEPS_ON_SLOWEST = 10, 2
_QUANTILES = {"milliseconds": 0.25, "lowest": 0.0, "median": 0.5, "highest": 1.0}
#: TensorFlow is loaded without its notices.
_RANK = """
from tfrec import commands
commands.quiet_tensorflow()
from tfrec.benchmark import scaling_rank
commands.run(scaling_rank.main)
"""
#: What a rank may use: one core, as each has on a host of its own.
_ONE_CORE = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}

#: Of the plan: bits per second of a rank's link as its maker states it, ranks, and tables (users, items, width).
LINKS = {"100 Gbit/s Ethernet": 100e9, "400 Gbit/s InfiniBand NDR": 400e9, "NVLink 4": 3_600e9}
_PLANNED_RANKS = (8, 16, 64)
_TABLES = {"ml-20m": (138_493, 26_744, 192), "16 million rows": (14_000_000, 2_000_000, 64)}
_PLANNED_NETWORK = 256 * 256 + 256 * 128 + 128 * 64 + 256 + 128 + 64 + 129
_PLANNED_BATCHES = (1 << 14, 1 << 16, 1 << 18)


def benchmark_scaling(rounds: int, samples_per_second: float, batch: int, seed: int = 1) -> dict[str, Any]:
    """Times and bytes of steps, the fit with its errors, and the plan.

    Args:
        rounds: how often each case is timed.
        samples_per_second: of one GPU, for the plan.
        batch: samples of one GPU in a step, with which it has that speed.
        seed: of the models.

    Raises:
        InputError: the system allows no network namespaces, or an argument is out of range.
    """
    for name, value in (("samples-per-second", samples_per_second), ("batch", batch)):
        if value <= 0:
            raise InputError(f"`--{name}` must be above 0.\nReceived: {value}.")
    reason = why_not()
    if reason is not None:
        raise InputError(
            "`scaling` must be allowed to make hosts out of network namespaces, whose links it measures.\n"
            f"Received: {reason}.\nRun it as root on Linux; in a container with CAP_NET_ADMIN and CAP_SYS_ADMIN."
        )
    cores = len(os.sched_getaffinity(0))
    cases = [case for ranks in RANKS for case in _measure(ranks, rounds, seed)]
    found = analysed(cases, cores)
    return {
        "benchmark": "scaling",
        "rounds": rounds,
        "seed": seed,
        "cores": cores,
        **found,
        "plan": plan(found["fit"], samples_per_second, batch),
    }


# ---- measuring


def _measure(ranks: int, rounds: int, seed: int) -> list[dict[str, Any]]:
    """All cases on so many ranks."""
    works = [work for work in WORKLOADS if ranks > 1 or work.wire == "float32"]
    rates: Sequence[float | None] = RATES if ranks > 1 else (None,)
    seconds: dict[tuple[Workload, float | None], list[float]] = {(w, r): [] for w in works for r in rates}
    sent: dict[tuple[Workload, float | None], list[float]] = {case: [] for case in seconds}
    with Hosts(ranks) as hosts:
        job = _Job(hosts, seed)
        for work in works:
            job.run(work, 0)  # makes the model
        for number in range(rounds):
            for rate in rates:
                hosts.set_rate(rate)
                steps = _STEPS_ON_SLOWEST if rate == min(r for r in RATES if r) else _STEPS
                for work in works:
                    of_steps, bytes_sent = job.run(work, steps)
                    seconds[work, rate] += of_steps
                    sent[work, rate].append(bytes_sent / steps)
            print(f"{ranks} rank{'s' * (ranks > 1)}, round {number + 1}/{rounds}", file=sys.stderr, flush=True)
    return [
        {
            "ranks": ranks,
            "bits_per_second": rate,
            **dataclasses.asdict(work),
            **{name: round(1e3 * float(np.quantile(of_case, q)), 2) for name, q in _QUANTILES.items()},
            "megabytes_sent": round(float(np.median(sent[work, rate])) / 1e6, 3),
            "megabytes_computed": round(sum(traffic(step_of(work, ranks)).values()) / 1e6, 3),
        }
        for (work, rate), of_case in seconds.items()
    ]


class _Job:
    """Ranks that measure what they are told (`tfrec.benchmark.scaling_rank`), as long as their hosts are there."""

    def __init__(self, hosts: Hosts, seed: int) -> None:
        self._seed = seed
        command = [sys.executable, "-c", _RANK]
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._ranks = hosts.start_ranks(command, {**os.environ, **_ONE_CORE}, **options)

    def run(self, work: Workload, steps: int) -> tuple[list[float], float]:
        """Seconds of each step, the mean of the ranks', and bytes that a rank sent in all, likewise."""
        task = json.dumps({"workload": dataclasses.asdict(work), "steps": steps, "seed": self._seed}) + "\n"
        try:
            for rank in self._ranks:
                rank.stdin.write(task)  # type: ignore[union-attr]
                rank.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            pass  # its end is found below
        answers = [rank.stdout.readline() for rank in self._ranks]  # type: ignore[union-attr]
        if not all(answers):
            raise InputError(
                "All ranks must measure until the end.\nReceived: one that ended before.\nIts own message is above."
            )
        told = [json.loads(answer) for answer in answers]
        means = np.mean([one["seconds"] for one in told], axis=0).tolist() if steps else []
        return means, float(np.mean([one["bytes"] for one in told]))


def step_of(work: Workload, ranks: int) -> Step:
    """What travels in a step of a workload."""
    dims = [*itertools.pairwise(LAYER_DIMS), (MF_DIM + LAYER_DIMS[-1], 1)]
    network = sum((before + 1) * after for before, after in dims)
    return Step(ranks, work.users, work.items, WIDTH, network, work.batch, PER_USER, tables=work.tables, wire=work.wire)


# ---- the fit


def analysed(cases: Sequence[dict[str, Any]], cores: int) -> dict[str, Any]:
    """Every case with what the model predicts for it, the fit, and its errors on what it was fitted on and was not.

    Args:
        cases: as measured, those of one rank among them.
        cores: that the ranks share.
    """
    names = [field.name for field in dataclasses.fields(Workload)]
    works = [Workload(**{name: case[name] for name in names}) for case in cases]
    alone = {
        dataclasses.replace(work, wire="float32"): case["milliseconds"] / 1e3
        for work, case in zip(works, cases, strict=True)
        if case["ranks"] == 1
    }
    several = [(work, case) for work, case in zip(works, cases, strict=True) if case["ranks"] > 1]
    measured = [
        Measured(
            step_of(work, case["ranks"]),
            case["bits_per_second"],
            alone[dataclasses.replace(work, wire="float32")],
            case["milliseconds"] / 1e3,
        )
        for work, case in several
    ]
    groups = [_group(m) for m in measured]
    numbers = fit([m for m, group in zip(measured, groups, strict=True) if group == "fitted"], cores)
    of_all = errors(numbers, measured, cores)
    table = [
        {
            **case,
            "predicted": round(1e3 * predict(numbers, m.step, m.rate, m.compute, cores), 2),
            "error": round(float(error), 3),
            "group": group,
        }
        for (_, case), m, error, group in zip(several, measured, of_all, groups, strict=True)
    ]
    return {
        "one_rank": [case for case in cases if case["ranks"] == 1],
        "measured": table,
        "fit": numbers,
        "errors": {
            name: _summary(of_all[[g in kept for g in groups]])
            for name, kept in (
                ("fitted", ("fitted",)),
                ("other rate", ("other rate",)),
                ("more ranks", ("more ranks",)),
                ("not fitted", ("other rate", "more ranks")),
            )
        },
    }


def _group(measured: Measured) -> str:
    """Whether a measurement is fitted on, or why it is not."""
    if measured.step.ranks not in FITTED_RANKS:
        return "more ranks"
    return "fitted" if measured.rate in FITTED_RATES else "other rate"


def _summary(found: np.ndarray) -> dict[str, float]:
    """Median and largest size of errors, and their number."""
    size = np.abs(found)
    return {
        "cases": len(size),
        "median": round(float(np.median(size)), 3),
        "largest": round(float(size.max()), 3),
        "lowest": round(float(found.min()), 3),
        "highest": round(float(found.max()), 3),
    }


# ---- the plan


def plan(numbers: dict[str, float], samples_per_second: float, batch: int) -> dict[str, Any]:
    """Milliseconds of a step on many GPUs, and from which tables on sharding wins; extrapolated, not measured.

    Args:
        numbers: of the fit. Its processor's seconds per byte are left out: GPUs copy and add up at other speeds.
        samples_per_second: of one GPU.
        batch: samples of one GPU in a step.
    """
    on_gpus = {name: 0.0 if "seconds_per_byte" in name else value for name, value in numbers.items()}
    compute = batch / samples_per_second
    ways = [(tables, wire) for tables in ("replicated", "sharded") for wire in ("float32", "float16")]
    steps: list[dict[str, Any]] = []
    wins: list[dict[str, Any]] = []
    for ranks in _PLANNED_RANKS:
        for link, rate in LINKS.items():
            for name, (users, items, width) in _TABLES.items():
                row: dict[str, Any] = {"ranks": ranks, "link": link, "tables": name}
                for tables, wire in ways:
                    step = Step(ranks, users, items, width, _PLANNED_NETWORK, batch, PER_USER, tables, wire)
                    seconds = predict(on_gpus, step, rate, compute, None)
                    row[f"{tables} {wire}"] = {
                        "milliseconds": round(1e3 * seconds, 2),
                        "speed_up": round(ranks * compute / seconds, 1),
                    }
                steps.append(row)
            users, items, width = _TABLES["ml-20m"]
            for samples in _PLANNED_BATCHES:
                row = {"ranks": ranks, "link": link, "batch": samples}
                for wire in ("float32", "float16"):
                    step = Step(ranks, users, items, width, _PLANNED_NETWORK, samples, PER_USER, "sharded", wire)
                    row[wire] = crossover_rows(on_gpus, step, rate)
                wins.append(row)
    return {
        "samples_per_second_of_one_gpu": samples_per_second,
        "batch_of_one_gpu": batch,
        "compute_milliseconds": round(1e3 * compute, 2),
        "steps": steps,
        "sharding_wins_from_rows": wins,
    }
