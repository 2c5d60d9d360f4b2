"""The command: which benchmark, and where its result goes."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tfrec import commands


@dataclass(frozen=True)
class Arguments:
    """Measure a part of tfrec against its alternatives on this machine."""

    name: Annotated[Literal["vae-cf", "neumf", "data"], tyro.conf.Positional]
    """vae-cf: the sparse training step against the same network with dense input and target.
    neumf: training with samples made on the device against a host pipeline; scoring; memory; lazy and dense Adam.
    data: reading 20 million ratings from CSV and from the cache."""
    json: Path | None = None
    """Write the result here too."""
    rounds: int = 5
    """How often each alternative is timed."""
    batch: int = 2_000
    """vae-cf: users per step."""


def main() -> None:
    """Run one benchmark."""
    arguments = tyro.cli(Arguments, prog="python -m tfrec.benchmark", args=sys.argv[1:])

    def measure() -> None:
        commands.quiet_tensorflow()
        if arguments.name == "vae-cf":
            from tfrec.benchmark.vae_cf import benchmark_vae_cf

            result = benchmark_vae_cf(arguments.batch, arguments.rounds)
        elif arguments.name == "neumf":
            from tfrec.benchmark.neumf import benchmark_neumf

            result = benchmark_neumf(arguments.rounds)
        else:
            from tfrec.benchmark.data import benchmark_data

            result = benchmark_data(arguments.rounds)
        from tfrec.training.environment import hardware, versions
        from tfrec.training.report import write_json

        result = {**result, "hardware": hardware(1), "versions": versions(), "command": " ".join(sys.argv)}
        print(json.dumps(result, indent=2))
        if arguments.json is not None:
            write_json(arguments.json, result)
            print(f"Written to {arguments.json}")

    commands.run(measure)


if __name__ == "__main__":
    main()
