"""What tensor-train tables of a fifth to a twentieth of the size cost NeuMF in quality: MovieLens-1M, three seeds.

Each seed's dense run is decomposed at the largest rank that is still small enough, measured, trained on for a few
epochs, and measured again on the run's test items. The dense runs are trained where ``TFREC_STUDY_RUNS`` says (default:
``runs/quantization``, with which the quantization study shares them), or taken from there.
"""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.benchmark.quantization import RECIPE, train_seed
from tfrec.benchmark.timing import seconds_of, spread
from tfrec.configs import NeuMFRun
from tfrec.errors import InputError
from tfrec.evaluation import Candidates
from tfrec.models import NeuMF
from tfrec.training.compressing import embedding_parameters, fine_tune
from tfrec.training.load_run import load_config, load_model
from tfrec.training.neumf import compile_model, make_sampler
from tfrec.training.prepare_items import PreparedItems, prepare_items
from tfrec.training.report_items import make_candidates, measure_items
from tfrec.training.run_folder import RunFolder

_SEEDS = (1, 2, 3)
_METRICS = ("hit_rate@10", "ndcg@10")
#: The forms: `embedding_group` of NeuMF, and how many times smaller both tables are together, at least.
FORMS: dict[str, tuple[int | None, float]] = {
    "low_rank": (1, 10.0),
    "low_rank_5": (1, 5.0),
    "low_rank_20": (1, 20.0),
    "pairs": (2, 10.0),
    "three_cores": (None, 10.0),
}
#: Picked on the validation items of seed 1.
_EPOCHS, _RATE = 3, 1e-3
_TIMED_STEPS = 50


def benchmark_tt_quality(forms: tuple[str, ...] = tuple(FORMS), rounds: int = 5) -> dict[str, Any]:
    """HR@10 and NDCG@10 of each form among the recipe's negatives and among 99; rank, size, seconds of an epoch.

    Args:
        forms: of `FORMS`.
        rounds: how often the steps of each are timed.

    Raises:
        InputError: an unknown form, or a training failed.
    """
    unknown = set(forms) - set(FORMS)
    if unknown:
        raise InputError(f"`parts` of tt-quality are {', '.join(FORMS)}.\nReceived: {', '.join(sorted(unknown))}.")
    root = Path(os.environ.get("TFREC_STUDY_RUNS", "runs/quantization"))
    found: dict[str, Any] = {
        "benchmark": "tt-quality",
        "recipe": RECIPE,
        "seeds": _SEEDS,
        "fine_tuning": {"epochs": _EPOCHS, "learning_rate": _RATE},
        "by_seed": {},
    }
    for seed in _SEEDS:
        result = _study(train_seed(root / f"seed-{seed}", seed), forms)
        found["by_seed"][f"seed_{seed}"] = result
        print(f"seed {seed}: {result}", file=sys.stderr, flush=True)
    found["seconds_per_epoch"] = _seconds(RunFolder.existing(root / f"seed-{_SEEDS[0]}"), forms, rounds)
    rows = list(found["by_seed"].values())
    keys = [key for key in rows[0]["dense"] if "@" in key]
    found["summary"] = {
        form: {key: spread(np.array([row[form][key] for row in rows])) for key in keys} for form in rows[0]
    }
    found["loss_of_hit_rate@10"] = {
        form: {
            key: spread(np.array([row["dense"][key] - row[form][key] for row in rows])) for key in keys if "hit" in key
        }
        for form in rows[0]
        if form != "dense"
    }
    return found


def largest_ranks(model: NeuMF, group: int | None, ratio: float) -> int:
    """The largest rank at which the tables of a dense model are at least ``ratio`` times smaller together."""
    before = sum(embedding_parameters(model, side) for side in ("user", "item"))
    low, high = 1, model.mf_dim + model.layer_dims[0]
    while high - low > 1:
        middle = (low + high) // 2
        config = {"user_embedding": "tt", "item_embedding": "tt", "embedding_ranks": middle, "embedding_group": group}
        made = NeuMF.from_config({**model.get_config(), **config})
        after = sum(embedding_parameters(made, side) for side in ("user", "item"))
        low, high = (middle, high) if before / after >= ratio else (low, middle)
    return low


def _study(folder: RunFolder, forms: tuple[str, ...]) -> dict[str, Any]:
    config = load_config(folder)
    assert isinstance(config, NeuMFRun)
    data = prepare_items(config.data)
    among = {
        n: make_candidates(data, "test", replace(config.evaluation, negatives=n))
        for n in (config.evaluation.negatives, 99)
    }
    model = load_model(folder)
    before = sum(embedding_parameters(model, side) for side in ("user", "item"))
    found: dict[str, Any] = {"dense": {"parameters": before, **_measure(model, config, among)}}
    for name in forms:
        found |= _form(name, model, before, config, data, among)
    # What the further epochs alone bring.
    fine_tune(model, config, data, _EPOCHS, _RATE)
    found["dense_fine_tuned"] = {"parameters": before, **_measure(model, config, among)}
    return found


def _form(
    name: str,
    model: NeuMF,
    before: int,
    config: NeuMFRun,
    data: PreparedItems,
    among: dict[int, Candidates],
) -> dict[str, Any]:
    group, ratio = FORMS[name]
    ranks = largest_ranks(model, group, ratio)
    small, errors = model.with_tt_embeddings(ranks, group=group)
    after = sum(embedding_parameters(small, side) for side in ("user", "item"))
    size = {"ranks": ranks, "parameters": after, "times_smaller": round(before / after, 2)}
    decomposed = {**size, "relative_error": errors, **_measure(small, config, among)}
    fine_tune(small, config, data, _EPOCHS, _RATE)
    tuned = {**size, **_measure(small, config, among)}
    return {f"{name}_decomposed": decomposed, f"{name}_fine_tuned": tuned}


def _measure(model: NeuMF, config: NeuMFRun, among: dict[int, Candidates]) -> dict[str, float]:
    found: dict[str, float] = {}
    for negatives, candidates in among.items():
        report = measure_items(model.scores, candidates, config.evaluation).metrics
        found |= {f"{metric}_of_{negatives + 1}": round(float(report[metric]), 6) for metric in _METRICS}
    return found


def _seconds(folder: RunFolder, forms: tuple[str, ...], rounds: int) -> dict[str, Any]:
    """Seconds of an epoch of training, dense and in each form, from some steps of each in turns."""
    config = load_config(folder)
    assert isinstance(config, NeuMFRun)
    sampler = make_sampler(config, prepare_items(config.data).train)
    models = {"dense": load_model(folder)}
    for name in forms:
        group, ratio = FORMS[name]
        ranks = largest_ranks(models["dense"], group, ratio)
        models[name] = models["dense"].with_tt_embeddings(ranks, group=group)[0]
    steps = sampler.steps().take(_TIMED_STEPS)
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        compile_model(model, config.training, sampler)
        model.fit(steps, shuffle=False, verbose=0)
    for _ in range(rounds):
        for name, model in models.items():
            times[name].append(seconds_of(functools.partial(model.fit, steps, shuffle=False, verbose=0)))
    return {name: spread(np.array(t) * sampler.steps_per_epoch / _TIMED_STEPS) for name, t in times.items()}
