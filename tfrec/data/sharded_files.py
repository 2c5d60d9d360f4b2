"""Read a share of Parquet files: each rank some row groups, so that no rank reads them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from tfrec.data.column_names import check_columns
from tfrec.errors import InputError

Entries = tuple[np.ndarray, np.ndarray, np.ndarray]


def read_share(paths: Sequence[Path], columns: dict[str, str], rank: int, size: int) -> Entries:
    """Every size-th row group of the files.

    Args:
        paths: of the files, the same on every rank.
        columns: ``user``, ``item`` and, unless all values are 1, ``value`` -> name of the column. Users and items are
            whole numbers from 0.
        rank: of this process.
        size: number of processes.

    Returns:
        int32 users and items and float32 values, ``[B]`` each.

    Raises:
        InputError: no Parquet file, a column that is missing, is of another type or has gaps, or a number that int32
            cannot hold.
    """
    groups: list[tuple[Path, int, int]] = []
    for path in paths:
        try:
            with pa.parquet.ParquetFile(path) as file:
                check_columns(path, columns, file.schema_arrow.names, by_line=False)
                groups += [(path, g, file.metadata.row_group(g).num_rows) for g in range(file.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error
    mine = groups[rank::size]
    total = sum(rows for _, _, rows in mine)
    found = {"user": np.empty(total, np.int32), "item": np.empty(total, np.int32), "value": np.ones(total, np.float32)}
    at = 0
    for path, group, rows in mine:
        try:
            with pa.parquet.ParquetFile(path) as file:
                table = file.read_row_group(group, columns=list(columns.values()), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error
        for role, name in columns.items():
            found[role][at : at + rows] = _numbers(path, name, table[name], role)
        at += rows
    return found["user"], found["item"], found["value"]


def _numbers(path: Path, name: str, column: pa.ChunkedArray, role: str) -> np.ndarray:
    right = pa.types.is_integer(column.type) or (role == "value" and pa.types.is_floating(column.type))
    if not right or column.null_count:
        received = f"{column.type}, {column.null_count} of them missing"
        raise InputError(
            f"Column `{name}` of {path} must hold {'numbers' if role == 'value' else 'whole numbers'} without gaps.\n"
            f"Received: {received}.\nNumber users and items from 0, and leave out rows without a value."
        )
    values: np.ndarray = column.to_numpy()
    if role != "value" and len(values) and (int(values.min()) < 0 or int(values.max()) >= 2**31):
        raise InputError(
            f"Column `{name}` of {path} must hold numbers from 0 to {2**31 - 1:,}.\n"
            f"Received: {values.min()} to {values.max()}.\nNumber users and items from 0, in place of raw ids."
        )
    return values


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} must be a Parquet file.\nReceived: {str(error).rstrip('.')}.\nIs the file cut off?")
