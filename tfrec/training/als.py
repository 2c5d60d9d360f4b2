"""Train ALS from a config to a finished run folder."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import scipy.sparse

from tfrec import distributed
from tfrec.configs import ALSConfig, ALSRun, EvaluationConfig
from tfrec.data import confidence
from tfrec.errors import InputError
from tfrec.evaluation import Report, evaluate_full_ranking
from tfrec.evaluation.full_ranking import Scorer
from tfrec.models import ALS, Popularity
from tfrec.training.agreement import agree_on_data
from tfrec.training.checkpoint import load_state, save_state
from tfrec.training.claim import on_rank_zero
from tfrec.training.finish import finish
from tfrec.training.history import write_csv
from tfrec.training.prepare import Prepared, announce_data, check_evaluation, prepare
from tfrec.training.prepare_entries import PreparedEntries, prepare_entries
from tfrec.training.report import model_scorer
from tfrec.training.run_folder import RunFolder


def train_als(recipe: str, config: ALSRun, folder: RunFolder, started: float) -> dict[str, Any]:
    """Train, measure, and write everything into ``folder``; returns the content of metrics.json.

    Raises:
        InputError: settings or data that cannot be trained on.
    """
    # What each rank does by itself: an error on one is an error on all.
    model, data, weighted = distributed.together(lambda: _make(config), "preparing data and model")
    train = data.split.train if isinstance(data, Prepared) else data.train
    agree_on_data(config, data)
    on_rank_zero(lambda: folder.claim(recipe, config, data.sha256))
    announce_data(data)
    rows = _resume(folder, model)
    first = distributed.rank() == 0
    if first:
        size = distributed.size()
        bytes_of = (train.shape[0] + train.shape[1]) * model.factors * np.dtype(model.factor_dtype).itemsize
        print(
            f"{recipe}: {train.shape[0]:,} users, {train.shape[1]:,} items, {train.nnz:,} interactions; "
            f"{model.factors} factors in {model.factor_dtype} ({bytes_of / 2**20:.1f} MiB on each rank), solver "
            f"{model.sweep.solver}, {size} rank{'s' * (size > 1)}.\n"
            f"{f'Resuming after iteration {len(rows)} of' if rows else 'Writing into'} {folder.path}. Ready after "
            f"{time.perf_counter() - started:.1f} s.",
            flush=True,
        )
    saved_at = time.perf_counter()

    def record(iteration: int, seconds: float, loss: float | None) -> None:
        nonlocal saved_at
        row = {"iteration": iteration, "seconds": round(seconds, 4)}
        rows.append(row if loss is None else {**row, "loss": loss})
        if not first:
            return
        shown = "" if loss is None else f"  loss {loss:.6f}"
        print(f"iteration {iteration}/{model.iterations}  {seconds:.2f} s{shown}", flush=True)
        if time.perf_counter() - saved_at >= config.checkpoint_seconds or iteration == model.iterations:
            write_csv(folder.history, rows)
            save_state(folder.last, model, {"rows": rows}, optimizer=False)
            saved_at = time.perf_counter()

    if len(rows) < model.iterations:
        model.fit(
            weighted,
            callback=record,
            verbose=0,
            calculate_training_loss=config.model.training_loss,
            ranks=distributed.RowExchange(),
            initial_iteration=len(rows),
        )
    parts = ("validation", "test") if isinstance(data, Prepared) else ("test",)
    reports = measure_als(model, data, config.evaluation, parts)
    return finish(
        recipe,
        config,
        folder,
        data,
        model,
        reports,
        {
            "iterations": len(rows),
            "seconds_per_iteration": [row["seconds"] for row in rows],
            "median_seconds_per_iteration": float(np.median([row["seconds"] for row in rows])),
            "factor_bytes": int(model.user_factors.nbytes + model.item_factors.nbytes),
            **({"training_loss": rows[-1]["loss"]} if "loss" in rows[-1] else {}),
        },
        history=[],
    )


def _make(config: ALSRun) -> tuple[ALS, Prepared | PreparedEntries, scipy.sparse.csr_matrix]:
    """The model with its tables, the data, and the weights to train on."""
    model = make_model(config)
    data = prepare_data(config)
    train = data.split.train if isinstance(data, Prepared) else data.train
    check_evaluation(config.evaluation, train.shape[1])
    weighted = weigh(train, config.model)
    model.prepare(*train.shape)
    return model, data, weighted


def make_model(config: ALSRun) -> ALS:
    """The model of a run, without tables."""
    m = config.model
    return ALS(
        factors=m.factors,
        regularization=m.regularization,
        alpha=m.alpha,
        iterations=m.iterations,
        unobserved_weight=m.unobserved_weight,
        frequency_exponent=m.frequency_exponent,
        solver=m.solver,
        cg_steps=m.cg_steps,
        block_size=m.block_size,
        factor_dtype=m.factor_dtype,
        seed=config.seed,
    )


def prepare_data(config: ALSRun) -> Prepared | PreparedEntries:
    """Load and hold out users, or entries.

    Raises:
        InputError: see `prepare` and `prepare_entries`; or weights that held-out users' rows would not have.
    """
    if config.data.split == "entries":
        return prepare_entries(config.data)
    if config.model.confidence != "values":
        raise InputError(
            "The weights of held-out users' items would differ from those in training.\n"
            f"Received: --model.confidence {config.model.confidence} with --data.split users.\n"
            "Use --model.confidence values, or --data.split entries."
        )
    return prepare(config.data)


def weigh(matrix: scipy.sparse.csr_matrix, config: ALSConfig) -> scipy.sparse.csr_matrix:
    """The confidences, before alpha."""
    if config.confidence == "bm25":
        return confidence.bm25(matrix, config.bm25_k1, config.bm25_b)
    if config.confidence == "tf_idf":
        return confidence.tf_idf(matrix)
    return confidence.log(matrix) if config.confidence == "log" else matrix


def measure_als(
    model: ALS, data: Prepared | PreparedEntries, config: EvaluationConfig, parts: tuple[str, ...]
) -> dict[str, dict[str, Report]]:
    """Part -> ``model`` and ``popularity`` -> report. Held-out users are folded in, known ones have their factors."""
    train = data.split.train if isinstance(data, Prepared) else data.train
    popularity = Popularity(train.shape[1])
    popularity.adapt(train)
    items = model.item_factors.astype(np.float32).T
    users = None if isinstance(data, Prepared) else model.user_factors.astype(np.float32)

    def score(rows: np.ndarray, seen: scipy.sparse.csr_matrix) -> np.ndarray:
        x = model.recalculate_users(seen).astype(np.float32) if users is None else users[rows]
        return x @ items

    scorers: dict[str, Scorer] = {"model": score, "popularity": model_scorer(popularity, train.shape[1])}
    found: dict[str, dict[str, Report]] = {}
    for part in parts:
        seen, targets = data.heldout(part)[:2]
        found[part] = {
            name: evaluate_full_ranking(
                scorer,
                seen,
                targets,
                config.metrics,
                ties=config.ties,
                gains=config.gains,
                block_users=config.block_users,
                rank=distributed.rank(),
                size=distributed.size(),
                sum_across_ranks=distributed.sum_across_ranks,
            )
            for name, scorer in scorers.items()
        }
    return found


def _resume(folder: RunFolder, model: ALS) -> list[dict[str, Any]]:
    """The iterations that an earlier start has made, whose factors are then in every rank's model."""
    rows = on_rank_zero(
        lambda: load_state(folder.last, model, optimizer=False)["rows"] if folder.last.is_file() else []
    )
    if rows:
        distributed.broadcast_state(model.weights)
    return rows
