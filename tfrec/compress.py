"""Compress a finished run of NeuMF: python -m tfrec.compress RUN OUT --ranks 16 [--group 1] [--fine-tune 3]"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tfrec import commands
from tfrec.configs import NeuMFRun, identity
from tfrec.errors import InputError
from tfrec.printing import printable


@dataclass(frozen=True)
class Arguments:
    """Replace the embedding tables of a finished run of NeuMF by tensor trains, and measure before and after."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder; it is not changed."""
    out: Annotated[Path, tyro.conf.Positional]
    """The new folder, with the compressed model in the place of the run's: evaluate, recommend and export read it."""
    ranks: int = 16
    """Of the tensor trains: larger is nearer to the tables, and larger."""
    tables: tuple[Literal["user", "item"], ...] = ("user", "item")
    """Which tables."""
    group: int | None = None
    """Rows that share a slice of the first of two cores; 1: a low-rank table, for tables of few rows. Default: three
    cores of about equal size."""
    fine_tune: int = 0
    """Epochs of training after the decomposition, on what the run was trained on."""
    fine_tune_rate: float = 1e-3
    """Adam's learning rate in the first of them; it falls to 0 as a cosine."""
    data_dir: Path | None = None
    """Folder with the data set, if it is not where $TFREC_DATA says."""


def compress(arguments: Arguments) -> None:
    """Load, decompose, measure both, write."""
    commands.quiet_tensorflow()
    from tfrec.data.files import atomic_folder, atomic_write
    from tfrec.models import NeuMF
    from tfrec.training.compressing import embedding_parameters, fine_tune
    from tfrec.training.finish import save_model
    from tfrec.training.load_run import check_sizes, load_config, load_known_model, load_vocabulary
    from tfrec.training.prepare_items import prepare_items
    from tfrec.training.report import table, write_json
    from tfrec.training.report_items import make_candidates, measure_items
    from tfrec.training.run_folder import RunFolder

    if not arguments.tables:
        raise InputError("Name at least one table: --tables user item.")
    if arguments.fine_tune < 0 or not 0 < arguments.fine_tune_rate < float("inf"):
        raise InputError(
            "`fine_tune` must be at least 0 and `fine_tune_rate` positive.\n"
            f"Received: --fine-tune {arguments.fine_tune} --fine-tune-rate {arguments.fine_tune_rate}."
        )
    folder = RunFolder.existing(arguments.run)
    config = load_config(folder, arguments.data_dir)
    if not isinstance(config, NeuMFRun):
        raise InputError(f"Only runs of NeuMF have embedding tables to compress.\nReceived: {arguments.run}.")
    with atomic_folder(arguments.out) as temporary:
        data = prepare_items(config.data)
        folder.check_data(data.sha256)
        metrics = folder.read_metrics()
        before = load_known_model(folder, load_vocabulary(folder))
        check_sizes(folder, before, *data.train.shape, folder.config)
        if not isinstance(before, NeuMF):
            raise InputError(f"{arguments.run} is quantized.\nCompress the run it was made from.")
        after, errors = before.with_tt_embeddings(arguments.ranks, arguments.tables, arguments.group)
        candidates = make_candidates(data, "test", config.evaluation)
        reports = {
            name: measure_items(model.scores, candidates, config.evaluation)
            for name, model in (("before", before), ("after", after))
        }
        if arguments.fine_tune:
            reports["decomposed"] = reports["after"]
            fine_tune(after, config, data, arguments.fine_tune, arguments.fine_tune_rate)
            reports["after"] = measure_items(after.scores, candidates, config.evaluation)
        sizes = {
            name: {side: embedding_parameters(model, side) for side in arguments.tables}
            for name, model in (("before", before), ("after", after))
        }
        saved = folder.read_config()
        changes: dict[str, object] = {f"{side}_embedding": "tt" for side in arguments.tables}
        changes |= {"embedding_ranks": arguments.ranks, "embedding_group": arguments.group}
        settings = dataclasses.replace(config.model, **changes)  # type: ignore[arg-type]
        written = identity(saved["recipe"], dataclasses.replace(config, model=settings))
        found = {name: report.to_json() for name, report in reports.items()}
        metrics["config"]["model"] = written["model"]
        metrics["test"]["model"] = found["after"]
        metrics["compression"] = {
            "of": str(arguments.run),
            "relative_error": errors,
            "fine_tuning": {"epochs": arguments.fine_tune, "learning_rate": arguments.fine_tune_rate}
            if arguments.fine_tune
            else None,
            "embedding_parameters": sizes,
            "ratio": sum(sizes["before"].values()) / sum(sizes["after"].values()),
            **found,
        }
        target = RunFolder(temporary)
        for name in ("vocabulary.npz", "history.csv"):
            if (folder.path / name).is_file():
                shutil.copyfile(folder.path / name, temporary / name)
        save_model(after, target.model)
        with atomic_write(target.config, "w") as stream:
            json.dump({**written, "data_sha256": data.sha256}, stream, indent=2)
        write_json(target.metrics, metrics)
    for side in arguments.tables:
        print(
            f"{side}: {sizes['before'][side]:,} numbers -> {sizes['after'][side]:,} "
            f"({sizes['before'][side] / sizes['after'][side]:.1f} times smaller), relative error {errors[side]:.3f}"
        )
    print(table(found, config.evaluation.metrics))
    print(f"Written to {printable(arguments.out)}")


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, prog="python -m tfrec.compress", args=sys.argv[1:])
    commands.run(lambda: compress(arguments))


if __name__ == "__main__":
    main()
