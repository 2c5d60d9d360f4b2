"""Keras callbacks that keep ranks together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfrec.distributed import ranks
from tfrec.distributed.optimizer import is_distributed, report_batch_sizes
from tfrec.errors import InputError


class DriftError(RuntimeError):
    """The ranks' weights are no longer the same: some rank trains alone."""


def broadcast_state(variables: Sequence[keras.Variable]) -> None:
    """Rank 0's values in every rank's variables. Every process must call it."""
    if ranks.size() > 1:
        for variable in variables:
            variable.assign(ranks.broadcast_from_zero(np.asarray(variable.value)))


class BroadcastCallback(keras.callbacks.Callback):
    """Rank 0's weights and optimizer state on every rank before the first step.

    Also has the model report batch sizes to its `DistributedOptimizer`, so that gradients are averaged by sample.

    Raises:
        InputError: several ranks, and the model's optimizer is not distributed.
    """

    def set_model(self, model: keras.Model) -> None:
        """Check the optimizer and hook the batch sizes, before the training function is traced."""
        super().set_model(model)
        if is_distributed(model.optimizer):
            report_batch_sizes(model)
        elif ranks.size() > 1:
            raise InputError(
                f"The model's optimizer is not distributed, so {ranks.size()} ranks would train apart.\n"
                "Compile with tfrec.distributed.DistributedOptimizer(...), or call tfrec.distributed.distribute(model)."
            )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Send the state. Seeds and metrics stay each rank's own."""
        if ranks.size() == 1:
            return
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        broadcast_state([*self.model.weights, *self.model.optimizer.variables])


class MetricAverageCallback(keras.callbacks.Callback):
    """Epoch logs averaged over ranks by sample: every rank then sees, and acts on, the same numbers.

    Put it before callbacks that read logs. Metrics must be means over samples, as losses are.
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start counting samples."""
        if is_distributed(self.model.optimizer):
            self.model.optimizer._epoch_samples.assign(0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Replace the values in ``logs``."""
        if ranks.size() == 1 or not logs:
            return
        samples = float(self.model.optimizer._epoch_samples.numpy())
        names = sorted(logs)
        # A rank without samples has metrics of 0/0.
        mine = np.array([samples * logs[n] if samples else 0.0 for n in names] + [samples])
        total = ranks.sum_across_ranks(mine)
        for name, value in zip(names, total[:-1] / max(total[-1], 1.0), strict=True):
            logs[name] = float(value)


class DriftCallback(keras.callbacks.Callback):
    """Compares the ranks' weights, bit for bit, after each epoch.

    Raises:
        DriftError: they differ; the message names the first weight that does, and the ranks.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare."""
        if ranks.size() == 1:
            return
        weights = self.model.weights
        digests = [hashlib.blake2b(np.ascontiguousarray(w.value).tobytes(), digest_size=8).digest() for w in weights]
        mine = np.frombuffer(b"".join(digests), np.int64)
        everyone = ranks.gather_across_ranks(mine)
        if (everyone == everyone[0]).all():
            return
        first = int(np.flatnonzero((everyone != everyone[0]).any(axis=0))[0])
        apart = np.flatnonzero(everyone[:, first] != everyone[0, first]).tolist()
        raise DriftError(
            f"After epoch {epoch + 1} the weights differ between ranks ({ranks.where()}): {weights[first].path} on "
            f"ranks {apart} is not that of rank 0.\nIs every gradient reduced, and does every rank start from the "
            "same weights? Use tfrec.distributed.distribute(model) and BroadcastCallback."
        )


class LearningRateWarmup(keras.callbacks.Callback):
    """The learning rate grows linearly to its target over the first steps (Goyal et al., 2017, section 2.2).

    The linear scaling rule there takes ``target = learning_rate * size`` when the global batch grows with the number
    of ranks; see `scaled_learning_rate`.

    Args:
        target: the learning rate after the warm-up.
        warmup_steps: steps to reach it, from 1.
    """

    def __init__(self, target: float, warmup_steps: int) -> None:
        super().__init__()
        if warmup_steps < 1:
            raise InputError(f"`warmup_steps` must be at least 1.\nReceived: {warmup_steps}.")
        self.target, self.warmup_steps = target, warmup_steps

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the learning rate of this step."""
        # Counted by the optimizer, so that a resumed run goes on where it was.
        step = int(self.model.optimizer.iterations.numpy()) + 1
        if step <= self.warmup_steps:
            self.model.optimizer.learning_rate = self.target * step / self.warmup_steps


def scaled_learning_rate(learning_rate: float, local_batch_size: int, reference_batch_size: int) -> float:
    """The linear scaling rule: ``learning_rate * (local_batch_size * size) / reference_batch_size``.

    Args:
        learning_rate: found good for ``reference_batch_size``.
        local_batch_size: samples per step on each rank.
        reference_batch_size: samples per step when ``learning_rate`` was chosen.
    """
    return learning_rate * local_batch_size * ranks.size() / reference_batch_size


def callbacks() -> list[keras.callbacks.Callback]:
    """What a distributed ``fit`` needs, to go before callbacks that read logs."""
    return [BroadcastCallback(), MetricAverageCallback(), DriftCallback()]
