"""One small training on the embedded data, as ``python -m tfrec.train`` runs it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from script import parser, write

made = parser(__doc__)
made.add_argument("model")
made.add_argument("--precision", default="float32")
made.add_argument("--epochs", type=int, help="fewer than usual, for a rehearsal")
made.add_argument("--device", choices=["gpu", "cpu"], required=True)
arguments = made.parse_args()

import tensorflow as tf  # noqa: E402

from tfrec.fitting import fit  # noqa: E402

if bool(tf.config.list_physical_devices("GPU")) != (arguments.device == "gpu"):
    raise SystemExit(f"This is to be trained on the {arguments.device.upper()}, and TensorFlow finds another device.")
started = time.perf_counter()
users, items = (1_000, 400) if arguments.model == "neumf" else (2_000, 600)
options: dict[str, Any] = {"data.synthetic.num_users": users, "data.synthetic.num_items": items}
if arguments.model == "als":
    # Its factors are what it has in 16 bits.
    options["factor_dtype"] = "float16" if arguments.precision == "mixed_float16" else "float32"
elif arguments.model != "popularity":  # which has no arithmetic and no epochs
    epochs = arguments.epochs or (8 if arguments.model == "neumf" else 15)
    options |= {"epochs": epochs, "patience": None, "precision": arguments.precision}
with tempfile.TemporaryDirectory() as folder:
    run = fit(arguments.model, output_dir=Path(folder, "run"), **options)
    report = run.metrics
    import numpy as np

    weights = run.recommender.model.get_weights()
finite = all(np.isfinite(np.asarray(w, np.float64)).all() for w in weights)
write(
    arguments.json,
    {
        "test": report["test"]["model"],
        "popularity": report["test"]["popularity"],
        "finite": bool(finite),
        "gpus": report["hardware"]["gpus"],
        "seconds": time.perf_counter() - started,
    },
)
