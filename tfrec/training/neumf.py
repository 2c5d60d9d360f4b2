"""Train NeuMF from a config to a finished run folder."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec import distributed
from tfrec.configs import NeuMFRun, NeuMFTrainingConfig
from tfrec.data.pointwise import PointwiseSampler
from tfrec.errors import InputError
from tfrec.evaluation import Candidates
from tfrec.models import NeuMF
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
from tfrec.training.prepare import announce_data, check_evaluation
from tfrec.training.prepare_items import PreparedItems, prepare_items
from tfrec.training.recorder import Recorder, check_loss
from tfrec.training.report_items import make_candidates, measure_all_items, measure_items
from tfrec.training.run_folder import RunFolder

#: A table is updated row by row when a batch has less than this share of its rows. Measured on two cores for
#: 138,493 x 192: row by row takes as long as one pass over everything at .35 (README, Benchmarks).
LAZY_BELOW = 0.35
_SAMPLES_PER_CALL = 1 << 20


def train_neumf(recipe: str, config: NeuMFRun, folder: RunFolder, started: float) -> dict[str, Any]:
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
    data, candidates, sampler, model, traffic = distributed.together(lambda: _make(config), "preparing data and model")
    agree_on_data(config, data)
    agree_on_steps(sampler.steps_per_epoch)
    # Everything that can be wrong with the settings and the data has been looked at: now the folder may be touched.
    on_rank_zero(lambda: folder.claim(recipe, config, data.sha256))
    announce_data(data)
    progress = resume(folder, model, config.evaluation.monitor)
    samples = sampler.num_positives * (1 + sampler.num_negatives)
    recorder = Recorder(
        folder,
        training,
        config.evaluation,
        validate=lambda: measure_items(model.scores, candidates["validation"], config.evaluation),
        samples=samples,
        unit="samples",
        steps=sampler.steps_per_epoch,
        progress=progress,
    )
    first_epoch = progress["epoch"] if progress else 0
    if distributed.rank() == 0:
        _announce(recipe, config, folder, data, model, sampler, traffic, first_epoch, started)
    if first_epoch < training.epochs and not recorder.done:
        model.fit(
            sampler.steps(),
            epochs=training.epochs,
            initial_epoch=first_epoch,
            shuffle=False,
            verbose=0,
            callbacks=fit_callbacks(training, recorder),
        )
    restore_best(folder, model)
    refit_epochs = recorder.best["epoch"] if recorder.best and training.refit else 0
    reports = {"validation": measure_all_items(model, data, candidates["validation"], config.evaluation)}
    if refit_epochs:
        model = _refit(config, data, refit_epochs)
    reports["test"] = measure_all_items(model, data, candidates["test"], config.evaluation)
    return finish(
        recipe,
        config,
        folder,
        data,
        model,
        reports,
        {
            "epochs": len(recorder.rows),
            "best_epoch": recorder.best["epoch"] if recorder.best else None,
            "refit_epochs": refit_epochs,
            "global_batch_size": sampler.positives_per_step * (1 + sampler.num_negatives),
            "parameters": model.count_params(),
            "gradient_bytes_per_step": traffic,
            "samples_per_second": [row["samples_per_second"] for row in recorder.rows],
            "median_samples_per_second": float(np.median([row["samples_per_second"] for row in recorder.rows])),
            "seconds": round(sum(row["seconds"] for row in recorder.rows), 2),
        },
        history=recorder.rows,
    )


def _make(config: NeuMFRun) -> tuple[PreparedItems, dict[str, Candidates], PointwiseSampler, NeuMF, int]:
    """The data, the candidates of each part, the sampler, the compiled model and its traffic."""
    training = config.training
    check_fit(training, config.seed)
    if training.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(training.precision)
    keras.utils.set_random_seed(config.seed)
    data = prepare_items(config.data)
    candidates = {part: make_candidates(data, part, config.evaluation) for part in ("validation", "test")}
    check_evaluation(config.evaluation, min(c.num_candidates for c in candidates.values()))
    sampler = make_sampler(config, data.train)
    model, traffic = make_model(config, data, sampler)
    return data, candidates, sampler, model, traffic


def make_sampler(config: NeuMFRun, train: scipy.sparse.csr_matrix) -> PointwiseSampler:
    """The sampler of a run, this rank's part of it."""
    training = config.training
    width = 1 + training.negatives
    batch = training.global_batch_size
    if batch is None:
        samples = train.nnz * width
        batch = min(max(samples // 500, 1_024, width), 1 << 20, samples)
    return PointwiseSampler(
        train,
        batch,
        training.negatives,
        training.sampling,
        config.seed,
        distributed.rank(),
        distributed.size(),
    )


def make_model(config: NeuMFRun, data: PreparedItems, sampler: PointwiseSampler) -> tuple[NeuMF, int]:
    """The compiled model, and how many bytes of gradients a rank hands to the others in a step."""
    num_users, num_items = data.train.shape
    model = NeuMF(
        num_users,
        num_items,
        mf_dim=config.model.mf_dim,
        layer_dims=config.model.layer_dims,
        dropout=config.model.dropout,
        embedding_l2=config.model.embedding_l2,
        mlp_embedding_l2=config.model.mlp_embedding_l2,
        gmf_weights=config.model.gmf_weights,
        branch=config.model.branch,
        split_final=config.model.split_final,
        noise_seed=noise_seed(config.seed),
        user_embedding=config.model.user_embedding,
        item_embedding=config.model.item_embedding,
        embedding_ranks=config.model.embedding_ranks,
        embedding_group=config.model.embedding_group,
    )
    return model, compile_model(model, config.training, sampler)


def compile_model(model: NeuMF, training: NeuMFTrainingConfig, sampler: PointwiseSampler) -> int:
    """Compile for ``fit`` with ``sampler.steps()``.

    Returns:
        How many bytes of gradients a rank hands to the others in a step.
    """
    check_updates(training, sampler.steps_per_epoch)
    rows = {
        "user_embedding": sampler.positives_per_step,
        "item_embedding": sampler.positives_per_step * (1 + sampler.num_negatives),
    }
    # The cores of a tensor-train table have no rows of their own: their gradients are small and dense.
    rows = {t: n for t, n in rows.items() if model.embedding_kinds[t.removesuffix("_embedding")] == "dense"}
    lazy = [t for t, count in rows.items() if is_lazy(training, count, getattr(model, t).shape[0])]
    if training.backward_passes_per_step > 1:
        if training.embedding_update == "lazy":
            raise InputError(
                "Gradients that are added up over several batches are dense, so no table can be updated lazily.\n"
                f"Received: --training.embedding-update lazy, --training.backward-passes-per-step "
                f"{training.backward_passes_per_step}.\nLeave one of them out."
            )
        lazy = []
    batch = sampler.positives_per_step * (1 + sampler.num_negatives)
    steps_per_call = training.steps_per_call or max(1, _SAMPLES_PER_CALL // batch)
    model.compile(
        Adam(
            learning_rate(training, sampler.steps_per_epoch),
            beta_1=training.beta_1,
            beta_2=training.beta_2,
            epsilon=training.epsilon,
            global_clipnorm=training.clip_norm,
            lazy=bool(lazy),
        ),
        sampler=sampler.batch,
        lazy_tables=lazy,
        steps_per_execution=min(steps_per_call, sampler.steps_per_epoch),
    )
    distributed.distribute(
        model,
        compression=training.compression,
        backward_passes_per_step=training.backward_passes_per_step,
    )
    model.optimizer.build(model.trainable_variables)
    return gradient_bytes(model, lazy, rows, training.compression)


def is_lazy(training: NeuMFTrainingConfig, rows: int, table_rows: int) -> bool:
    """Whether a table of which a global batch has ``rows`` rows, repetitions counted, is updated row by row."""
    if training.embedding_update != "auto":
        return training.embedding_update == "lazy"
    # Expected number of different rows, were all equally likely: never more than there are.
    different = table_rows * -math.expm1(-rows / table_rows)
    return different < LAZY_BELOW * table_rows


def gradient_bytes(model: NeuMF, lazy: list[str], rows: dict[str, int], compression: str) -> int:
    """Bytes of gradients that one rank hands over in a step: what an allreduce sums, or an allgather collects."""
    size = distributed.size()
    item = 2 if compression == "float16" else 4
    total = 0
    for variable in model.trainable_variables:
        if variable.name in lazy:
            most = min(rows[variable.name] // size, variable.shape[0])
            total += most * (variable.shape[1] * item + 8)
        else:
            total += math.prod(variable.shape) * item
    return total


def _refit(config: NeuMFRun, data: PreparedItems, epochs: int) -> NeuMF:
    """A new model, trained on what was for training and validation, for a number of epochs."""
    if distributed.rank() == 0:
        print(f"Refit on training and validation data, {epochs} epochs.", flush=True)
    keras.utils.set_random_seed(config.seed)
    everything = replace(data, train=data.seen("test"))
    sampler = make_sampler(config, everything.train)
    model, _ = make_model(config, everything, sampler)
    shown = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: _show_refit(epoch, epochs, logs, config.training)
    )
    model.fit(sampler.steps(), epochs=epochs, shuffle=False, verbose=0, callbacks=[*distributed.callbacks(), shown])
    return model


def _show_refit(epoch: int, epochs: int, logs: dict[str, float], training: NeuMFTrainingConfig) -> None:
    check_loss(logs["loss"], epoch + 1, training)
    if distributed.rank() == 0:
        print(f"refit epoch {epoch + 1}/{epochs}  loss {logs['loss']:.4f}", flush=True)


def _announce(
    recipe: str,
    config: NeuMFRun,
    folder: RunFolder,
    data: PreparedItems,
    model: NeuMF,
    sampler: PointwiseSampler,
    traffic: int,
    first_epoch: int,
    started: float,
) -> None:
    size = distributed.size()
    where = f"after epoch {first_epoch} of " if first_epoch else "into "
    lazy = [t.removesuffix("_embedding") for t in model.lazy_tables]
    print(
        f"{recipe}: {data.train.shape[0]:,} users, {data.train.shape[1]:,} items, {data.train.nnz:,} positives with "
        f"{sampler.num_negatives} negatives each ({sampler.sampling}); {model.count_params():,} parameters, batches of "
        f"{sampler.positives_per_step * (1 + sampler.num_negatives):,} samples, {config.training.precision}, "
        f"{size} rank{'s' * (size > 1)}.\n"
        f"Adam updates {' and '.join(lazy) + ' rows of the batch only (lazy)' if lazy else 'all rows'}; "
        f"{traffic / 2**20:.1f} MiB of gradients per step and rank.\n"
        f"{'Resuming' if first_epoch else 'Writing'} {where}{folder.path}. Ready after "
        f"{time.perf_counter() - started:.1f} s.",
        flush=True,
    )
