"""Which GPUs TensorFlow finds, and the versions that a figure depends on."""

from __future__ import annotations

import importlib.metadata

from script import parser, write

arguments = parser(__doc__).parse_args()

import tensorflow as tf  # noqa: E402

gpus = tf.config.list_physical_devices("GPU")
details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
versions = {"TensorFlow": tf.__version__}
for package in ("keras", "numpy", "scipy", "horovod", "implicit"):
    try:
        versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        versions[package] = "not there"
build = tf.sysconfig.get_build_info()
versions["cuDNN of TensorFlow's build"] = str(build.get("cudnn_version", "none"))
write(
    arguments.json,
    {
        "GPUs of TensorFlow": [f"{d.get('device_name', '?')} {d.get('compute_capability', '')}" for d in details],
        "versions": versions,
    },
)
