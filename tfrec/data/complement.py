"""The items that a user does not have, by number, without a table of users x items."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.data.device_integers import DeviceIntegers
from tfrec.errors import InputError


class Complement:
    """For each user the ascending list of the items that are *not* in their row, looked up on the device.

    Of a user with sorted items ``c_0 < c_1 < ...`` there are ``c_k - k`` others below ``c_k``. Number r of the others
    is thus ``r + k`` with ``k = |{j : c_j - j <= r}|``, found by bisection: exact, without rejection, and the same few
    rounds for everybody.

    Args:
        matrix: ``[U, I]``; an entry, whatever its value, is an item that the user has.

    Memory: 4 bytes per entry and 8 per user.

    Raises:
        InputError: columns out of order or repeated.
    """

    def __init__(self, matrix: scipy.sparse.csr_matrix) -> None:
        offsets = matrix.indptr.astype(np.int64)
        lengths = np.diff(offsets)
        columns = matrix.indices.astype(np.int32)
        same_row = np.repeat(np.arange(len(lengths)), lengths)
        if ((np.diff(columns) <= 0) & (np.diff(same_row) == 0)).any():
            raise InputError(
                "The matrix must have each row's columns once and ascending.\nCall matrix.sum_duplicates()."
            )
        place = np.arange(len(columns), dtype=np.int64) - offsets[same_row]
        self._offsets = tf.constant(offsets)
        self._below = DeviceIntegers(columns - place)
        self.num_users, self.num_items = matrix.shape
        #: Rounds of bisection that the longest row needs.
        self._rounds = int(lengths.max(initial=0)).bit_length()

    def count(self, users: tf.Tensor) -> tf.Tensor:
        """How many items each of ``users`` (int64) does not have, int64."""
        return self.num_items - (tf.gather(self._offsets, users + 1) - tf.gather(self._offsets, users))

    def pick(self, users: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        """The item with this number among those that a user does not have.

        Args:
            users: int64 ``[B]``.
            number: int64 ``[B, N]``, in ``[0, count(users))``.

        Returns:
            int64 ``[B, N]``.
        """
        start = tf.gather(self._offsets, users)[:, None] + tf.zeros_like(number)
        low, high = start, tf.gather(self._offsets, users + 1)[:, None] + tf.zeros_like(number)
        for _ in range(self._rounds):
            middle = (low + high) // 2
            # Where low == high the place may be one past the end; the result is not used.
            below = self._below.gather(tf.minimum(middle, len(self._below) - 1))
            right = (below <= number) & (low < high)
            low, high = tf.where(right, middle + 1, low), tf.where(right, high, middle)
        return number + (low - start)

    def item(self, entry: tf.Tensor, users: tf.Tensor) -> tf.Tensor:
        """The item of the matrix's entry number ``entry``, int64, when ``users`` is its row."""
        place = entry - tf.gather(self._offsets, users)
        return self._below.gather(entry) + place
