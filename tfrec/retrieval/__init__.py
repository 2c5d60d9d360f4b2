"""A model's vectors in indexes of other libraries, and their lists measured with tfrec's metrics.

Each name is imported when it is first asked for (PEP 562).
"""

import importlib
from typing import Any

#: Public name -> the module with it.
_NAMES = {"from_tfrs": "tfrs", "load_tfrs": "legacy_keras", "to_tfrs": "tfrs"}

__all__ = ["from_tfrs", "load_tfrs", "to_tfrs"]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"tfrec.retrieval.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'tfrec.retrieval' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
