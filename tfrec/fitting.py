"""From settings to a finished run: the one way for every family and every task, in Python and on the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import difflib
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec.data import Interactions
from tfrec.errors import InputError, TfrecWarning
from tfrec.families import RECIPES, Family, RunConfig, Sizes, check_fits, family_of, identity
from tfrec.families.config import with_places
from tfrec.tasks import TASKS, InMemory, Split, Task, TrainingSet, read_source, source_checksum
from tfrec.tasks.split import with_zeros

if TYPE_CHECKING:
    from tfrec.distributed import ElasticState
    from tfrec.evaluation import Report
    from tfrec.families import Outcome, Trainer
    from tfrec.recommender import Recommender
    from tfrec.runs.folder import RunFolder
    from tfrec.runs.vocabulary import Vocabulary
    from tfrec.tasks.measure import Measure


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: where everything is.
        metrics: the content of metrics.json; ``metrics["test"]["model"]["ndcg@100"]`` is a number.
    """

    folder: Path
    metrics: dict[str, Any]

    @property
    def recommender(self) -> Recommender:
        """The model that is shipped, with its ids and titles."""
        from tfrec.recommender import Recommender

        return Recommender.load(self.folder)


def fit(
    recipe: str | RunConfig,
    data: Interactions | tuple[Interactions, Interactions | None, Interactions] | None = None,
    **options: Any,
) -> Run:
    """Train a recipe, as ``tfrec train`` does.

    Args:
        recipe: the name of one (``"als"``, ``"vae-cf"``, ...), or settings.
        data: interactions; or training, validation (or None) and test, each in interactions of its own; None: those
            that the settings name.
        **options: settings by their names: ``factors=64``, ``epochs=10``, ``split="by_time"``. Where a name occurs in
            several sections (``seed``), the run's own is set; ``**{"evaluation.seed": 3}`` names another.

    Returns:
        The run. Its folder is ``output_dir``, by default one under ``runs/``.

    Raises:
        InputError: no such recipe or option, or settings or data that cannot be trained on.
    """
    started = time.perf_counter()
    name, config = named(recipe)
    in_memory = None
    if data is not None:
        in_memory = InMemory(*data) if isinstance(data, tuple) else InMemory(data)
        config = replace(config, data=replace(config.data, name="in-memory", path=None))
        if in_memory.test is not None:
            config = replace(config, data=replace(config.data, split="given"))
    config = with_options(config, options)
    folder, metrics = run(name, config, started, in_memory)
    return Run(folder.path, metrics)


def named(recipe: str | RunConfig) -> tuple[str, RunConfig]:
    """A recipe's name and settings.

    Raises:
        InputError: there is no such recipe.
    """
    if isinstance(recipe, Interactions):
        raise InputError(
            "`recipe` must be the name of a recipe, or settings.\nReceived: Interactions.\n"
            "The data comes second: tfrec.fit('als', data)."
        )
    if not isinstance(recipe, str):
        return family_of(recipe).name, recipe
    if recipe not in RECIPES:
        near = difflib.get_close_matches(recipe, RECIPES, n=1)
        raise InputError(
            f"The recipe must be one of those that exist.\nReceived: {recipe!r}.\n"
            + (f"Did you mean {near[0]!r}? " if near else "")
            + f"Recipes: {', '.join(RECIPES)}."
        )
    return recipe, RECIPES[recipe]()


def with_options(config: Any, options: dict[str, Any]) -> Any:
    """``config`` with settings changed, each named alone or with its sections: ``data.synthetic.num_users``, or as much
    of that as tells it from others.

    Raises:
        InputError: no such setting, several of that name, or a value of another kind.
    """
    from tfrec.settings import from_json, to_json

    places = dict(_places(config))
    for option, value in options.items():
        found = [place for place in places if f".{place}".endswith(f".{option}")]
        exact = [place for place in found if place == option]
        if len(found) > 1 and not exact:
            raise InputError(
                f"An option must name one setting.\nReceived: {option}, the name of several.\n"
                f"Name one: {', '.join(found)}."
            )
        if not found:
            names = sorted({place.rsplit(".", 1)[-1] for place in places})
            near = difflib.get_close_matches(option, names, n=3)
            raise InputError(
                f"An option must be one of the recipe's.\nReceived: {option}={value!r}.\n"
                + (f"Did you mean {' or '.join(near)}?" if near else f"Options: {', '.join(names)}.")
            )
        config = _changed(config, (exact or found)[0].split("."), value)
    try:
        return from_json(type(config), to_json(config))
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error


def _places(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from _places(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", value


def _changed(config: Any, place: list[str], value: Any) -> Any:
    if len(place) > 1:
        value = _changed(getattr(config, place[0]), place[1:], value)
    elif isinstance(value, list):
        value = tuple(value)
    elif isinstance(value, np.generic):
        value = value.item()
    return replace(config, **{place[0]: value})


def resolved(config: RunConfig) -> RunConfig:
    """``config`` with the defaults of its task, checked as far as that goes without data.

    Raises:
        InputError: a family on a task that it cannot do, or settings out of range.
    """
    task = TASKS[config.data.split]
    family = family_of(config)
    family.check_task(task)
    task.check(config.data)
    config = replace(config, data=task.resolve_data(config.data), evaluation=task.resolve_evaluation(config.evaluation))
    # The run can then be evaluated from any folder.
    paths = {name: getattr(config.data, name) for name in ("path", "validation_path", "test_path")}
    absolute: dict[str, Any] = {name: path.absolute() for name, path in paths.items() if path is not None}
    config = replace(config, data=replace(config.data, **absolute))
    family.check(config)
    return config


def run(
    recipe: str, config: RunConfig, started: float, in_memory: InMemory | None = None
) -> tuple[RunFolder, dict[str, Any]]:
    """Train, validate, test, and write a run folder, on every rank its share.

    Args:
        recipe: its name.
        config: the settings.
        started: `time.perf_counter` at the start of the program.
        in_memory: the events, where Python hands them over.

    Returns:
        The folder, and the content of its metrics.json.

    Raises:
        InputError: settings or data that cannot be trained on.
    """
    from tfrec import distributed
    from tfrec.runs.folder import RunFolder

    distributed.init(elastic=config.elastic)
    config = resolved(config)
    check_elastic(config)
    who = identity(recipe, family_of(config).name, config)
    if in_memory is not None:
        who["data"]["in_memory"] = in_memory.checksum
    folder = RunFolder.of(who, config.output_dir)
    with contextlib.closing(_Training(recipe, config, folder, in_memory)) as training:
        if not config.elastic:
            return folder, training.run(who, started)
        return folder, distributed.elastic.run(lambda state: training.run(who, started, state))


def check_elastic(config: RunConfig) -> None:
    """Raise InputError where workers were to come and go, and cannot."""
    from tfrec import distributed

    if config.elastic and not distributed.ranks.is_elastic():
        ranks = distributed.size()
        raise InputError(distributed.elastic.not_elastic(f"{ranks} rank{'s' * (ranks > 1)} without one"))
    if config.commit_every < 1:
        raise InputError(f"`commit_every` must be at least 1.\nReceived: --commit-every {config.commit_every}.")
    if distributed.ranks.launched_elastic() and not config.elastic and distributed.rank() == 0:
        warnings.warn(
            "The launcher adds and replaces workers, but a run without --elastic ends when one is lost.\n"
            "Add --elastic, or start it without --min-np and --host-discovery-script.",
            TfrecWarning,
            stacklevel=2,
        )


def _finished(folder: RunFolder, config: RunConfig) -> dict[str, Any]:
    if config.data.path is not None:
        folder.check_data(source_checksum(config.data))
    return folder.read_metrics()


class _Training:
    """One run from data to report."""

    def __init__(self, recipe: str, config: RunConfig, folder: RunFolder, in_memory: InMemory | None) -> None:
        self.recipe, self.config, self.folder, self.in_memory = recipe, config, folder, in_memory
        self.family: Family[Any] = family_of(config)
        self.task: Task = TASKS[config.data.split]

        # Read once, however often the ranks change.
        self._data: tuple[Split, Measure] | None = None

    def close(self) -> None:
        """Let others write into the folder."""
        self.folder.release()

    def run(self, who: dict[str, Any], started: float, state: ElasticState | None = None) -> dict[str, Any]:
        """Everything; returns the content of metrics.json.

        Args:
            who: the run's identity.
            started: `time.perf_counter` at the start of the program.
            state: of a run whose workers come and go: what it has reached. It is called again then.
        """
        from tfrec import distributed
        from tfrec.runs.agreement import agree_on_data, agree_on_settings, agree_on_steps
        from tfrec.runs.claim import claim_together, on_rank_zero
        from tfrec.runs.report import print_summary
        from tfrec.settings import to_json

        config, folder = self.config, self.folder
        again = state is not None and state.again
        # What these workers have trained is not to be started over.
        resume = config.resume or again
        agree_on_settings(self.recipe, to_json(config))
        folder.release()
        if on_rank_zero(lambda: folder.look(who, resume)):
            result = on_rank_zero(lambda: _finished(folder, config))
            if distributed.rank() == 0:
                print(f"{folder.path} has this run already; train it again with --no-resume.")
                print_summary(folder, result)
            return result
        # What each rank does by itself: an error on one is an error on all.
        self._data = distributed.together(lambda: self._data or self._read(), "preparing data")
        split, self.measure = self._data
        self.split = split
        if not again:
            distributed.together(self._check_fits, "looking for memory")
        trainer = distributed.together(self._make, "making the model")
        if state is None or state.newcomers:
            agree_on_data(_data_name(config, split), split.events, split.arrays(), split.sha256)
        if trainer.steps is not None:
            agree_on_steps(trainer.steps)
        # Everything that can be wrong with settings and data has been looked at: now the folder may be touched.
        claim_together(folder, who, split.sha256, resume, elastic=state is not None)
        if not again:
            announce(split)
        trainer.elastic, trainer.commit_every = state, config.commit_every
        monitor = config.evaluation.monitor
        assert monitor is not None
        done = trainer.resume(folder, monitor)
        if distributed.rank() == 0 and not again:
            size = distributed.size()
            where = f"Resuming after {trainer.round} {done} of" if done else "Writing into"
            print(
                f"{self.recipe}: {trainer.about}, {size} rank{'s' * (size > 1)}.\n{where} {folder.path}. Ready after "
                f"{time.perf_counter() - started:.1f} s.",
                flush=True,
            )
        if state is not None:
            if distributed.rank() == 0 and not (again or self.family.elastic):
                print(f"{self.family.name} has no steps to commit: {_NO_STEPS}", flush=True)
            state.begins()
        outcome = trainer.fit(folder, monitor, lambda: self._report(trainer.model, "validation"))
        return self._finish(trainer.model, outcome, started)

    def _make(self) -> Trainer:
        train = self.split.train
        trainer = self.family.trainer(self.config, train)
        if self.config.continue_run is not None:
            from tfrec.continuing import carry_over

            carry_over(self.config.continue_run, self.family, trainer.model, train)
        return trainer

    def _check_fits(self) -> None:
        """Before a rank of this machine makes its tables. A GPU's memory is TensorFlow's to look at."""
        from tfrec import distributed

        if not distributed.on_gpu():
            users, items = self.split.train.matrix.shape
            sizes = Sizes(users, items, self.split.train.matrix.nnz)
            check_fits(self.family.memory(self.config, sizes, distributed.size()), distributed.local_size())

    def _read(self) -> tuple[Split, Measure]:
        from tfrec.tasks.measure import Measure

        split = self.task.split(self.config.data, read_source(self.config.data, self.in_memory))
        if split.validation.targets.nnz == 0:
            raise InputError(
                "The validation part must have something to predict, as it picks what is tested.\n"
                f"Received: --data.validation-share {self.config.data.validation_share}.\nMake it larger, such as .1."
            )
        return split, Measure(split, self.config.evaluation)

    def _report(self, model: Any, part: Any, fitted: TrainingSet | None = None, details: bool = False) -> Report:
        rows = self.family.rows(self.config, fitted or self.split.train)
        return self.measure.model(model, part, rows, details)

    def _finish(self, model: Any, outcome: Outcome, started: float) -> dict[str, Any]:
        """Test, train again where that was asked for, and write what is left to write."""
        from tfrec import distributed
        from tfrec.runs.environment import hardware, versions
        from tfrec.runs.history import read_csv
        from tfrec.runs.page import write_page
        from tfrec.runs.report import print_summary, save_model, write_json, write_test_users
        from tfrec.settings import to_json
        from tfrec.tasks.facts import run_facts

        config, folder, split = self.config, self.folder, self.split
        training: Any = config.training
        reports = {"validation": {"model": self._report(model, "validation"), **self.measure.references("validation")}}
        measured, fitted = "training", split.train
        if training.train_on_validation:
            measured, fitted = "training and validation", split.with_validation()
            model = self.family.again(config, fitted, outcome)
        tested = self._report(model, "test", fitted, details=True)
        reports["test"] = {"model": tested, **self.measure.references("test", fitted, details=True)}
        tested_model, tested_on, shipped = model, fitted, measured
        if training.refit:
            shipped, fitted = "everything", split.everything()
            model = self.family.again(config, fitted, outcome)
        result = {
            "recipe": self.recipe,
            "family": self.family.name,
            "config": to_json(replace(config, output_dir=folder.path)),
            "evaluation": to_json(config.evaluation),
            "data": {**split.events.summary(), "report": split.report.summary()},
            "split": split.summary(),
            "training": outcome.summary,
            "shipped": {
                "measured_on": measured,
                "trained_on": shipped,
                **({"words": _SHIPPED.format(measured=measured)} if shipped != measured else {}),
            },
            "versions": versions(),
            "hardware": hardware(distributed.size()),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 1),
            **{part: {name: r.to_json() for name, r in found.items()} for part, found in reports.items()},
        }
        own = model
        model = self.family.whole(own)
        tested_model = model if tested_model is own else self.family.whole(tested_model)
        if distributed.rank() != 0:
            return result
        vocabulary_of(self.family, config, split, fitted).save(folder.items, folder.users)
        save_model(model, folder.model)
        write_test_users(folder.test_users, split.events.user_ids[split.test.event_users], tested)
        write_page(
            folder,
            lambda: run_facts(
                result, folder.path, self.task, split, self.measure, tested_model, self.family.rows(config, tested_on),
                tested_on, reports["test"], read_csv(folder.history),
            ),
        )  # fmt: skip
        write_json(folder.metrics, result)
        print_summary(folder, result)
        return result


_NO_STEPS = "after a loss it goes on from its last checkpoint, or anew; workers that join wait until then."
_SHIPPED = "Measured is the model that was trained on {measured}; the model in the folder was trained on everything."


def vocabulary_of(family: Family[Any], config: RunConfig, split: Split, fitted: TrainingSet) -> Vocabulary:
    """What the numbers of a model that was fitted to ``fitted`` stand for, and users' histories."""
    from tfrec.runs.vocabulary import Vocabulary

    users, histories = split.histories(fitted)
    opinions = histories.copy()
    opinions.eliminate_zeros()
    # What the model takes, and zeros for the rest of what a user has seen.
    histories = with_zeros(family.rows(config, fitted)(opinions), histories)
    return Vocabulary(
        fitted.item_ids,
        fitted.item_titles,
        fitted.popularity,
        split.events.user_ids[users],
        histories,
        family.weights(config, fitted),
    )


def _data_name(config: RunConfig, split: Split) -> str:
    return str(config.data.path or split.events.source.get("file") or config.data.name)


def announce(split: Split) -> None:
    """Print, on rank 0, what became of the source's rows, and what their values were taken for."""
    from tfrec import distributed
    from tfrec.printing import printable

    if distributed.rank() != 0:
        return
    events = split.events
    print(printable(f"{events.name}: {split.report}"), flush=True)
    if split.notes:
        found = "; ".join(f"{count:,} {what}" for what, count in split.notes.items())
        print(printable(f"Of these files: {found}"), flush=True)
    if events.kind != "events":
        rule = f" ({events.kind_rule})" if events.kind_rule else ""
        print(printable(f"Values are {events.kind}{rule}; {split.positive}."), flush=True)


def load_config(folder: RunFolder, data_dir: Path | None = None) -> RunConfig:
    """A run's settings; ``data_dir`` says where its data is now.

    Raises:
        InputError: they are damaged, or of another version of tfrec.
    """
    from tfrec.families import family_named
    from tfrec.settings import from_json

    saved = folder.read_config()
    family = family_named(str(saved["family"]))
    settings = {k: v for k, v in saved.items() if k not in ("recipe", "family", "data_sha256", "format")}
    data = {k: v for k, v in settings["data"].items() if k != "in_memory"}
    settings = with_places({**settings, "data": data})
    try:
        config: RunConfig = from_json(family.config, settings)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{folder.config} is damaged or was written by another version of tfrec: {error}.\nTrain the run again."
        ) from error
    if data_dir is None:
        return config
    if config.data.path is not None:
        raise InputError(
            f"The run was trained on a table of its own: {config.data.path}\nReceived: --data-dir {data_dir}.\n"
            "Leave it out; the table is read from where it was."
        )
    return replace(config, data=replace(config.data, dir=data_dir))


def load_recommender(folder: RunFolder, with_index: bool = True) -> Recommender:
    """What a finished run ships; by default with the index that `tfrec index` built, where there is one.

    Raises:
        InputError: it is damaged, or of another family or version than stated.
    """
    from tfrec.families import family_named
    from tfrec.recommender import Recommender
    from tfrec.runs.loading import load_run_model, load_vocabulary

    family = family_named(str(folder.read_config()["family"]))
    vocabulary = load_vocabulary(folder)
    recommender = Recommender(load_run_model(folder, family.models, vocabulary), vocabulary)
    if with_index:
        recommender.read_index(folder.path)
    return recommender


def read_split(folder: RunFolder, config: RunConfig) -> Split:
    """The split of a finished run, made again from its data.

    Raises:
        InputError: the data has changed, or is not on disk.
    """
    split = TASKS[config.data.split].split(config.data, read_source(config.data))
    folder.check_data(split.sha256)
    return split


__all__ = [
    "Run",
    "announce",
    "fit",
    "load_config",
    "load_recommender",
    "named",
    "read_split",
    "resolved",
    "run",
    "vocabulary_of",
    "with_options",
]
