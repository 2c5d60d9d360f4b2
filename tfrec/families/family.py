"""What a family is: a kind of model, its settings, its recipes, and how it is fitted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from tfrec.errors import InputError
from tfrec.families.config import RunConfig
from tfrec.families.derivation import CompressSettings, Derivation, QuantizeSettings
from tfrec.families.memory import Memory, Sizes
from tfrec.tasks import Task, TrainingSet

if TYPE_CHECKING:
    import scipy.sparse

    from tfrec.distributed.elastic_state import ElasticState
    from tfrec.evaluation import Report
    from tfrec.runs.folder import RunFolder

C = TypeVar("C", bound=RunConfig)


@dataclass
class Outcome:
    """What a training ended with.

    Args:
        summary: for the section ``training`` of metrics.json.
        history: a row per epoch.
        unit: what the loss is the mean of, for the picture.
        epochs: of the best validation, where there are epochs: as many as training again makes.
    """

    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    unit: str = "user"
    epochs: int | None = None


class Trainer(ABC):
    """One training: the model, and how it is fitted. Made on every rank by itself, without a collective."""

    #: What is fitted; after `fit` with its best weights, on every rank.
    model: Any
    #: Steps of an epoch, which must be the same on all ranks; None: there are none.
    steps: int | None = None
    #: What is about to be trained, for the first lines of a run.
    about: str = ""
    #: What one round of the training is called.
    round: str = "epoch"
    #: Of a run whose workers come and go: where training was, to be taken up and committed to (`Family.elastic`).
    elastic: ElasticState | None = None
    #: Steps between two commits of such a run.
    commit_every: int = RunConfig.commit_every

    def resume(self, folder: RunFolder, monitor: str) -> int:
        """Take up what an earlier start has left in the folder; returns how many rounds that were."""
        return 0

    @abstractmethod
    def fit(self, folder: RunFolder, monitor: str, validate: Callable[[], Report]) -> Outcome:
        """Fit, on every rank its share; rank 0 writes checkpoints and prints.

        Args:
            folder: claimed.
            monitor: the validation metric that picks the best epoch.
            validate: measures ``model`` as it is.
        """


class Family(ABC, Generic[C]):
    """A kind of model. One module each, found by name through `tfrec.families`."""

    name: ClassVar[str]
    #: The class of its settings; each family has its own.
    config: ClassVar[type]
    #: Recipe -> settings; the docstring says what it is, for ``--help``.
    recipes: ClassVar[Mapping[str, Callable[[], Any]]]
    #: Keras classes that a run's model may be of.
    models: ClassVar[tuple[str, ...]]
    #: Whether a training goes on from a step when a worker is lost; others go on from their last checkpoint, or anew.
    elastic: ClassVar[bool] = False
    #: Whether it can rank for users that it has not been trained with.
    new_users: ClassVar[bool] = True

    def check_task(self, task: Task) -> None:
        """Raise InputError where the family cannot do what the task asks."""
        if task.new_users and not self.new_users:
            raise InputError(
                f"{self.name} learns something for each user, and has no answer for users it was not trained with.\n"
                f"Received: --data.split {task.name}, which {task.about}.\n"
                "Use latest_item, random_pairs, by_time or given; or a family that takes histories: vae-cf, als, ease."
            )

    def check(self, config: C) -> None:
        """Raise InputError for settings out of range, before anything is loaded."""

    @abstractmethod
    def trainer(self, config: C, data: TrainingSet) -> Trainer:
        """A training on ``data``.

        Raises:
            InputError: settings or data that cannot be trained on.
        """

    @abstractmethod
    def again(self, config: C, data: TrainingSet, outcome: Outcome) -> Any:
        """A model trained again on other data as in ``outcome``, without validation; the same on every rank."""

    @abstractmethod
    def memory(self, config: C, sizes: Sizes, ranks: int) -> Memory:
        """What a rank of ``ranks`` needs for a training on data of these sizes; nothing is made for it.

        Raises:
            InputError: settings that such data cannot be trained with.
        """

    def whole(self, model: Any) -> Any:
        """The model as one process can save, load and ask it, on rank 0; the others get ``model``. Every rank calls it.

        Raises:
            InputError: it does not fit into the memory of rank 0's machine.
        """
        return model

    def rows(self, config: C, data: TrainingSet) -> Callable[[scipy.sparse.csr_matrix], scipy.sparse.csr_matrix]:
        """How users' histories, ``[B, I]`` as in the data, becomes what the model takes: a 1 for each item liked."""
        return liked

    def weights(self, config: C, data: TrainingSet) -> np.ndarray | None:
        """``[I]``: the value that an item has in the history of a new user; None: 1."""
        return None

    def quantizing(self, settings: QuantizeSettings) -> Derivation | None:
        """How its runs become runs of integers; None: they cannot.

        Raises:
            InputError: settings out of range.
        """
        return None

    def compressing(self, settings: CompressSettings) -> Derivation | None:
        """How the tables of its runs become smaller; None: they cannot.

        Raises:
            InputError: settings out of range.
        """
        return None


def liked(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """A 1 for each value above 0, and nothing else."""
    import scipy.sparse

    found = scipy.sparse.csr_matrix(
        ((matrix.data > 0).astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape
    )
    if not found.data.all():
        found = found.copy()
        found.eliminate_zeros()
    return found
