"""Tables on disk as Arrow IPC files: written whole or not at all, memory-mapped when they are read.

A file is one record batch, uncompressed, so that reading copies no numbers, processes share the pages, and all
programs that read Arrow (pandas, polars, DuckDB) can open it. It carries the CRC-32 of each column and of the metadata
about them, which reading checks, so that a damaged file is never taken for another one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tfrec.data.files import atomic_write, check_is_file

_KEY, _CHECK = b"tfrec", b"tfrec.crc32"
_NUMBERS = (np.int32, np.int64, np.float32, np.float64)


@dataclass(frozen=True)
class Table:
    """What a file holds, with R rows. Arrays of numbers are views of the file, so they cannot be written to.

    Args:
        columns: name -> ``[R]``, numbers, or ``str`` in an object array.
        offsets: int64 ``[R + 1]``, where the list of each row begins in the arrays of ``lists``; None without lists.
        lists: name -> the lists of all rows, one after the other.
        metadata: JSON values.
    """

    columns: dict[str, np.ndarray]
    offsets: np.ndarray | None = None
    lists: dict[str, np.ndarray] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


def write_table(
    path: Path,
    columns: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any] | None = None,
    *,
    lists: tuple[np.ndarray, Mapping[str, np.ndarray]] | None = None,
) -> None:
    """Write ``path``, whole or not at all.

    Args:
        path: the file.
        columns: name -> ``[R]``: int32, int64, float32, float64, or ``str`` in an object array.
        metadata: JSON values, kept with the columns.
        lists: columns of lists: offsets ``[R + 1]`` that all of them share, and name -> the numbers of all rows, one
            after the other; as ``indptr``, ``indices`` and ``data`` of a SciPy CSR matrix.

    Raises:
        InputError: the file cannot be written.
        TypeError: a column of another kind.
        ValueError: columns of different lengths.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "users.arrow"
        >>> write_table(path, {"id": np.array([7, 9])}, lists=(np.array([0, 2, 3]), {"items": np.array([4, 5, 4])}))
        >>> table = read_table(path)
        >>> table.columns["id"].tolist(), table.offsets.tolist(), table.lists["items"].tolist()
        ([7, 9], [0, 2, 3], [4, 5, 4])
    """
    arrays = {name: _to_arrow(name, column) for name, column in columns.items()}
    if lists is not None:
        offsets = pa.array(np.asarray(lists[0], np.int64))
        for name, values in lists[1].items():
            if values.dtype == object:
                raise TypeError(f"Lists must hold numbers.\nReceived: `{name}` of {values.dtype}.")
            arrays[name] = pa.LargeListArray.from_arrays(offsets, _to_arrow(name, values))
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Columns must have the same length.\nReceived: {lengths}.")
    checks = {name: _checksum(array) for name, array in arrays.items()}
    about = json.dumps({"crc32": checks, "metadata": dict(metadata or {})}).encode()
    batch = pa.record_batch(arrays).replace_schema_metadata({_KEY: about, _CHECK: b"%d" % zlib.crc32(about)})
    with atomic_write(path) as stream, pa.ipc.new_file(stream, batch.schema) as writer:
        writer.write_batch(batch)


def read_table(path: Path) -> Table:
    """What `write_table` wrote.

    Raises:
        DAMAGE: whatever reading a damaged file may raise, see `tfrec.data.files.DAMAGE`.
    """
    check_is_file(path)
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            if reader.num_record_batches != 1:
                raise ValueError(f"it has {reader.num_record_batches} record batches, and one is expected")
            batch = reader.get_batch(0)
            batch.validate(full=True)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    text = (batch.schema.metadata or {})[_KEY]
    if zlib.crc32(text) != int(batch.schema.metadata[_CHECK]):
        raise ValueError("its metadata is not what was written")
    about = json.loads(text)
    if list(about["crc32"]) != batch.schema.names:
        raise ValueError("its columns are not those that were written")
    columns: dict[str, np.ndarray] = {}
    lists: dict[str, np.ndarray] = {}
    offsets = None
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        if _checksum(array) != about["crc32"][name]:
            raise ValueError(f"column `{name}` is not what was written")
        if pa.types.is_large_list(array.type):
            found = _view(array.offsets)
            if offsets is not None and not np.array_equal(found, offsets):
                raise ValueError("its lists differ in length")
            offsets, lists[name] = found, _view(array.values)
        else:
            columns[name] = _to_numpy(array)
    return Table(columns, offsets, lists, about["metadata"])


def _to_arrow(name: str, column: np.ndarray) -> pa.Array:
    if column.ndim == 1 and column.dtype == object:
        return pa.array(column, pa.large_string(), from_pandas=False)
    if column.ndim == 1 and column.dtype in _NUMBERS:
        return pa.array(np.ascontiguousarray(column))
    raise TypeError(
        f"Columns must be int32, int64, float32, float64 or text, with one dimension.\nReceived: `{name}` of "
        f"{column.dtype}, shape {column.shape}."
    )


def _to_numpy(array: pa.Array) -> np.ndarray:
    if pa.types.is_large_string(array.type):
        # The None keeps NumPy from looking into the texts for a second dimension.
        return np.array([*array.to_pylist(), None], dtype=object)[:-1]
    return _view(array)


def _view(array: pa.Array) -> np.ndarray:
    """Numbers without a copy; ValueError where some are missing."""
    return array.to_numpy(zero_copy_only=True)


def _checksum(array: pa.Array) -> int:
    """CRC-32 of what a column holds and of its type, without the padding of its buffers."""
    if array.null_count:
        raise ValueError("entries are missing")
    check = zlib.crc32(str(array.type).encode())
    if pa.types.is_large_list(array.type):
        return zlib.crc32(_bytes(_view(array.offsets)), check ^ _checksum(array.values))
    if not pa.types.is_large_string(array.type):
        return zlib.crc32(_bytes(_view(array)), check)
    if len(array) == 0:
        return check
    _, offset_buffer, data = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    text = memoryview(data)[offsets[0] : offsets[-1]] if data is not None else b""
    return zlib.crc32(_bytes(offsets - offsets[0]), zlib.crc32(text, check))


def _bytes(array: np.ndarray) -> memoryview:
    return array.view(np.uint8).data
