"""What every optimisation shares: checks of its settings, the learning rate, callbacks, resuming."""

from __future__ import annotations

import math
from typing import Any

import keras

from tfrec import distributed
from tfrec.configs import FitConfig
from tfrec.errors import InputError
from tfrec.training.checkpoint import load_state, resume_state
from tfrec.training.claim import on_rank_zero
from tfrec.training.recorder import Recorder
from tfrec.training.run_folder import RunFolder

#: Apart from each other by more than any number of ranks, so that no two (seed, rank) share their noise.
_SEED_STRIDE = 1_000_003


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


def fit_callbacks(training: FitConfig, recorder: Recorder) -> list[keras.callbacks.Callback]:
    """Those that keep ranks together, then ``recorder``."""
    found: list[keras.callbacks.Callback] = [
        distributed.BroadcastCallback(),
        distributed.StateAverageCallback(),
        distributed.MetricAverageCallback(),
    ]
    if training.compare_ranks:
        found.append(distributed.DriftCallback())
    return [*found, recorder]


def resume(folder: RunFolder, model: keras.Model, monitor: str) -> dict[str, Any] | None:
    """The progress of an earlier start, whose state is then in rank 0's model; see `resume_state`."""
    return on_rank_zero(lambda: resume_state(folder.last, folder.best, model, monitor))


def restore_best(folder: RunFolder, model: keras.Model) -> None:
    """The best epoch's weights in every rank's model, since all ranks measure it."""
    on_rank_zero(lambda: load_state(folder.best, model, optimizer=False))
    distributed.broadcast_state(model.weights)
