"""From a config to interactions of which a random share of the user-item pairs is held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from tfrec.configs import ALSDataConfig
from tfrec.data import Interactions, random_holdout
from tfrec.data.report import Report
from tfrec.training.prepare import load_interactions, positive
from tfrec.training.prepare_items import positives
from tfrec.training.vocabulary import Vocabulary


@dataclass(frozen=True)
class PreparedEntries:
    """What training and evaluation work on, with U users and I items.

    Args:
        interactions: the events above the threshold.
        train: float32 ``[U, I]``, values summed over a pair's events.
        test: the same for the positive ones of the pairs held out, disjoint from ``train``.
        positive: which pairs are positive, in words.
    """

    interactions: Interactions
    train: scipy.sparse.csr_matrix
    test: scipy.sparse.csr_matrix
    positive: str = ""

    @property
    def report(self) -> Report:
        """What became of the source's rows."""
        heldout = len(self.interactions) - self.train.nnz - self.test.nnz
        return self.interactions.report.drop("disliked and held out, so no targets", heldout)

    @property
    def sha256(self) -> str | None:
        """Checksum of the file of events; None for generated data, which its settings determine."""
        return self.interactions.source.get("sha256")

    def heldout(self, part: str) -> tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix]:
        """What users have, and the targets."""
        return self.train, self.test

    def vocabulary(self) -> Vocabulary:
        """What the model's numbers stand for, and what users have."""
        events = self.interactions
        popularity = np.bincount(self.train.indices[self.train.data > 0], minlength=self.train.shape[1]).astype(
            np.float32
        )
        # What was held out as disliked is not recommended either.
        seen = events.to_csr(binary=True)
        return Vocabulary(events.item_ids, events.labels(), popularity, events.user_ids, seen)

    def summary(self) -> dict[str, Any]:
        """Counts for the report."""
        split = {
            "users": self.train.shape[0],
            "items": self.train.shape[1],
            "train_events": int(self.train.nnz),
            "test_events": int(self.test.nnz),
        }
        return {**self.interactions.summary(), "report": self.report.summary(), "split": split}


def prepare_entries(config: ALSDataConfig) -> PreparedEntries:
    """Load and hold out.

    Raises:
        InputError: see `tfrec.data.random_holdout`.
    """
    everything = load_interactions(config)
    events = positives(everything, config, dislikes=True)
    split = random_holdout(events, target_share=config.test_share, seed=config.split_seed)
    return PreparedEntries(events, split.train, split.test, positive(config, everything))
