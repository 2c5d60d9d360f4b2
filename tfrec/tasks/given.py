"""Training, validation and test as they were made elsewhere, from a file or a table each."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from tfrec.data import Given as GivenSplit
from tfrec.data import Interactions, given
from tfrec.data.value_kinds import threshold
from tfrec.errors import InputError
from tfrec.tasks.config import DataConfig
from tfrec.tasks.source import Source, read_file, source_checksum
from tfrec.tasks.split import Split, TrainingSet, known_parts
from tfrec.tasks.task import Task, check_not_held_out_already


class Given(Task):
    """See `tfrec.data.given`. Users and items that training does not have are kept out of the targets, and counted."""

    name = "given"
    about = "takes the parts as they are given"
    data: ClassVar = {"min_user_events": 0, "validation_share": 0.1}
    options = frozenset({"validation_path", "test_path"})

    def check(self, config: DataConfig) -> None:
        """Files, unless Python hands the parts over."""
        if config.name == "in-memory" and config.path is None:
            return
        if config.path is None or config.test_path is None:
            raise InputError(
                "--data.split given needs a file of training pairs and one of test pairs.\n"
                f"Received: --data.path {config.path}, --data.test-path {config.test_path}."
            )
        if config.validation_path is not None and config.validation_share is not None:
            raise InputError(
                "Validation is given, so no share is drawn for it.\n"
                "Leave out --data.validation-share, or --data.validation-path."
            )
        if config.min_user_events or config.min_item_events:
            raise InputError(
                "What is given is taken as it is.\nLeave out --data.min-user-events and --data.min-item-events."
            )

    def split(self, config: DataConfig, source: Source) -> Split:
        """Match the parts."""
        check_not_held_out_already(source, self.name)
        validation, test = source.validation, source.test
        sha256 = source.sha256
        if config.test_path is not None:
            test = read_file(config, config.test_path)
            validation = None if config.validation_path is None else read_file(config, config.validation_path)
            sha256 = source_checksum(config)
        if test is None:
            raise InputError("--data.split given needs the test pairs too.\nGive tfrec.fit (train, validation, test).")
        assert config.validation_share is not None
        found = given(
            source.events,
            validation,
            test,
            validation_share=config.validation_share,
            seed=config.split_seed,
            min_rating=None if config.min_rating == "all" else config.min_rating,
            dislikes=True,
        )
        above = threshold(found.interactions, config.min_rating)
        parts = known_parts(found.train, found.validation, found.test, found.users)
        return Split(
            task=self.name,
            train=TrainingSet(found.interactions, found.train, found.users, found.items),
            validation=parts[0],
            test=parts[1],
            pairs=_pairs(found),
            report=found.report,
            positive=f"a pair is positive above {above:g} (--data.min-rating {config.min_rating}); validation is "
            f"{found.validation_rule}",
            sha256=sha256,
        )


def _pairs(found: GivenSplit) -> Interactions:
    """All three parts as interactions of the training events' users and items."""
    matrices = [m.tocoo() for m in (found.train, found.validation, found.test)]
    return replace(
        found.interactions,
        user_index=np.concatenate([found.users[m.row] for m in matrices]).astype(np.int32),
        item_index=np.concatenate([found.items[m.col] for m in matrices]).astype(np.int32),
        values=np.concatenate([m.data for m in matrices]).astype(np.float32),
        timestamps=None,
        left_out={},
        account=None,
    )
