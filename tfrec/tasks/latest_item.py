"""Each user's latest item is held out for test, the one before it for validation (leave one out)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import scipy.sparse

from tfrec.data import Interactions, leave_one_out
from tfrec.errors import InputError
from tfrec.tasks.config import DataConfig
from tfrec.tasks.source import Source
from tfrec.tasks.split import Split, TrainingSet, known_parts, positives, without_gaps
from tfrec.tasks.task import Task


class LatestItem(Task):
    """He et al., 2017; see `tfrec.data.leave_one_out`. Dislikes are neither trained on nor held out."""

    name = "latest_item"
    about = "holds out each user's latest item"
    data: ClassVar = {"min_user_events": 3}
    metrics = ("hit_rate@10", "ndcg@10", "mrr@10")
    monitor = "hit_rate@10"
    protocol = "exact"
    ties = "pessimistic"

    def check(self, config: DataConfig) -> None:
        """Three items at least."""
        if config.min_user_events is not None and config.min_user_events < 3:
            raise InputError(
                "`min_user_events` must be at least 3: one item each for training, validation and test.\n"
                f"Received: --data.min-user-events {config.min_user_events}."
            )

    def split(self, config: DataConfig, source: Source) -> Split:
        """Hold out."""
        assert config.min_user_events is not None
        if source.test_items is not None:
            return self._with_test_items(config, source, source.test_items)
        everything, words = positives(source.events, config.min_rating)
        everything = everything.where(everything.values > 0, "disliked")
        pairs, users, items = without_gaps(everything)
        found = leave_one_out(pairs, min_user_events=config.min_user_events, validation=True)
        validation, test = (
            _one_each(wanted, found.train.shape) for wanted in (found.validation_items, found.test_items)
        )
        parts = known_parts(found.train, validation, test, users)
        return Split(
            task=self.name,
            train=TrainingSet(source.events, found.train, users, items),
            validation=parts[0],
            test=parts[1],
            pairs=everything,
            report=found.report,
            positive=words,
            oracle=source.oracle,
            sha256=source.sha256,
        )

    def _with_test_items(self, config: DataConfig, source: Source, test_items: np.ndarray) -> Split:
        """Where the test item is gone already, the latest that is left is for validation."""
        assert config.min_user_events is not None
        found = leave_one_out(source.events, min_user_events=config.min_user_events - 1)
        test = _one_each(test_items, found.train.shape)
        held_out = _one_each(found.test_items, found.train.shape)
        twice = np.flatnonzero(np.diff((found.train + held_out).multiply(test).tocsr().indptr))
        if len(twice):
            raise InputError(
                "A held-out item must not be in the training data.\n"
                f"Received: user {twice[0]}, item {test_items[twice[0]]}."
            )
        events = _with_pairs(source.events, test_items)
        everyone, everything = np.arange(events.num_users), np.arange(events.num_items)
        validation_part, test_part = known_parts(found.train, held_out, test, everyone)
        negatives = source.test_negatives
        return Split(
            task=self.name,
            train=TrainingSet(events, found.train, everyone, everything),
            validation=validation_part,
            test=replace(test_part, negatives=None if negatives is None else negatives[test_part.event_users]),
            pairs=events.merge("last"),
            report=found.report,
            positive="",
            notes=source.notes,
            sha256=source.sha256,
        )


def _one_each(items: np.ndarray, shape: tuple[int, int]) -> scipy.sparse.csr_matrix:
    """A one for each row's item; nothing for -1."""
    rows = np.flatnonzero(items >= 0)
    return scipy.sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, items[rows])), shape=shape)


def _with_pairs(events: Interactions, items: np.ndarray) -> Interactions:
    """``events``, and after them one more of each user who has an item here."""
    users = np.flatnonzero(items >= 0).astype(np.int32)
    latest = None if events.timestamps is None else events.timestamps.max(initial=0)
    return replace(
        events,
        user_index=np.concatenate([events.user_index, users]),
        item_index=np.concatenate([events.item_index, items[users].astype(np.int32)]),
        values=np.concatenate([events.values, np.ones(len(users), np.float32)]),
        timestamps=None if events.timestamps is None else np.append(events.timestamps, np.full(len(users), latest)),
        account=None,
    )
