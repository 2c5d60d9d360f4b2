"""Users and items that training has, numbered without gaps, and matrices over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from tfrec.data.interactions import Interactions
from tfrec.errors import InputError

DISLIKED = "disliked and held out, so no targets"
UNKNOWN_USER = "of users unknown to training"
UNKNOWN_ITEM = "of items unknown to training"


@dataclass(frozen=True)
class Numbering:
    """The users and items of the training pairs, in ascending order.

    Args:
        users: ``[U]``, the row of each user in the `Interactions`.
        items: ``[I]``, the column of each item in the `Interactions`.
        user_number: int32, for each row its place in ``users``, -1 where training does not have it.
        item_number: the same for columns.
    """

    users: np.ndarray
    items: np.ndarray
    user_number: np.ndarray
    item_number: np.ndarray

    @classmethod
    def of(cls, train: Interactions) -> Numbering:
        """The numbering that the pairs of ``train`` make.

        Raises:
            InputError: fewer than two items.
        """
        users, user_number = _numbered(train.user_index, train.num_users)
        items, item_number = _numbered(train.item_index, train.num_items)
        if len(items) < 2:
            raise InputError(
                f"At least 2 items are needed to rank.\nReceived: {len(items)} in the training pairs.\n"
                "Give more data, or hold out less of it."
            )
        return cls(users, items, user_number, item_number)

    def knows(self, pairs: Interactions) -> np.ndarray:
        """bool ``[N]``: whether training has both the user and the item."""
        return (self.user_number[pairs.user_index] >= 0) & (self.item_number[pairs.item_index] >= 0)

    def known(self, pairs: Interactions) -> Interactions:
        """The pairs whose user and item training has; the others are counted in the report, by reason."""
        pairs = pairs.where(self.user_number[pairs.user_index] >= 0, UNKNOWN_USER)
        return pairs.where(self.item_number[pairs.item_index] >= 0, UNKNOWN_ITEM)

    def matrix(self, pairs: Interactions) -> scipy.sparse.csr_matrix:
        """The values of known pairs, float32 ``[U, I]``, columns sorted."""
        return matrix_of(
            pairs.values,
            self.user_number[pairs.user_index],
            self.item_number[pairs.item_index],
            (len(self.users), len(self.items)),
        )


def matrix_of(
    values: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]
) -> scipy.sparse.csr_matrix:
    """A float32 matrix with sorted columns."""
    matrix = scipy.sparse.coo_matrix((values.astype(np.float32), (row, column)), shape=shape).tocsr()
    matrix.sort_indices()
    return matrix


def ones_at(row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> scipy.sparse.csr_matrix:
    """A matrix of ones; an event that occurs twice counts once."""
    matrix = matrix_of(np.ones(len(row), np.float32), row, column, shape)
    matrix.data[:] = 1.0
    return matrix


def _numbered(index: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    present = np.flatnonzero(np.bincount(index, minlength=count))
    number = np.full(count, -1, np.int32)
    number[present] = np.arange(len(present), dtype=np.int32)
    return present, number
