"""Data sets by name. A new one is one decorated function in a module that `tfrec.data.datasets` imports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tfrec.data.interactions import Interactions
from tfrec.errors import InputError

if TYPE_CHECKING:
    from tfrec.data.synthetic import Synthetic
    from tfrec.data.synthetic_catalog import SyntheticCatalog

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Loaded:
    """What a data set has.

    Args:
        events: all of it; of a set that comes with held-out items, what is left for training.
        oracle: the model that the events were drawn from, where there is one.
        test_items: int32 ``[U]``, each user's held-out item (-1: none), where the set states it.
        test_negatives: int32 ``[U, n]``, what that item is ranked among, where the set states it.
        notes: what -> how many, of what is unusual in the files.
    """

    events: Interactions
    oracle: Synthetic | SyntheticCatalog | None = None
    test_items: np.ndarray | None = None
    test_negatives: np.ndarray | None = None
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A data set.

    Args:
        read: ``(data_dir, **settings) -> Loaded``.
        settings: the dataclass whose fields are its settings; None: it has none.
    """

    read: Callable[..., Loaded]
    settings: type | None = None

    def load(self, name: str, data_dir: str | Path | None, settings: Mapping[str, Any]) -> Loaded:
        """Read it.

        Raises:
            InputError: a setting that it does not have, or data that cannot be read.
        """
        known = [f.name for f in fields(self.settings)] if self.settings else []
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise InputError(
                f"The settings of {name} are {', '.join(known) or 'none'}.\nReceived: {', '.join(unknown)}."
            )
        return self.read(data_dir, **settings)


#: Name -> data set, in the order in which they are listed.
REGISTRY: dict[str, Entry] = {}


def data_set(name: str, *, settings: type | None = None) -> Callable[[F], F]:
    """Register a function ``(data_dir, **settings) -> Loaded`` under ``name``."""

    def register(read: F) -> F:
        if name in REGISTRY:
            raise ValueError(f"There is a data set {name} already.")
        REGISTRY[name] = Entry(read, settings)
        return read

    return register
