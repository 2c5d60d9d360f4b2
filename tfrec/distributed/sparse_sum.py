"""Sums of sparse gradients over ranks, equal to the last bit on every rank.

Every rank adds up what all ranks sent, and the weights stay equal only if the sums do. On a GPU a sum by segments adds
with atomic operations, in whichever order its threads come: two numbers give the same sum in both orders, three do not.
So the ranks' parts are added one after another, in the order of the ranks, and a part holds each row once.
"""

from __future__ import annotations

import tensorflow as tf


def sum_in_rank_order(
    indices: tf.Tensor, values: tf.Tensor, counts: tf.Tensor, num_ranks: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Add up the ranks' parts, which follow one another in the order of the ranks.

    Args:
        indices: int64 ``[N]``; within a rank's part each row once.
        values: ``[N, ...]``.
        counts: int64 ``[num_ranks]``, how many of the N are each rank's; in host memory, where bounds are read.
        num_ranks: number of parts.

    Returns:
        The rows, each once, in the order of their first occurrence, and for each the sum: that of rank 0, plus that of
        rank 1, and so on, each addition rounded.
    """
    rows, place = tf.unique(indices, out_idx=tf.int64)
    total = tf.zeros(tf.concat([tf.shape(rows), tf.shape(values)[1:]], axis=0), values.dtype)
    begin = tf.zeros([], tf.int64)
    for r in range(num_ranks):
        end = begin + counts[r]
        total = tf.tensor_scatter_nd_add(total, place[begin:end, None], values[begin:end])
        begin = end
    return rows, total
