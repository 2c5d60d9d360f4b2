"""A CSR matrix on the device, and batches of its rows gathered there."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.data.device_integers import DeviceIntegers


class ResidentMatrix:
    """A user-item matrix that lives where the computation is, so that a batch is named by its users alone.

    The item indices and values, nearly all of the bytes, are on the device. The row offsets stay on the host, which
    thus has a batch's number of non-zeros without asking the device: the device never waits.

    Args:
        matrix: ``[U, I]``, columns sorted.

    Memory: 4 bytes per non-zero, 8 when the values are not all 1.
    """

    def __init__(self, matrix: scipy.sparse.csr_matrix) -> None:
        with tf.device("CPU:0"):
            self._offsets = tf.constant(matrix.indptr.astype(np.int64))
        self._columns = DeviceIntegers(matrix.indices)
        only_ones = matrix.nnz == 0 or (matrix.data.min() == 1 and matrix.data.max() == 1)
        self._values = None if only_ones else tf.constant(matrix.data.astype(np.float32))
        self._num_columns = matrix.shape[1]

    def gather(self, users: tf.Tensor) -> tf.SparseTensor:
        """The rows of ``users`` (int64 ``[B]``) in that order, as a SparseTensor ``[B, I]``."""
        with tf.device("CPU:0"):
            starts = tf.gather(self._offsets, users)
            lengths = tf.gather(self._offsets, users + 1) - starts
            ends = tf.cumsum(lengths)
            count = tf.reduce_sum(lengths)
        entry = tf.range(count, dtype=tf.int64)
        row = tf.searchsorted(ends, entry, side="right", out_type=tf.int64)
        position = entry + tf.gather(starts - (ends - lengths), row)
        column = self._columns.gather(position)
        values = tf.ones_like(column, tf.float32) if self._values is None else tf.gather(self._values, position)
        shape = tf.stack([tf.shape(users, out_type=tf.int64)[0], tf.constant(self._num_columns, tf.int64)])
        rows = tf.SparseTensor(tf.stack([row, column], axis=1), values, shape)
        rows.set_shape(tf.TensorShape([None, self._num_columns]))
        return rows


def to_sparse_tensor(matrix: scipy.sparse.csr_matrix) -> tf.SparseTensor:
    """The same matrix as a float32 SparseTensor ``[B, I]``."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    indices = np.stack([rows, matrix.indices.astype(np.int64)], axis=1)
    return tf.SparseTensor(indices, matrix.data.astype(np.float32), matrix.shape)
