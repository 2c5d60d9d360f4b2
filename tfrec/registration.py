"""Makes `keras.saving.load_model` find tfrec's classes after ``import tfrec`` alone, without loading TensorFlow.

Keras looks a saved class up in its table of registered classes, where a class is entered when its module is imported.
Here stand-ins are entered under the same names: each imports its class when Keras builds something from it, and the
import puts the class in the stand-in's place. If Keras is not loaded yet, they are entered as soon as it is.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any

#: What is registered with Keras as ``tfrec>NAME``, and where it is defined.
CLASSES = {
    "ALS": "tfrec.models",
    "ALSFactors": "tfrec.layers",
    "ALSQueries": "tfrec.quantization",
    "Adam": "tfrec.optimizers",
    "AlignedDense": "tfrec.layers",
    "CachedTTEmbedding": "tfrec.layers",
    "EASE": "tfrec.models",
    "NeuMF": "tfrec.models",
    "Popularity": "tfrec.models",
    "QuantizationAwareNeuMF": "tfrec.quantization",
    "QuantizedItems": "tfrec.quantization",
    "QuantizedNeuMF": "tfrec.quantization",
    "ShardedEmbedding": "tfrec.layers",
    "SparseDense": "tfrec.layers",
    "TTEmbedding": "tfrec.layers",
    "TTEmbeddingBag": "tfrec.layers",
    "VAECF": "tfrec.models",
    "VAECFQueries": "tfrec.quantization",
}


class _StandIn:
    """Stands for a class until something is built from it."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __repr__(self) -> str:
        return f"<{CLASSES[self.__name__]}.{self.__name__}, not imported yet>"

    def imported(self) -> Any:
        """The class."""
        return getattr(importlib.import_module(CLASSES[self.__name__]), self.__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.imported()(*args, **kwargs)

    def from_config(self, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """What Keras calls to build an object."""
        return self.imported().from_config(config)


def when_keras_is_there() -> None:
    """Enter the stand-ins, now or when Keras is imported."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "saving"):
        _enter(keras)
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())


def _enter(keras: ModuleType) -> None:
    known = keras.saving.get_custom_objects()
    for name in CLASSES:
        known.setdefault(f"tfrec>{name}", _StandIn(name))


class _AfterKeras:
    """Lets Keras be found as ever, and enters the stand-ins once it is loaded."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """The spec of ``keras``, whose loader does one thing more; None for any other module."""
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        loader: Any = spec.loader if spec is not None else None
        if loader is None:
            return spec

        def load(module: ModuleType) -> None:
            del loader.exec_module  # the loader's own from here on
            loader.exec_module(module)
            _enter(module)

        loader.exec_module = load
        return spec
