"""Another model made of a finished run's: smaller, or of integers. Nothing here loads TensorFlow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tfrec.errors import InputError

if TYPE_CHECKING:
    from tfrec.evaluation import Candidates, Report
    from tfrec.tasks import Split, TrainingSet


@dataclass(frozen=True)
class QuantizeSettings:
    """How a run is quantized."""

    bits: int = 8
    """Bits of weights and activations, 2 to 8."""
    preset: Literal["best", "study-split", "study-one-final"] = "best"
    """NeuMF: best: a scale per row and per channel, ranges of least error, an output layer per branch. study-split,
    study-one-final: the two forms of Distiller's study, see tfrec.quantization.PRESETS."""
    fraction: float = 0.1
    """NeuMF: share of the training positives to calibrate on."""
    statistics: Path | None = None
    """NeuMF: statistics to use instead of calibrating: a statistics.yaml, perhaps edited."""
    fine_tune: int = 0
    """NeuMF: epochs of training with rounding in the loop, before the last calibration."""
    fine_tune_rate: float = 1e-4
    """NeuMF: its learning rate."""
    seed: int = 0
    """NeuMF: seed of the samples of calibration and fine-tuning."""


@dataclass(frozen=True)
class CompressSettings:
    """How a run's tables are compressed."""

    ranks: int = 16
    """Of the tensor trains: larger is nearer to the tables, and larger."""
    tables: tuple[Literal["user", "item"], ...] = ("user", "item")
    """Tables to compress."""
    group: int | None = None
    """Rows that share a slice of the first of two cores; 1: a low-rank table, for tables of few rows. Default: three
    cores of about equal size."""
    fine_tune: int = 0
    """Epochs of training after the decomposition, on what the run was trained on."""
    fine_tune_rate: float = 1e-3
    """Adam's learning rate in the first of them; it falls to 0 as a cosine."""


@dataclass(frozen=True)
class Finished:
    """A finished run, read back.

    Args:
        config: its settings.
        split: its data.
        fitted: what its model was fitted to.
        model: what it ships.
        measure: the test metrics of a model.
        candidates: what the test ranks among; None: all items.
    """

    config: Any
    split: Split
    fitted: TrainingSet
    model: Any
    measure: Callable[[Any], Report]
    candidates: Candidates | None


@dataclass(frozen=True)
class Made:
    """What became of a run's model.

    Args:
        model: the new one.
        report: what there is to say of how it was made, JSON values.
        settings: of ``config.model``, those that are different now.
        stages: name -> test metrics of models on the way there.
        write: writes more files into the new run's folder.
        lines: what to print.
    """

    model: Any
    report: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, Report] = field(default_factory=dict)
    write: Callable[[Path], None] = lambda folder: None
    lines: tuple[str, ...] = ()


class Derivation(ABC):
    """A way to make another model of a run's; its settings were checked when it was made."""

    #: What is written next to metrics.json: NAME.json.
    name: ClassVar[str]

    def check_model(self, model: Any, run: Path) -> None:  # noqa: B027 - most take any
        """Raise InputError for a model that it cannot start from, before any data is read."""

    @abstractmethod
    def make(self, run: Finished) -> Made:
        """The new model.

        Raises:
            InputError: the run has a form that cannot be changed so.
        """


def check_fine_tuning(epochs: int, rate: float) -> None:
    """Raise InputError for epochs or a rate out of range."""
    if epochs < 0 or not 0 < rate < float("inf"):
        raise InputError(
            "`fine_tune` must be at least 0 and `fine_tune_rate` positive.\n"
            f"Received: --fine-tune {epochs} --fine-tune-rate {rate}."
        )
