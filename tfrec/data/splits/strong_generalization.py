"""Hold out whole users: a model that takes histories must rank what it has not seen of users it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import scipy.sparse

from tfrec.data.interactions import Interactions
from tfrec.data.report import Report
from tfrec.data.splits.numbering import ones_at
from tfrec.data.value_kinds import threshold
from tfrec.errors import InputError


@dataclass(frozen=True)
class StrongGeneralization:
    """Held-out *users*: a model sees part of their items (``_in``) and must rank the rest (``_out``).

    Args:
        train: float32 ``[U_train, I]`` of ones.
        validation_in: ``[U_heldout, I]``.
        validation_out: ``[U_heldout, I]``, disjoint from ``validation_in``.
        test_in: ``[U_heldout, I]``.
        test_out: ``[U_heldout, I]``, disjoint from ``test_in``.
        train_users: ``[U_train]``, the row of each user in the `Interactions`.
        validation_users: ``[U_heldout]``.
        test_users: ``[U_heldout]``.
        items: ``[I]``, the column of each item in the `Interactions`.
        report: what became of the source's rows.
    """

    train: scipy.sparse.csr_matrix
    validation_in: scipy.sparse.csr_matrix
    validation_out: scipy.sparse.csr_matrix
    test_in: scipy.sparse.csr_matrix
    test_out: scipy.sparse.csr_matrix
    train_users: np.ndarray
    validation_users: np.ndarray
    test_users: np.ndarray
    items: np.ndarray
    report: Report = field(default_factory=lambda: Report(0, 0))

    def summary(self) -> dict[str, int]:
        """Counts for a report."""
        return {
            "train_users": self.train.shape[0],
            "heldout_users": self.test_in.shape[0],
            "items": self.train.shape[1],
            "train_events": self.train.nnz,
            "validation_in_events": self.validation_in.nnz,
            "validation_out_events": self.validation_out.nnz,
            "test_in_events": self.test_in.nnz,
            "test_out_events": self.test_out.nnz,
        }


def strong_generalization(
    interactions: Interactions,
    heldout_users: int = 10_000,
    min_rating: float | Literal["auto"] | None = "auto",
    *,
    min_user_events: int = 5,
    min_item_events: int = 0,
    target_share: float = 0.2,
    seed: int = 98765,
) -> StrongGeneralization:
    """Split by users as in Liang et al., "Variational Autoencoders for Collaborative Filtering", 2018.

    The steps, random calls and seeds are those of the paper's published code, so that on MovieLens-20M and with
    the defaults the same users and items are held out:

    1. make one event of those of one user and item, in the place of the first in the file (the data of the paper has no
       others), and keep those with a value above ``min_rating``;
    2. keep items with ``min_item_events`` events, then users with ``min_user_events``;
    3. permute the users, in ascending order of raw id, with the legacy generator seeded with ``seed``: the last
       ``heldout_users`` are for test, as many before them for validation, the rest for training;
    4. the items are those of training events, numbered by first appearance in the file;
    5. of each held-out user with at least 5 events, ``int(target_share * events)``, drawn without replacement,
       are targets, users in ascending order of raw id; the generator is seeded again for each of the two sets.
       Users with fewer events have no targets. What held-out users have of other items is left out, and counted.

    Rows are users in permuted order.

    Args:
        interactions: the events.
        heldout_users: users for validation, and as many for test, from 1.
        min_rating: keep pairs with a value above it, from 0; None: above 0; auto: see
            `tfrec.data.value_kinds.threshold`, 3.5 for five stars.
        min_user_events: fewest events of a user.
        min_item_events: fewest events of an item.
        target_share: share of a held-out user's events to predict, in (0, 1).
        seed: of the legacy generator.

    Raises:
        InputError: nothing is left after filtering, too few users, or no targets.
    """
    if not 0 < target_share < 1:
        raise InputError(f"`target_share` must lie between 0 and 1.\nReceived: {target_share}.")
    if not isinstance(heldout_users, int | np.integer) or heldout_users < 1:
        raise InputError(f"`heldout_users` must be a whole number from 1.\nReceived: {heldout_users}.")
    if not 0 <= seed < 2**32:
        raise InputError(f"`seed` must lie in [0, 2^32).\nReceived: {seed}.")
    value = interactions.values
    above = threshold(interactions, min_rating)
    pairs = interactions.positives(above)
    if min_item_events > 0:
        count = np.bincount(pairs.item_index, minlength=interactions.num_items)
        enough = count[pairs.item_index] >= min_item_events
        pairs = pairs.where(enough, f"of items with fewer than {min_item_events}")
    if min_user_events > 0:
        count = np.bincount(pairs.user_index, minlength=interactions.num_users)
        enough = count[pairs.user_index] >= min_user_events
        pairs = pairs.where(enough, f"of users with fewer than {min_user_events}")
    if len(pairs) == 0:
        top = f" The values run from {value.min():g} to {value.max():g}." if len(value) else ""
        raise InputError(
            f"No interaction is left of {len(value)}: `min_rating`={above:g}, "
            f"`min_user_events`={min_user_events} and `min_item_events`={min_item_events} "
            f"filter all users away.{top}\nLower them.\n{pairs.report}"
        )
    user, item = pairs.user_index, pairs.item_index
    users = np.unique(user)  # dense indices ascend with the raw ids
    if 2 * heldout_users >= len(users):
        raise InputError(
            f"`heldout_users` users each for validation and test must leave some for training.\n"
            f"Received: heldout_users={heldout_users}, and {len(users)} users have at least "
            f"{min_user_events} interactions"
            + (f" above {above:g}" if above else "")
            + f".\nTry {max(1, len(users) // 10)}, or give more users."
            if len(users) >= 3
            else f"At least 3 users are needed, one each for training, validation and test.\nReceived: "
            f"{len(users)} with at least {min_user_events} interactions."
        )
    users = users[np.random.RandomState(seed).permutation(len(users))]
    num_train = len(users) - 2 * heldout_users
    train_users, validation_users, test_users = np.split(users, [num_train, num_train + heldout_users])

    part = np.zeros(interactions.num_users, np.int8)
    part[validation_users], part[test_users] = 1, 2
    row = np.zeros(interactions.num_users, np.int32)
    for group in (train_users, validation_users, test_users):
        row[group] = np.arange(len(group), dtype=np.int32)
    part_of_event = part[user]

    in_train = part_of_event == 0
    seen, first = np.unique(item[in_train], return_index=True)
    items = seen[np.argsort(first)]
    if len(items) < 2:
        raise InputError(f"At least 2 items are needed to rank.\nReceived: {len(items)} in the training users' events.")
    column = np.full(interactions.num_items, -1, np.int32)
    column[items] = np.arange(len(items), dtype=np.int32)

    def matrix(events: np.ndarray, num_rows: int) -> scipy.sparse.csr_matrix:
        return ones_at(row[user[events]], column[item[events]], (num_rows, len(items)))

    heldout = []
    for number in (1, 2):
        events = np.flatnonzero((part_of_event == number) & (column[item] >= 0))
        is_target = _choose_targets(user[events], target_share, np.random.RandomState(seed))
        heldout.append((events[~is_target], events[is_target]))
    (validation_in, validation_out), (test_in, test_out) = heldout
    if len(validation_out) == 0 or len(test_out) == 0:
        raise InputError(
            f"No held-out user has enough interactions to predict some from the rest (5 are needed).\n"
            f"Received: heldout_users={heldout_users}.\nHold out more users, or lower `min_rating`."
        )
    return StrongGeneralization(
        train=matrix(np.flatnonzero(in_train), len(train_users)),
        validation_in=matrix(validation_in, heldout_users),
        validation_out=matrix(validation_out, heldout_users),
        test_in=matrix(test_in, heldout_users),
        test_out=matrix(test_out, heldout_users),
        train_users=train_users,
        validation_users=validation_users,
        test_users=test_users,
        items=items,
        report=pairs.report.drop("of items unknown to training", int(np.count_nonzero(column[item[~in_train]] < 0))),
    )


def _choose_targets(user: np.ndarray, share: float, random: np.random.RandomState) -> np.ndarray:
    """Mask of the events to predict. ``user`` ``[N]`` names the user of each event, in file order."""
    order = np.argsort(user, kind="stable")
    starts = np.flatnonzero(np.diff(user[order], prepend=-1))
    counts = np.diff(starts, append=len(order))
    chosen = np.zeros(len(user), bool)
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        if count >= 5:
            picks = random.choice(count, size=int(share * count), replace=False)
            chosen[order[start + picks]] = True
    return chosen
