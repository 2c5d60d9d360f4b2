"""Positives with sampled negatives, made on the device: shuffling, negatives and all.

An epoch is one permutation of all positives, a function of (seed, epoch) alone; each positive brings its own
negatives, drawn again in each epoch, a function of (seed, epoch, its place). A global batch is a range of places and
each rank makes its own part of it, so any number of ranks together trains on the same samples, none of them twice.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.data.complement import Complement
from tfrec.data.counter_random import key, permute, uniform
from tfrec.data.device_integers import DeviceIntegers
from tfrec.data.pipelines import without_autotune
from tfrec.errors import InputError
from tfrec.ranks import ALONE, Ranks

Sampling = Literal["exact", "approximate"]
#: Tell the two uses of a seed apart.
_SHUFFLE, _NEGATIVES = 1, 2


class PointwiseSampler:
    """Batches of users with one positive and several negative items each, by the number of the step.

    Args:
        train: ``[U, I]``; an entry is a positive.
        global_batch_size: samples per step over all ranks, negatives included; the number of positives in it is
            ``global_batch_size // (1 + num_negatives)``.
        num_negatives: negatives per positive, from 0.
        sampling: ``exact``: uniform over the items that the user does not have in ``train``. ``approximate``: uniform
            over all items, so that now and then a negative is a positive of the user, as in NVIDIA's and MLPerf's NCF.
        seed: from 0.
        ranks: who shares the work.

    Memory: 8 bytes per positive and 8 per user, on the device.

    Raises:
        InputError: an argument out of range, no positives, a batch without a positive or larger than an epoch, or
            (``exact``) a user who has every item.

    Example:
        >>> import scipy.sparse
        >>> train = scipy.sparse.csr_matrix([[1, 0, 1, 0], [0, 1, 0, 0]])
        >>> sampler = PointwiseSampler(train, global_batch_size=9, num_negatives=2)
        >>> users, items = sampler.batch(0)
        >>> items.shape  # a positive and two negatives for each of three
        TensorShape([3, 3])
    """

    def __init__(
        self,
        train: scipy.sparse.csr_matrix,
        global_batch_size: int,
        num_negatives: int = 4,
        sampling: Sampling = "exact",
        seed: int = 0,
        ranks: Ranks = ALONE,
    ) -> None:
        for name, value, low in (("num_negatives", num_negatives, 0), ("seed", seed, 0)):
            if value < low:
                raise InputError(f"`{name}` must be at least {low}.\nReceived: {name}={value}.")
        if sampling not in ("exact", "approximate"):
            raise InputError(f"`sampling` must be 'exact' or 'approximate'.\nReceived: {sampling!r}.")
        if train.nnz == 0:
            raise InputError("There is no interaction to train on.\nReceived: an empty training matrix.")
        samples = train.nnz * (1 + num_negatives)
        if not 1 + num_negatives <= global_batch_size <= samples:
            raise InputError(
                f"`global_batch_size` counts samples: it must be at least {1 + num_negatives} (a positive with its "
                f"{num_negatives} negatives) and at most an epoch, {samples:,} samples.\n"
                f"Received: {global_batch_size:,}."
            )
        lengths = np.diff(train.indptr)
        if sampling == "exact" and num_negatives and lengths.max() >= train.shape[1]:
            full = np.flatnonzero(lengths >= train.shape[1])
            raise InputError(
                f"A user who has every one of the {train.shape[1]} items has no negative.\n"
                f"Received: {len(full)} such users, the first is number {full[0]}.\n"
                "Leave them out, or sample approximately: sampling='approximate', --training.sampling approximate."
            )
        self.num_positives = int(train.nnz)
        self.num_negatives = num_negatives
        self.sampling = sampling
        self.seed, self.rank, self.size = seed, ranks.rank, ranks.size
        self.positives_per_step = global_batch_size // (1 + num_negatives)
        self.num_items = train.shape[1]
        self._complement = Complement(train)
        self._users = DeviceIntegers(np.repeat(np.arange(train.shape[0], dtype=np.int32), lengths))

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see every positive once; the last one is as small as what is left."""
        return math.ceil(self.num_positives / self.positives_per_step)

    def steps(self, first: int = 0) -> tf.data.Dataset:
        """For each step of an epoch, from step ``first`` on, the number of this rank's positives, int64 scalars.

        What ``fit`` iterates over while the samples themselves come from `batch`; the numbers weight this rank's
        gradient among the others'.
        """

        def local(step: tf.Tensor) -> tf.Tensor:
            begin, end = self._share(step)
            return end - begin

        return without_autotune(tf.data.Dataset.range(first, self.steps_per_epoch).map(local))

    def _share(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """This rank's places in the permutation at a step of an epoch."""
        first = step * self.positives_per_step
        count = tf.minimum(self.num_positives - first, self.positives_per_step)
        return first + count * self.rank // self.size, first + count * (self.rank + 1) // self.size

    def batch(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """This rank's part of a step.

        Args:
            step: int64 scalar, counted on through the epochs.

        Returns:
            users int64 ``[P]`` and items int64 ``[P, 1 + num_negatives]``, of which column 0 is the positive. P may be
            0 in an epoch's last step.
        """
        step = tf.cast(step, tf.int64)
        epoch = step // self.steps_per_epoch
        place = tf.range(*self._share(step % self.steps_per_epoch))
        entry = permute(place, self.num_positives, key(self.seed, _SHUFFLE, epoch))
        users = self._users.gather(entry)
        positive = self._complement.item(entry, users)[:, None]
        if not self.num_negatives:
            return users, positive
        counter = place[:, None] * self.num_negatives + tf.range(self.num_negatives, dtype=tf.int64)
        bound = self._complement.count(users)[:, None] if self.sampling == "exact" else self.num_items
        number = uniform(counter, bound, key(self.seed, _NEGATIVES, epoch))
        negatives = self._complement.pick(users, number) if self.sampling == "exact" else number
        return users, tf.concat([positive, negatives], axis=1)
