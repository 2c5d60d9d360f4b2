"""What every task makes of the events: a training set, and two parts to measure on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse

from tfrec.data import Interactions, Synthetic, SyntheticCatalog
from tfrec.data.digest import digest
from tfrec.data.report import Report
from tfrec.data.value_kinds import threshold
from tfrec.errors import InputError

PartName = Literal["validation", "test"]


@dataclass(frozen=True)
class TrainingSet:
    """What a model is fitted to, with U users and I items.

    Args:
        events: where users and items come from.
        matrix: float32 ``[U, I]``: above 0 for a user's items, below 0 for what is disliked (votes).
        users: int64 ``[U]``, each row's user in ``events``.
        items: int64 ``[I]``, each column's item in ``events``.
    """

    events: Interactions
    matrix: scipy.sparse.csr_matrix
    users: np.ndarray
    items: np.ndarray

    @property
    def user_ids(self) -> np.ndarray:
        """Raw ids, ``[U]``."""
        return self.events.user_ids[self.users]

    @property
    def item_ids(self) -> np.ndarray:
        """Raw ids, ``[I]``."""
        return self.events.item_ids[self.items]

    @property
    def item_titles(self) -> np.ndarray | None:
        """Titles, ``[I]``, or None where there are none."""
        return None if self.events.item_titles is None else self.events.item_titles[self.items]

    @property
    def popularity(self) -> np.ndarray:
        """float32 ``[I]``: how many users have each item."""
        present = self.matrix.indices[self.matrix.data > 0]
        return np.bincount(present, minlength=self.matrix.shape[1]).astype(np.float32)


@dataclass(frozen=True)
class Part:
    """Whom to rank for, B of them, and what should come first.

    Args:
        seen: float32 ``[B, I]``, what is known of each; no candidates.
        targets: float32 ``[B, I]``, above 0 for what is to be predicted; disjoint from ``seen``.
        users: int64 ``[B]``, rows of the training set; None: users that training has not seen.
        event_users: int64 ``[B]``, users of the events.
        negatives: int32 ``[B, n]``, what the target is ranked among, where the source states it.
    """

    seen: scipy.sparse.csr_matrix
    targets: scipy.sparse.csr_matrix
    users: np.ndarray | None
    event_users: np.ndarray
    negatives: np.ndarray | None = None

    @property
    def target_items(self) -> np.ndarray:
        """int32 ``[B]``, for parts with at most one target a user: the target, or -1."""
        found = np.full(self.targets.shape[0], -1, np.int32)
        found[np.diff(self.targets.indptr) > 0] = self.targets.indices
        return found


@dataclass(frozen=True)
class Split:
    """A training set, validation and test, over the same items.

    Args:
        task: the name of the task.
        train: what is fitted to before the test.
        validation: picks settings and epochs.
        test: reports, once.
        pairs: the positive pairs of the events (of votes, the disliked ones too), held out or not.
        report: what became of the source's rows.
        positive: which pairs are positive, in words.
        oracle: the planted model where the data was drawn from one.
        notes: what -> how many, of what is unusual in the files.
        sha256: checksum of the files of events; None for generated data.
    """

    task: str
    train: TrainingSet
    validation: Part
    test: Part
    pairs: Interactions
    report: Report
    positive: str
    oracle: Synthetic | SyntheticCatalog | None = None
    notes: Mapping[str, int] = field(default_factory=dict)
    sha256: str | None = None

    @property
    def events(self) -> Interactions:
        """All events."""
        return self.train.events

    def part(self, name: PartName) -> Part:
        """One of the two."""
        return self.validation if name == "validation" else self.test

    def with_validation(self) -> TrainingSet:
        """What may be fitted to once validation has picked: training and validation together, over the same items."""
        part = self.validation
        if part.users is None:
            matrix = scipy.sparse.vstack([self.train.matrix, _union(part.seen, part.targets)], format="csr")
            users = np.concatenate([self.train.users, part.event_users])
            return replace(self.train, matrix=scipy.sparse.csr_matrix(matrix), users=users)
        place = scipy.sparse.csr_matrix(
            (np.ones(len(part.users), np.float32), (part.users, np.arange(len(part.users)))),
            shape=(self.train.matrix.shape[0], len(part.users)),
        )
        return replace(self.train, matrix=_union(self.train.matrix, scipy.sparse.csr_matrix(place @ part.targets)))

    def everything(self) -> TrainingSet:
        """All positive pairs, held out ones too, with every user and item that has any: what is shipped after a refit.

        Users and items of ``train`` come first, in its order.
        """
        users = _first(self.train.users, np.unique(self.pairs.user_index))
        items = _first(self.train.items, np.unique(self.pairs.item_index))
        matrix = self._matrix(self.pairs, users, items)
        if self.train.matrix.nnz and (self.train.matrix.data == 1).all():
            matrix.data[:] = 1.0
        return replace(self.train, matrix=matrix, users=users, items=items)

    def histories(self, fitted: TrainingSet) -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
        """What each user has of the items of ``fitted``, for serving.

        Returns:
            users: int64 ``[V]`` of the events; those of ``fitted`` first, in its order.
            histories: float32 ``[V, I]``: above 0 for a user's items, below 0 for what is disliked, and a stored 0 for
                what a user has seen without it counting as positive. None of it is recommended.
        """
        users = _first(fitted.users, np.unique(self.events.user_index))
        known = self._matrix(self.pairs, users, fitted.items)
        if fitted.matrix.nnz and (fitted.matrix.data == 1).all():
            known.data[:] = 1.0
        return users, with_zeros(known, self._matrix(self.events.merge("last"), users, fitted.items))

    def _matrix(self, events: Interactions, users: np.ndarray, items: np.ndarray) -> scipy.sparse.csr_matrix:
        row = np.full(events.num_users, -1, np.int64)
        column = np.full(events.num_items, -1, np.int64)
        row[users], column[items] = np.arange(len(users)), np.arange(len(items))
        there = (row[events.user_index] >= 0) & (column[events.item_index] >= 0)
        entries = (row[events.user_index[there]], column[events.item_index[there]])
        matrix = scipy.sparse.coo_matrix((events.values[there], entries), shape=(len(users), len(items))).tocsr()
        matrix.sort_indices()
        return matrix

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of what the test asks: two runs with the same one were measured on the same questions."""
        found = hashlib.sha256()
        part = self.test
        for array in (
            self.events.user_ids[part.event_users], self.train.item_ids, part.seen.indptr, part.seen.indices,
            part.targets.indptr, part.targets.indices, part.targets.data, part.negatives,
        ):  # fmt: skip
            found.update(digest([array]).encode())
        return found.hexdigest()

    def summary(self) -> dict[str, Any]:
        """For the report."""
        found: dict[str, Any] = {
            "name": self.task,
            "sha256": self.checksum,
            "users": self.train.matrix.shape[0],
            "items": self.train.matrix.shape[1],
            "train_events": int(self.train.matrix.nnz),
        }
        for name, part in (("validation", self.validation), ("test", self.test)):
            found |= {
                f"{name}_users": part.seen.shape[0],
                f"{name}_seen_events": int(part.seen.nnz),
                f"{name}_targets": int(part.targets.nnz),
            }
        if self.test.negatives is not None:
            found["negatives_per_user"] = self.test.negatives.shape[1]
        return {**found, "notes": dict(self.notes)} if self.notes else found

    def arrays(self) -> list[np.ndarray]:
        """All that ranks must have in common."""
        found = [self.train.users, self.train.items]
        for matrix in (
            self.train.matrix, self.validation.seen, self.validation.targets, self.test.seen, self.test.targets
        ):  # fmt: skip
            found += [matrix.indptr, matrix.indices, matrix.data]
        return found


def with_zeros(matrix: scipy.sparse.csr_matrix, pattern: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """``matrix`` with a stored 0 for every other entry of ``pattern``, which has all of its own."""
    if matrix.nnz == pattern.nnz:
        return matrix
    # A 1 for every entry, added and taken away again: exact in float64, and zeros stay as entries.
    ones = scipy.sparse.csr_matrix((np.ones(pattern.nnz), pattern.indices, pattern.indptr), shape=pattern.shape)
    found = scipy.sparse.csr_matrix(ones + matrix.astype(np.float64))
    found.data -= 1.0
    found.sort_indices()
    return found.astype(np.float32)


def positives(
    events: Interactions, min_rating: float | str | None, keep: Literal["first", "last"] = "last"
) -> tuple[Interactions, str]:
    """The positive pairs of ``events`` (of votes, the disliked ones too), over the same users and items; and in words
    which these are.

    Args:
        events: of any kind.
        min_rating: see `tfrec.data.value_kinds.threshold`.
        keep: the place and time of a pair: those of its first event, or of its latest.

    Raises:
        InputError: there are none.
    """
    above = threshold(events, min_rating)
    pairs = events.positives(above, keep=keep, dislikes=True)
    if not (pairs.values > 0).any():
        raise InputError(
            f"No pair of user and item is positive.\nReceived: values from {events.values.min(initial=0):g} to "
            f"{events.values.max(initial=0):g}; {pairs.report}.\n"
            "Lower --data.min-rating, or name another --data.value."
        )
    return pairs, f"a pair is positive above {above:g} (--data.min-rating {min_rating})"


def without_gaps(pairs: Interactions) -> tuple[Interactions, np.ndarray, np.ndarray]:
    """``pairs`` with the users and items that have any, renumbered, and which these are, int64.

    A catalogue of which nothing was left out keeps its order: a user without entries there never had any.
    """
    everyone, everything = np.arange(pairs.num_users), np.arange(pairs.num_items)
    if not pairs.report.dropped:
        return pairs, everyone, everything
    users, user_index = np.unique(pairs.user_index, return_inverse=True)
    items, item_index = np.unique(pairs.item_index, return_inverse=True)
    found = replace(
        pairs,
        user_index=user_index.astype(np.int32),
        item_index=item_index.astype(np.int32),
        user_ids=pairs.user_ids[users],
        item_ids=pairs.item_ids[items],
        item_titles=None if pairs.item_titles is None else pairs.item_titles[items],
        account=pairs.report,
    )
    return found, users.astype(np.int64), items.astype(np.int64)


def enough(pairs: Interactions, min_user_events: int, min_item_events: int) -> Interactions:
    """Without items of fewer events, then without users of fewer events; each counted."""
    if min_item_events > 0:
        count = np.bincount(pairs.item_index, minlength=pairs.num_items)
        pairs = pairs.where(count[pairs.item_index] >= min_item_events, f"of items with fewer than {min_item_events}")
    if min_user_events > 0:
        count = np.bincount(pairs.user_index, minlength=pairs.num_users)
        pairs = pairs.where(count[pairs.user_index] >= min_user_events, f"of users with fewer than {min_user_events}")
    if len(pairs) == 0:
        raise InputError(
            f"No pair of user and item is left.\nReceived: --data.min-user-events {min_user_events}, "
            f"--data.min-item-events {min_item_events}; {pairs.report}.\nLower them."
        )
    return pairs


def known_parts(
    train: scipy.sparse.csr_matrix,
    validation: scipy.sparse.csr_matrix,
    test: scipy.sparse.csr_matrix,
    users: np.ndarray,
) -> tuple[Part, Part]:
    """Validation and test of users of the training part: those with targets, and what they had before.

    Args:
        train: ``[U, I]``.
        validation: the same, targets of validation; seen in the test.
        test: the same, targets of the test.
        users: int64 ``[U]``, of the events.
    """
    parts = []
    for seen, targets in ((train, validation), (_union(train, validation), test)):
        rows = np.flatnonzero(np.diff(targets.indptr)).astype(np.int64)
        parts.append(Part(seen[rows], targets[rows], rows, users[rows]))
    return parts[0], parts[1]


def _union(a: scipy.sparse.csr_matrix, b: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """Disjoint matrices in one."""
    found = scipy.sparse.csr_matrix(a + b)
    found.sort_indices()
    return found


def _first(first: np.ndarray, everyone: np.ndarray) -> np.ndarray:
    """``first``, then the others of ``everyone``."""
    return np.concatenate([first, np.setdiff1d(everyone, first, assume_unique=True)]).astype(np.int64)
