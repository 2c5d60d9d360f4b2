"""From a config to interactions, a split and, where the truth is known, the oracle."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.sparse

from tfrec import distributed
from tfrec.configs import CandidateConfig, DataConfig, EvaluationConfig, SourceConfig
from tfrec.data import (
    Interactions,
    StrongGeneralization,
    Synthetic,
    load,
    load_table,
    strong_generalization,
)
from tfrec.data.report import Report
from tfrec.data.value_kinds import threshold
from tfrec.errors import InputError
from tfrec.printing import printable
from tfrec.training.vocabulary import Vocabulary


@dataclass(frozen=True)
class Prepared:
    """What training and evaluation work on.

    Args:
        interactions: all events.
        split: by users.
        oracle: the planted model when the data is synthetic.
        positive: which pairs are positive, in words.
    """

    interactions: Interactions
    split: StrongGeneralization
    oracle: Synthetic | None
    positive: str = ""

    @property
    def report(self) -> Report:
        """What became of the source's rows."""
        return self.split.report

    @property
    def sha256(self) -> str | None:
        """Checksum of the file of events; None for generated data, which its settings determine."""
        return self.interactions.source.get("sha256")

    @property
    def item_ids(self) -> np.ndarray:
        """Raw ids of the model's items, in its order."""
        return self.interactions.item_ids[self.split.items]

    @property
    def item_labels(self) -> np.ndarray:
        """Titles of the model's items (or their ids as text), in its order."""
        return self.interactions.labels()[self.split.items]

    def heldout(self, part: str) -> tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix, np.ndarray]:
        """What is seen, the targets and the users of ``validation`` or ``test``."""
        split = self.split
        if part == "validation":
            return split.validation_in, split.validation_out, split.validation_users
        return split.test_in, split.test_out, split.test_users

    def vocabulary(self) -> Vocabulary:
        """What the model's item numbers stand for."""
        popularity = np.asarray(self.split.train.sum(axis=0)).ravel()
        return Vocabulary(self.item_ids, self.item_labels, popularity)

    def summary(self) -> dict[str, Any]:
        """Counts for the report."""
        return {**self.interactions.summary(), "report": self.report.summary(), "split": self.split.summary()}


#: Settings of the data that speak of a table of one's own, with the names of `tfrec.data.from_table`.
_TABLE_OPTIONS = (
    "title", "values", "bad_rows", "delimiter", "quoting", "decimal", "encoding", "column_names", "time_format",
    "text_ids",
)  # fmt: skip


def _check_table_options(config: SourceConfig) -> None:
    """Raise InputError for settings that would do nothing, since no table is named."""
    if config.path is not None:
        return
    defaults = type(config)()
    for name in ("user", "item", "rating", "timestamp", *_TABLE_OPTIONS):
        if getattr(config, name) != getattr(defaults, name):
            option = f"--data.{name.replace('_', '-')}"
            raise InputError(
                f"{option} speaks of a table of your own, and none is named.\nReceived: {option} "
                f"{getattr(config, name)} with the data set {config.name}.\nName the table with --data.path, or leave "
                f"{option} out."
            )


def load_interactions(config: SourceConfig) -> Interactions:
    """The events that ``config`` names.

    Raises:
        InputError: see `tfrec.data.load` and `tfrec.data.from_table`.
    """
    _check_table_options(config)
    if config.path is not None:
        return load_table(
            config.path,
            user=config.user,
            item=config.item,
            rating=config.rating,
            timestamp=config.timestamp,
            **{name: getattr(config, name) for name in _TABLE_OPTIONS},
        )
    if config.name == "synthetic":
        return Synthetic(**asdict(config.synthetic)).interactions()
    return load(config.name, config.dir or os.environ.get("TFREC_DATA"))


def announce_data(data: Any) -> None:
    """Print, on rank 0, what became of the source's rows, and what their values were taken for.

    Args:
        data: a `Prepared`, `PreparedItems` or `PreparedEntries`.
    """
    if distributed.rank() != 0:
        return
    events = data.interactions
    print(printable(f"{events.name}: {data.report}"), flush=True)
    notes = getattr(data, "notes", {})
    if notes:
        print(
            printable("Of these files: " + "; ".join(f"{count:,} {what}" for what, count in notes.items())), flush=True
        )
    if events.kind != "events":
        rule = f" ({events.kind_rule})" if events.kind_rule else ""
        print(printable(f"Values are {events.kind}{rule}; {data.positive}."), flush=True)


def positive(config: SourceConfig, events: Interactions) -> str:
    """Which pairs are positive, in words."""
    above = threshold(events, config.min_rating)
    option = f"--data.min-rating {config.min_rating}"
    return f"a pair is positive above {above:g} ({option})"


def prepare(config: DataConfig) -> Prepared:
    """Load and split.

    Raises:
        InputError: see `tfrec.data.strong_generalization`.
    """
    interactions = load_interactions(config)
    heldout = config.heldout_users
    if heldout is None:
        heldout = max(1, min(10_000, interactions.num_users // 10))
    split = strong_generalization(
        interactions,
        heldout,
        None if config.min_rating == "all" else config.min_rating,
        min_user_events=config.min_user_events,
        min_item_events=config.min_item_events,
        seed=config.split_seed,
    )
    is_synthetic = config.path is None and config.name == "synthetic"
    oracle = Synthetic(**asdict(config.synthetic)) if is_synthetic else None
    return Prepared(interactions, split, oracle, positive(config, interactions))


def check_evaluation(config: EvaluationConfig | CandidateConfig, num_items: int) -> None:
    """Raise InputError for an unknown metric, one with a cutoff beyond the number of candidates, or a
    wrong block size."""
    from tfrec.metrics import Metric

    metrics = config.metrics
    if not metrics or len(set(metrics)) < len(metrics):
        raise InputError(f"Name at least one metric, and each once.\nReceived: {' '.join(metrics) or 'none'}.")
    for name in metrics:
        metric = Metric.parse(name)
        if metric.k is not None and metric.k > num_items:
            small = min(10, num_items)
            raise InputError(
                f"A metric's cutoff must not exceed the number of items.\nReceived: {name} for {num_items} items.\n"
                f"Lower it, e.g. --evaluation.metrics recall@{small} ndcg@{small} --evaluation.monitor ndcg@{small}."
            )
        if isinstance(config, CandidateConfig) and metric.of_catalogue:
            raise InputError(f"{name} is not defined for a ranking among candidates.\nLeave it out.")
    if config.monitor not in metrics:
        raise InputError(
            f"`monitor` must be one of the metrics.\nReceived: {config.monitor!r}; metrics: {', '.join(metrics)}.\n"
            "Add it to --evaluation.metrics, or name another with --evaluation.monitor."
        )
    name = "block_users" if isinstance(config, EvaluationConfig) else "block_pairs"
    if getattr(config, name) < 1:
        raise InputError(f"`{name}` must be at least 1.\nReceived: {getattr(config, name)}.")
