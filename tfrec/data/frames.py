"""Columns of a data frame as an Arrow table, without a library of frames of our own.

What is accepted: a mapping of columns, a structured NumPy array, pandas, and whatever has the Arrow PyCapsule interface
(polars, PyArrow, DuckDB, ...) or the dataframe interchange protocol. Text that is in Arrow's layout already is shared
with the frame, not copied; of views of text (polars), each different text is copied once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.interchange

from tfrec.data.column_names import check_columns
from tfrec.errors import InputError

#: What a frame is called in messages.
NAME = "the frame"


class Frame:
    """A data frame that is opened once, as a stream can be read once only.

    Args:
        frame: see the module.

    Attributes:
        present: names of its columns, without blanks around them.

    Raises:
        InputError: no frame, or one that Arrow cannot hold.
    """

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self._names, self._read = _reader(frame)
        self.present = [str(name).strip() for name in self._names]

    def table(self, columns: Mapping[str, str]) -> pa.Table:
        """Some columns, by role.

        Args:
            columns: role -> name of the column.

        Raises:
            InputError: a column that is missing or occurs twice, or one that Arrow cannot hold.
        """
        _check_index(self._frame, columns, self.present)
        check_columns(NAME, dict(columns), self.present, by_line=False)
        wanted = [self._names[self.present.index(column)] for column in columns.values()]
        found = dict(zip(columns, self._read(wanted), strict=True))
        lengths = {columns[role]: len(column) for role, column in found.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(
                f"The columns of {NAME} must have the same length.\nReceived: "
                + ", ".join(f"{length:,} of `{name}`" for name, length in lengths.items())
                + "."
            )
        return pa.table(found)


_Read = Callable[[list[Any]], list[pa.ChunkedArray]]


def _reader(frame: Any) -> tuple[list[Any], _Read]:
    """The names of a frame's columns, and what reads some of them; the others may hold anything."""
    if isinstance(frame, np.ndarray):
        if frame.dtype.names is None:
            raise InputError(
                f"A NumPy array must have named fields.\nReceived: an array of {frame.dtype}, shape {frame.shape}.\n"
                "Give a mapping of columns: {'user_id': users, 'item_id': items}."
            )
        return list(frame.dtype.names), _each(lambda name: frame[name])
    if isinstance(frame, Mapping):
        return list(frame), _each(lambda name: frame[name])
    if hasattr(frame, "iloc") and hasattr(frame, "columns"):  # pandas
        return list(frame.columns), _each(lambda name: frame.iloc[:, list(frame.columns).index(name)])
    if hasattr(frame, "get_column") and hasattr(frame, "columns"):  # polars
        return list(frame.columns), _each(frame.get_column)
    if hasattr(frame, "column_names") and hasattr(frame, "select"):  # PyArrow
        names = list(frame.column_names)
        # By place: of two columns with one name the caller has refused those that are asked for.
        return names, lambda wanted: _columns(frame.select([names.index(name) for name in wanted]))
    if hasattr(frame, "project") and hasattr(frame, "columns"):  # DuckDB
        return list(frame.columns), lambda wanted: _columns(frame.project(", ".join(map(_quoted, wanted))))
    if not hasattr(frame, "__arrow_c_stream__") and hasattr(frame, "__dataframe__"):
        whole = frame.__dataframe__()
        return list(whole.column_names()), lambda wanted: _columns(whole.select_columns_by_name(wanted))
    table = _whole(frame)
    return table.column_names, lambda wanted: _columns(table.select([table.column_names.index(n) for n in wanted]))


def _each(column: Callable[[Any], Any]) -> _Read:
    return lambda wanted: [_column(name, column(name)) for name in wanted]


def _columns(frame: Any) -> list[pa.ChunkedArray]:
    return [_plain(column) for column in _whole(frame).columns]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _whole(frame: Any) -> pa.Table:
    try:
        if isinstance(frame, pa.Table):
            return frame
        if isinstance(frame, pa.RecordBatch):
            return pa.Table.from_batches([frame])
        if hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__arrow_c_array__"):
            return pa.table(frame)
        if hasattr(frame, "__dataframe__"):
            return pa.interchange.from_dataframe(frame)
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"Arrow cannot hold a column of {NAME}: {error}.\nSelect the columns that are needed."
        ) from error
    hint = (
        "Call .collect() first." if hasattr(frame, "collect") else "Give a mapping of columns: {'user_id': [...], ...}."
    )
    raise InputError(
        "A frame must be of pandas, polars, PyArrow or DuckDB, have the Arrow PyCapsule interface, or be a mapping of "
        f"columns.\nReceived: {type(frame).__module__}.{type(frame).__qualname__}.\n{hint}"
    )


def _column(name: Any, values: Any) -> pa.ChunkedArray:
    """One column of anything that is a sequence of values."""
    if isinstance(values, str | bytes) or not (hasattr(values, "__len__") or hasattr(values, "__arrow_c_stream__")):
        raise InputError(
            f"Column `{name}` must be an array or a list.\nReceived: {type(values).__name__} {str(values)[:50]!r}."
        )
    shape = getattr(values, "shape", None)
    if shape is not None and len(shape) != 1:
        raise InputError(f"Column `{name}` must have one dimension.\nReceived: an array of shape {tuple(shape)}.")
    if str(getattr(values, "dtype", None)) == "Object":
        # polars hands out the addresses of Python objects as bytes.
        values = values.to_list()
    try:
        if hasattr(values, "__arrow_c_stream__") and not hasattr(values, "iloc"):
            return _plain(pa.chunked_array(values))
        if isinstance(values, np.ndarray) and values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8")
        found = pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        kinds = sorted({type(value).__name__ for value in values if value is not None})
        if len(kinds) > 1 and all(value is None or _is_written(value) for value in values):
            return _as_written(values)
        if len(kinds) > 1:
            raise InputError(
                f"Column `{name}` must hold values of one type.\nReceived: {', '.join(kinds[:5])}.\n"
                "Convert it first, for example to text."
            ) from error
        raise InputError(f"Column `{name}` holds what Arrow cannot: {error}.\nConvert it first.") from error
    return _plain(found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found]))


def _is_written(value: Any) -> bool:
    """Whether a value is text or a number, so that a CSV would hold it as one field; or missing."""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return is_number or isinstance(value, str) or type(value).__name__ in ("NAType", "NaTType")


def _as_written(values: Any) -> pa.ChunkedArray:
    """Numbers among text, such as item codes of a spreadsheet (85123, "POST"), as the text that a CSV holds."""
    texts = [None if _is_missing(value) else str(value) for value in values]
    return pa.chunked_array([pa.array(texts, pa.large_string())])


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without extension types and runs, and bytes as text."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        column, kind = (
            pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type),
            kind.storage_type,
        )
    if pa.types.is_run_end_encoded(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string_view(kind):
        column = column.dictionary_encode()
    if pa.types.is_dictionary(column.type):
        held = column.type.value_type
        if not (_is_binary(held) or pa.types.is_string_view(held)):
            return column
        chunks = [pa.DictionaryArray.from_arrays(chunk.indices, _as_text(chunk.dictionary)) for chunk in column.chunks]
        return pa.chunked_array(chunks, pa.dictionary(column.type.index_type, pa.large_string()))
    if _is_binary(kind):
        return _as_text(column)
    return pa.chunked_array([pa.nulls(len(column), pa.string())]) if pa.types.is_null(kind) else column


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _as_text(column: Any) -> Any:
    """Large strings of a column of bytes or views of text."""
    try:
        return column.cast(pa.large_string())
    except pa.ArrowInvalid as error:
        raise InputError(f"A column of {NAME} holds bytes that are no text.\nDecode it first.") from error


def _check_index(frame: Any, columns: Mapping[str, str], present: Sequence[str]) -> None:
    """Say so where a pandas index has the name of a column."""
    levels = [str(name) for name in getattr(getattr(frame, "index", None), "names", None) or []]
    for role, column in columns.items():
        if column in levels and column not in present:
            raise InputError(
                f"`{column}` (for the {role}) is in the index of {NAME}, not a column.\n"
                f"Received columns: {', '.join(present)}.\nGive frame.reset_index()."
            )
