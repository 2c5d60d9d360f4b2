"""The settings of data, of holding out and of measuring, the same for every family.

A default that depends on what is held out is None here, and the task fills it in (`Task.resolve`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tfrec.tasks.source import SourceConfig

SplitName = Literal["held_out_users", "latest_item", "random_pairs", "by_time", "given"]


@dataclass(frozen=True)
class DataConfig(SourceConfig):
    """Where the interactions come from, and what is held out."""

    split: SplitName = "held_out_users"
    """What is held out. held_out_users: whole users, part of whose items is shown. latest_item: each user's latest
    one. random_pairs: a share of the user-item pairs. by_time: all that comes after a date, or the latest share.
    given: --data.validation-path and --data.test-path."""
    heldout_users: int | None = None
    """held_out_users: users for validation, and as many for test. Default: a tenth of them, at most 10,000."""
    validation_share: float | None = None
    """random_pairs, by_time: share of the pairs for validation; given without --data.validation-path: of the training
    pairs. Default: .1."""
    test_share: float | None = None
    """Share of the pairs for test. Default: .2 for random_pairs, .1 for by_time."""
    validation_from: str | None = None
    """by_time: validation begins here: an ISO date, or a number in the unit of the times."""
    test_from: str | None = None
    """by_time: the test begins here."""
    validation_path: Path | None = None
    """given: what to predict in validation, a file like --data.path."""
    test_path: Path | None = None
    """given: what to predict in the test, a file like --data.path."""
    min_user_events: int | None = None
    """Leave out users with fewer different items; latest_item: nothing is held out from these. Default: 5 for
    held_out_users, 3 for latest_item, else 0."""
    min_item_events: int = 0
    """Leave out items of fewer users."""
    split_seed: int = 98765
    """Seed of what is held out at random; 98765 is the papers'."""


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured."""

    metrics: tuple[str, ...] | None = None
    """Metrics with their cutoffs. Default: hit_rate, ndcg and mrr at 10 for latest_item, else eight."""
    monitor: str | None = None
    """The validation metric that picks the best epoch. Default: ndcg@100; hit_rate@10 for latest_item."""
    protocol: Literal["auto", "all", "exact", "nvidia", "mlperf"] = "auto"
    """What targets are ranked among. all: every item that the user does not have. latest_item only: exact: different
    unseen items; nvidia and mlperf: with those benchmarks' quirks. auto: exact for latest_item, else all. Data in the
    NCF paper's format brings its own for the test."""
    negatives: int = 99
    """With another protocol than all: how many items a target is ranked among."""
    validation_negatives: int | None = None
    """The same for validation; default: as for the test."""
    ties: Literal["auto", "expected", "pessimistic", "optimistic"] = "auto"
    """How tied scores are ranked. auto: pessimistic for latest_item, else expected."""
    gains: Literal["binary", "linear", "exponential"] = "binary"
    """What a target is worth to NDCG: 1, its value, or 2^value - 1. held_out_users keeps no values."""
    seed: int = 0
    """Seed of the sampled candidates."""
    block_users: int = 512
    """Users ranked at once, fewer where there are very many items."""
    block_pairs: int = 1 << 19
    """Candidates scored at once."""
