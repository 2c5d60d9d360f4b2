"""The quantization study: float32, int8 as it comes, int8 with the final layer split, and tfrec's best.

NeuMF of the reference sizes on MovieLens-1M, leave-one-out among 999 negatives, three seeds; the runs are trained in
``TFREC_STUDY_RUNS`` (default: ``runs/quantization``), or taken from there. Source of the question: IntelLabs
Distiller's study of NCF, which found 63.55, 49.54 and 62.78 % HR@10 on MovieLens-20M.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.benchmark.study import METRICS, RECIPE, SEEDS, StudyRun, train_seed
from tfrec.benchmark.timing import spread
from tfrec.families.neumf_int8_report import distinct_scores, speed
from tfrec.quantization import PRESETS, QuantizationConfig, calibrate, quantize

#: What is compared with float32.
FORMS: dict[str, QuantizationConfig] = {
    "int8": PRESETS["study-one-final"],
    "int8_split": PRESETS["study-split"],
    "ours": PRESETS["best"],
    "ours_6_bits": replace(PRESETS["best"], activations=6, weights=6),
    "ours_4_bits": replace(PRESETS["best"], activations=4, weights=4),
}


def benchmark_quantization(data_dir: Path | None = None) -> dict[str, Any]:
    """HR@10 and NDCG@10 of each form and seed, their means, and size, speed and ties of the best."""
    found: dict[str, Any] = {"benchmark": "quantization", "recipe": RECIPE, "seeds": SEEDS, "by_seed": {}}
    for seed in SEEDS:
        run = StudyRun(train_seed(seed, data_dir), data_dir)
        found["by_seed"][f"seed_{seed}"] = result = _study(run, seed)
        print(f"seed {seed}: {result}", file=sys.stderr, flush=True)
    rows = found["by_seed"].values()
    found["summary"] = {
        form: {m: spread(np.array([row[form][m] for row in rows])) for m in METRICS} for form in ("float32", *FORMS)
    }
    found["loss_of_hit_rate@10"] = {
        form: spread(np.array([row["float32"]["hit_rate@10"] - row[form]["hit_rate@10"] for row in rows]))
        for form in FORMS
    }
    return found


def _study(run: StudyRun, seed: int) -> dict[str, Any]:
    model, train, candidates = run.model, run.train.matrix, run.among().candidates("test")
    users = run.split.test.users
    assert users is not None
    statistics = calibrate(model, train, 0.1, seed=seed)
    found: dict[str, Any] = {}

    def measure(name: str, scorer: Any) -> None:
        report = run.test(scorer).metrics
        found[name] = {m: round(float(report[m]), 6) for m in METRICS}
        found[name]["distinct_scores_per_user"] = round(distinct_scores(scorer, users, candidates), 1)

    measure("float32", model)
    for name, form in FORMS.items():
        measure(name, quantize(model, statistics, form))
    some = tf.range(min(512, train.shape[0]))
    split = model.with_split_final(True)
    found["split_largest_difference_of_logits"] = float(tf.reduce_max(tf.abs(split.scores(some) - model.scores(some))))
    made = quantize(model, statistics, FORMS["ours"])
    found["speed"] = speed(model, made, users, candidates)
    path = run.folder.path / "ours.keras"
    made.save(path)
    found["size"] = {
        "float32_bytes": run.folder.model.stat().st_size,
        "int8_bytes": path.stat().st_size,
        "ratio": round(path.stat().st_size / run.folder.model.stat().st_size, 4),
    }
    path.unlink()
    found["branches"] = {
        n: [round(statistics[n].min, 3), round(statistics[n].max, 3)]
        for n in ("product", f"hidden_{len(model.layer_dims) - 1}", "gmf_logit", "mlp_logit")
    }
    return found
