"""Imports TensorFlow Recommenders, which needs Keras 2 under the name ``tf.keras``.

Since version 2.16 TensorFlow decides on the first use of ``tf.keras`` which Keras that is: Keras 3, or the package
tf-keras where ``TF_USE_LEGACY_KERAS`` is 1. It does not decide again. The package ``keras``, which tfrec uses, is Keras
3 in either case, and both work in one process.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tfrec.errors import InputError
from tfrec.quiet import load_tensorflow

_VARIABLE = "TF_USE_LEGACY_KERAS"
#: What TensorFlow takes for yes.
_YES = ("1", "true", "True")
#: Module -> the package that has it.
_PACKAGES = {"tensorflow_recommenders": "tensorflow-recommenders", "tf_keras": "tf-keras"}


def load_tfrs() -> Any:
    """The module ``tensorflow_recommenders``.

    ``TF_USE_LEGACY_KERAS`` is set to 1 where it is not set, and stays so unless an error is raised.

    Raises:
        InputError: packages are missing; ``tf.keras`` is Keras 3 already, or was asked to be; or an installed scann
            that does not load, in which case TensorFlow Recommenders does not either.
    """
    missing = [package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise InputError(
            "TensorFlow Recommenders and tf-keras must be installed.\n"
            f"Received: no {' and no '.join(missing)}.\nInstall both: pip install 'tfrec[retrieval]'."
        )
    load_tensorflow()
    with _legacy_keras():
        _check_scann()
        return importlib.import_module("tensorflow_recommenders")


@contextmanager
def _legacy_keras() -> Iterator[None]:
    """Sets the variable, and takes it back when what is done with it raises."""
    given = os.environ.get(_VARIABLE)
    if given and given not in _YES:
        raise InputError(
            f"TensorFlow Recommenders needs {_VARIABLE}=1.\nReceived: {_VARIABLE}={given}.\n"
            "Unset it, or set it to 1, before Python starts."
        )
    os.environ[_VARIABLE] = given or "1"
    try:
        _check_keras()
        yield
    except BaseException:
        if given is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = given
        raise


def _check_keras() -> None:
    """Raise InputError where ``tf.keras`` is Keras 3; else it is Keras 2 from here on."""
    import tensorflow as tf

    # Keras 2 has no version under this name.
    version = getattr(tf.keras, "__version__", "2")
    if version.startswith("3."):
        raise InputError(
            "TensorFlow Recommenders must be loaded before anything uses tf.keras, which then stays as it is.\n"
            f"Received: tf.keras is Keras {version} already.\n"
            f"Call tfrec.retrieval.load_tfrs() at the start of the program, or set {_VARIABLE}=1 before Python starts."
        )


def _check_scann() -> None:
    """Raise InputError for a scann that fails to load with anything but ImportError, all that TFRS expects."""
    if importlib.util.find_spec("scann") is None:
        return
    try:
        importlib.import_module("scann")
    except ImportError:
        return
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            "TensorFlow Recommenders loads the package scann where it is installed, and this one does not load.\n"
            f"Received: {type(error).__name__}: {reason[0][:200]}.\n"
            "It was compiled for another TensorFlow: pip uninstall scann. BruteForce and Streaming do without it."
        ) from error
