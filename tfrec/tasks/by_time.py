"""Everything before a moment trains, what comes after it is to be predicted, for all users at once."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from tfrec.data import Interactions, by_time
from tfrec.errors import InputError
from tfrec.tasks.config import DataConfig
from tfrec.tasks.source import Source
from tfrec.tasks.split import Split, TrainingSet, enough, known_parts, positives
from tfrec.tasks.task import Task, check_not_held_out_already


class ByTime(Task):
    """The split that is nearest to what a service meets; see `tfrec.data.by_time`."""

    name = "by_time"
    about = "holds out what comes after a moment"
    data: ClassVar = {"min_user_events": 0, "validation_share": 0.1, "test_share": 0.1}
    options = frozenset({"validation_from", "test_from"})

    def check(self, config: DataConfig) -> None:
        """Dates, or shares."""
        dates = (config.validation_from, config.test_from)
        if any(dates) and not all(dates):
            raise InputError(
                "Dates go together: --data.validation-from and --data.test-from.\n"
                f"Received: {dates[0] or 'none'} and {dates[1] or 'none'}."
            )

    def split(self, config: DataConfig, source: Source) -> Split:
        """Hold out."""
        check_not_held_out_already(source, self.name)
        assert config.min_user_events is not None
        assert config.validation_share is not None
        assert config.test_share is not None
        everything, words = positives(source.events, config.min_rating, keep="first")
        filters = config.min_user_events > 0 or config.min_item_events > 0
        everything = enough(everything, config.min_user_events, config.min_item_events)
        # Events and not pairs: what comes later of a pair must not be in the value that training sees.
        found = by_time(
            _of_those_in(everything, source.events) if filters else source.events,
            validation_share=config.validation_share,
            test_share=config.test_share,
            validation_from=config.validation_from,
            test_from=config.test_from,
            min_rating=None if config.min_rating == "all" else config.min_rating,
            dislikes=True,
        )
        validation, test = known_parts(found.train, found.validation, found.test, found.users)
        return Split(
            task=self.name,
            train=TrainingSet(source.events, found.train, found.users, found.items),
            validation=validation,
            test=test,
            pairs=everything,
            report=found.report,
            positive=words,
            oracle=source.oracle,
            sha256=source.sha256,
        )


def _of_those_in(pairs: Interactions, events: Interactions) -> Interactions:
    """The events of users and items that ``pairs`` has; the others are counted."""
    users = np.bincount(pairs.user_index, minlength=events.num_users) > 0
    items = np.bincount(pairs.item_index, minlength=events.num_items) > 0
    kept = users[events.user_index] & items[events.item_index]
    left_out = len(events) - int(np.count_nonzero(kept))
    if left_out == 0:
        return events
    return replace(
        events,
        user_index=events.user_index[kept],
        item_index=events.item_index[kept],
        values=events.values[kept],
        timestamps=None if events.timestamps is None else events.timestamps[kept],
        left_out={**events.left_out, "of users or items without enough positive pairs": left_out},
    )
