"""Settings that all families share. Nothing here loads TensorFlow, so that ``--help`` is instant."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tfrec.errors import InputError
from tfrec.settings import to_json
from tfrec.tasks import DataConfig, EvaluationConfig

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]


@dataclass(frozen=True)
class TrainingConfig:
    """What is done with which data."""

    train_on_validation: bool = False
    """After validation has picked, train again on training and validation data together, and test that model."""
    refit: bool = False
    """After the test, train again on everything, held-out users and targets included, and ship that model. What was
    measured and what is shipped is in metrics.json."""


@dataclass(frozen=True)
class FitConfig(TrainingConfig):
    """What every optimisation by Adam has."""

    epochs: int = 100
    """Passes over the training data, at most."""
    learning_rate: float = 1e-3
    """Adam's learning rate, its peak under a schedule."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the learning rate develops after the warm-up; cosine: down to 0 at the last epoch."""
    warmup_steps: int = 0
    """Steps over which the learning rate grows linearly from 0."""
    beta_1: float = 0.9
    """Adam's decay of the mean."""
    beta_2: float = 0.999
    """Adam's decay of the variance."""
    epsilon: float = 1e-7
    """Adam's epsilon."""
    clip_norm: float | None = None
    """Largest norm of the whole gradient, after the reduction over ranks."""
    precision: Precision = "float32"
    """Keras dtype policy; weights, loss and softmax are float32 in each."""
    validate_every: int = 1
    """Epochs between validations."""
    patience: int | None = None
    """Stop after this many validations without a better one. None: train all epochs."""
    threshold: float | None = None
    """Stop when the monitored validation metric reaches this."""
    checkpoint_every: int = 1
    """Epochs between checkpoints to resume from."""
    compression: Literal["none", "float16"] = "none"
    """Type of gradients sent between ranks."""
    backward_passes_per_step: int = 1
    """Batches whose gradients are added up before an update."""
    deterministic: bool = False
    """The same bits from run to run, at some cost in speed."""
    compare_ranks: bool = True
    """Compare the ranks' weights after each epoch."""


@dataclass(frozen=True)
class RunConfig:
    """Train, validate, test, and write a run folder."""

    data: DataConfig = field(default_factory=DataConfig)
    """Where the interactions come from, and what is held out."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How it is trained."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What is measured."""
    seed: int = 1
    """Seed of the first weights and of all that is random in training."""
    continue_run: Annotated[Path | None, tyro.conf.arg(name="continue")] = None
    """A finished run to start from, on newer data: its rows of users and items carry over; there may be more of
    them now."""
    output_dir: Path | None = None
    """Where everything is written. Default: runs/RECIPE-HASH, a folder per configuration."""
    resume: bool = True
    """Continue the run in the folder; --no-resume starts over and replaces it."""
    plan: int | None = None
    """Of the command line: print how much memory each of so many ranks needs, and end. Nothing is loaded or written."""
    plan_sizes: tuple[int, int, int] | None = None
    """Of --plan: users, items and interactions. Default: those of the data, which is read for it unless it is a
    published or a generated set."""
    elastic: bool = False
    """Go on when workers are lost or join, under horovodrun --min-np N --host-discovery-script FILE."""
    commit_every: int = 100
    """Of --elastic: steps between two copies of model and optimizer in memory, which a lost worker throws training back
    to; one more follows each epoch."""


#: Settings that do not change what is computed, so a run may be resumed with others.
_PLACES = ("output_dir", "resume", "plan", "plan_sizes", "elastic", "commit_every")


def with_places(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of `identity` with the defaults of those that it leaves out."""
    defaults = {f.name: f.default for f in dataclasses.fields(RunConfig) if f.name in _PLACES}
    return {**settings, **defaults, "data": {**settings["data"], "dir": None}}


def identity(recipe: str, family: str, config: RunConfig) -> dict[str, Any]:
    """What makes two runs the same, as JSON values: all settings but folders and how it is started.

    Raises:
        InputError: a setting that is no number or infinite.
    """
    check_finite(config)
    settings = {k: v for k, v in to_json(config).items() if k not in _PLACES}
    settings["data"] = {k: v for k, v in settings["data"].items() if k != "dir"}
    return {"recipe": recipe, "family": family, **settings}


def check_finite(settings: Any, name: str = "") -> None:
    """Raise InputError for a setting that is no number or infinite: no setting means anything then."""
    if dataclasses.is_dataclass(settings):
        for f in dataclasses.fields(settings):
            check_finite(getattr(settings, f.name), f"{name}.{f.name}" if name else f.name)
    elif isinstance(settings, float) and not math.isfinite(settings):
        raise InputError(
            f"`{name.rsplit('.', 1)[-1]}` must be finite.\nReceived: --{name.replace('_', '-')} {settings}."
        )


def arguments(model: Any) -> dict[str, Any]:
    """A model's settings as its constructor's arguments."""
    return {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
