"""Lists of items with scores, one for each user or item, as Parquet, CSV or TSV, with the ids to join them by.

Lists come in blocks and are written as they come, so that memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from tfrec.data.files import atomic_path, check_file
from tfrec.errors import InputError
from tfrec.printing import printable

#: Suffix -> delimiter; Parquet has none.
_DELIMITERS = {".parquet": None, ".csv": ",", ".tsv": "\t"}

#: Numbers of lists ``[B]``, item numbers ``[B, K]`` with -1 where there is none, and scores ``[B, K]``.
Block = tuple[np.ndarray, np.ndarray, np.ndarray]


def check_lists_path(path: Path) -> None:
    """Raise InputError unless `write_lists` can write ``path``. For before the work that it is to hold."""
    if path.suffix.lower() not in _DELIMITERS:
        raise InputError(
            "The file of lists must end in .parquet, .csv or .tsv.\n"
            f"Received: {printable(path)}.\nName it {printable(path.stem or 'lists')}.parquet, .csv or .tsv."
        )
    check_file(path)


def write_lists(
    path: Path, lists: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray], blocks: Iterable[Block]
) -> int:
    """Write a line for each item of each list: the list's names, the item's rank from 1, its columns, its score.

    The file appears whole or not at all. In Parquet, ids are int64 or text as they are here, ranks int32, scores
    float32, and each block is a row group.

    CSV and TSV begin with a header. Text is written as it is. A field with the delimiter, a line break or a quote
    stands in quotes, as in RFC 4180, so that ``csv.reader``, ``pandas.read_csv`` and spreadsheets read back the same
    text. Nothing is put before a title that begins with ``=``, ``+``, ``-`` or ``@``, which a spreadsheet takes for a
    formula: import such a file with its columns as text. A score has the digits it takes to read back the same float32.

    On a terminal a bar shows how many lists are written.

    Args:
        path: ``.parquet``, ``.csv`` or ``.tsv``.
        lists: header -> ``[N]`` int or text, what names each list, such as ``user``.
        columns: header -> ``[I]`` int or text, the fields of each item, such as ``item`` and ``title``.
        blocks: the lists, each block as a `Block`, best item first; -1 are left out. A generator that computes a
            block when it is asked for keeps one block in memory. Nothing is asked of it before the file is open.

    Returns:
        The number of lines, without the header.

    Raises:
        InputError: another suffix, or the file cannot be written.
    """
    check_lists_path(path)
    headers = [*lists, "rank", *columns, "score"]
    if len(set(headers)) < len(headers):
        raise InputError(f"The columns of a table must have different names.\nReceived: {', '.join(headers)}.")
    delimiter = _DELIMITERS[path.suffix.lower()]
    num_lists = min((len(names) for names in lists.values()), default=0)
    lines = 0
    with atomic_path(path) as temporary, contextlib.ExitStack() as stack:
        writer: _Writer
        if delimiter is None:
            writer = stack.enter_context(_parquet_writer(temporary, lists, columns))
        else:
            writer = _TextWriter(stack.enter_context(temporary.open("wb")), delimiter, headers, columns)
        bar = stack.enter_context(
            tqdm(total=num_lists, desc="writing", unit="list", leave=False, disable=not sys.stderr.isatty())
        )
        for numbers, items, scores in blocks:
            there = items >= 0
            rank = np.cumsum(there, axis=1, dtype=np.int32)[there]
            of_line = np.repeat(np.arange(len(numbers)), there.sum(axis=1))
            names = {header: _arrow(np.asarray(values)[numbers]) for header, values in lists.items()}
            writer.write(names, of_line, rank, items[there], scores[there].astype(np.float32))
            lines += len(rank)
            bar.update(len(numbers))
    return lines


class _Writer(Protocol):
    def write(
        self, names: Mapping[str, Any], of_line: np.ndarray, rank: np.ndarray, items: np.ndarray, scores: np.ndarray
    ) -> None:
        """Write lines ``[L]``.

        Args:
            names: header -> Arrow array ``[B]``, of the block's lists.
            of_line: int ``[L]``, the place in the block of each line's list.
            rank: int32 ``[L]``.
            items: int ``[L]``, item numbers.
            scores: float32 ``[L]``.
        """


class _ParquetWriter:
    def __init__(self, writer: Any, columns: Mapping[str, np.ndarray]) -> None:
        self._writer, self._columns = writer, [_arrow(values) for values in columns.values()]

    def write(
        self, names: Mapping[str, Any], of_line: np.ndarray, rank: np.ndarray, items: np.ndarray, scores: np.ndarray
    ) -> None:
        chosen = [values.take(pa.array(of_line)) for values in names.values()]
        said = [values.take(pa.array(items)) for values in self._columns]
        arrays = [*chosen, pa.array(rank), *said, pa.array(scores)]
        schema = self._writer.schema
        arrays = [a.cast(field.type) for a, field in zip(arrays, schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=max(1, len(rank)))


@contextlib.contextmanager
def _parquet_writer(
    path: Path, lists: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]
) -> Iterator[_ParquetWriter]:
    def kinds(some: Mapping[str, np.ndarray]) -> list[tuple[str, Any]]:
        return [(header, pa.int64() if _is_int(values) else pa.string()) for header, values in some.items()]

    schema = pa.schema([*kinds(lists), ("rank", pa.int32()), *kinds(columns), ("score", pa.float32())])
    with pq.ParquetWriter(path, schema) as writer:
        yield _ParquetWriter(writer, columns)


class _TextWriter:
    """Joins the fields of all lines of a block at once. The fields of an item are joined once, at the beginning."""

    def __init__(
        self, stream: IO[bytes], delimiter: str, headers: list[str], columns: Mapping[str, np.ndarray]
    ) -> None:
        self._stream, self._delimiter = stream, delimiter
        self._of_item = self._joined([self._fields(_arrow(values)) for values in columns.values()])
        self._write([self._fields(pa.array([header], pa.large_string())) for header in headers])

    def write(
        self, names: Mapping[str, Any], of_line: np.ndarray, rank: np.ndarray, items: np.ndarray, scores: np.ndarray
    ) -> None:
        of_list = self._joined([self._fields(values) for values in names.values()])
        chosen = of_list.take(pa.array(of_line))
        said = self._of_item.take(pa.array(items))
        self._write([chosen, _text(pa.array(rank)), said, _text(pa.array(scores))])

    def _fields(self, values: Any) -> Any:
        if pa.types.is_integer(values.type):
            return _text(values)
        doubled = pc.replace_substring(values, '"', '""')
        quoted = pc.binary_join_element_wise(_scalar('"'), doubled, _scalar('"'), _scalar(""))
        return pc.if_else(pc.match_substring_regex(values, f'[{self._delimiter}\r\n"]'), quoted, values)

    def _joined(self, columns: list[Any]) -> Any:
        return pc.binary_join_element_wise(*columns, _scalar(self._delimiter))

    def _write(self, columns: list[Any]) -> None:
        between = [_scalar(self._delimiter)] * (len(columns) - 1) + [_scalar("\n")]
        pieces = [piece for pair in zip(columns, between, strict=True) for piece in pair]
        lines = pc.binary_join_element_wise(*pieces, _scalar(""))
        # The text of an Arrow array lies in one piece, line after line.
        text = lines.buffers()[2]
        if len(lines):
            self._stream.write(text)


def _is_int(values: np.ndarray) -> bool:
    return np.issubdtype(np.asarray(values).dtype, np.integer)


def _arrow(values: np.ndarray) -> Any:
    """As an Arrow array, int64 or text."""
    return pa.array(values, pa.int64() if _is_int(values) else pa.large_string())


def _text(values: Any) -> Any:
    return values.cast(pa.large_string())


def _scalar(text: str) -> Any:
    return pa.scalar(text, pa.large_string())
