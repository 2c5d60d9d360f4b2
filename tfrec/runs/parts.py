"""Tables of which each rank holds a part, in a file per rank.

A checkpoint of such a model is its main file, with everything that all ranks have, and a file per rank next to it:
``last.npz`` and ``last-3f2a9c81-0of4.npz`` to ``last-3f2a9c81-3of4.npz``. The main file is written last and names them
with their sizes: until then the checkpoint of before is whole, afterwards its files are removed. A file of a part is an
uncompressed npz as NumPy writes it, and is written and read some rows at a time.

Any number of ranks reads what another number has written: row r of a table is in part ``r % size`` at place
``r // size``.
"""

from __future__ import annotations

import json
import secrets
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import tensorflow as tf

from tfrec import distributed
from tfrec.data.files import DAMAGE, atomic_write, check_archive, reason
from tfrec.distributed.sharding import Shard, shard_of
from tfrec.errors import InputError

#: Bytes of rows that are in memory at once.
CHUNK = 16 << 20
_START_OVER = "\nStart over with --no-resume."


def parts_of(variables: dict[str, Any]) -> dict[str, Any]:
    """Of named variables those that hold a part of a table."""
    return {name: v for name, v in variables.items() if shard_of(v) is not None}


def new_id() -> str:
    """What the files of one save have in common."""
    return secrets.token_hex(4)


def part_path(main: Path, save_id: str, rank: int, size: int) -> Path:
    """The file of a rank's parts."""
    return main.with_name(f"{main.stem}-{save_id}-{rank}of{size}.npz")


def write_parts(main: Path, save_id: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Write this rank's parts into its file; returns what the main file is to say of it.

    Raises:
        InputError: the file cannot be written.
    """
    shard = _common(variables)
    path = part_path(main, save_id, shard.rank, shard.size)
    with atomic_write(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("save.npy", "w") as member:
            np.save(member, np.frombuffer(save_id.encode(), np.uint8))
        for name, variable in variables.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                write_rows(member, variable)
    return {"file": path.name, "bytes": path.stat().st_size}


def described(save_id: str, files: list[dict[str, Any]], variables: dict[str, Any]) -> dict[str, Any]:
    """What the main file says of its parts, JSON values."""
    tables = {}
    for name, variable in variables.items():
        shard = shard_of(variable)
        assert shard is not None
        tables[name] = {"rows": shard.rows, "shape": list(variable.shape[1:]), "dtype": str(np.dtype(variable.dtype))}
    return {"save": save_id, "rule": "row r is in part r % size at r // size", "files": files, "tables": tables}


def remove_others(main: Path, save_id: str) -> None:
    """Remove the parts of earlier saves."""
    for path in main.parent.glob(f"{main.stem}-*of*.npz"):
        if not path.name.startswith(f"{main.stem}-{save_id}-"):
            path.unlink(missing_ok=True)


def check_parts(main: Path, about: dict[str, Any] | None, variables: dict[str, Any]) -> None:
    """Look whether a model's parts can be read, without reading them.

    Args:
        main: the main file.
        about: what it says of parts; None: nothing.
        variables: the model's, by name.

    Raises:
        InputError: another model's, or a file is missing or not of this save.
    """
    tables = about["tables"] if about else {}
    for name, variable in variables.items():
        shard, found = shard_of(variable), tables.get(name)
        assert shard is not None
        wanted = {"rows": shard.rows, "shape": list(variable.shape[1:]), "dtype": str(np.dtype(variable.dtype))}
        if found != wanted:
            raise InputError(
                f"{main} is of another model: expected {name} in parts, {_table(wanted)}.\n"
                f"Received: {_table(found) if found else 'nothing'}.{_START_OVER}"
            )
    if not variables or about is None:
        return
    for one in about["files"]:
        path = main.with_name(Path(str(one["file"])).name)
        if not path.is_file():
            raise InputError(
                f"{main} is in {len(about['files'])} more files, and one is missing: {path} (seen from "
                f"{distributed.where()}).\nPut the file back; every rank must see the folder.{_START_OVER}"
            )
        if path.stat().st_size != one["bytes"]:
            raise InputError(
                f"{path} is damaged: expected {one['bytes']:,} bytes.\nReceived: {path.stat().st_size:,}.{_START_OVER}"
            )


def read_parts(main: Path, about: dict[str, Any], variables: dict[str, Any]) -> None:
    """Read the rows that this rank holds into its variables, some at a time.

    Raises:
        InputError: a file is missing, damaged, or of another save.
    """
    mine, files = _common(variables), about["files"]
    for number, one in enumerate(files):
        if len(files) == mine.size and number != mine.rank:
            continue  # as many ranks: each has its own file
        path = main.with_name(Path(str(one["file"])).name)
        try:
            check_archive(path)
            with zipfile.ZipFile(path) as archive:
                with archive.open("save.npy") as member:
                    if np.lib.format.read_array(member, allow_pickle=False).tobytes().decode() != about["save"]:
                        raise InputError(
                            f"{path} is of another save than {main}.\nReceived: two checkpoints mixed.{_START_OVER}"
                        )
                for name, variable in variables.items():
                    with archive.open(f"{name}.npy") as member:
                        _read_rows(member, variable, number, len(files))
        except DAMAGE as error:
            raise InputError(f"{path} is damaged: {reason(error)}.{_START_OVER}") from error


def _common(variables: dict[str, Any]) -> Shard:
    shard = next(shard_of(v) for v in variables.values())
    assert shard is not None
    return shard


def _table(found: dict[str, Any]) -> str:
    return f"{found['dtype']} {(found['rows'], *found['shape'])}"


def write_rows(member: IO[bytes], variable: Any) -> None:
    """A variable as `np.save` writes it, some rows at a time."""
    kind = np.dtype(variable.dtype)
    if len(variable.shape) == 0:
        np.save(member, np.asarray(variable.value))
        return
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": tuple(variable.shape)}
    np.lib.format.write_array_header_2_0(member, header)
    for first, last in _chunks(int(variable.shape[0]), kind.itemsize * _width(variable)):
        # By gather: a slice would copy a variable into which rows were scattered.
        rows = tf.gather(variable.value, tf.range(first, last, dtype=tf.int64))
        member.write(np.ascontiguousarray(rows.numpy()).data.cast("B"))


def _read_rows(member: IO[bytes], variable: Any, part: int, parts: int) -> None:
    """The rows of one file that belong into ``variable``."""
    mine = shard_of(variable)
    assert mine is not None
    np.lib.format.read_magic(member)
    shape, _, kind = np.lib.format.read_array_header_2_0(member)
    written = Shard(mine.rows, part, parts)
    if shape != (written.local_rows, *variable.shape[1:]) or kind != np.dtype(variable.dtype):
        raise ValueError(f"{kind} {shape} in the place of {(written.local_rows, *variable.shape[1:])}")
    width = _width(variable)
    for first, last in _chunks(written.local_rows, kind.itemsize * width):
        content = member.read((last - first) * width * kind.itemsize)
        rows = np.frombuffer(content, kind).reshape(last - first, *variable.shape[1:])
        ids = np.arange(first, last, dtype=np.int64) * parts + part
        own = ids % mine.size == mine.rank
        if own.any():
            # In place: an assignment to a slice would make a second copy of the table.
            variable.value.scatter_update(tf.IndexedSlices(tf.constant(rows[own]), ids[own] // mine.size))
    member.read(1)  # at its end the archive compares the checksum


def _chunks(rows: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    step = max(1, CHUNK // max(1, row_bytes))
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


def _width(variable: Any) -> int:
    return int(np.prod(variable.shape[1:], dtype=np.int64))


def encoded(about: dict[str, Any]) -> np.ndarray:
    """``about`` as an array of the main file."""
    return np.frombuffer(json.dumps(about).encode(), np.uint8)
