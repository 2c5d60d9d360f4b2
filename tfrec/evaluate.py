"""Measure a finished run again: python -m tfrec.evaluate RUN [--metrics ndcg@10 ...] [--ties pessimistic]"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from tfrec import commands
from tfrec.configs import ALSRun, NeuMFRun, PopularityRun, VAECFRun
from tfrec.errors import InputError
from tfrec.printing import printable

if TYPE_CHECKING:
    from tfrec.evaluation import Report
    from tfrec.training.run_folder import RunFolder


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
    protocol: Literal["exact", "nvidia", "mlperf", "all"] | None = None
    """NeuMF: what a held-out item is ranked among; default: as in the run."""
    negatives: int | None = None
    """NeuMF: how many negatives; default: as in the run, or those of the NCF paper's file."""


def evaluate(arguments: Arguments) -> None:
    """Load, measure, print."""
    commands.quiet_tensorflow()
    from tfrec import distributed
    from tfrec.data.files import check_file
    from tfrec.training.load_run import load_config
    from tfrec.training.report import table, write_json
    from tfrec.training.run_folder import RunFolder

    distributed.init()
    folder = RunFolder.existing(arguments.run)
    if arguments.json is not None and distributed.rank() == 0:
        check_file(arguments.json)
        folder.check_not_inside(arguments.json)
    config = load_config(folder, arguments.data_dir)
    metrics = arguments.metrics or config.evaluation.metrics
    changes = {"metrics": metrics, "monitor": metrics[0], "ties": arguments.ties or config.evaluation.ties}
    if isinstance(config, NeuMFRun):
        reports = measure_by_item(arguments, folder, config, changes)
    elif isinstance(config, ALSRun):
        reports = measure_factors(arguments, folder, config, changes)
    else:
        reports = measure_by_user(arguments, folder, config, changes)
    if distributed.rank() != 0:
        return
    result = {name: report.to_json() for name, report in reports.items()}
    users = result["model"]["users"]
    print(f"{arguments.part}, {users:,} held-out users, ties {changes['ties']}:")
    print(table(result, metrics))
    if arguments.json is not None:
        write_json(arguments.json, {arguments.part: result})
        print(f"Written to {printable(arguments.json)}")


def measure_by_user(
    arguments: Arguments, folder: RunFolder, config: VAECFRun | PopularityRun, changes: dict[str, Any]
) -> dict[str, Report]:
    """Model and references on held-out users."""
    from tfrec.training.load_run import check_sizes, load_model
    from tfrec.training.prepare import check_evaluation, prepare
    from tfrec.training.report import measure_all

    _full_ranking_only(arguments)
    wanted = replace(config.evaluation, **changes)
    data = prepare(config.data)
    folder.check_data(data.sha256)
    check_evaluation(wanted, data.split.train.shape[1])
    model = load_model(folder)
    check_sizes(folder, model, None, data.split.train.shape[1], folder.config)
    return measure_all(model, data, wanted, (arguments.part,))[arguments.part]


def measure_factors(
    arguments: Arguments, folder: RunFolder, config: ALSRun, changes: dict[str, Any]
) -> dict[str, Report]:
    """ALS and popularity on held-out users or entries."""
    from tfrec.training.als import measure_als, prepare_data
    from tfrec.training.load_run import check_sizes, load_model
    from tfrec.training.prepare import Prepared, check_evaluation

    _full_ranking_only(arguments)
    wanted = replace(config.evaluation, **changes)
    data = prepare_data(config)
    folder.check_data(data.sha256)
    if arguments.part == "validation" and not isinstance(data, Prepared):
        raise InputError("This run holds out entries for test only.\nUse --part test.")
    model = load_model(folder)
    shape = data.split.train.shape if isinstance(data, Prepared) else data.train.shape
    check_sizes(folder, model, *shape, folder.config)
    check_evaluation(wanted, model.num_items)
    return measure_als(model, data, wanted, (arguments.part,))[arguments.part]


def _full_ranking_only(arguments: Arguments) -> None:
    if arguments.protocol is not None or arguments.negatives is not None:
        raise InputError("In this run all unseen items are ranked.\nLeave out --protocol, --negatives.")


def measure_by_item(
    arguments: Arguments, folder: RunFolder, config: NeuMFRun, changes: dict[str, Any]
) -> dict[str, Report]:
    """Model and references on held-out items."""
    from tfrec.training.load_run import check_sizes, load_model
    from tfrec.training.prepare import check_evaluation
    from tfrec.training.prepare_items import prepare_items
    from tfrec.training.report_items import make_candidates, measure_all_items

    if config.training.refit and arguments.part == "validation":
        raise InputError("The run's model was trained on the validation items too (refit).\nUse --part test.")
    data = prepare_items(config.data)
    folder.check_data(data.sha256)
    if arguments.protocol is not None or arguments.negatives is not None:
        # Asked for other candidates than the file's.
        data = replace(data, test_negatives=None)
        changes = {
            **changes,
            "protocol": arguments.protocol or config.evaluation.protocol,
            "negatives": arguments.negatives or config.evaluation.negatives,
            "validation_negatives": None,
        }
    wanted = replace(config.evaluation, **changes)
    candidates = make_candidates(data, arguments.part, wanted)
    check_evaluation(wanted, candidates.num_candidates)
    model = load_model(folder)
    check_sizes(folder, model, *data.train.shape, folder.config)
    return measure_all_items(model, data, candidates, wanted)


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, prog="python -m tfrec.evaluate", args=sys.argv[1:])
    commands.run(lambda: evaluate(arguments))


if __name__ == "__main__":
    main()
