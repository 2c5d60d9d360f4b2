"""A sparse gradient in which each row occurs once."""

from __future__ import annotations

import tensorflow as tf


def with_distinct_rows(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    """The same gradient, a row that occurs several times being one row with the sum; indices int64."""
    rows, place = tf.unique(tf.cast(gradient.indices, tf.int64), out_idx=tf.int64)
    sums = tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows, tf.int64))
    return tf.IndexedSlices(sums, rows, gradient.dense_shape)
