"""Load TensorFlow without the notices that its libraries print at every start.

Packages of tfrec that need TensorFlow call this first. A program that has imported TensorFlow before keeps what it saw.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

#: Notices that TensorFlow's libraries print while they load, whatever the log level.
_NOTICES = (
    "All log messages before absl::InitializeLog",
    "oneDNN custom operations are on",
    "cudart_stub.cc",
    "cuda_platform.cc",
    "cpu_feature_guard.cc",
    "To enable the following instructions:",
)


def load_tensorflow(whatever_level: bool = False) -> None:
    """Load TensorFlow and Keras, if they are not loaded yet.

    What is written to standard error while they load is held back, and all but those notices is passed on. Where
    ``TF_CPP_MIN_LOG_LEVEL`` is not set, it is set to 3, and with a GPU driver to 2.

    Args:
        whatever_level: set it also where it is 0 or 1, as the commands do.
    """
    if "tensorflow" in sys.modules:
        return
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "")
    # With a GPU what is wrong with it is worth knowing.
    default = "2" if os.path.exists("/proc/driver/nvidia") else "3"
    if not level or (whatever_level and level in ("0", "1")):
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = default
    with without_notices():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
    """Hold back what is written to standard error, and pass on all but the notices of TensorFlow's libraries."""
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if not any(notice in line for notice in _NOTICES):
                    print(line, file=sys.stderr)
