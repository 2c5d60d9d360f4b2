"""What the families that are trained by Adam share: checks, the learning rate, the loop with its recorder."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec import distributed
from tfrec.distributed.elastic_state import is_whole
from tfrec.errors import InputError
from tfrec.evaluation import Report
from tfrec.families.config import FitConfig
from tfrec.families.family import Outcome, Trainer
from tfrec.optimizers import Adam
from tfrec.runs.checkpoint import load_state, resume_state
from tfrec.runs.folder import RunFolder
from tfrec.runs.recorder import Recorder, check_loss

#: Apart from each other by more than any number of ranks, so that no two (seed, rank) share their noise.
_SEED_STRIDE = 1_000_003


class GradientTrainer(Trainer):
    """A training by epochs of steps.

    Args:
        training: the settings.
        model: compiled, `distribute` called.
        batches: what `model.fit` iterates over, from an epoch and a step of it on.
        steps: of an epoch.
        samples: training samples in an epoch, over all ranks.
        unit: what they are.
        global_batch_size: samples of a step over all ranks.
        about: what is about to be trained, for the first lines of a run.
        summary: more to say of the training in metrics.json.
        limit_steps: the batches do not end with an epoch, so `model.fit` is given their number.
    """

    def __init__(
        self,
        training: FitConfig,
        model: Any,
        batches: Callable[[int, int], Any],
        *,
        steps: int,
        samples: int,
        unit: str,
        global_batch_size: int,
        about: str,
        summary: dict[str, Any] | None = None,
        limit_steps: bool = False,
    ) -> None:
        self.training, self.model, self.batches = training, model, batches
        self.steps, self.samples, self.unit = steps, samples, unit
        self.global_batch_size, self.about = global_batch_size, about
        self._summary, self._limit_steps = summary or {}, limit_steps
        self._progress: dict[str, Any] | None = None

    def resume(self, folder: RunFolder, monitor: str) -> int:
        """The state of an earlier start, which is then in rank 0's model; see `resume_state`. Of a run that has lost a
        worker: the last commit, which `fit` puts into every rank's.
        """
        state = self.elastic
        if state is not None and state.commits and is_whole(self.model):
            self._progress = state.values["progress"]
            return state.epoch
        if state is not None:
            state.clear()
        self._progress = resume_state(folder.last, folder.best, self.model, monitor)
        return self._progress["epoch"] if self._progress else 0

    def fit(self, folder: RunFolder, monitor: str, validate: Callable[[], Report]) -> Outcome:
        """Epochs with validation; then the best one's weights."""
        assert self.steps is not None
        recorder = Recorder(
            folder,
            self.training,
            monitor,
            validate=validate,
            samples=self.samples,
            unit=self.unit,
            steps=self.steps,
            progress=self._progress,
        )
        first_epoch = self._progress["epoch"] if self._progress else 0
        if first_epoch < self.training.epochs and not recorder.done:
            with contextlib.closing(recorder):
                self._epochs(recorder, first_epoch)
        # Before the best weights are read, which need memory.
        release_training(self.model)
        load_state(folder.best, self.model, optimizer=False)
        # Every rank measures it.
        distributed.broadcast_state(self.model.weights)
        rows, best = recorder.rows, recorder.best["epoch"] if recorder.best else None
        speeds = [row[f"{self.unit}_per_second"] for row in rows]
        return Outcome(
            {
                "epochs": len(rows),
                "best_epoch": best,
                "global_batch_size": self.global_batch_size,
                "parameters": num_parameters(self.model),
                **self._summary,
                f"{self.unit}_per_second": speeds,
                f"median_{self.unit}_per_second": float(np.median(speeds)),
                "seconds": round(sum(row["seconds"] for row in rows), 2),
            },
            rows,
            self.unit.removesuffix("s"),
            best,
        )

    def _epochs(self, recorder: Recorder, first_epoch: int) -> None:
        assert self.steps is not None
        options = {"epochs": self.training.epochs, "shuffle": False, "verbose": 0}
        callbacks = [*self._callbacks(), recorder]
        if self.elastic is None:
            steps = self.steps if self._limit_steps else None
            batches = self.batches(first_epoch, 0)
            self.model.fit(batches, initial_epoch=first_epoch, steps_per_epoch=steps, callbacks=callbacks, **options)
            return
        state = self.elastic
        if not state.commits:
            state.epoch = first_epoch
        # Keras returns to Python, where a commit is made, after so many.
        self.model.steps_per_execution = min(self.model.steps_per_execution, self.commit_every)

        def remember() -> None:
            state.values["progress"] = {**recorder.progress, "seconds": recorder.seconds}

        state.fit(
            self.model,
            self.batches,
            steps_per_epoch=self.steps,
            limit_steps=self._limit_steps,
            commit_every=self.commit_every,
            before_commit=remember,
            callbacks=callbacks,
            **options,
        )

    def fit_anew(self, epochs: int) -> Any:
        """The model after a number of epochs without validation."""
        if distributed.rank() == 0:
            print(f"Training again on {self.samples:,} {self.unit} for {epochs} epochs.", flush=True)

        def shown(epoch: int, logs: dict[str, float]) -> None:
            check_loss(logs["loss"], epoch + 1, self.training)
            if distributed.rank() == 0:
                print(f"epoch {epoch + 1}/{epochs}  loss {logs['loss']:.4f}", flush=True)

        self.model.fit(
            self.batches(0, 0),
            epochs=epochs,
            steps_per_epoch=self.steps if self._limit_steps else None,
            shuffle=False,
            verbose=0,
            callbacks=[*distributed.callbacks(), keras.callbacks.LambdaCallback(on_epoch_end=shown)],
        )
        release_training(self.model)
        return self.model

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        found: list[keras.callbacks.Callback] = [
            distributed.BroadcastCallback(),
            distributed.StateAverageCallback(),
            distributed.MetricAverageCallback(),
        ]
        return [*found, distributed.DriftCallback()] if self.training.compare_ranks else found


def release_training(model: Any) -> None:
    """Give back what only training needs: of Adam twice the size of the weights, which saving has a use for.

    The model is then as one that was never compiled. The optimizer's state is in the checkpoint.
    """
    # Deleted, since Keras and TensorFlow keep lists of what is set; then set again, since Keras reads some of it.
    distributed.detach(model)
    for name in ("optimizer", "_loss_tracker", "train_function", "test_function", "predict_function"):
        if hasattr(model, name):
            delattr(model, name)
    model._loss_tracker = model.train_function = model.test_function = model.predict_function = None
    model.compiled = False
    gc.collect()  # graphs and optimizer refer to each other


def num_parameters(model: keras.Model) -> int:
    """Numbers in a model's weights, on all ranks together."""
    total = 0
    for weight in model.weights:
        shard = distributed.shard_of(weight)
        total += math.prod(weight.shape if shard is None else (shard.rows, *weight.shape[1:]))
    return total


def begin(training: FitConfig, seed: int) -> None:
    """Set this process's precision and seeds."""
    if training.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(training.precision)
    keras.utils.set_random_seed(seed)


def adam(training: FitConfig, steps: int, **kwargs: Any) -> Adam:
    """The optimizer that the settings describe."""
    return Adam(
        learning_rate(training, steps),
        beta_1=training.beta_1,
        beta_2=training.beta_2,
        epsilon=training.epsilon,
        global_clipnorm=training.clip_norm,
        **kwargs,
    )


def distribute(model: keras.Model, training: FitConfig) -> None:
    """Gradients of the union of all ranks' batches; and the optimizer's state, made."""
    distributed.distribute(
        model,
        compression=training.compression,
        backward_passes_per_step=training.backward_passes_per_step,
    )
    model.optimizer.build(model.trainable_variables)


def noise_seed(seed: int) -> int:
    """This rank's seed of dropout and sampling noise."""
    return (seed + _SEED_STRIDE * distributed.rank()) % 2**31


def check_fit(training: FitConfig, seed: int) -> None:
    """Raise InputError for settings out of range, before anything is loaded."""
    wholes = {name: 1 for name in ("epochs", "validate_every", "checkpoint_every", "patience")}
    wholes |= {"global_batch_size": 1, "steps_per_call": 1, "backward_passes_per_step": 1, "warmup_steps": 0}
    for name, low in wholes.items():
        value = getattr(training, name, None)
        if value is not None and value < low:
            raise InputError(
                f"`{name}` must be at least {low}.\nReceived: --training.{name.replace('_', '-')} {value}."
            )
    for name, above, below in (
        ("learning_rate", 0.0, math.inf),
        ("clip_norm", 0.0, math.inf),
        ("epsilon", 0.0, math.inf),
        ("beta_1", 0.0, 1.0),
        ("beta_2", 0.0, 1.0),
    ):
        value = getattr(training, name)
        if value is not None and not above < value < below:
            raise InputError(
                f"`{name}` must be {'positive' if below == math.inf else 'between 0 and 1'}.\n"
                f"Received: --training.{name.replace('_', '-')} {value}."
            )
    if not 0 <= seed < 2**31:
        raise InputError(f"`seed` must lie in [0, 2^31).\nReceived: --seed {seed}.")


def check_updates(training: FitConfig, steps: int) -> None:
    """Raise InputError when there are fewer updates than the settings need."""
    updates = training.epochs * steps // training.backward_passes_per_step
    if updates == 0:
        raise InputError(
            f"No update would be made: {training.epochs} epochs have {training.epochs * steps} steps.\n"
            f"Received: --training.backward-passes-per-step {training.backward_passes_per_step}."
        )
    if training.warmup_steps >= updates:
        raise InputError(
            f"`warmup_steps` must be less than the number of updates, {updates}.\n"
            f"Received: --training.warmup-steps {training.warmup_steps}."
        )


def learning_rate(training: FitConfig, steps: int) -> Any:
    """A number, or the schedule over all updates."""
    peak, warmup = training.learning_rate, training.warmup_steps
    # Linear, the whole rate from the last warm-up step on (Goyal et al., 2017, section 2.2).
    rising = max(0, warmup - 1)
    if training.schedule == "constant":
        return keras.optimizers.schedules.PolynomialDecay(peak / warmup, rising, peak) if rising else peak
    updates = training.epochs * steps // training.backward_passes_per_step
    return keras.optimizers.schedules.CosineDecay(
        peak / warmup if rising else peak,
        updates - rising,
        warmup_target=peak if rising else None,
        warmup_steps=rising,
    )
