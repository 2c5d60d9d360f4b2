"""Ranks compare what they are about to train before they do: settings first, then data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrec import distributed
from tfrec.data import Interactions
from tfrec.data.digest import digest

#: Places on each rank's own machine: other ones with the same content are fine. (Only rank 0 writes.)
_PLACES = (
    "output_dir", "continue_run", "data.dir", "data.path", "data.validation_path", "data.test_path"
)  # fmt: skip


def agree_on_settings(recipe: str, settings: dict[str, Any]) -> None:
    """Raise on every rank unless all have the same recipe and settings, places of files aside.

    Raises:
        SharedError: names each option that differs, as it is typed, with the values, ranks and hosts.
    """
    distributed.agree(
        {"recipe": recipe, **{_option(name): value for name, value in _flat(settings) if name not in _PLACES}},
        "The ranks have different settings",
        "Give every rank the same command line.",
    )


def agree_on_data(name: str, events: Interactions, arrays: Sequence[np.ndarray], sha256: str | None) -> None:
    """Raise on every rank unless all have read the same data.

    Args:
        name: of the file or the data set.
        events: all of it.
        arrays: the training and held-out parts.
        sha256: checksum of the files, where there are any.

    Raises:
        SharedError: names the file, with its checksum on each rank, or the part of the data that differs.
    """
    if distributed.size() == 1:
        return
    parts = {
        "events": (events.user_index, events.item_index, events.values, events.timestamps),
        "user ids": (events.user_ids,),
        "item ids": (events.item_ids,),
        "item titles": (events.item_titles,),
        "training and held-out parts": tuple(arrays),
    }
    found: dict[str, Any] = {f"{what} of {name.rsplit('/', 1)[-1]}": digest(some) for what, some in parts.items()}
    if sha256 is not None:
        found = {f"SHA-256 of {name.rsplit('/', 1)[-1]}": sha256, **found}
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
