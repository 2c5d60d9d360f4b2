"""Measure a finished run again: python -m tfrec.evaluate RUN [--metrics ndcg@10 ...] [--ties pessimistic]"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tfrec import commands
from tfrec.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """Evaluate a finished run on its held-out users, beside popularity (and the oracle)."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    part: Literal["test", "validation"] = "test"
    """Which held-out users."""
    metrics: tuple[str, ...] = ()
    """Metrics with their cutoffs; default: those of the run."""
    ties: Literal["expected", "pessimistic", "optimistic"] | None = None
    """How tied scores are ranked; default: as in the run."""
    data_dir: Path | None = None
    """Folder with the data set, if it is not where $TFREC_DATA says."""
    json: Path | None = None
    """Write the result here too."""


def evaluate(arguments: Arguments) -> None:
    """Load, measure, print."""
    commands.quiet_tensorflow()
    from tfrec import distributed
    from tfrec.training.load_run import load_config, load_model
    from tfrec.training.prepare import check_evaluation, prepare
    from tfrec.training.report import measure_all, table, write_json
    from tfrec.training.run_folder import RunFolder

    distributed.init()
    if arguments.json is not None and (arguments.json.is_dir() or not arguments.json.absolute().parent.is_dir()):
        raise InputError(f"{arguments.json} cannot be written.\nName a file in a folder that exists.")
    folder = RunFolder.existing(arguments.run)
    config = load_config(folder, arguments.data_dir)
    metrics = arguments.metrics or config.evaluation.metrics
    wanted = replace(
        config.evaluation,
        metrics=metrics,
        monitor=metrics[0],
        ties=arguments.ties or config.evaluation.ties,
    )
    data = prepare(config.data)
    folder.check_data(data.sha256)
    check_evaluation(wanted, data.split.train.shape[1])
    reports = measure_all(load_model(folder), data, wanted, (arguments.part,))[arguments.part]
    if distributed.rank() != 0:
        return
    result = {name: report.to_json() for name, report in reports.items()}
    users = result["model"]["users"]
    print(f"{arguments.part}, {users:,} held-out users, ties {wanted.ties}:")
    print(table(result, wanted.metrics))
    if arguments.json is not None:
        write_json(arguments.json, {arguments.part: result})
        print(f"Written to {arguments.json}")


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, prog="python -m tfrec.evaluate", args=sys.argv[1:])
    commands.run(lambda: evaluate(arguments))


if __name__ == "__main__":
    main()
