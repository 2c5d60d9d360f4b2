"""Recommenders on Keras 3 and TensorFlow, trained data-parallel with Horovod.

Importing ``tfrec`` is cheap: TensorFlow is loaded only with the part that needs it. Parts and public names are there
without an import of their own, ``tfrec.ALS``, ``tfrec.data.load``, and `keras.saving.load_model` finds every
class of tfrec after
``import tfrec``.
"""

import importlib
from typing import Any

from tfrec import registration

__version__ = "0.1.0"

_PARTS = (
    "data",
    "distributed",
    "errors",
    "evaluation",
    "families",
    "layers",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "quantization",
    "retrieval",
    "serving",
    "tasks",
)
#: Public name -> where it is defined.
_NAMES = {
    "ALS": "models",
    "EASE": "models",
    "Interactions": "data",
    "NeuMF": "models",
    "Popularity": "models",
    "Recommender": "recommender",
    "Run": "fitting",
    "VAECF": "models",
    "fit": "fitting",
    "load": "data",
}

registration.when_keras_is_there()


def __getattr__(name: str) -> Any:
    """A part of the package or a public name, imported when it is first asked for (PEP 562)."""
    if name in _PARTS:
        return importlib.import_module(f"tfrec.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"tfrec.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfrec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS, *_NAMES})
