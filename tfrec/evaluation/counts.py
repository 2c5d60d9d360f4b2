"""Counting on the device."""

from __future__ import annotations

import tensorflow as tf

#: Up to here float32 has every whole number.
_EXACT = 1 << 24


def true_in_row(condition: tf.Tensor) -> tf.Tensor:
    """How many of ``condition`` ``[B, N]`` are true in each row, int64 ``[B]``, exact.

    As a sum of float32, or of int64 (twice the bytes) where a row is too long for that. Not of int32: a GPU has no such
    sum, and TensorFlow would copy all of it to the host.
    """
    return tf.cond(
        tf.shape(condition)[1] <= _EXACT,
        lambda: tf.cast(tf.reduce_sum(tf.cast(condition, tf.float32), axis=1), tf.int64),
        lambda: tf.reduce_sum(tf.cast(condition, tf.int64), axis=1),
    )
