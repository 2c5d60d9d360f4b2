"""Popularity: the baseline that every report shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfrec.families.closed_form import ClosedForm
from tfrec.families.config import RunConfig
from tfrec.families.family import Family, Outcome, liked
from tfrec.families.memory import Memory, Sizes
from tfrec.tasks import TrainingSet


@dataclass(frozen=True)
class PopularityRun(RunConfig):
    """Rank items by the number of training users who have them."""


def popularity() -> PopularityRun:
    """The popularity baseline on any data set."""
    return PopularityRun()


class PopularityFamily(Family[PopularityRun]):
    """Counts."""

    name = "popularity"
    config = PopularityRun
    recipes: ClassVar = {"popularity": popularity}
    models = ("Popularity",)

    def trainer(self, config: PopularityRun, data: TrainingSet) -> ClosedForm:
        """One pass over the data."""
        from tfrec.models import Popularity

        matrix = liked(data.matrix)
        model = Popularity(matrix.shape[1])
        about = f"{matrix.shape[0]:,} users, {matrix.shape[1]:,} items, {matrix.nnz:,} interactions"
        return ClosedForm(model, lambda: model.adapt(matrix), about)

    def memory(self, config: PopularityRun, sizes: Sizes, ranks: int) -> Memory:
        """A count per item."""
        return Memory(sizes, tables=4 * sizes.items, model=4 * sizes.items)

    def again(self, config: PopularityRun, data: TrainingSet, outcome: Outcome) -> Any:
        """The same on other data."""
        return self.trainer(config, data).solve()
