"""Small interactions for the tests of splits."""

import numpy as np

from tfrec.data import Interactions


def interactions(user, item, value=None, time=None, kind=None):
    users, user_index = np.unique(user, return_inverse=True)
    items, item_index = np.unique(item, return_inverse=True)
    return Interactions(
        user_index=user_index.astype(np.int32),
        item_index=item_index.astype(np.int32),
        values=np.ones(len(user), np.float32) if value is None else np.asarray(value, np.float32),
        user_ids=users,
        item_ids=items,
        timestamps=None if time is None else np.asarray(time, np.int64),
        kind=kind or ("events" if value is None else "ratings"),
    )
