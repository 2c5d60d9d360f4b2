"""Measure a finished run again: tfrec evaluate RUN [--metrics ndcg@10 ...] [--ties pessimistic]"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tfrec import commands
from tfrec.errors import InputError
from tfrec.printing import printable


@dataclass(frozen=True)
class Arguments:
    """Evaluate a finished run on its held-out part, and popularity (and the oracle)."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    part: Literal["test", "validation"] = "test"
    """Part to measure."""
    metrics: tuple[str, ...] = ()
    """Metrics with their cutoffs; default: those of the run."""
    ties: Literal["expected", "pessimistic", "optimistic"] | None = None
    """How tied scores are ranked; default: as in the run."""
    data_dir: Path | None = None
    """Folder with the data set, if it is not in $TFREC_DATA."""
    json: Path | None = None
    """Write the result here, too."""
    protocol: Literal["exact", "nvidia", "mlperf", "all"] | None = None
    """What a held-out item is ranked among; default: as in the run."""
    negatives: int | None = None
    """How many sampled items; default: as in the run, or those of the NCF paper's file."""


def evaluate(arguments: Arguments) -> None:
    """Load, measure, print."""
    commands.quiet_tensorflow()
    from tfrec import distributed
    from tfrec.data.files import check_file
    from tfrec.families import family_of
    from tfrec.fitting import load_config, read_split
    from tfrec.runs.folder import RunFolder
    from tfrec.runs.loading import check_sizes, load_run_model
    from tfrec.runs.report import table, write_json
    from tfrec.tasks import TASKS
    from tfrec.tasks.measure import Measure

    distributed.init()
    folder = RunFolder.existing(arguments.run)
    if arguments.json is not None and distributed.rank() == 0:
        check_file(arguments.json)
        folder.check_not_inside(arguments.json)
    config = load_config(folder, arguments.data_dir)
    family, training = family_of(config), config.training
    trained_on = folder.read_metrics()["shipped"]["trained_on"]
    if trained_on == "everything":
        raise InputError(
            "This run's model was trained on everything, the test too (refit), so nothing is left to measure it on.\n"
            f"What was measured before that is in {printable(folder.metrics)}."
        )
    if training.train_on_validation and arguments.part == "validation":
        raise InputError("This run's model was trained on the validation part too.\nUse --part test.")
    wanted: Any = {
        "metrics": arguments.metrics or config.evaluation.metrics,
        "ties": arguments.ties or config.evaluation.ties,
        "protocol": arguments.protocol or config.evaluation.protocol,
        "negatives": arguments.negatives or config.evaluation.negatives,
        "monitor": None,
    }
    evaluation = TASKS[config.data.split].resolve_evaluation(replace(config.evaluation, **wanted))
    if arguments.negatives is not None and evaluation.protocol == "all":
        raise InputError(
            "--negatives needs a --protocol that samples items.\nReceived: --protocol all, which ranks all unseen "
            "items.\nLeave out --negatives, or name another --protocol."
        )
    split = read_split(folder, config)
    if arguments.protocol is not None or arguments.negatives is not None:
        # Asked for other candidates than the file's.
        split = replace(split, test=replace(split.test, negatives=None))
        evaluation = replace(evaluation, validation_negatives=None)
    measure = Measure(split, evaluation)
    model = load_run_model(folder, family.models)
    fitted = split.with_validation() if training.train_on_validation else split.train
    check_sizes(folder, model, *fitted.matrix.shape, folder.config)
    reports = {"model": measure.model(model, arguments.part, family.rows(config, fitted))}
    reports |= measure.references(arguments.part, fitted)
    if distributed.rank() != 0:
        return
    result = {name: report.to_json() for name, report in reports.items()}
    users = result["model"]["users"]
    print(f"{arguments.part}, {users:,} users, ties {evaluation.ties}:")
    print(table(result, evaluation.metrics or ()))
    if arguments.json is not None:
        write_json(arguments.json, {arguments.part: result})
        print(f"Written to {printable(arguments.json)}")


def main() -> None:
    """The command."""
    arguments = commands.arguments(Arguments, "evaluate")
    commands.run(lambda: evaluate(arguments))


if __name__ == "__main__":
    main()
