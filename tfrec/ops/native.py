"""The only loader of the native library: two copies in one process would register their kernels twice."""

from __future__ import annotations

import ctypes
import functools
import os
import warnings
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrec.errors import InputError, TfrecWarning
from tfrec.ops.built_for import built_for, minor


def library_path() -> Path:
    """Where the library is; what TensorFlow Serving must preload.

    In this folder, or at ``TFREC_OPS_LIBRARY``: another build of the same ops, as launch/sanitize makes one.
    """
    other = os.environ.get("TFREC_OPS_LIBRARY")
    return Path(other) if other else Path(__file__).with_name("libtfrec_ops.so")


def how_to_build() -> str:
    """What builds the library for this environment's TensorFlow, as a sentence without its full stop."""
    checkout = Path(__file__).parents[2]
    if (checkout / "custom_ops").is_dir():
        return f"Build it: {checkout / 'launch' / 'setup'} --force"
    return (
        "Install tfrec's wheel for this platform, or build it from the source archive, which needs a C++ compiler: "
        "TFREC_BUILD_OPS=1 pip install --force-reinstall --no-deps --no-cache-dir ARCHIVE"
    )


@functools.cache
def library() -> Any | None:
    """The operations, or None (with one warning) where the library was not built.

    ``TFREC_NATIVE_OPS=0`` leaves it out, to compare with the pure-TensorFlow twins.

    Raises:
        InputError: it was built for another minor version of TensorFlow, it does not load, or ``TFREC_OPS_LIBRARY``
            names no file.
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
            f"used.\n{how_to_build()}.",
            TfrecWarning,
            stacklevel=2,
        )
        return None
    problem = wrong_tensorflow(path, tf.__version__)
    if problem is not None:
        raise InputError(problem)
    try:
        return tf.load_op_library(str(path))
    except tf.errors.NotFoundError as error:
        raise InputError(
            f"TensorFlow {tf.__version__} cannot load {path}: {error.message}.\n{how_to_build()}."
        ) from error


def cpu_kernels() -> str:
    """The instruction set whose kernels the library uses on this processor: ``avx512``, ``avx2`` or ``baseline``.

    Asked of the library itself, which must be loaded.
    """
    ask = ctypes.CDLL(str(library_path())).tfrec_cpu_kernels
    ask.restype = ctypes.c_char_p
    answer: bytes = ask()
    return answer.decode()


def wrong_tensorflow(path: Path, tensorflow: str) -> str | None:
    """Why the library at ``path`` is not for this ``tensorflow``, a version, and what to do; None where it is.

    A library of another minor version would stop at a missing C++ symbol, or worse, load.
    """
    built = built_for(path)
    if built is None or built.tensorflow_minor == minor(tensorflow):
        return None
    return (
        f"tfrec's native library must be built for TensorFlow {minor(tensorflow)}, which is installed.\n"
        f"Received: {path}, built for TensorFlow {built.tensorflow}.\n"
        f"Install that one, pip install 'tensorflow=={built.tensorflow_minor}.*', or build the library again. "
        f"{how_to_build()}."
    )
