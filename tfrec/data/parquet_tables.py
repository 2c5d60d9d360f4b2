"""Read the columns of a Parquet file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from tfrec.data.column_names import check_columns
from tfrec.data.table_parts import Part
from tfrec.errors import InputError


def read_parquet(path: Path, columns: dict[str, str]) -> Part:
    """The columns of the file, by role.

    Args:
        path: the file.
        columns: role -> name of the column.

    Raises:
        InputError: no Parquet file, or a column that is missing.
    """
    try:
        raw = pa.parquet.read_schema(path).names
        present = [column.strip() for column in raw]
        check_columns(path, columns, present, by_line=False)
        table = pa.parquet.ParquetFile(path).read(columns=[raw[present.index(column)] for column in columns.values()])
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} must be a Parquet file.\nReceived: {str(error).rstrip('.')}.\nIs the file cut off?"
        ) from error
    arrays = []
    for column in columns.values():
        array = table[raw[present.index(column)]]
        if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
            try:  # text, as some writers store it
                array = pc.cast(array, pa.large_string())
            except pa.ArrowInvalid as error:
                raise InputError(f"{path}: column `{column}` holds bytes that are no text.\nName another.") from error
        arrays.append(array)
    return Part(path, pa.table(arrays, names=list(columns)))
