"""All families on MovieLens-1M under one split by time, each with settings picked on validation in eight trials.

    python examples/compare_families.py --data FOLDER --out FOLDER

The first 80 % of the positive pairs train, the next 10 % validate, the last 10 % test; all unseen items are ranked.
Each trial trains on the training part alone; the one with the best validation NDCG@100 is trained anew on training and
validation, and tested. Then the runs are put side by side:

    python -m tfrec.compare OUT/best-*
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import tfrec

#: What all runs have in common.
COMMON: dict[str, Any] = {
    "name": "ml-1m",
    "split": "by_time",
    "min_rating": "auto",
    "metrics": ("recall@20", "recall@50", "ndcg@10", "ndcg@100", "hit_rate@10", "mrr@10", "coverage@100"),
    "monitor": "ndcg@100",
}
#: Family -> eight settings. Popularity has none.
TRIALS: dict[str, list[dict[str, Any]]] = {
    "popularity": [{}],
    "ease": [{"regularization": r} for r in (50.0, 150.0, 500.0, 1500.0, 3000.0, 5000.0, 10000.0, 20000.0)],
    "als": [
        {"factors": f, "regularization": r, "unobserved_weight": w, "frequency_exponent": 1.0, "iterations": 10}
        for f, r, w in (
            (32, 0.02, 0.1), (64, 0.02, 0.1), (128, 0.02, 0.1), (64, 0.005, 0.1), (64, 0.05, 0.1), (64, 0.02, 0.3),
            (64, 0.02, 0.03), (128, 0.05, 0.3),
        )
    ],
    "vae-cf": [
        {"hidden_dims": h, "latent_dim": d, "dropout": p, "kl_cap": k, "l2": w, "epochs": 40, "patience": 5,
         "training.global_batch_size": 100}
        for h, d, p, k, w in (
            ((), 200, 0.5, 0.1, 3e-4), ((), 200, 0.5, 0.2, 3e-4), ((), 100, 0.5, 0.1, 3e-4), ((), 200, 0.7, 0.1, 3e-4),
            ((), 200, 0.5, 0.1, 1e-3), ((600,), 200, 0.5, 0.2, 0.0), ((600,), 200, 0.5, 0.1, 3e-4),
            ((), 400, 0.5, 0.1, 3e-4),
        )
    ],
    "neumf": [
        {"branch": b, "mf_dim": d, "layer_dims": (64, 32, 16), "gmf_weights": "ones", "embedding_l2": w,
         "learning_rate": r, "epochs": 12, "patience": 3, "training.negatives": 8}
        for b, d, w, r in (
            ("gmf", 64, 0.01, 0.005), ("gmf", 64, 0.03, 0.005), ("gmf", 64, 0.1, 0.005), ("gmf", 32, 0.03, 0.005),
            ("gmf", 128, 0.03, 0.005), ("gmf", 64, 0.03, 0.002), ("neumf", 64, 0.03, 0.005), ("neumf", 64, 0.01, 0.002),
        )
    ],
}  # fmt: skip


def main() -> None:
    """Trials, then the best of each family."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with ml-1m; default: $TFREC_DATA, else download")
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    arguments = parser.parse_args()
    common = {**COMMON, "dir": arguments.data}
    for family, trials in TRIALS.items():
        found = []
        for number, settings in enumerate(trials):
            run = tfrec.fit(family, **common, **settings, output_dir=arguments.out / f"{family}-{number}")
            found.append((run.metrics["validation"]["model"]["ndcg@100"], settings))
            print(f"{family} trial {number}: validation NDCG@100 {found[-1][0]:.4f}", flush=True)
        _, best = max(found, key=lambda one: one[0])
        out = arguments.out / f"best-{family}"
        run = tfrec.fit(family, **common, **best, train_on_validation=True, output_dir=out)
        reached, seconds = run.metrics["test"]["model"]["ndcg@100"], run.metrics["seconds"]
        print(f"{family}: test NDCG@100 {reached:.4f}, {seconds} s from data to test", flush=True)
        picked = {"validation": [value for value, _ in found], "picked": best}
        (arguments.out / f"best-{family}.json").write_text(json.dumps(picked, indent=2))


if __name__ == "__main__":
    main()
