"""Train VAE-CF from a config to a finished run folder."""

from __future__ import annotations

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
from tfrec.training.agreement import agree_on_data, agree_on_steps
from tfrec.training.claim import on_rank_zero
from tfrec.training.finish import finish
from tfrec.training.fitting import (
    check_fit,
    check_updates,
    fit_callbacks,
    learning_rate,
    noise_seed,
    restore_best,
    resume,
)
from tfrec.training.prepare import Prepared, announce_data, check_evaluation, prepare
from tfrec.training.recorder import Recorder
from tfrec.training.report import measure, measure_all, model_scorer
from tfrec.training.run_folder import RunFolder


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
    # What each rank does by itself: an error on one is an error on all.
    data, model, global_batch_size, steps = distributed.together(lambda: _make(config), "preparing data and model")
    train = data.split.train
    num_users, num_items = train.shape
    rank, size = distributed.rank(), distributed.size()
    agree_on_data(config, data)
    agree_on_steps(steps)
    # Everything that can be wrong with the settings and the data has been looked at: now the folder may be touched.
    on_rank_zero(lambda: folder.claim(recipe, config, data.sha256))
    announce_data(data)
    progress = resume(folder, model, config.evaluation.monitor)
    scorer = model_scorer(model, num_items)
    recorder = Recorder(
        folder,
        training,
        config.evaluation,
        validate=lambda: measure(scorer, data, "validation", config.evaluation),
        samples=num_users,
        unit="users",
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
    on_device = training.pipeline == "device"
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
    if first_epoch < training.epochs and not recorder.done:
        model.fit(
            batches,
            epochs=training.epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=steps,
            shuffle=False,
            verbose=0,
            callbacks=fit_callbacks(training, recorder),
        )
    restore_best(folder, model)
    return finish(
        recipe,
        config,
        folder,
        data,
        model,
        measure_all(model, data, config.evaluation),
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


def _make(config: VAECFRun) -> tuple[Prepared, VAECF, int, int]:
    """The data, the compiled model, the global batch size and the steps of an epoch."""
    training = config.training
    check_fit(training, config.seed)
    if training.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(training.precision)
    keras.utils.set_random_seed(config.seed)
    data = prepare(config.data)
    train = data.split.train
    num_users, num_items = train.shape
    check_evaluation(config.evaluation, num_items)
    global_batch_size = _global_batch_size(training, num_users)
    model = VAECF(
        num_items,
        hidden_dims=config.model.hidden_dims,
        latent_dim=config.model.latent_dim,
        dropout=config.model.dropout,
        kl_cap=config.model.kl_cap,
        kl_anneal_steps=config.model.kl_anneal_steps,
        l2=config.model.l2,
        variational=config.model.variational,
        noise_seed=noise_seed(config.seed),
    )
    steps = steps_per_epoch(num_users, global_batch_size)
    check_updates(training, steps)
    on_device = training.pipeline == "device"
    model.compile(
        Adam(
            learning_rate(training, steps),
            beta_1=training.beta_1,
            beta_2=training.beta_2,
            epsilon=training.epsilon,
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
    return data, model, global_batch_size, steps


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
