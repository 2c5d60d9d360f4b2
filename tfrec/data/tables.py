"""Read a person's own table of interactions: CSV, TSV or Parquet, gzipped or not.

pyarrow parses (all cores, columns that are not asked for are skipped); what it refuses is looked up again line
by line, only then, so that the error can name the line.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from tfrec.data.files import DAMAGE
from tfrec.data.interactions import Interactions, ValueKind, index_ids
from tfrec.errors import InputError

#: A column of text in which fewer than this share of the values are not whole numbers is a column of whole
#: numbers with mistakes in it.
_STRAY_SHARE = 0.01


def from_table(
    path: str | Path,
    user: str = "user_id",
    item: str = "item_id",
    rating: str | None = None,
    timestamp: str | None = None,
    *,
    title: str | None = None,
    delimiter: str | None = None,
    text_ids: bool = False,
    name: str | None = None,
) -> Interactions:
    """Read interactions from a table with named columns.

    Args:
        path: ``.csv``, ``.tsv``, ``.txt`` (each also ``.gz``) or ``.parquet``. UTF-8, first line = column names.
        user: name of the column of user ids, whole numbers from 0 or text.
        item: name of the column of item ids.
        rating: name of the column of ratings or counts; None: every event counts 1 and is positive.
        timestamp: name of the column of times, numbers or dates; None: no times.
        title: name of a column with the item's title; None: none.
        delimiter: one character; None: tab for ``.tsv``, else the one of ``, ; tab |`` that the first line has
            most of.
        text_ids: take ids as text even where they look like numbers.
        name: for reports; default the file's name.

    Returns:
        Interactions, events in file order.

    Raises:
        InputError: no such file, an empty one, a missing column, an id, rating or time that is missing or not
            what it should be (with file and line).

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "plays.csv"
        >>> _ = path.write_text("who,what,stars\\nada,Dune,5\\nada,Solaris,3\\ngrace,Dune,4\\n")
        >>> events = from_table(path, user="who", item="what", rating="stars")
        >>> events.num_users, events.num_items, list(events.item_ids)
        (2, 2, ['Dune', 'Solaris'])
    """
    path = Path(path)
    check_readable(path)
    wanted = {"user": user, "item": item, "rating": rating, "timestamp": timestamp, "title": title}
    columns = {role: column for role, column in wanted.items() if column is not None}
    if len(set(columns.values())) < len(columns):
        raise InputError(f"Each role needs a column of its own.\nReceived: {columns}.")
    is_parquet = path.suffix.lower() == ".parquet"
    table = _read_parquet(path, columns) if is_parquet else _read_csv(path, columns, delimiter)
    if table.num_rows == 0:
        raise InputError(f"{path} has column names but no rows.\nGive a file with at least one interaction.")
    return build_interactions(
        path,
        table,
        columns,
        name=name or path.name,
        kind="ratings" if rating is not None else "events",
        text_ids=text_ids,
    )


def build_interactions(
    path: Path,
    table: pa.Table,
    columns: dict[str, str],
    *,
    name: str,
    kind: ValueKind,
    text_ids: bool = False,
    first_line: int = 2,
) -> Interactions:
    """Check the columns of ``table`` and number users and items.

    Args:
        path: for errors.
        table: the parsed columns.
        columns: role (``user``, ``item``, ``rating``, ``timestamp``, ``title``) -> name of the column.
        name: for reports.
        kind: what a value says.
        text_ids: ids are text.
        first_line: the line of the first row, for errors.

    Raises:
        InputError: an entry that is missing or wrong, with its line.
    """
    where = _Where(path, first_line)
    user_index, user_ids = _ids(where, "user", columns["user"], table[columns["user"]], text_ids)
    item_index, item_ids = _ids(where, "item", columns["item"], table[columns["item"]], text_ids)
    if "rating" in columns:
        values = _ratings(where, columns["rating"], table[columns["rating"]])
    else:
        values = np.ones(table.num_rows, np.float32)
    times = None
    if "timestamp" in columns:
        times = _times(where, columns["timestamp"], table[columns["timestamp"]])
    titles = None
    if "title" in columns:
        # One title per item: that of its first event.
        _, first = np.unique(item_index, return_index=True)
        stored = table[columns["title"]].type
        if not (pa.types.is_string(stored) or pa.types.is_large_string(stored) or pa.types.is_integer(stored)):
            raise InputError(f"{path}: column `{columns['title']}` must hold titles: text.\nReceived: {stored}.")
        spans = pc.match_substring_regex(pc.cast(table[columns["title"]], pa.string()), r"[\r\n]")
        where.reject(
            pc.fill_null(spans, False),
            table[columns["title"]],
            "the title spans lines, so a quote is probably not closed",
            "Mend the row, or leave the titles out.",
        )
        chosen = pc.take(pc.cast(table[columns["title"]], pa.string()), pa.array(first)).to_pylist()
        titles = np.array([t if t else str(i) for t, i in zip(chosen, item_ids, strict=True)], dtype=object)
    return Interactions(
        user_index=user_index,
        item_index=item_index,
        values=values,
        user_ids=user_ids,
        item_ids=item_ids,
        timestamps=times,
        item_titles=titles,
        kind=kind,
        name=name,
    )


def check_readable(path: Path) -> None:
    """Raise InputError unless ``path`` is a file with something in it."""
    if not path.exists():
        raise InputError(f"No such file: {path}\nCheck the path; relative paths start at {Path.cwd()}.")
    if not path.is_file():
        raise InputError(f"{path} is not a file.\nGive the CSV, TSV or Parquet file itself.")
    try:
        with path.open("rb") as stream:
            if not stream.read(1):
                raise InputError(f"{path} is empty.\nExpected a line of column names and one line per event.")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


class _Where:
    """Where a row came from, for errors."""

    def __init__(self, path: Path, first_line: int) -> None:
        self.path, self.first_line = path, first_line

    def row(self, row: int) -> str:
        if self.path.suffix.lower() == ".parquet":
            return f"{self.path}, row {row}"
        return f"{self.path}, line {_line_of(self.path, row + self.first_line - 1)}"

    def reject(self, bad: Any, column: pa.ChunkedArray, what: str, fix: str) -> None:
        """Raise for the first True of ``bad``, a NumPy or Arrow mask."""
        mask = bad if isinstance(bad, np.ndarray) else _numpy(pc.fill_null(bad, True))
        rows = np.flatnonzero(mask)
        if len(rows) == 0:
            return
        came = column[int(rows[0])].as_py()
        more = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
        shown = "nothing" if came is None or came == "" else repr(came)
        raise InputError(f"{self.row(int(rows[0]))}: {what}.\nReceived: {shown}{more}.\n{fix}")


def _line_of(path: Path, record: int) -> int:
    """The line of a record, counted from 0 with the column names; empty lines are no records."""
    with contextlib.suppress(*DAMAGE), _open_bytes(path) as stream:
        number = -1
        for line, text in enumerate(stream, start=1):
            number += bool(text.strip())
            if number == record:
                return line
    return record + 1


def _numpy(column: Any) -> np.ndarray:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.to_numpy(zero_copy_only=False)


def _ids(where: _Where, role: str, name: str, column: pa.ChunkedArray, text_ids: bool) -> tuple[np.ndarray, np.ndarray]:
    fix = f"Mend or remove the row, or name another column for the {role} (now `{name}`)."
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (is_text or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InputError(
            f"{where.path}: column `{name}` must hold ids: whole numbers or text.\n"
            f"Received: {kind}.\nName another column for the {role}."
        )
    where.reject(pc.is_null(column), column, f"the {role} id is missing", fix)
    if is_text:
        return _text_ids(where, role, name, column, text_ids, fix)
    if pa.types.is_floating(kind):
        values = _numpy(column).astype(np.float64)
        with np.errstate(invalid="ignore"):
            bad = ~((values == np.floor(values)) & (np.abs(values) < 2**53))
        where.reject(bad, column, f"the {role} id must be a whole number from 0 to 2^53, or text", fix)
        column = pc.cast(column, pa.int64())
    values = _numpy(column)
    where.reject(values < 0, column, f"the {role} id must not be negative", fix)
    where.reject(values > np.iinfo(np.int64).max, column, f"the {role} id must be less than 2^63", fix)
    if text_ids:
        return _text_ids(where, role, name, pc.cast(column, pa.string()), True, fix)
    return index_ids(values.astype(np.int64))


#: Text that is one whole number, written in the one usual way: not 007, not 0x7, not 1e3.
_WHOLE = r"^(0|[1-9][0-9]{0,18})$"
_WHOLE_WITH_ZEROS = r"^(0|[1-9][0-9]{0,14})\.0+$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def _text_ids(
    where: _Where, role: str, name: str, column: pa.ChunkedArray, keep_text: bool, fix: str
) -> tuple[np.ndarray, np.ndarray]:
    """Ids that were read as text: numbers where all of them are, else text."""
    if pa.types.is_dictionary(column.type):
        encoded = column.unify_dictionaries().combine_chunks()
    else:
        encoded = pc.dictionary_encode(column).unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # a single chunk is left as it is
        encoded = encoded.chunk(0)
    index, dictionary = _numpy(encoded.indices), encoded.dictionary.cast(pa.string())

    def reject(bad: Any, what: str, fix: str = fix) -> None:
        rows = _numpy(pc.fill_null(bad, True))[index]
        where.reject(rows, column, what, fix)

    reject(pc.equal(dictionary, ""), f"the {role} id is missing")
    reject(
        pc.match_substring_regex(dictionary, r"[\r\n]"),
        f"the {role} id spans lines, so a quote is probably not closed",
    )
    if not keep_text:
        whole = pc.match_substring_regex(dictionary, _WHOLE)
        padded = pc.match_substring_regex(dictionary, _WHOLE_WITH_ZEROS)
        numbers = dictionary
        if not pc.all(whole).as_py() and pc.all(pc.or_(whole, padded)).as_py():
            numbers = pc.replace_substring_regex(dictionary, r"\.0+$", "")  # what pandas makes of whole numbers
            whole = pc.match_substring_regex(numbers, _WHOLE)
        if pc.all(whole).as_py():
            try:
                return index_ids(_numpy(pc.cast(numbers, pa.int64()))[index])
            except pa.ArrowInvalid:
                pass  # from 2^63 on a whole number is kept as text, exactly
        else:
            digits = pc.match_substring_regex(dictionary, r"^[0-9]+$")
            number = pc.match_substring_regex(dictionary, _NUMBER)
            hint = "Mend or remove the row, or take all ids as text (text_ids=True, --data.text-ids)."
            if pc.all(number).as_py():
                # Digits with leading zeros are codes, and stay as they are; -3 and 1.5 are mistakes.
                negative = pc.starts_with(dictionary, "-")
                reject(negative, f"the {role} id must not be negative", hint)
                reject(pc.invert(digits), f"the {role} id must be a whole number from 0, or text", hint)
            strays = len(dictionary) - (pc.sum(digits).as_py() or 0)
            if 0 < strays < _STRAY_SHARE * len(dictionary):
                what = f"the {role} id is no whole number, but nearly all others in column `{name}` are"
                reject(pc.invert(digits), what, hint)
    # Ascending by UTF-8 bytes, which is by code point: the same order on every machine.
    order = pc.array_sort_indices(dictionary)
    rank = np.empty(len(dictionary), np.int32)
    rank[_numpy(order)] = np.arange(len(dictionary), dtype=np.int32)
    ids = np.array([*pc.take(dictionary, order).to_pylist(), None], dtype=object)[:-1]
    return rank[index], ids


def _ratings(where: _Where, name: str, column: pa.ChunkedArray) -> np.ndarray:
    fix = f"Mend or remove the row, or name another column for the rating (now `{name}`)."
    what = "the rating must be a finite number"
    where.reject(pc.is_null(column), column, what, fix)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InputError(
            f"{where.path}: column `{name}` must hold ratings: numbers.\nReceived: {column.type}.\n"
            "Name another column for the rating."
        )
    values = _numpy(pc.cast(column, pa.float32(), safe=False))
    where.reject(~np.isfinite(values), column, what, fix)
    return values


def _times(where: _Where, name: str, column: pa.ChunkedArray) -> np.ndarray:
    fix = f"Mend or remove the row, or name another column for the timestamp (now `{name}`)."
    what = "the timestamp must be a number or a date"
    where.reject(pc.is_null(column), column, what, fix)
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        # Finer than a microsecond is cut off.
        return _numpy(pc.cast(pc.cast(column, pa.timestamp("us"), safe=False), pa.int64()))
    if pa.types.is_floating(column.type):
        values = _numpy(column).astype(np.float64)
        where.reject(~(np.abs(values) < 2**63 / 1e6), column, what + " up to 9.2e12", fix)
        # Microseconds, as for dates: the fraction of a second orders events too.
        return np.round(values.astype(np.float64) * 1e6).astype(np.int64)
    if pa.types.is_integer(column.type):
        values = _numpy(column)
        where.reject(values > np.iinfo(np.int64).max, column, what + " below 2^63", fix)
        return values.astype(np.int64)
    raise InputError(
        f"{where.path}: column `{name}` must hold times: numbers or dates.\nReceived: {column.type}, "
        f"e.g. {column[0].as_py()!r}.\nWrite dates as 2024-12-31 or 2024-12-31 23:59:59."
    )


def _check_columns(path: Path, columns: dict[str, str], present: list[str]) -> None:
    if not any(present):
        raise InputError(f"{path} has no column names in its first line.\nWrite them there, e.g. user_id,item_id.")
    twice = [column for column in columns.values() if present.count(column) > 1]
    if twice:
        raise InputError(
            f"{path} has column `{twice[0]}` more than once.\nReceived columns: {', '.join(present)}.\n"
            "Rename one of them."
        )
    missing = {role: column for role, column in columns.items() if column not in present}
    if missing:
        asked = ", ".join(f"`{column}` (for the {role})" for role, column in missing.items())
        role = next(iter(missing))
        raise InputError(
            f"{path} has no column {asked}.\nReceived columns: {', '.join(present)}.\n"
            f"Name the right one, e.g. {role}={present[0]!r}, on the command line --data.{role} {present[0]}."
        )


def _read_parquet(path: Path, columns: dict[str, str]) -> pa.Table:
    try:
        present = pa.parquet.read_schema(path).names
        _check_columns(path, columns, present)
        return pa.parquet.read_table(path, columns=list(columns.values()))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no Parquet file that can be read: {error}.") from error


def _open_bytes(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _first_line(path: Path) -> str:
    try:
        with _open_bytes(path) as stream:
            line = stream.readline(1 << 20)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}. Is the file cut off?") from error
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (first line, byte {error.start}).\nConvert it, e.g. with "
            f"'iconv -f latin1 -t utf8', or give a Parquet file with the suffix .parquet."
        ) from error


def _read_csv(path: Path, columns: dict[str, str], delimiter: str | None) -> pa.Table:
    header = _first_line(path)
    if delimiter is None:
        is_tsv = ".tsv" in [suffix.lower() for suffix in path.suffixes]
        delimiter = "\t" if is_tsv else max(",\t;|", key=lambda c: (header.count(c), c == ","))
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise InputError(f"`delimiter` must be one ASCII character, and no quote.\nReceived: {delimiter!r}.")
    if "\r" in header:
        raise InputError(f"{path} ends its lines with CR alone.\nConvert it, e.g. with 'tr \\r \\n'.")
    if "\0" in header:
        raise InputError(f"{path} is not UTF-8 text.\nConvert it, e.g. with 'iconv -f utf-16 -t utf8'.")
    present = next(csv.reader([header], delimiter=delimiter), [])
    _check_columns(path, columns, present)
    types = {columns["rating"]: pa.float32()} if "rating" in columns else {}
    # As text, since Arrow would read 007 and 0x7 as the number 7; each different one is kept once.
    types |= {columns[role]: pa.dictionary(pa.int32(), pa.string()) for role in ("user", "item")}
    if "title" in columns:
        types[columns["title"]] = pa.string()
    return parse_csv(
        path,
        delimiter=delimiter,
        include=list(columns.values()),
        types=types,
        quoting=True,
    )


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
