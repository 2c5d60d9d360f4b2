"""From a config to interactions with each user's latest items held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse

from tfrec.configs import LeaveOneOutConfig, SourceConfig
from tfrec.data import Interactions, Synthetic, SyntheticCatalog, leave_one_out
from tfrec.data.files import combined_checksum
from tfrec.data.ncf import load_ncf, load_ncf_ml1m, ncf_files
from tfrec.data.report import Report
from tfrec.data.table_files import table_files
from tfrec.data.value_kinds import threshold
from tfrec.errors import InputError
from tfrec.training.prepare import load_interactions, positive
from tfrec.training.vocabulary import Vocabulary


@dataclass(frozen=True)
class PreparedItems:
    """What training and evaluation work on, with U users and I items.

    Args:
        interactions: all events, without the test items where a file has held these out already.
        train: float32 ``[U, I]`` of ones: what is neither validation nor test.
        validation_items: int32 ``[U]``, the held-out item or -1.
        test_items: int32 ``[U]``, the held-out item or -1.
        test_negatives: int32 ``[U, n]`` from a file in the NCF paper's format, else None.
        oracle: the planted model when the data is synthetic.
        report: what became of the source's rows.
        positive: which pairs are positive, in words.
        notes: what -> how many, of what is unusual in files in the NCF paper's format, see `tfrec.data.ncf.NCFData`.
    """

    interactions: Interactions
    train: scipy.sparse.csr_matrix
    validation_items: np.ndarray
    test_items: np.ndarray
    test_negatives: np.ndarray | None
    oracle: Synthetic | SyntheticCatalog | None
    report: Report = field(default_factory=lambda: Report(0, 0))
    positive: str = ""
    notes: Mapping[str, int] = field(default_factory=dict)

    @property
    def sha256(self) -> str | None:
        """Checksum of the files of events; None for generated data, which its settings determine."""
        return self.interactions.source.get("sha256")

    def seen(self, part: str) -> scipy.sparse.csr_matrix:
        """What users have before the held-out item of ``validation`` or ``test``; for ``everything`` after both."""
        matrix = self.train
        if part in ("test", "everything"):
            matrix = with_items(matrix, self.validation_items)
        return with_items(matrix, self.test_items) if part == "everything" else matrix

    def heldout(self, part: str) -> np.ndarray:
        """The held-out items of ``validation`` or ``test``."""
        return self.validation_items if part == "validation" else self.test_items

    def popularity(self) -> np.ndarray:
        """float32 ``[I]``, the number of training users of each item."""
        return np.bincount(self.train.indices, minlength=self.train.shape[1]).astype(np.float32)

    def vocabulary(self) -> Vocabulary:
        """What the model's numbers stand for, and what users have."""
        events = self.interactions
        # Without titles the ids themselves: as text they would be ten times as large.
        labels = events.item_ids if events.item_titles is None else events.item_titles
        return Vocabulary(events.item_ids, labels, self.popularity(), events.user_ids, self.seen("everything"))

    def summary(self) -> dict[str, Any]:
        """Counts for the report."""
        split: dict[str, Any] = {
            "users": self.train.shape[0],
            "items": self.train.shape[1],
            "train_events": int(self.train.nnz),
            "validation_items": int((self.validation_items >= 0).sum()),
            "test_items": int((self.test_items >= 0).sum()),
        }
        if self.test_negatives is not None:
            split |= {"negatives_per_user": self.test_negatives.shape[1], "notes": dict(self.notes)}
        return {**self.interactions.summary(), "report": self.report.summary(), "split": split}


def with_items(matrix: scipy.sparse.csr_matrix, items: np.ndarray) -> scipy.sparse.csr_matrix:
    """A matrix of ones with one more item (or, for -1, none) in each row."""
    rows = np.flatnonzero(items >= 0)
    more = scipy.sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, items[rows])), shape=matrix.shape)
    found = scipy.sparse.csr_matrix(matrix + more)
    found.data[:] = 1.0
    found.sort_indices()
    return found


def source_checksum(config: SourceConfig) -> str:
    """The checksum that the prepared data's ``sha256`` will be, from the files at ``config.path`` alone."""
    assert config.path is not None
    if isinstance(config, LeaveOneOutConfig) and config.format == "ncf":
        return combined_checksum(list(ncf_files(config.path)))
    return combined_checksum(table_files(config.path))


def prepare_items(config: LeaveOneOutConfig) -> PreparedItems:
    """Load and hold out.

    Raises:
        InputError: see `tfrec.data.leave_one_out`, `tfrec.data.ncf.load_ncf`.
    """
    if config.min_user_events < 3:
        raise InputError(
            "`min_user_events` must be at least 3: one item each for training, validation and test.\n"
            f"Received: --data.min-user-events {config.min_user_events}."
        )
    if config.format == "ncf" and config.path is None:
        raise InputError("The format ncf is of files of your own.\nName their folder with --data.path.")
    test_negatives, words = None, ""
    notes: Mapping[str, int] = {}
    oracle: Synthetic | SyntheticCatalog | None = None
    if config.format == "ncf" or (config.path is None and config.name == "ncf-ml-1m"):
        if config.min_rating not in ("all", "auto"):
            raise InputError("Data in the NCF paper's format is held out already.\nLeave out --data.min-rating.")
        found = load_ncf(config.path) if config.path is not None else load_ncf_ml1m(config.dir)
        events, test_items, test_negatives, notes = found.train, found.test_items, found.test_negatives, found.notes
        # Where the test item is gone already, the latest that is left is for validation.
        split = leave_one_out(events, min_user_events=config.min_user_events - 1)
        train, validation_items = split.train, split.test_items
        both = np.flatnonzero(np.asarray(split_has(train, test_items)))
        if len(both) or (validation_items[test_items >= 0] == test_items[test_items >= 0]).any():
            user = both[0] if len(both) else np.flatnonzero((validation_items == test_items) & (test_items >= 0))[0]
            raise InputError(
                f"A held-out item must not be in the training data.\nReceived: user {user}, item {test_items[user]}."
            )
    else:
        is_catalog = config.path is None and config.name == "synthetic-catalog"
        catalog = SyntheticCatalog(**asdict(config.catalog)) if is_catalog else None
        events = catalog.interactions() if catalog else load_interactions(config)
        oracle, words = catalog, positive(config, events)
        events = positives(events, config)
        split = leave_one_out(events, min_user_events=config.min_user_events, validation=True)
        train, validation_items, test_items = split.train, split.validation_items, split.test_items
    train.data[:] = 1.0
    if config.path is None and config.name == "synthetic":
        oracle = Synthetic(**asdict(config.synthetic))
    return PreparedItems(
        events, train, validation_items, test_items, test_negatives, oracle, split.report, words, notes
    )


def split_has(matrix: scipy.sparse.csr_matrix, items: np.ndarray) -> np.ndarray:
    """bool ``[U]``: whether each row has its item (False for -1)."""
    rows = np.flatnonzero(items >= 0)
    there = np.zeros(matrix.shape[0], bool)
    one = scipy.sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, items[rows])), shape=matrix.shape)
    pattern = scipy.sparse.csr_matrix((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), matrix.shape)
    there[pattern.multiply(one).nonzero()[0]] = True
    return there


def positives(events: Interactions, config: SourceConfig, *, dislikes: bool = False) -> Interactions:
    """The positive pairs, with the users and items that have any, numbered anew.

    Args:
        events: of any kind.
        config: names the threshold.
        dislikes: of votes, keep the negative ones too.

    Raises:
        InputError: there are none.
    """
    pairs = events.positives(threshold(events, config.min_rating), keep="last", dislikes=dislikes)
    if not (pairs.values > 0).any():
        raise InputError(
            f"No pair of user and item is positive.\nReceived: values from {events.values.min():g} to "
            f"{events.values.max():g}; {pairs.report}.\nLower --data.min-rating, or name another --data.rating."
        )
    if len(pairs) == events.num_pairs:
        # Nobody lost a pair, so whoever has none never had one: a catalogue keeps its order.
        return pairs
    users, user_index = np.unique(pairs.user_index, return_inverse=True)
    items, item_index = np.unique(pairs.item_index, return_inverse=True)
    return replace(
        pairs,
        user_index=user_index.astype(np.int32),
        item_index=item_index.astype(np.int32),
        user_ids=pairs.user_ids[users],
        item_ids=pairs.item_ids[items],
        item_titles=None if pairs.item_titles is None else pairs.item_titles[items],
        account=pairs.report,
    )
