"""Train VAE-CF from a config to a finished run folder."""

from __future__ import annotations

import math
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec import distributed
from tfrec.configs import TrainingConfig, VAECFRun
from tfrec.data.csr import ResidentMatrix
from tfrec.data.pipelines import sparse_batches, steps_per_epoch, user_batches
from tfrec.errors import InputError
from tfrec.models import VAECF
from tfrec.optimizers import Adam
from tfrec.training.checkpoint import load_state
from tfrec.training.claim import on_rank_zero
from tfrec.training.finish import finish
from tfrec.training.prepare import check_evaluation, prepare
from tfrec.training.recorder import Recorder
from tfrec.training.report import measure, model_scorer
from tfrec.training.run_folder import RunFolder

#: Apart from each other by more than any number of ranks, so that no two (seed, rank) share their noise.
_SEED_STRIDE = 1_000_003


def train_vae_cf(recipe: str, config: VAECFRun, folder: RunFolder, started: float) -> dict[str, Any]:
    """Train, validate, test, and write everything into ``folder``.

    Args:
        recipe: its name.
        config: the settings.
        folder: the run's folder, looked at but not claimed yet.
        started: `time.perf_counter` at the start of the program.

    Returns:
        The content of metrics.json.

    Raises:
        InputError: settings or data that cannot be trained on.
    """
    training = config.training
    _check(training, config.seed)
    if training.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(training.precision)
    keras.utils.set_random_seed(config.seed)
    data = prepare(config.data)
    train = data.split.train
    num_users, num_items = train.shape
    check_evaluation(config.evaluation, num_items)
    global_batch_size = _global_batch_size(training, num_users)
    rank, size = distributed.rank(), distributed.size()
    model = VAECF(
        num_items,
        hidden_dims=config.model.hidden_dims,
        latent_dim=config.model.latent_dim,
        dropout=config.model.dropout,
        kl_cap=config.model.kl_cap,
        kl_anneal_steps=config.model.kl_anneal_steps,
        l2=config.model.l2,
        variational=config.model.variational,
        noise_seed=(config.seed + _SEED_STRIDE * rank) % 2**31,
    )
    steps = steps_per_epoch(num_users, global_batch_size)
    _check_updates(training, steps)
    on_device = training.pipeline == "device"
    model.compile(
        Adam(
            _learning_rate(training, steps),
            beta_1=training.beta_1,
            beta_2=training.beta_2,
            global_clipnorm=training.clip_norm,
        ),
        gather=ResidentMatrix(train).gather if on_device else None,
    )
    distributed.distribute(
        model,
        compression=training.compression,
        backward_passes_per_step=training.backward_passes_per_step,
    )
    model.optimizer.build(model.trainable_variables)
    # Everything that can be wrong with the settings and the data has been looked at: now the folder may be touched.
    on_rank_zero(lambda: folder.claim(recipe, config, data.sha256))
    progress = _resume(folder, model)
    scorer = model_scorer(model, num_items)
    recorder = Recorder(
        folder,
        training,
        config.evaluation,
        validate=lambda: measure(scorer, data, "validation", config.evaluation),
        num_users=num_users,
        steps=steps,
        progress=progress,
    )
    first_epoch = progress["epoch"] if progress else 0
    if rank == 0:
        where = f"after epoch {first_epoch} of " if first_epoch else "into "
        print(
            f"{recipe}: {num_users:,} training users, {num_items:,} items, {train.nnz:,} interactions; "
            f"{model.count_params():,} parameters, batches of {global_batch_size:,}, {training.precision}, "
            f"{size} rank{'s' * (size > 1)}.\n"
            f"{'Resuming' if first_epoch else 'Writing'} {where}{folder.path}. Ready after "
            f"{time.perf_counter() - started:.1f} s.",
            flush=True,
        )
    batches_of: dict[str, Any] = {
        "seed": config.seed,
        "epochs": None,
        "first_epoch": first_epoch,
        "rank": rank,
        "size": size,
    }
    if on_device:
        batches = user_batches(num_users, global_batch_size, **batches_of)
    else:
        batches = sparse_batches(train, global_batch_size, **batches_of)
    if first_epoch < training.epochs and not recorder.out_of_patience:
        model.fit(
            batches,
            epochs=training.epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=steps,
            shuffle=False,
            verbose=0,
            callbacks=_callbacks(training, recorder),
        )
    # All ranks measure the best epoch's weights, so all need them.
    on_rank_zero(lambda: load_state(folder.best, model, optimizer=False))
    distributed.broadcast_state(model.weights)
    return finish(
        recipe,
        config,
        folder,
        data,
        model,
        {
            "epochs": len(recorder.rows),
            "best_epoch": recorder.best["epoch"] if recorder.best else None,
            "global_batch_size": global_batch_size,
            "parameters": model.count_params(),
            "users_per_second": [row["users_per_second"] for row in recorder.rows],
            "median_users_per_second": float(np.median([row["users_per_second"] for row in recorder.rows])),
            "seconds": round(sum(row["seconds"] for row in recorder.rows), 2),
        },
        history=recorder.rows,
    )


def _check(training: TrainingConfig, seed: int) -> None:
    """Raise InputError for settings out of range, before anything is loaded."""
    wholes = {name: 1 for name in ("epochs", "global_batch_size", "validate_every", "checkpoint_every", "patience")}
    wholes |= {"backward_passes_per_step": 1, "warmup_steps": 0}
    for name, low in wholes.items():
        value = getattr(training, name)
        if value is not None and value < low:
            raise InputError(
                f"`{name}` must be at least {low}.\nReceived: --training.{name.replace('_', '-')} {value}."
            )
    for name, above, below in (
        ("learning_rate", 0.0, math.inf),
        ("clip_norm", 0.0, math.inf),
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


def _check_updates(training: TrainingConfig, steps: int) -> None:
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


def _global_batch_size(training: TrainingConfig, num_users: int) -> int:
    if training.global_batch_size is None:
        return max(1, min(500, num_users // 40))
    if training.global_batch_size > num_users:
        raise InputError(
            f"`global_batch_size` must not exceed the number of training users.\n"
            f"Received: {training.global_batch_size} for {num_users} users.\n"
            f"Try --training.global-batch-size {max(1, num_users // 40)}."
        )
    return training.global_batch_size


def _learning_rate(training: TrainingConfig, steps: int) -> Any:
    if training.schedule == "constant":
        return training.learning_rate
    updates = training.epochs * steps // training.backward_passes_per_step
    warmup = training.warmup_steps
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else training.learning_rate,
        max(1, updates - warmup),
        warmup_target=training.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def _callbacks(training: TrainingConfig, recorder: Recorder) -> list[keras.callbacks.Callback]:
    found: list[keras.callbacks.Callback] = [
        distributed.BroadcastCallback(),
        distributed.MetricAverageCallback(),
    ]
    if training.compare_ranks:
        found.append(distributed.DriftCallback())
    if training.schedule == "constant" and training.warmup_steps:
        found.append(distributed.LearningRateWarmup(training.learning_rate, training.warmup_steps))
    return [*found, recorder]


def _resume(folder: RunFolder, model: keras.Model) -> dict[str, Any] | None:
    """The progress of an earlier start, whose state is then in rank 0's model."""

    def load() -> dict[str, Any] | None:
        if not folder.last.is_file():
            return None
        if not folder.best.is_file():
            raise InputError(f"{folder.best} is missing, so the run cannot go on.\nStart over with --no-resume.")
        return load_state(folder.last, model, optimizer=True)

    return on_rank_zero(load)
