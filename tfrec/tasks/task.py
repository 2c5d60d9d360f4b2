"""What a task is: a way to hold out, with the defaults and the references that go with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

from tfrec.errors import InputError
from tfrec.tasks.config import DataConfig, EvaluationConfig
from tfrec.tasks.source import Source
from tfrec.tasks.split import Split


class Task(ABC):
    """A way to hold out. One module each, found by name through `tfrec.tasks.TASKS`."""

    #: What ``--data.split`` calls it.
    name: ClassVar[str]
    #: What it does, for messages: "This task ...".
    about: ClassVar[str]
    #: Whether models must rank for users that training has not seen.
    new_users: ClassVar[bool] = False
    #: Defaults of settings of the data that depend on the task.
    data: ClassVar[dict[str, Any]] = {}
    #: Settings of the data that this task reads, besides the source's and these.
    options: ClassVar[frozenset[str]] = frozenset()
    #: Defaults of how it is measured.
    metrics: ClassVar[tuple[str, ...]] = (
        "recall@20", "recall@50", "ndcg@100", "precision@10", "hit_rate@10", "map@10", "mrr@10", "coverage@100",
    )  # fmt: skip
    monitor: ClassVar[str] = "ndcg@100"
    protocol: ClassVar[str] = "all"
    ties: ClassVar[str] = "expected"

    def resolve_data(self, config: DataConfig) -> DataConfig:
        """``config`` with the task's defaults, after a check of what it does not read.

        Raises:
            InputError: a setting that would do nothing here.
        """
        for name in _OF_SPLITS - self.options - set(self.data):
            value = getattr(config, name)
            if value is not None:
                option = f"--data.{name.replace('_', '-')}"
                raise InputError(
                    f"{option} means nothing with --data.split {self.name}.\nReceived: {option} {value}.\n"
                    f"Leave it out, or name another --data.split."
                )
        for name in ("validation_share", "test_share"):
            value = getattr(config, name)
            if value is not None and not (0 < value < 1 or (value == 0 and name == "validation_share")):
                option = f"--data.{name.replace('_', '-')}"
                raise InputError(f"{option} must lie between 0 and 1.\nReceived: {option} {value}.")
        missing: dict[str, Any] = {name: v for name, v in self.data.items() if getattr(config, name) is None}
        return replace(config, **missing)

    def resolve_evaluation(self, config: EvaluationConfig) -> EvaluationConfig:
        """``config`` with the task's defaults."""
        metrics = config.metrics or self.metrics
        monitor = config.monitor or (self.monitor if self.monitor in metrics else metrics[0])
        protocol: Any = self.protocol if config.protocol == "auto" else config.protocol
        ties: Any = self.ties if config.ties == "auto" else config.ties
        if protocol != "all" and self.protocol == "all":
            raise InputError(
                f"Only --data.split latest_item has one target a user to rank among sampled items.\nReceived: "
                f"--evaluation.protocol {protocol} with --data.split {self.name}.\nUse --evaluation.protocol all."
            )
        return replace(config, metrics=metrics, monitor=monitor, protocol=protocol, ties=ties)

    def check(self, config: DataConfig) -> None:  # noqa: B027 - most have nothing to check
        """Raise InputError for settings that contradict each other, before anything is read."""

    @abstractmethod
    def split(self, config: DataConfig, source: Source) -> Split:
        """Hold out.

        Args:
            config: resolved.
            source: what was read.

        Raises:
            InputError: data or settings that leave nothing to train on or to measure.
        """


#: Settings of `DataConfig` that some tasks read and others do not.
_OF_SPLITS = {
    "heldout_users", "validation_share", "test_share", "validation_from", "test_from", "validation_path", "test_path",
}  # fmt: skip


def check_not_held_out_already(source: Source, name: str) -> None:
    """Raise InputError where the source brings a split of its own, which is another task's."""
    if source.test_items is not None:
        raise InputError(
            "Data in the NCF paper's format has held out each user's latest item already.\n"
            f"Received: --data.split {name}.\nUse --data.split latest_item."
        )
