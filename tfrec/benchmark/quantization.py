"""The quantization study: float32, int8 as it comes, int8 with the final layer split, and tfrec's best.

NeuMF of the reference sizes on MovieLens-1M, leave-one-out among 999 negatives, three seeds; the runs are trained where
``TFREC_STUDY_RUNS`` says (default: ``runs/quantization``), or taken from there. Source of the question: IntelLabs
Distiller's study of NCF, which found 63.55, 49.54 and 62.78 % HR@10 on MovieLens-20M.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.benchmark.timing import spread
from tfrec.configs import NeuMFRun
from tfrec.errors import InputError
from tfrec.quantization import STUDY_SPLIT, QuantizationConfig, calibrate, quantize
from tfrec.training.load_run import load_config, load_model
from tfrec.training.prepare_items import prepare_items
from tfrec.training.quantizing import distinct_scores, speed
from tfrec.training.report_items import make_candidates, measure_items
from tfrec.training.run_folder import RunFolder

RECIPE = "neumf-reference-ml1m"
_SEEDS = (1, 2, 3)
_METRICS = ("hit_rate@10", "ndcg@10")
#: What is compared with float32.
FORMS: dict[str, QuantizationConfig] = {
    "int8": replace(STUDY_SPLIT, split_final=False),
    "int8_split": STUDY_SPLIT,
    "ours": QuantizationConfig(),
    "ours_6_bits": QuantizationConfig(activations=6, weights=6),
    "ours_4_bits": QuantizationConfig(activations=4, weights=4),
}


def benchmark_quantization(data_dir: Path | None = None) -> dict[str, Any]:
    """HR@10 and NDCG@10 of each form and seed, their means, and size, speed and ties of the best."""
    root = Path(os.environ.get("TFREC_STUDY_RUNS", "runs/quantization"))
    found: dict[str, Any] = {"benchmark": "quantization", "recipe": RECIPE, "seeds": _SEEDS, "by_seed": {}}
    for seed in _SEEDS:
        folder = train_seed(root / f"seed-{seed}", seed, data_dir)
        found["by_seed"][f"seed_{seed}"] = result = _study(folder, seed, data_dir)
        print(f"seed {seed}: {result}", file=sys.stderr, flush=True)
    rows = found["by_seed"].values()
    found["summary"] = {
        form: {m: spread(np.array([row[form][m] for row in rows])) for m in _METRICS} for form in ("float32", *FORMS)
    }
    found["loss_of_hit_rate@10"] = {
        form: spread(np.array([row["float32"]["hit_rate@10"] - row[form]["hit_rate@10"] for row in rows]))
        for form in FORMS
    }
    return found


def train_seed(path: Path, seed: int, data_dir: Path | None = None) -> RunFolder:
    """The folder of the study's float run of a seed, trained if it is not there.

    Raises:
        InputError: the training failed.
    """
    command = [sys.executable, "-m", "tfrec.train", RECIPE, "--seed", str(seed), "--output-dir", str(path)]
    if data_dir is not None:
        command += ["--data.dir", str(data_dir)]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise InputError(f"The training of seed {seed} failed; see above. Command: {' '.join(command)}")
    return RunFolder.existing(path)


def _study(folder: RunFolder, seed: int, data_dir: Path | None) -> dict[str, Any]:
    config = load_config(folder, data_dir)
    assert isinstance(config, NeuMFRun)
    model = load_model(folder)
    data = prepare_items(config.data)
    candidates = make_candidates(data, "test", config.evaluation)
    statistics = calibrate(model, data.train, 0.1, seed=seed)
    found: dict[str, Any] = {}

    def measure(name: str, scorer: Any) -> None:
        report = measure_items(scorer.scores, candidates, config.evaluation).metrics
        found[name] = {m: round(float(report[m]), 6) for m in _METRICS}
        found[name]["distinct_scores_per_user"] = round(distinct_scores(scorer, candidates), 1)

    measure("float32", model)
    for name, form in FORMS.items():
        measure(name, quantize(model, statistics, form))
    users = tf.range(data.train.shape[0])[:512]
    split = model.with_split_final(True)
    found["split_largest_difference_of_logits"] = float(
        tf.reduce_max(tf.abs(split.scores(users) - model.scores(users)))
    )
    made = quantize(model, statistics, FORMS["ours"])
    found["speed"] = speed(model, made, candidates)
    path = folder.path / "ours.keras"
    made.save(path)
    found["size"] = {
        "float32_bytes": folder.model.stat().st_size,
        "int8_bytes": path.stat().st_size,
        "ratio": round(path.stat().st_size / folder.model.stat().st_size, 4),
    }
    path.unlink()
    found["branches"] = {
        n: [round(statistics[n].min, 3), round(statistics[n].max, 3)]
        for n in ("product", f"hidden_{len(model.layer_dims) - 1}", "gmf_logit", "mlp_logit")
    }
    return found
