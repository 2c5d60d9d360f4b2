"""Whole users are held out; part of their items is shown, the rest is to be predicted (strong generalization)."""

from __future__ import annotations

from typing import ClassVar

from tfrec.data import strong_generalization
from tfrec.data.value_kinds import threshold
from tfrec.tasks.config import DataConfig
from tfrec.tasks.source import Source
from tfrec.tasks.split import Part, Split, TrainingSet
from tfrec.tasks.task import Task, check_not_held_out_already


class HeldOutUsers(Task):
    """Liang et al., 2018; see `tfrec.data.strong_generalization`."""

    name = "held_out_users"
    about = "holds out whole users, so a model must rank for people that it has not seen"
    new_users = True
    data: ClassVar = {"min_user_events": 5}
    options = frozenset({"heldout_users"})

    def split(self, config: DataConfig, source: Source) -> Split:
        """Hold out."""
        check_not_held_out_already(source, self.name)
        events = source.events
        heldout = config.heldout_users
        if heldout is None:
            heldout = max(1, min(10_000, events.num_users // 10))
        assert config.min_user_events is not None
        found = strong_generalization(
            events,
            heldout,
            None if config.min_rating == "all" else config.min_rating,
            min_user_events=config.min_user_events,
            min_item_events=config.min_item_events,
            seed=config.split_seed,
        )
        above = threshold(events, config.min_rating)
        return Split(
            task=self.name,
            train=TrainingSet(events, found.train, found.train_users, found.items),
            validation=Part(found.validation_in, found.validation_out, None, found.validation_users),
            test=Part(found.test_in, found.test_out, None, found.test_users),
            pairs=events.positives(above),
            report=found.report,
            positive=f"a pair is positive above {above:g} (--data.min-rating {config.min_rating})",
            oracle=source.oracle,
            sha256=source.sha256,
        )
