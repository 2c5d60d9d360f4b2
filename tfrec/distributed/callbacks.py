"""Keras callbacks that keep ranks together."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfrec.distributed import ranks
from tfrec.distributed.optimizer import attach, digest, is_distributed, send_state
from tfrec.distributed.sharding import shard_of
from tfrec.errors import InputError, TfrecWarning

_BEGINS, _ENDS = "where fit begins", "where fit ends"
for _label in (_BEGINS, _ENDS):
    ranks.place(_label)


class DriftError(RuntimeError):
    """The ranks' weights are no longer the same: some rank trains alone. Every rank raises it."""

    on_all_ranks = True


class BroadcastCallback(keras.callbacks.Callback):
    """Rank 0's weights and optimizer state on every rank before the first step.

    A model whose weights come to be in the first step (without `keras.Input`) gets them then, before it runs. Also
    has the model report batch sizes to its `DistributedOptimizer`, so that gradients are averaged by sample.

    Raises:
        InputError: several ranks, and the model's optimizer is not distributed.
        SharedError: the ranks have other numbers of epochs, steps or weights.
    """

    def set_model(self, model: keras.Model) -> None:
        """Check the optimizer and connect it, before the training function is traced."""
        super().set_model(model)
        if is_distributed(model.optimizer):
            attach(model)
        elif ranks.size() > 1:
            raise InputError(
                f"The model's optimizer is not distributed, so {ranks.size()} ranks would train apart.\n"
                "Compile with tfrec.distributed.DistributedOptimizer(...), or call tfrec.distributed.distribute(model)."
            )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Compare the numbers of epochs and steps, and send the state. Seeds and metrics stay each rank's own."""
        if ranks.size() == 1:
            return
        model = self.model
        model.optimizer._epoch_steps.assign(0)
        params = self.params or {}
        ranks.agree(
            {"epochs": params.get("epochs"), "steps per epoch": params.get("steps")},
            "The ranks are not about to make the same number of steps",
            "Give all ranks as many batches: `steps_per_epoch` of fit with a data set that repeats, or `take(n)`.",
        )
        built = bool(model.weights) and all(layer.built for layer in model._flatten_layers())
        if all(ranks.exchange(built, _BEGINS)):
            send_state(model)
            return
        # Whichever rank has weights already: all send and receive them in their first step.
        model.optimizer._same_weights = False
        model.make_train_function(force=True)


class StateAverageCallback(keras.callbacks.Callback):
    """What each rank's forward passes have changed by themselves becomes the same on all, at the end of each epoch.

    BatchNormalization's moving statistics follow each rank's own batches. At the end of an epoch, before validation,
    every floating-point weight that is not trained and differs between ranks becomes its mean over the ranks, weighted
    by the epoch's training samples. `tfrec.layers.CachedTTEmbedding` adds up its counts. Integer weights are left
    alone: they are equal, or `DriftCallback` raises.

    Also the place where the ranks find out that one has ended its epoch earlier than the others.
    """

    def __init__(self) -> None:
        super().__init__()
        self._epoch: int | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start counting."""
        self._epoch = epoch
        # Known to all, so that each can say where another is.
        ranks.place(f"at the end of epoch {epoch + 1}")
        if is_distributed(self.model.optimizer):
            self.model.optimizer._epoch_samples.assign(0)
            self.model.optimizer._epoch_steps.assign(0)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Average before validation, on ranks that validate."""
        self._end_epoch()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Average, on ranks that did not validate."""
        self._end_epoch()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Find out whether all ranks end here."""
        ranks.exchange(None, _ENDS)

    def _end_epoch(self) -> None:
        epoch, self._epoch = self._epoch, None
        if epoch is None or ranks.size() == 1:
            return
        model = self.model
        exchanging = [layer for layer in model._flatten_layers() if hasattr(layer, "exchange_with")]
        own = {id(w) for layer in exchanging for w in layer.weights}
        averaged = [
            w
            for w in model.non_trainable_weights
            if id(w) not in own and shard_of(w) is None and keras.backend.is_float_dtype(w.dtype)
        ]
        optimizer = model.optimizer
        mine: dict[str, Any] = {
            "steps": int(optimizer._epoch_steps.numpy()),
            "samples": int(optimizer._epoch_samples.numpy()),
            "weights": [digest(w.value) for w in averaged],
        }
        label = f"at the end of epoch {epoch + 1}"
        everyone = ranks.exchange(mine, label)
        if len({one["steps"] for one in everyone}) > 1:
            rows = np.array([[ranks.place(label), 0, one["steps"]] for one in everyone], np.float64)
            raise ranks.apart(rows)
        for layer in exchanging:
            layer.synchronize()
        total = sum(one["samples"] for one in everyone)
        for i, weight in enumerate(averaged):
            if total and len({one["weights"][i] for one in everyone}) > 1:
                value = np.asarray(keras.ops.convert_to_numpy(weight), np.float64)
                part = everyone[ranks.rank()]["samples"]
                # A rank without samples may have made anything of nothing.
                mean = ranks.sum_across_ranks(value * part if part else np.zeros_like(value)) / total
                weight.assign(mean.astype(value.dtype))


class MetricAverageCallback(keras.callbacks.Callback):
    """Epoch logs averaged over ranks by sample: every rank then sees, and acts on, the same numbers.

    ``val_`` logs are averaged by the samples that each rank validated on, all others by those it trained on. A log
    that only some ranks have becomes the mean of those, on every rank. Put it before callbacks that read logs.
    Metrics must be means over samples, as losses are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._before = 0
        self._validated = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start counting samples."""
        self._validated = 0
        if is_distributed(self.model.optimizer):
            self.model.optimizer._epoch_samples.assign(0)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start counting samples of validation."""
        if is_distributed(self.model.optimizer):
            self._before = int(self.model.optimizer._validation_samples.numpy())

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """End counting them."""
        if is_distributed(self.model.optimizer):
            self._validated = int(self.model.optimizer._validation_samples.numpy()) - self._before

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Replace the values in ``logs``."""
        if ranks.size() == 1 or logs is None:
            return
        trained = int(self.model.optimizer._epoch_samples.numpy())
        mine: dict[str, tuple[float, int]] = {}
        for name, value in logs.items():
            samples = self._validated if name.startswith("val_") else trained
            # A rank without samples has metrics of 0/0.
            mine[name] = (float(value) if samples else 0.0, samples)
        everyone = ranks.exchange(mine, f"where the logs of epoch {epoch + 1} are averaged")
        for name in dict.fromkeys(name for one in everyone for name in one):
            values = [one[name] for one in everyone if name in one]
            logs[name] = sum(value * samples for value, samples in values) / max(sum(s for _, s in values), 1)


class DriftCallback(keras.callbacks.Callback):
    """Compares the ranks' weights, bit for bit, after each epoch.

    Weights that `StateAverageCallback` averages are compared after that, so put it before this one.

    Raises:
        DriftError: they differ; the message names the first weight that does, and the ranks.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare."""
        if ranks.size() == 1:
            return
        # A part of a table is each rank's own.
        weights = [w for w in self.model.weights if shard_of(w) is None]
        everyone = ranks.exchange([digest(w.value) for w in weights], f"where weights are compared, epoch {epoch + 1}")
        for i, weight in enumerate(weights):
            apart = [r for r, one in enumerate(everyone) if one[i] != everyone[0][i]]
            if not apart:
                continue
            raise DriftError(
                f"After epoch {epoch + 1} the weights differ between ranks: {weight.path} on ranks {apart} is not that "
                f"of rank 0 (hosts {', '.join(ranks.host(r) for r in [0, *apart])}).\n"
                "Is every gradient reduced, and does every rank start from the same weights? Use "
                "tfrec.distributed.distribute(model) and BroadcastCallback. A weight that is not trained may only "
                "depend on the data if it is a floating-point number: StateAverageCallback then averages it."
            )


class StopTogetherCallback(keras.callbacks.Callback):
    """When a callback on one rank stops the training (``model.stop_training``), all stop after the same epoch.

    Put it after all other callbacks; `tfrec.distributed.distribute` does.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Ask."""
        if ranks.size() == 1:
            return
        mine = bool(self.model.stop_training)
        stops = ranks.exchange(mine, f"after epoch {epoch + 1}")
        some = [r for r, stop in enumerate(stops) if stop]
        if some and len(some) < len(stops):
            self.model.stop_training = True
            if ranks.rank() == 0:
                warnings.warn(
                    f"{ranks.named(some)} stopped training after epoch {epoch + 1}, so all ranks stop.",
                    TfrecWarning,
                    stacklevel=2,
                )


def with_callbacks(model: keras.Model) -> Callable[..., Any]:
    """``model.fit`` with the callbacks of this module, but for those that the caller gives himself."""
    fit = model.fit
    if getattr(fit, "has_callbacks_of_ranks", False):
        return fit
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def fit_on_ranks(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind_partial(*args, **kwargs)
        given = bound.arguments.get("callbacks")
        if not isinstance(given, keras.callbacks.CallbackList):
            given = [*given] if isinstance(given, Sequence) else [given] if given is not None else []
            if not any(isinstance(c, BroadcastCallback) for c in given):
                given = [*callbacks(), *given]
            elif not any(isinstance(c, StateAverageCallback) for c in given):
                given = [StateAverageCallback(), *given]
            bound.arguments["callbacks"] = [*given, StopTogetherCallback()]
        return fit(*bound.args, **bound.kwargs)

    fit_on_ranks.has_callbacks_of_ranks = True  # type: ignore[attr-defined]
    return fit_on_ranks


def callbacks() -> list[keras.callbacks.Callback]:
    """What a distributed ``fit`` needs, to go before callbacks that read logs."""
    return [BroadcastCallback(), StateAverageCallback(), MetricAverageCallback(), DriftCallback()]
