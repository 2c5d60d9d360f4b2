"""EASE: item-to-item weights in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from tfrec.families.closed_form import ClosedForm
from tfrec.families.config import RunConfig, arguments
from tfrec.families.family import Family, Outcome, liked
from tfrec.families.memory import WORK, Memory, Sizes
from tfrec.tasks import DataConfig, TrainingSet


@dataclass(frozen=True)
class EASEConfig:
    """The model, see tfrec.models.EASE."""

    regularization: float = 500.0
    """Weight of the squared weights, above 0: hundreds are usual; the more users, the larger."""


@dataclass(frozen=True)
class EASERun(RunConfig):
    """Fit EASE, validate, test, and write a run folder. Its memory is 4 bytes for each pair of items, and half of that
    again while it is fitted; up to 40,000 items."""

    model: EASEConfig = field(default_factory=EASEConfig)
    """The model."""


def ease() -> EASERun:
    """EASE on the embedded synthetic data, or on a table of your own with --data.path FILE."""
    return EASERun()


def ease_ml1m() -> EASERun:
    """EASE on MovieLens-1M, strong generalization with 600 + 600 held-out users."""
    return EASERun(data=DataConfig(name="ml-1m", heldout_users=600), model=EASEConfig(regularization=800.0))


def ease_ml20m() -> EASERun:
    """EASE on MovieLens-20M with the settings of Steck (2019): 10,000 + 10,000 held-out users."""
    return EASERun(data=DataConfig(name="ml-20m", heldout_users=10_000))


class EASEFamily(Family[EASERun]):
    """Takes histories; fitted in one go."""

    name = "ease"
    config = EASERun
    recipes: ClassVar = {"ease": ease, "ease-ml1m": ease_ml1m, "ease-ml20m": ease_ml20m}
    models = ("EASE",)

    def trainer(self, config: EASERun, data: TrainingSet) -> ClosedForm:
        """The same computation on every rank."""
        from tfrec import distributed
        from tfrec.models import EASE

        matrix = liked(data.matrix)
        model = EASE(matrix.shape[1], **arguments(config.model))
        about = f"{matrix.shape[0]:,} users, {matrix.shape[1]:,} items, {matrix.nnz:,} interactions"
        return ClosedForm(model, lambda: model.fit(matrix, verbose=int(distributed.rank() == 0)), about)

    def memory(self, config: EASERun, sizes: Sizes, ranks: int) -> Memory:
        """A weight for each pair of items, on every rank."""
        weights = 4 * sizes.items**2
        # Two copies of the matrix while the Gramian is filled, and blocks of it.
        return Memory(sizes, tables=weights, model=weights, batch=WORK + 24 * sizes.interactions)

    def again(self, config: EASERun, data: TrainingSet, outcome: Outcome) -> Any:
        """The same on other data."""
        return self.trainer(config, data).solve()
