"""Recommenders on Keras 3 and TensorFlow, trained data-parallel with Horovod.

Importing ``tfrec`` is cheap: TensorFlow is loaded only with the part that needs it. The parts are there without an
import of their own, ``tfrec.models.ALS``, and `keras.saving.load_model` finds every class of tfrec after
``import tfrec``.
"""

import importlib
from typing import Any

from tfrec import registration

__version__ = "0.1.0"

_PARTS = (
    "configs",
    "data",
    "distributed",
    "errors",
    "evaluation",
    "layers",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "quantization",
    "recipes",
    "serving",
)

registration.when_keras_is_there()


def __getattr__(name: str) -> Any:
    """A part of the package, imported when it is first asked for (PEP 562)."""
    if name in _PARTS:
        return importlib.import_module(f"tfrec.{name}")
    raise AttributeError(f"module 'tfrec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS})
