"""What tensor-train tables of a fifth to a twentieth of the size cost NeuMF in quality: MovieLens-1M, three seeds.

Each seed's dense run is decomposed at the largest rank that is still small enough, measured, trained on for a few
epochs, and measured again on the run's test items. The dense runs are trained in ``TFREC_STUDY_RUNS`` (default:
``runs/quantization``, with which the quantization study shares them), or taken from there.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np

from tfrec.benchmark.study import METRICS, RECIPE, SEEDS, StudyRun, seed_folder, train_seed
from tfrec.benchmark.timing import seconds_of, spread
from tfrec.errors import InputError
from tfrec.families.family import liked
from tfrec.families.neumf import compile_model, make_sampler
from tfrec.families.neumf_tt import embedding_parameters, fine_tune
from tfrec.models import NeuMF
from tfrec.runs.folder import RunFolder

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
#: Negatives of the second measurement, besides the recipe's.
_FEW = 99


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
    found: dict[str, Any] = {
        "benchmark": "tt-quality",
        "recipe": RECIPE,
        "seeds": SEEDS,
        "fine_tuning": {"epochs": _EPOCHS, "learning_rate": _RATE},
        "by_seed": {},
    }
    for seed in SEEDS:
        result = _study(StudyRun(train_seed(seed)), forms)
        found["by_seed"][f"seed_{seed}"] = result
        print(f"seed {seed}: {result}", file=sys.stderr, flush=True)
    found["seconds_per_epoch"] = _seconds(StudyRun(RunFolder.existing(seed_folder(SEEDS[0]))), forms, rounds)
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


def _study(run: StudyRun, forms: tuple[str, ...]) -> dict[str, Any]:
    model = run.model
    before = sum(embedding_parameters(model, side) for side in ("user", "item"))
    found: dict[str, Any] = {"dense": {"parameters": before, **_measure(model, run)}}
    for name in forms:
        found |= _form(name, run, before)
    # What the further epochs alone bring.
    fine_tune(model, run.config, run.train, _EPOCHS, _RATE)
    found["dense_fine_tuned"] = {"parameters": before, **_measure(model, run)}
    return found


def _form(name: str, run: StudyRun, before: int) -> dict[str, Any]:
    model = run.model
    group, ratio = FORMS[name]
    ranks = largest_ranks(model, group, ratio)
    small, errors = model.with_tt_embeddings(ranks, group=group)
    after = sum(embedding_parameters(small, side) for side in ("user", "item"))
    size = {"ranks": ranks, "parameters": after, "times_smaller": round(before / after, 2)}
    decomposed = {**size, "relative_error": errors, **_measure(small, run)}
    fine_tune(small, run.config, run.train, _EPOCHS, _RATE)
    tuned = {**size, **_measure(small, run)}
    return {f"{name}_decomposed": decomposed, f"{name}_fine_tuned": tuned}


def _measure(model: NeuMF, run: StudyRun) -> dict[str, float]:
    found: dict[str, float] = {}
    for negatives in (run.config.evaluation.negatives, _FEW):
        report = run.test(model, negatives).metrics
        found |= {f"{metric}_of_{negatives + 1}": round(float(report[metric]), 6) for metric in METRICS}
    return found


def _seconds(run: StudyRun, forms: tuple[str, ...], rounds: int) -> dict[str, Any]:
    """Seconds of an epoch of training, dense and in each form, from some alternating steps of each."""
    config = run.config
    sampler = make_sampler(config, liked(run.train.matrix))
    models = {"dense": run.model}
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
