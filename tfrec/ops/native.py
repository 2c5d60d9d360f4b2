"""The only loader of the native library: two copies in one process would register their kernels twice."""

from __future__ import annotations

import functools
import os
import warnings
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrec.errors import InputError, TfrecWarning

_REBUILD = "Build it again in this environment: launch/setup --force, or TFREC_BUILD_OPS=1 pip install -e . " + (
    "--no-build-isolation"
)


def library_path() -> Path:
    """Where the library is; what TensorFlow Serving must preload.

    Next to this file, or at ``TFREC_OPS_LIBRARY``: another build of the same ops, as launch/sanitize makes one.
    """
    other = os.environ.get("TFREC_OPS_LIBRARY")
    return Path(other) if other else Path(__file__).with_name("libtfrec_ops.so")


@functools.cache
def library() -> Any | None:
    """The operations, or None (with one warning) where the library was not built.

    ``TFREC_NATIVE_OPS=0`` leaves it out, to compare with the pure-TensorFlow twins.

    Raises:
        InputError: it was built for another TensorFlow, or ``TFREC_OPS_LIBRARY`` names no file.
    """
    if os.environ.get("TFREC_NATIVE_OPS", "1") == "0":
        return None
    path = library_path()
    if not path.is_file() and os.environ.get("TFREC_OPS_LIBRARY"):
        raise InputError(
            f"TFREC_OPS_LIBRARY must name a library of tfrec's native operations.\n"
            f"Received: {path}, which is no file.\n"
            "Unset it to use the one that was installed."
        )
    if not path.is_file():
        warnings.warn(
            f"tfrec's native operations are not built ({path.name} is missing), so slow pure-TensorFlow ones are "
            f"used.\n{_REBUILD}.",
            TfrecWarning,
            stacklevel=2,
        )
        return None
    try:
        return tf.load_op_library(str(path))
    except tf.errors.NotFoundError as error:
        raise InputError(
            f"{path} cannot be loaded by TensorFlow {tf.__version__}; it was built for another version.\n{_REBUILD}.\n"
            f"The loader: {error.message}"
        ) from error
