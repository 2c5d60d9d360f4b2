"""A model's weights and optimizer state as one npz file, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfrec.data.files import DAMAGE, atomic_write
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
    wanted = _variables(model, optimizer)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            # All are read, and so their checksums looked at, before any is assigned.
            values = {name: arrays[name] for name in arrays.files}
            progress = json.loads(values["progress"].tobytes())
    except DAMAGE as error:
        raise InputError(f"{path} is damaged: {error}.\nStart over with --no-resume.") from error
    for name, variable in wanted.items():
        shape, kind = tuple(variable.shape), np.dtype(variable.dtype)
        found = values.get(name)
        if found is None or found.shape != shape or found.dtype != kind:
            came = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise InputError(
                f"{path} is of another model: expected {name} of {kind} {shape}.\nReceived: {came}.\n"
                "Start over with --no-resume."
            )
    for name, variable in wanted.items():
        variable.assign(values[name])
    return progress


def _variables(model: keras.Model, optimizer: bool) -> dict[str, Any]:
    # By number: Keras's own names count up with every model made in a process.
    named = {f"weight.{i}": v for i, v in enumerate(model.weights)}
    if optimizer:
        named |= {f"optimizer.{i}": v for i, v in enumerate(model.optimizer.variables)}
    return named
