"""Load the native library and compare a small call on the device with NumPy."""

from __future__ import annotations

import numpy as np
from script import parser, take_device, write

arguments = parser(__doc__).parse_args()
tf = take_device(arguments.rehearse)

from tensorflow.python.framework import kernels  # noqa: E402

from tfrec import ops  # noqa: E402

if ops.library() is None:
    raise SystemExit(f"{ops.library_path()} did not load.")
names = sorted(
    name for name in dir(ops.library()) if name.startswith("tfrec_") and not name.endswith("_eager_fallback")
)
with_gpu = []
for name in names:
    registered = kernels.get_registered_kernels_for_op("".join(part.capitalize() for part in name.split("_")))
    if any(kernel.device_type == "GPU" for kernel in registered.kernel):
        with_gpu.append(name)
table = np.random.default_rng(0).normal(size=(1_000, 64)).astype(np.float32)
with tf.device("CPU:0" if arguments.rehearse else "GPU:0"):
    found = ops.gramian(tf.constant(table))
expected = table.astype(np.float64).T @ table
error = float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())
if not error < 1e-4:
    raise SystemExit(f"The Gramian of a 1,000 x 64 table is wrong on {found.device}: error {error:.1e}.")
if not arguments.rehearse and "GPU" not in found.device:
    raise SystemExit(f"The Gramian was computed on {found.device}.")
write(
    arguments.json,
    {
        "operations with GPU kernels": with_gpu,
        "operations without": [name for name in names if name not in with_gpu],
        "a Gramian's error": f"{error:.1e}, computed on {found.device}",
    },
)
