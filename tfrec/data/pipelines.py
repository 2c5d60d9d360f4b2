"""tf.data pipelines over the rows of a user-item matrix.

An epoch is one permutation of all users, a function of (seed, epoch) alone: the same on every rank, and the same
after a restart. It is cut into global batches; each rank takes its contiguous share of every one. No user is
dropped: the last global batch is as small as what is left, and a rank's share of it may be empty, so that every rank
makes the same number of steps.
"""

from __future__ import annotations

import math

import scipy.sparse
import tensorflow as tf

from tfrec.data.csr import ResidentMatrix
from tfrec.errors import InputError
from tfrec.ranks import ALONE, Ranks


def steps_per_epoch(num_users: int, global_batch_size: int) -> int:
    """Steps that see every user once."""
    return math.ceil(num_users / global_batch_size)


def user_batches(
    num_users: int,
    global_batch_size: int,
    *,
    seed: int = 0,
    shuffle: bool = True,
    epochs: int | None = 1,
    first_epoch: int = 0,
    first_step: int = 0,
    ranks: Ranks = ALONE,
) -> tf.data.Dataset:
    """This rank's batches of user indices, int64 ``[B]``.

    Args:
        num_users: U, from 1.
        global_batch_size: users per step over all ranks, from 1.
        seed: of the permutations.
        shuffle: False keeps users in order.
        epochs: how many; None: without end, for ``fit(..., steps_per_epoch=...)``. Iterated a second time, a finite
            pipeline gives the same epochs again.
        first_epoch: number of the first epoch, for resuming.
        first_step: of the first epoch, to resume within it; in ``[0, steps)``.
        ranks: who shares the work.
    """
    for name, value in (("num_users", num_users), ("global_batch_size", global_batch_size)):
        if value < 1:
            raise InputError(f"`{name}` must be at least 1.\nReceived: {name}={value}.")
    steps = steps_per_epoch(num_users, global_batch_size)
    if not 0 <= first_step < steps:
        raise InputError(
            f"`first_step` must lie in [0, {steps}), the steps of an epoch.\nReceived: first_step={first_step}."
        )

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        users = tf.range(num_users, dtype=tf.int64)
        if shuffle:
            users = tf.random.experimental.stateless_shuffle(users, seed=tf.stack([tf.cast(seed, tf.int64), epoch]))

        def share(step: tf.Tensor) -> tf.Tensor:
            start = step * global_batch_size
            count = tf.minimum(num_users - start, global_batch_size)
            return users[start + count * ranks.rank // ranks.size : start + count * (ranks.rank + 1) // ranks.size]

        begin = tf.where(tf.equal(epoch, first_epoch), tf.constant(first_step, tf.int64), 0)
        return tf.data.Dataset.range(begin, steps).map(share)

    last = tf.int64.max if epochs is None else first_epoch + epochs
    batches = tf.data.Dataset.range(first_epoch, last).flat_map(epoch_batches)
    if epochs is not None:
        batches = batches.apply(tf.data.experimental.assert_cardinality(epochs * steps - first_step))
    return without_autotune(batches)


def sparse_batches(
    matrix: scipy.sparse.csr_matrix,
    global_batch_size: int,
    *,
    seed: int = 0,
    shuffle: bool = True,
    epochs: int | None = 1,
    first_epoch: int = 0,
    first_step: int = 0,
    ranks: Ranks = ALONE,
) -> tf.data.Dataset:
    """This rank's batches of rows, SparseTensors ``[B, I]``, gathered on the host ahead of time.

    Arguments as in `user_batches`, with the matrix ``[U, I]`` in place of the number of users.
    """
    with tf.device("CPU:0"):
        gather = ResidentMatrix(matrix).gather
    batches = user_batches(
        matrix.shape[0],
        global_batch_size,
        seed=seed,
        shuffle=shuffle,
        epochs=epochs,
        first_epoch=first_epoch,
        first_step=first_step,
        ranks=ranks,
    )
    return batches.map(gather, num_parallel_calls=2, deterministic=True).prefetch(2)


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same elements, without tf.data's tuning thread.

    That thread sleeps for 10 ms, then 20, 40 and so on, and now and then misses the call to stop: the iterator's
    destructor, and with it ``fit``, then waits until the sleep is over, that is until 2.6, 5.1, 10.2 or 20.5 seconds
    after its start. There is nothing to tune here.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
