"""Delimited text of published data sets."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv

from tfrec.errors import InputError


def _open_bytes(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def parse_csv(
    path: Path,
    *,
    delimiter: str,
    include: list[str],
    types: dict[str, Any],
    quoting: bool,
    names: list[str] | None = None,
    encoding: str = "utf8",
    content: bytes | None = None,
) -> pa.Table:
    """Parse delimited text with pyarrow; on failure name the line.

    Args:
        path: the file, gzipped if it ends in ``.gz``.
        delimiter: one character.
        include: the columns to keep.
        types: Arrow types of columns; the others are inferred.
        quoting: whether ``"`` quotes.
        names: column names where the file has no header line.
        encoding: of the file.
        content: the bytes to parse instead of the file's.

    Raises:
        InputError: with file and line.
    """
    read = pa.csv.ReadOptions(column_names=names, encoding=encoding, block_size=8 << 20)
    parse = pa.csv.ParseOptions(delimiter=delimiter, quote_char='"' if quoting else False, newlines_in_values=quoting)
    convert = pa.csv.ConvertOptions(
        include_columns=include,
        column_types=types,
        strings_can_be_null=False,
        null_values=["", "NA", "NaN", "nan", "null", "NULL", "None"],
    )
    problem: Any = "some text is not " + encoding
    try:
        if content is not None:
            table = pa.csv.read_csv(pa.BufferReader(pa.py_buffer(content)), read, parse, convert)
        else:
            with pa.input_stream(str(path), compression="gzip" if path.suffix.lower() == ".gz" else None) as stream:
                table = pa.csv.read_csv(stream, read, parse, convert)
        # A column of broken text is taken as one of bytes.
        if not any(pa.types.is_binary(kind) for kind in table.schema.types):
            return table
    except (pa.ArrowException, OSError, UnicodeDecodeError, zlib.error) as error:
        problem = error
        if "Empty CSV" in str(error):
            raise InputError(
                f"{path} has column names but no rows.\nGive a file with at least one interaction."
            ) from error
    found = _first_bad_line(path, delimiter, include, types, quoting, names, encoding, content)
    raise InputError(found or f"{path} cannot be read as a table: {problem}")


def _first_bad_line(
    path: Path,
    delimiter: str,
    include: list[str],
    types: dict[str, Any],
    quoting: bool,
    names: list[str] | None,
    encoding: str,
    content: bytes | None,
) -> str | None:
    """What is wrong with the first line that does not fit, or None when every line fits."""
    raw: IO[bytes] = io.BytesIO(content) if content is not None else _open_bytes(path)
    reader: Any = None
    try:
        with raw, io.TextIOWrapper(raw, encoding=encoding, newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE)
            header = names if names is not None else next(reader, [])
            missing = [c for c in include if c not in header]
            if missing:
                return (
                    f"{path}, line 1: no column {', '.join(missing)}.\nReceived: {delimiter.join(header)[:200]!r}.\n"
                    "Is it the right file?"
                )
            csv.field_size_limit(1 << 30)
            numeric = [
                (c, header.index(c), int if pa.types.is_integer(types[c]) else float)
                for c in include
                if c in types and (pa.types.is_floating(types[c]) or pa.types.is_integer(types[c]))
            ]
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    return (
                        f"{path}, line {reader.line_num}: expected {len(header)} columns "
                        f"({', '.join(header)}).\nReceived: {len(row)}: {delimiter.join(row)[:200]!r}.\n"
                        "Mend or remove the line."
                    )
                for column, position, number in numeric:
                    try:
                        number(row[position] or 0)
                    except ValueError:
                        return (
                            f"{path}, line {reader.line_num}: column `{column}` must be a number.\n"
                            f"Received: {row[position]!r}.\nMend or remove the line, or name another column."
                        )
    except UnicodeDecodeError as error:
        line = reader.line_num if reader else 1
        return (
            f"{path}, after line {line}: not {encoding} text ({error.reason}).\n"
            "Convert the file, e.g. with 'iconv -f latin1 -t utf8'."
        )
    except (OSError, EOFError, csv.Error, zlib.error) as error:
        line = reader.line_num if reader else 0
        return f"{path}, after line {line}: {error}. Is the file cut off?"
    return None
