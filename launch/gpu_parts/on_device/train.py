"""One small training on the embedded data, as ``python -m tfrec.train`` runs it."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from script import parser, write

made = parser(__doc__)
made.add_argument("model")
made.add_argument("--precision", default="float32")
made.add_argument("--epochs", type=int, help="fewer than usual, for a rehearsal")
made.add_argument("--device", choices=["gpu", "cpu"], required=True)
arguments = made.parse_args()

import tensorflow as tf  # noqa: E402

from tfrec.configs import ALSRun, NeuMFRun, SyntheticConfig, VAECFRun, with_data  # noqa: E402
from tfrec.recipes import RECIPES  # noqa: E402
from tfrec.train import train  # noqa: E402

if bool(tf.config.list_physical_devices("GPU")) != (arguments.device == "gpu"):
    raise SystemExit(f"This is to be trained on the {arguments.device.upper()}, and TensorFlow finds another device.")
started = time.perf_counter()
users, items = (1_000, 400) if arguments.model == "neumf" else (2_000, 600)
config = with_data(RECIPES[arguments.model](), synthetic=SyntheticConfig(num_users=users, num_items=items))
if isinstance(config, VAECFRun):
    config = replace(
        config,
        training=replace(config.training, epochs=arguments.epochs or 15, patience=None, precision=arguments.precision),
    )
elif isinstance(config, NeuMFRun):
    config = replace(
        config,
        training=replace(config.training, epochs=arguments.epochs or 8, patience=None, precision=arguments.precision),
    )
elif isinstance(config, ALSRun):
    # Its factors are what it has in 16 bits.
    dtype = "float16" if arguments.precision == "mixed_float16" else "float32"
    config = replace(config, model=replace(config.model, factor_dtype=dtype))
with tempfile.TemporaryDirectory() as folder:
    config = replace(config, output_dir=Path(folder, "run"))
    train(arguments.model, config, started)
    report = json.loads(Path(folder, "run", "metrics.json").read_text())
    import numpy as np

    from tfrec.training.load_run import load_model
    from tfrec.training.run_folder import RunFolder

    weights = load_model(RunFolder.existing(Path(folder, "run"))).get_weights()
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
