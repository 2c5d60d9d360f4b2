"""Whom a model is asked about: users by number, or histories, which are rows over its items."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.models.rows import check_width, checked_rows


def are_histories(queries: Any) -> bool:
    """Whether these are sparse rows over the items, and not numbers of users."""
    return isinstance(queries, tf.SparseTensor) or scipy.sparse.issparse(queries)


def history_tensor(histories: Any, width: int, name: str = "queries") -> tf.SparseTensor:
    """Histories as float32 SparseTensor ``[B, width]``; a SparseTensor may be symbolic, and stays as it is.

    Args:
        histories: `tf.SparseTensor`, or SciPy matrix or array of any format.
        width: I.
        name: of the argument, for messages.

    Raises:
        InputError: numbers of users, or rows of another width.
    """
    if isinstance(histories, tf.SparseTensor):
        check_width(histories.shape, width, name)
        return tf.cast(histories, tf.float32)
    if not scipy.sparse.issparse(histories):
        raise InputError(
            f"`{name}` must be histories, sparse rows of {width} items: this model has no users by number.\n"
            f"Received: {type(histories).__name__}.\n"
            "Give the users' rows, matrix[users] of a SciPy matrix. Models with users by number: als, neumf."
        )
    entries = checked_rows(histories, name, width, counts=False).tocoo()
    index = np.stack([entries.row, entries.col], axis=1).astype(np.int64)
    return tf.SparseTensor(index, entries.data.astype(np.float32), entries.shape)


def user_tensor(users: Any, name: str = "queries") -> tf.Tensor:
    """Numbers of users, int ``[B]``; they may be symbolic.

    Raises:
        InputError: histories, or something else than whole numbers in one dimension.
    """
    if are_histories(users):
        raise InputError(
            f"`{name}` must be numbers of users: this model answers for users by number only.\n"
            f"Received: {type(users).__name__}, rows over items.\nModels that take histories: als, vae-cf, ease."
        )
    users = tf.convert_to_tensor(users)
    if not users.dtype.is_integer or users.shape.rank not in (None, 1):
        raise InputError(
            f"`{name}` must be whole numbers [B], the users'.\nReceived: {users.dtype.name} of shape {users.shape}."
        )
    return users
