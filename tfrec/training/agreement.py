"""Ranks compare what they are about to train before they do: settings first, then data."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import scipy.sparse

from tfrec import distributed
from tfrec.configs import Run, to_json
from tfrec.training.prepare import Prepared
from tfrec.training.prepare_entries import PreparedEntries
from tfrec.training.prepare_items import PreparedItems

#: Places on each rank's own machine: other ones with the same content are fine. (Only rank 0 writes.)
_PLACES = ("output_dir", "data.dir", "data.path")


def agree_on_settings(recipe: str, config: Run) -> None:
    """Raise on every rank unless all have the same recipe and settings, places of files aside.

    Raises:
        SharedError: names each option that differs, as it is typed, with the values, ranks and hosts.
    """
    distributed.agree(
        {"recipe": recipe, **{_option(name): value for name, value in _flat(to_json(config)) if name not in _PLACES}},
        "The ranks have different settings",
        "Give every rank the same command line.",
    )


def agree_on_data(config: Run, data: Prepared | PreparedItems | PreparedEntries) -> None:
    """Raise on every rank unless all have read the same data.

    Raises:
        SharedError: names the file, with its checksum on each rank, or the part of the data that differs.
    """
    if distributed.size() == 1:
        return
    events = data.interactions
    arrays = {
        "events": (events.user_index, events.item_index, events.values, events.timestamps),
        "user ids": (events.user_ids,),
        "item ids": (events.item_ids,),
        "item titles": (events.item_titles,),
        "training and held-out parts": tuple(_arrays(data)),
    }
    source = {name: value for name, value in events.source.items() if not isinstance(value, dict)}
    name = str(config.data.path or source.get("file") or config.data.name)
    found: dict[str, Any] = {f"{what} of {name.rsplit('/', 1)[-1]}": _digest(some) for what, some in arrays.items()}
    if data.sha256 is not None:
        found = {f"SHA-256 of {name.rsplit('/', 1)[-1]}": data.sha256, **found}
    distributed.agree(
        found,
        f"The ranks have read different data from {name}",
        f"Copy {name} from one host to the others, or name one folder that all share.",
    )


def agree_on_steps(steps: int) -> None:
    """Raise on every rank unless all make the same number of steps in an epoch."""
    distributed.agree({"steps of an epoch": steps}, "The ranks are not about to make the same number of steps", "")


def _option(name: str) -> str:
    return name if name == "recipe" else f"--{name.replace('_', '-')}"


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(prefix, value)]
    return [one for key, item in value.items() for one in _flat(item, f"{prefix}.{key}" if prefix else key)]


def _arrays(data: Any) -> list[np.ndarray]:
    """The arrays of a split, in the order of its fields."""
    found: list[np.ndarray] = []
    for field in fields(data):
        value: Any = getattr(data, field.name)
        if field.name in ("interactions", "oracle"):
            continue
        if isinstance(value, scipy.sparse.csr_matrix):
            found += [value.indptr, value.indices, value.data]
        elif isinstance(value, np.ndarray):
            found.append(value)
        elif is_dataclass(value):
            found += _arrays(value)
    return found


def _digest(arrays: tuple[np.ndarray | None, ...]) -> str:
    found = hashlib.blake2b(digest_size=8)
    for array in arrays:
        if array is None:
            found.update(b"none")
        elif array.dtype == object:
            found.update("\0".join(map(str, array)).encode())
        else:
            found.update(f"{array.dtype}{array.shape}".encode())
            found.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return found.hexdigest()
