"""A model's weights and optimizer state as one npz file, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfrec.data.files import DAMAGE, atomic_write, check_archive, read_npz, reason
from tfrec.errors import InputError
from tfrec.printing import printable

_START_OVER = "\nStart over with --no-resume."


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
    values, progress = read_state(path, model, optimizer=optimizer)
    for name, variable in _variables(model, optimizer).items():
        variable.assign(values[name])
    return progress


def read_state(path: Path, model: keras.Model, *, optimizer: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays for the model's variables, and ``progress``; the model is not changed.

    Raises:
        InputError: a damaged file, or one of another model.
    """
    wanted = _variables(model, optimizer)
    try:
        values = read_npz(path, {*wanted, "progress"})
        progress = json.loads(values["progress"].tobytes())
        if not isinstance(progress, dict):
            raise TypeError("no progress")
    except DAMAGE as error:
        raise InputError(f"{path} is damaged: {reason(error)}.{_START_OVER}") from error
    for name, variable in wanted.items():
        shape, kind = tuple(variable.shape), np.dtype(variable.dtype)
        found = values.get(name)
        if found is None or found.shape != shape or found.dtype != kind:
            came = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise InputError(
                f"{path} is of another model: expected {name} of {kind} {shape}.\nReceived: {came}.{_START_OVER}"
            )
    return values, progress


def resume_state(last: Path, best: Path, model: keras.Model, monitor: str) -> dict[str, Any] | None:
    """Read an earlier start's state into the model, after looking at both files; None where there is none.

    Where ``best`` cannot be used, its place is taken by the last epoch, which is printed. Where ``last`` cannot be used
    the message tells how to continue from the best epoch: nothing that was trained is thrown away.

    Args:
        last: weights, optimizer and progress of the last epoch.
        best: weights and progress of the best epoch; in the place of ``last`` it is taken too, with a new optimizer.
        model: compiled.
        monitor: the validation metric that tells the best epoch.

    Raises:
        InputError: ``last`` is damaged or of another model.
    """
    if not last.exists():
        return None
    try:
        whole = _has_optimizer(last)
        values, progress = read_state(last, model, optimizer=whole)
        epoch, rows = int(progress["epoch"]), list(progress["rows"])
        if epoch != len(rows) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{last} is damaged: {epoch} epochs and {len(rows)} rows.{_START_OVER}")
        if progress["best"] is not None:
            int(progress["best"]["epoch"]), float(progress["best"]["value"])
    except (InputError, KeyError, TypeError, ValueError) as error:
        other = _epoch_of(best, model)
        what = (
            str(error).removesuffix(_START_OVER) if isinstance(error, InputError) else f"{last} is damaged: {error!r}."
        )
        raise InputError(
            f"{what}\n"
            + (f"To continue from epoch {other}, the best: cp {best} {last}\n" if other else "")
            + f"{'Or s' if other else 'S'}tart over with --no-resume."
        ) from error
    for name, variable in _variables(model, whole).items():
        variable.assign(values[name])
    if not whole:
        for optimizer in (model.optimizer, getattr(model.optimizer, "inner_optimizer", None)):
            if optimizer is not None:
                optimizer.iterations.assign(int(progress["updates"]))
        print(f"{last} has no state of the optimizer: it starts again after epoch {epoch}.", flush=True)
    if progress["best"] is None and not best.exists():
        return progress  # no validation yet
    try:
        read_state(best, model, optimizer=False)
    except InputError as error:
        came = str(error).splitlines()[0] if best.exists() else f"{best} is missing."
        value = rows[-1].get(f"validation_{monitor}") if rows else None
        progress["best"] = None if value is None else {"epoch": epoch, "value": value}
        save_state(best, model, progress, optimizer=False)
        print(f"{printable(came)} Its place is taken by the last epoch, {epoch}.", flush=True)
    return progress


def _has_optimizer(path: Path) -> bool:
    """Whether a file has the state of an optimizer; also said of one that cannot be read."""
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as stored:
            return any(name.startswith("optimizer:") for name in stored.files) or "progress" not in stored.files
    except DAMAGE:
        return True


def _epoch_of(path: Path, model: keras.Model) -> int | None:
    """The epoch of a file that training can continue from, or None."""
    try:
        _, progress = read_state(path, model, optimizer=False)
        return int(progress["epoch"]) if {"rows", "best", "updates"} <= set(progress) else None
    except (InputError, KeyError, TypeError, ValueError):
        return None


def _variables(model: keras.Model, optimizer: bool) -> dict[str, Any]:
    """``weight:PATH`` and ``optimizer:PATH`` -> variable.

    Paths are Keras's, without the names of the model and of the optimizer, which count up with every one made in a
    process.
    """
    own = f"{model.name}/"
    named: dict[str, Any] = {}
    for variable in model.weights:
        _add(named, f"weight:{variable.path.removeprefix(own)}", variable)
    if optimizer:
        own = f"{model.name}_"
        for variable in model.optimizer.variables:
            # An optimizer around another one has both's variables, some under the same path.
            _add(named, f"optimizer:{variable.path.split('/', 1)[-1].removeprefix(own)}", variable)
    return named


def _add(named: dict[str, Any], name: str, variable: Any) -> None:
    taken = sum(other == name or other.startswith(f"{name}#") for other in named)
    named[f"{name}#{taken + 1}" if taken else name] = variable
