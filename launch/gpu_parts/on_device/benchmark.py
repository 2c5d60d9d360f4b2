"""One of tfrec's benchmarks, as ``python -m tfrec.benchmark NAME`` calls it.

That command takes its arguments with tyro, which a machine may lack. Host memory is not measured: it says nothing
about a GPU, and costs as much time as all the rest; the GPU's own is.
"""

from __future__ import annotations

import importlib
from typing import Any

from script import parser, take_device, write

made = parser(__doc__)
made.add_argument("name", choices=["vae-cf", "neumf", "tt"])
made.add_argument("--rounds", type=int, required=True)
arguments = made.parse_args()
tf = take_device(arguments.rehearse)

#: Sizes of a rehearsal in place of the benchmark's own.
SMALL: dict[str, dict[str, Any]] = {
    "vae_cf": {"_SHAPES": {"tiny": (400, 300)}},
    "neumf": {"_USERS": 2_000, "_ITEMS": 3_000, "_EVENTS": 400_000, "_BATCHES": (1 << 13,)},
    "tt": {},
}
name = arguments.name.replace("-", "_")
module = importlib.import_module(f"tfrec.benchmark.{name}")
if arguments.rehearse:
    for setting, value in SMALL[name].items():
        getattr(module, setting)  # it must be there, or the rehearsal is of something else
        setattr(module, setting, value)
if name == "vae_cf":
    found = module.benchmark_vae_cf(100 if arguments.rehearse else 2_000, arguments.rounds, memory=False)
else:
    found = getattr(module, f"benchmark_{name}")(arguments.rounds, memory=False)
gpu = tf.config.list_physical_devices("GPU")
peak = f"{tf.config.experimental.get_memory_info('GPU:0')['peak'] / 2**20:,.0f} MiB" if gpu else "no GPU"
write(arguments.json, {**found, "gpu_peak_mib": peak})
