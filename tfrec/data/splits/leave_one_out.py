"""Hold out each user's latest item."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse

from tfrec.data.interactions import Interactions
from tfrec.data.report import Report
from tfrec.errors import InputError


@dataclass(frozen=True)
class LeaveOneOut:
    """Each user's latest interaction held out.

    Args:
        train: float32 ``[U, I]``, the values of the other interactions.
        test_items: int32 ``[U]``, the held-out item, -1 for a user who keeps all of them for training.
        validation_items: int32 ``[U]``, the latest of the remaining ones, or -1; all -1 unless asked for.
        report: what became of the source's rows.
    """

    train: scipy.sparse.csr_matrix
    test_items: np.ndarray
    validation_items: np.ndarray
    report: Report = field(default_factory=lambda: Report(0, 0))


def leave_one_out(interactions: Interactions, *, min_user_events: int = 2, validation: bool = False) -> LeaveOneOut:
    """Hold out each user's latest interaction, as in He et al., "Neural Collaborative Filtering", 2017.

    Only pairs with a value above 0 count, and of several events of one pair only the latest. Of events with equal
    timestamps the one further down in the file is the later one; without timestamps the file's order is the order of
    time.

    Args:
        interactions: the events.
        min_user_events: users with fewer items keep all of them for training, from 2 (3 with ``validation``).
        validation: hold out the second latest interaction too, so that the test is used once.

    Raises:
        InputError: no user has enough items.
    """
    least = 3 if validation else 2
    if min_user_events < least:
        raise InputError(
            f"`min_user_events` must be at least {least}, so that training keeps one.\nReceived: {min_user_events}."
        )
    pairs = interactions.positives(keep="last")
    by_time = () if pairs.timestamps is None else (pairs.timestamps,)
    order = np.lexsort((*by_time, pairs.user_index))  # stable: equal times stay in the order of the file
    user, item, values = pairs.user_index[order], pairs.item_index[order], pairs.values[order]
    count = np.bincount(user, minlength=interactions.num_users)
    end = np.cumsum(count)
    enough = count >= min_user_events
    if not enough.any():
        raise InputError(
            f"No user has {min_user_events} different items, so nothing can be held out.\n"
            f"Received: {len(interactions)} events of {interactions.num_users} users.\n{pairs.report}"
        )
    test = np.full(interactions.num_users, -1, np.int32)
    test[enough] = item[end[enough] - 1]
    second = np.full(interactions.num_users, -1, np.int32)
    kept = np.ones(len(user), bool)
    kept[end[enough] - 1] = False
    if validation:
        second[enough] = item[end[enough] - 2]
        kept[end[enough] - 2] = False
    train = scipy.sparse.coo_matrix(
        (values[kept], (user[kept], item[kept])), shape=(interactions.num_users, interactions.num_items)
    ).tocsr()
    train.sort_indices()
    return LeaveOneOut(train=train, test_items=test, validation_items=second, report=pairs.report)
