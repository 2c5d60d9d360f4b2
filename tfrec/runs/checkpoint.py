"""A model's weights and optimizer state, written whole or not at all: an npz file; and where each rank holds a part of
a table, a file of each rank next to it (`tfrec.runs.parts`)."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfrec import distributed
from tfrec.data.files import DAMAGE, atomic_write, check_archive, read_npz, reason
from tfrec.errors import InputError
from tfrec.printing import printable
from tfrec.runs import parts
from tfrec.runs.claim import on_rank_zero

_START_OVER = "\nStart over with --no-resume."


def save_state(path: Path, model: keras.Model, progress: dict[str, Any], *, optimizer: bool) -> None:
    """Write weights, optimizer state if asked for, and ``progress`` (JSON values). Every rank must call it.

    Raises:
        InputError: the disk is full; what was there before is untouched.
    """
    named = _variables(model, optimizer)
    in_parts = parts.parts_of(named)
    if not in_parts:
        if distributed.rank() == 0:
            _write_main(path, named, progress, None)
        return
    save_id = distributed.broadcast_json(parts.new_id())
    written = distributed.together(lambda: parts.write_parts(path, save_id, in_parts), "writing a checkpoint")
    about = parts.described(save_id, distributed.exchange(written, "where all have written their parts"), in_parts)
    whole = {name: v for name, v in named.items() if name not in in_parts}
    on_rank_zero(lambda: _write_main(path, whole, progress, about))


def _write_main(path: Path, named: dict[str, Any], progress: dict[str, Any], about: dict[str, Any] | None) -> None:
    arrays = {"progress": np.frombuffer(json.dumps(progress).encode(), np.uint8)}
    if about is not None:
        arrays["parts"] = parts.encoded(about)
    # As np.savez writes it, but with one variable at a time in memory, and of that some rows.
    with atomic_write(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, variable in named.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                parts.write_rows(member, variable)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, array)
    parts.remove_others(path, about["save"] if about else "")


def load_state(path: Path, model: keras.Model, *, optimizer: bool) -> dict[str, Any]:
    """Read what `save_state` wrote into the model; returns ``progress``. Every rank must call it: what all have is read
    by rank 0, into its model only.

    Raises:
        InputError: a damaged file, or one of another model.
    """
    progress = on_rank_zero(lambda: _load_main(path, model, optimizer))
    _load_parts(path, model, optimizer)
    return progress


def _load_main(path: Path, model: keras.Model, optimizer: bool) -> dict[str, Any]:
    values, progress = read_state(path, model, optimizer=optimizer)
    _assign(values, model, optimizer)
    return progress


def _assign(values: dict[str, np.ndarray], model: keras.Model, optimizer: bool) -> None:
    named = _variables(model, optimizer)
    in_parts = parts.parts_of(named)
    for name, variable in named.items():
        if name not in in_parts:
            variable.assign(values[name])


def _load_parts(path: Path, model: keras.Model, optimizer: bool) -> None:
    in_parts = parts.parts_of(_variables(model, optimizer))
    if not in_parts:
        return

    def read() -> None:
        # Each rank looks for itself: it needs the files.
        values, _ = read_state(path, model, optimizer=optimizer)
        parts.read_parts(path, json.loads(values["parts"].tobytes()), in_parts)

    distributed.together(read, "reading a checkpoint")


def read_state(path: Path, model: keras.Model, *, optimizer: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of the main file for the model's variables, and ``progress``; the model is not changed.

    Raises:
        InputError: a damaged file, or one of another model; a file of its parts is missing.
    """
    wanted = _variables(model, optimizer)
    in_parts = parts.parts_of(wanted)
    try:
        values = read_npz(path, {*wanted, "progress", "parts"})
        progress = json.loads(values["progress"].tobytes())
        if not isinstance(progress, dict):
            raise TypeError("no progress")
        about = json.loads(values["parts"].tobytes()) if "parts" in values else None
    except DAMAGE as error:
        raise InputError(f"{path} is damaged: {reason(error)}.{_START_OVER}") from error
    for name, variable in wanted.items():
        if name in in_parts:
            continue
        shape, kind = tuple(variable.shape), np.dtype(variable.dtype)
        found = values.get(name)
        if found is None or found.shape != shape or found.dtype != kind:
            came = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise InputError(
                f"{path} is of another model: expected {name} of {kind} {shape}.\nReceived: {came}.{_START_OVER}"
            )
    parts.check_parts(path, about, in_parts)
    return values, progress


def resume_state(last: Path, best: Path, model: keras.Model, monitor: str) -> dict[str, Any] | None:
    """Read an earlier start's state into the model, after looking at both files; None where there is none. Every rank
    must call it; what all ranks have is then in rank 0's model.

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
    found = on_rank_zero(lambda: _resume_main(last, best, model, monitor))
    if found is None:
        return None
    progress: dict[str, Any] = found["progress"]
    _load_parts(last, model, found["optimizer"])
    if found["replace_best"]:
        save_state(best, model, progress, optimizer=False)
    return progress


def _resume_main(last: Path, best: Path, model: keras.Model, monitor: str) -> dict[str, Any] | None:
    """`resume_state` but for parts of tables; and whether the optimizer's state is there, and ``best`` is not."""
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
    _assign(values, model, whole)
    if not whole:
        for optimizer in (model.optimizer, getattr(model.optimizer, "inner_optimizer", None)):
            if optimizer is not None:
                optimizer.iterations.assign(int(progress["updates"]))
        print(f"{last} has no state of the optimizer: it starts again after epoch {epoch}.", flush=True)
    found = {"progress": progress, "optimizer": whole, "replace_best": False}
    if progress["best"] is None and not best.exists():
        return found  # no validation yet
    try:
        read_state(best, model, optimizer=False)
    except InputError as error:
        came = str(error).splitlines()[0] if best.exists() else f"{best} is missing."
        value = rows[-1].get(f"validation_{monitor}") if rows else None
        progress["best"] = None if value is None else {"epoch": epoch, "value": value}
        print(f"{printable(came)} Its place is taken by the last epoch, {epoch}.", flush=True)
        return {**found, "replace_best": True}
    return found


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
