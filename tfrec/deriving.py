"""From a finished run to another run with another model: quantized, or compressed. One way for every family."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrec.data.files import atomic_folder, atomic_write
from tfrec.errors import InputError
from tfrec.families import Derivation, Family, Finished, Made, RunConfig, family_of
from tfrec.fitting import load_config, read_split
from tfrec.printing import printable
from tfrec.tasks import TASKS

if TYPE_CHECKING:
    from tfrec.evaluation import Report
    from tfrec.runs.folder import RunFolder
    from tfrec.tasks.measure import Measure


def derive(
    run: Path, out: Path, how: Callable[[Family[Any]], Derivation], data_dir: Path | None = None
) -> dict[str, Any]:
    """Make another model of a run's, measure both, and write ``out``, whole or not at all.

    Args:
        run: the folder of a finished run; it is not changed.
        out: the new folder, a run like any other.
        how: asks a family for the derivation, and raises where it has none.
        data_dir: where the data set is, if not in ``$TFREC_DATA``.

    Returns:
        The content of the report, NAME.json of the derivation.

    Raises:
        InputError: what was given cannot be used, or ``out`` exists already.
    """
    from tfrec.runs.folder import RunFolder

    folder = RunFolder.existing(run)
    config = load_config(folder, data_dir)
    derivation = how(family_of(config))
    with atomic_folder(out) as temporary:
        work = _Work(folder, config, derivation)
        target = RunFolder(temporary)
        work.write(target, out)
    work.print(out)
    return work.report


class _Work:
    """One run read, changed and measured."""

    def __init__(self, folder: RunFolder, config: RunConfig, derivation: Derivation) -> None:
        from tfrec.runs.loading import check_sizes, load_run_model
        from tfrec.tasks.measure import Measure

        self._folder, self._config, self._derivation = folder, config, derivation
        self._metrics = folder.read_metrics()
        if self._metrics["shipped"]["trained_on"] == "everything":
            raise InputError(
                f"The model of {printable(folder.path)} was trained on everything, the test too (refit), so "
                "the cost of a change cannot be measured.\nTrain it without --training.refit, and change that run."
            )
        family = family_of(config)
        model = load_run_model(folder, family.models)
        derivation.check_model(model, folder.path)
        self._split = read_split(folder, config)
        fitted = self._split.with_validation() if config.training.train_on_validation else self._split.train
        self._fitted = fitted
        check_sizes(folder, model, *fitted.matrix.shape, folder.config)
        self._measure: Measure = Measure(self._split, config.evaluation)
        self._rows = family.rows(config, fitted)
        self._before = self._test(model)
        self._made: Made = derivation.make(
            Finished(config, self._split, fitted, model, self._test, self._measure.candidates("test"))
        )
        self._after = self._measure.model(self._made.model, "test", self._rows, details=True)
        self._references = self._measure.references("test", fitted, details=True)
        self.report: dict[str, Any] = {}

    def _test(self, model: Any) -> Report:
        return self._measure.model(model, "test", self._rows)

    def write(self, target: RunFolder, out: Path) -> None:
        """Everything that a run has."""
        from tfrec.runs.environment import hardware, versions
        from tfrec.runs.history import read_csv
        from tfrec.runs.page import write_page
        from tfrec.runs.report import save_model, write_json, write_test_users
        from tfrec.settings import to_json
        from tfrec.tasks.facts import run_facts

        source, made, events = self._folder, self._made, self._split.events
        for name in ("items", "users", "history"):
            path: Path = getattr(source, name)
            if path.is_file():
                shutil.copyfile(path, getattr(target, name))
        save_model(made.model, target.model)
        made.write(target.path)
        write_test_users(target.test_users, events.user_ids[self._split.test.event_users], self._after)
        size = {"before": source.model.stat().st_size, "after": target.model.stat().st_size}
        self.report = {
            "made_from": str(source.path.absolute()),
            **made.report,
            "test": {
                name: report.to_json()
                for name, report in {"before": self._before, **made.stages, "after": self._after}.items()
            },
            "model_bytes": {**size, "ratio": round(size["after"] / size["before"], 4)},
            "versions": versions(),
            "hardware": hardware(1),
        }
        write_json(target.path / f"{self._derivation.name}.json", self.report)
        config = self._config
        config = replace(config, model=replace(config.model, **made.settings))  # type: ignore[attr-defined, call-arg]
        saved = source.read_config()
        with atomic_write(target.config, "w") as stream:
            json.dump({**saved, "model": to_json(config)["model"]}, stream, indent=2)
        metrics = {
            **{name: value for name, value in self._metrics.items() if name != "validation"},
            "config": to_json(replace(config, output_dir=out)),
            "versions": versions(),
            "hardware": hardware(1),
            "made_from": str(source.path.absolute()),
        }
        if not config.training.train_on_validation:
            # Else the model has seen it.
            validation = self._measure.model(made.model, "validation", self._rows)
            metrics["validation"] = _json({"model": validation, **self._measure.references("validation")})
        tested = {"model": self._after, **self._references}
        metrics["test"] = _json(tested)
        write_page(
            target,
            lambda: run_facts(
                metrics, out, TASKS[config.data.split], self._split, self._measure, made.model, self._rows,
                self._fitted, tested, read_csv(target.history),
            ),
        )  # fmt: skip
        write_json(target.metrics, metrics)

    def print(self, out: Path) -> None:
        """What it costs and gains."""
        from tfrec.runs.report import table

        test, size = self.report["test"], self.report["model_bytes"]
        print(f"\nTest, {test['after']['users']:,} held-out users, ties {test['after']['ties']}:")
        print(table({**test, **_json(self._references)}, self._config.evaluation.metrics or ()))
        for line in self._made.lines:
            print(line)
        print(f"The model's file has {size['ratio']:.3f} of {size['before'] / 2**20:.1f} MiB.")
        print(f"Model and reports are in {printable(out)}", flush=True)


def _json(reports: dict[str, Report]) -> dict[str, Any]:
    return {name: report.to_json() for name, report in reports.items()}
