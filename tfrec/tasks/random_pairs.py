"""A random share of the user-item pairs is held out."""

from __future__ import annotations

from typing import ClassVar

from tfrec.data import random_holdout
from tfrec.tasks.config import DataConfig
from tfrec.tasks.source import Source
from tfrec.tasks.split import Split, TrainingSet, enough, known_parts, positives, without_gaps
from tfrec.tasks.task import Task, check_not_held_out_already


class RandomPairs(Task):
    """As implicit's ``train_test_split``; see `tfrec.data.random_holdout`."""

    name = "random_pairs"
    about = "holds out a random share of the user-item pairs"
    data: ClassVar = {"min_user_events": 0, "validation_share": 0.1, "test_share": 0.2}

    def split(self, config: DataConfig, source: Source) -> Split:
        """Hold out."""
        check_not_held_out_already(source, self.name)
        assert config.min_user_events is not None
        assert config.validation_share is not None
        assert config.test_share is not None
        everything, words = positives(source.events, config.min_rating)
        everything = enough(everything, config.min_user_events, config.min_item_events)
        pairs, users, items = without_gaps(everything)
        found = random_holdout(
            pairs,
            validation_share=config.validation_share,
            target_share=config.test_share,
            seed=config.split_seed,
        )
        validation, test = known_parts(found.train, found.validation, found.test, users)
        return Split(
            task=self.name,
            train=TrainingSet(source.events, found.train, users, items),
            validation=validation,
            test=test,
            pairs=everything,
            report=found.report,
            positive=words,
            oracle=source.oracle,
            sha256=source.sha256,
        )
