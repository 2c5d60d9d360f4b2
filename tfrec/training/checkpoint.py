"""A model's weights and optimizer state as one npz file, written whole or not at all."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfrec.data.files import atomic_write
from tfrec.errors import InputError


def save_state(path: Path, model: keras.Model, progress: dict[str, Any], *, optimizer: bool) -> None:
    """Write weights, optimizer state if asked for, and ``progress`` (JSON values).

    Raises:
        InputError: the disk is full; what was there before is untouched.
    """
    arrays: dict[str, Any] = {name: np.asarray(v.value) for name, v in _variables(model, optimizer).items()}
    arrays["progress"] = np.frombuffer(json.dumps(progress).encode(), np.uint8)
    with atomic_write(path) as stream:
        np.savez(stream, **arrays)


def load_state(path: Path, model: keras.Model, *, optimizer: bool) -> dict[str, Any]:
    """Read what `save_state` wrote into the model; returns ``progress``.

    Raises:
        InputError: a damaged file, or one of another model.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            wanted = _variables(model, optimizer)
            missing = [name for name in wanted if name not in arrays]
            if missing:
                raise InputError(f"{path} is of another model: it has no {missing[0]}.\nStart over with --no-resume.")
            # All are read, and their checksums looked at, before any is assigned.
            values = {name: arrays[name] for name in wanted}
            progress = json.loads(arrays["progress"].tobytes())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: {error}.\nStart over with --no-resume.") from error
    for name, variable in wanted.items():
        if tuple(variable.shape) != values[name].shape:
            raise InputError(
                f"{path} is of another model: {name} has shape {values[name].shape}, "
                f"expected {tuple(variable.shape)}.\n"
                "Start over with --no-resume."
            )
        variable.assign(values[name])
    return progress


def _variables(model: keras.Model, optimizer: bool) -> dict[str, Any]:
    # By number: Keras's own names count up with every model made in a process.
    named = {f"weight.{i}": v for i, v in enumerate(model.weights)}
    if optimizer:
        named |= {f"optimizer.{i}": v for i, v in enumerate(model.optimizer.variables)}
    return named
