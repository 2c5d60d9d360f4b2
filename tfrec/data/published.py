"""Read the events of published data sets as they are, even where their README differs.

A file is read in blocks of whole lines. pyarrow parses a block; where it has any doubt (a line that does not fit, a
quote, a NUL, text that is not UTF-8), the lines of that block are read one by one in Python, which alone decides what
a line means. So a damaged line costs a fraction of a second, and files of twenty million lines take seconds.

Lines of blanks only are no rows. A line that cannot be an event is either left out and counted by reason, or named in
an error, see `Form.lenient`.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from tfrec.errors import InputError

#: How a field is read. ``id``: a whole number from 0. ``number``: a finite number. ``time``: a number.
#: ``text``: UTF-8 text that is not blank. ``count``: digits.
FieldKind = Literal["id", "number", "time", "text", "count"]

_BLOCK_BYTES = 16 << 20
_BOM = b"\xef\xbb\xbf"
_WHOLE = re.compile(rb"([0-9]+)(?:\.0*)?")
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_COUNT = re.compile(rb"[0-9]{1,18} *")
_EXPECTED = {
    "id": "must be a whole number from 0",
    "number": "must be a number",
    "time": "must be a number",
    "text": "must be text in UTF-8",
    "count": "must be a whole number",
}


@dataclass(frozen=True)
class Form:
    """How the lines of a file of events are written.

    Args:
        delimiter: between the fields; ``::`` too, between numbers.
        fields: name -> kind of each column to read.
        names: all columns in order; None where the first line has them. Then further columns and any order will do.
        quoting: whether ``"`` quotes.
        lenient: a line that is no event is left out and counted; otherwise an error names it.
    """

    delimiter: str
    fields: dict[str, FieldKind]
    names: tuple[str, ...] | None = None
    quoting: bool = False
    lenient: bool = False


@dataclass
class Rows:
    """What was read.

    Args:
        table: the columns: int64 ids, float32 numbers and counts, int64 times (float64 where one has a fraction),
            dictionary-encoded text.
        left_out: reason -> lines that did not become rows.
    """

    table: pa.Table
    left_out: dict[str, int] = field(default_factory=dict)


def read_rows(path: Path, form: Form) -> Rows:
    """The events in ``path``.

    Raises:
        InputError: a missing column, no row at all, or, unless ``form.lenient``, a line that is no event.
    """
    left_out: Counter[str] = Counter()
    tables = []
    names = form.names
    for line, block in blocks(path):
        if names is None:
            header, _, block = block.partition(b"\n")
            names = _header(path, header.rstrip(b"\r"), form)
            line += 1
        table = _fast(block, form, names, left_out)
        if table is None:
            table = _slow(path, line, block, form, names, left_out)
        tables.append(table)
    rows = concatenate(tables)
    if rows is None or rows.num_rows == 0:
        dropped = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        why = f" that can be read ({dropped})" if dropped else ""
        raise InputError(f"{path} has no rows{why}.\nGet it from its publisher again.")
    return Rows(rows, dict(left_out))


def blocks(path: Path, size: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The file in pieces of whole lines, each with the number of its first line; a byte order mark is left out."""
    number = 1
    rest = b""
    with path.open("rb") as stream:
        if stream.read(len(_BOM)) != _BOM:
            stream.seek(0)
        while piece := stream.read(size or _BLOCK_BYTES):
            cut = piece.rfind(b"\n") + 1
            if cut:
                block = rest + piece[:cut]
                yield number, block
                number += block.count(b"\n")
                rest = piece[cut:]
            else:
                rest += piece
    if rest:
        yield number, rest


def concatenate(tables: list[pa.Table]) -> pa.Table | None:
    """One table of those of the blocks, whose times may be whole in one and not in another; None of none."""
    tables = [table for table in tables if table.num_rows]
    if not tables:
        return None
    for place, name in enumerate(tables[0].column_names):
        kinds = {table.schema.types[place] for table in tables}
        if len(kinds) > 1:
            tables = [t.set_column(place, name, pc.cast(t[name], pa.float64())) for t in tables]
    return pa.concat_tables(tables)


def parse_numbers(block: bytes, delimiter: str, names: list[str], fields: dict[str, FieldKind]) -> pa.Table | None:
    """The columns ``fields`` of a block of numbers, or None where any line needs a closer look.

    Raises nothing: the caller reads the lines one by one, and finds what is wrong.
    """
    if delimiter == "::":
        if b"\t" in block:
            return None
        block, delimiter = block.replace(b"::", b"\t"), "\t"
    # Arrow takes 0x1F for a number, and ends text at a NUL.
    if any(sign in block for sign in (b'"', b"x", b"X", b"\0")):
        return None
    whole = {name: pa.float32() if kind == "number" else pa.int64() for name, kind in fields.items()}
    table = _parse(block, delimiter, names, whole)
    if table is None:
        # What pandas makes of a column that once had a gap: 12.0 and 978300760.0.
        real = {name: pa.float32() if kind == "number" else pa.float64() for name, kind in fields.items()}
        table = _parse(block, delimiter, names, real)
        if table is None:
            return None
    for place, (name, kind) in enumerate(fields.items()):
        column = table[name]
        if pa.types.is_floating(column.type):
            values = column.to_numpy()
            if not np.isfinite(values).all():
                return None
            if kind != "number":
                if kind == "time" and not (np.abs(values) < 2**53).all():
                    return None
                if (values == np.floor(values)).all() and (np.abs(values) < 2**53).all():
                    column = pa.chunked_array([pa.array(values.astype(np.int64))])
                elif kind == "id":
                    return None
                table = table.set_column(place, name, column)
        if kind == "id" and len(column) and pc.min(column).as_py() < 0:
            return None
    return table


def whole_number(text: bytes) -> int | None:
    """The number from 0 that ``text`` is (also with ``.0``), or None."""
    match = _WHOLE.fullmatch(text.strip(b" "))
    number = int(match[1]) if match else -1
    return number if 0 <= number < 2**63 else None


def finite_number(text: bytes) -> float | None:
    """The number that ``text`` is, or None; what float32 cannot hold is none."""
    text = text.strip(b" ")
    number = float(text) if _NUMBER.fullmatch(text) else np.inf
    return number if abs(number) <= float(np.finfo(np.float32).max) else None


def time_number(text: bytes) -> int | float | None:
    """The time that ``text`` is, whole where it can be, or None."""
    text = text.strip(b" ")
    if re.fullmatch(rb"-?[0-9]{1,18}", text):
        return int(text)
    number = float(text) if _NUMBER.fullmatch(text) else np.inf
    return None if abs(number) >= 2**53 else int(number) if number == int(number) else number


def lines_of(block: bytes) -> list[bytes]:
    """The lines of a block, ended by LF, CR LF or CR."""
    return block.splitlines()


def _parse(block: bytes, delimiter: str, names: list[str], types: dict[str, Any]) -> pa.Table | None:
    try:
        return pa.csv.read_csv(
            pa.BufferReader(pa.py_buffer(block)),
            pa.csv.ReadOptions(column_names=names, block_size=4 << 20),
            pa.csv.ParseOptions(delimiter=delimiter, quote_char=False),
            pa.csv.ConvertOptions(include_columns=list(types), column_types=types, null_values=[]),
        )
    except (pa.ArrowException, UnicodeDecodeError):
        return None


def _is_utf8(block: bytes) -> bool:
    try:
        pc.cast(pa.array([block], pa.binary()), pa.string())
    except pa.ArrowException:
        return False
    return True


def _header(path: Path, line: bytes, form: Form) -> tuple[str, ...]:
    text = line.decode("utf-8", errors="replace")
    if form.quoting:
        names = tuple(name.strip() for name in next(csv.reader([text], delimiter=form.delimiter), []))
    else:
        names = tuple(name.strip() for name in text.split(form.delimiter))
    missing = [name for name in form.fields if name not in names]
    if missing:
        raise InputError(
            f"{path}, line 1: no column {', '.join(missing)}.\nReceived: {text[:200]!r}.\n"
            f"Expected the publisher's line of column names. Is it the right file?"
        )
    return names


def _fast(block: bytes, form: Form, names: tuple[str, ...], left_out: Counter[str]) -> pa.Table | None:
    """What `_slow` gives, in a fraction of the time, or None in doubt; nothing is counted then."""
    if "text" not in form.fields.values():
        return parse_numbers(block, form.delimiter, list(names), form.fields)
    if b"\0" in block or not _is_utf8(block):
        return None
    broken = 0

    def skip(row: Any) -> str:
        nonlocal broken
        broken += 1
        return "skip"

    # Every column is a dictionary: few different texts, each looked at once.
    text = pa.dictionary(pa.int32(), pa.string())
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(pa.py_buffer(block.replace(b"\r", b""))),
            pa.csv.ReadOptions(column_names=list(names), block_size=4 << 20),
            pa.csv.ParseOptions(delimiter=form.delimiter, quote_char=False, invalid_row_handler=skip),
            pa.csv.ConvertOptions(
                include_columns=list(form.fields), column_types=dict.fromkeys(form.fields, text), null_values=[]
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    table = table.unify_dictionaries().combine_chunks()
    counts: Counter[str] = Counter()
    if broken:
        # Lines of blanks are broken, too, and are no rows.
        blank = sum(not line.strip(b" \r") and line.strip(b"\r") != b"" for line in block.split(b"\n"))
        counts[_malformed(f"not {len(names)} columns")] = broken - blank
    bad = np.zeros(table.num_rows, bool)
    columns: dict[str, Any] = {}
    for name, kind in form.fields.items():
        column = table[name].chunk(0) if table[name].num_chunks else None
        if column is None:
            columns[name] = pa.array([], pa.float32()) if kind == "count" else pa.array([], text)
            continue
        index, words = column.indices.to_numpy(), column.dictionary
        if kind == "count":
            ok = pc.match_substring_regex(words, "^[0-9]{1,18} *$")
            numbers = pc.cast(pc.utf8_trim(pc.if_else(ok, words, "0"), " "), pa.int64())
            columns[name] = pa.array(numbers.to_numpy().astype(np.float32)[index])
            reason = _malformed(name)
        else:
            ok = pc.not_equal(pc.utf8_trim(words, " "), "")
            columns[name] = column
            reason = _missing(name)
        wrong = ~ok.to_numpy(zero_copy_only=False)[index] & ~bad
        counts[reason] += int(wrong.sum())
        bad |= wrong
    left_out.update({reason: count for reason, count in counts.items() if count})
    made = pa.table(columns)
    return made.filter(pa.array(~bad)) if bad.any() else made


def _slow(
    path: Path, number: int, block: bytes, form: Form, names: tuple[str, ...], left_out: Counter[str]
) -> pa.Table:
    """Line by line: what each means, the one definition of it."""
    text = "text" in form.fields.values()
    places = [(name, kind, names.index(name)) for name, kind in form.fields.items()]
    columns: dict[str, list[Any]] = {name: [] for name in form.fields}
    for at, line in enumerate(block.split(b"\n") if text else lines_of(block), start=number):
        if text:
            line = line.replace(b"\r", b"")
        if not line.strip(b" "):
            continue
        row, reason, shown = _line(line, form, names, places)
        if reason is None:
            for (name, _, _), value in zip(places, row, strict=True):
                columns[name].append(value)
        elif form.lenient:
            left_out[reason] += 1
        else:
            _stop(path, at, line, reason, shown)
    return pa.table({name: _array(columns[name], kind) for name, kind in form.fields.items()})


def _line(
    line: bytes, form: Form, names: tuple[str, ...], places: list[tuple[str, FieldKind, int]]
) -> tuple[list[Any], str | None, bytes]:
    """The values of a line; or why there are none, and the field that is to blame."""
    if form.quoting and b'"' in line:
        # Numbers alone are read here, so that latin-1 loses nothing.
        try:
            record = next(csv.reader([line.decode("latin-1")], delimiter=form.delimiter, strict=True))
        except csv.Error:
            return [], "a quote that is not closed", line
        fields = [text.encode("latin-1") for text in record]
    else:
        fields = line.split(form.delimiter.encode())
    if len(fields) != len(names):
        return [], _malformed(f"not {len(names)} columns"), line
    if b"\0" in line:
        return [], _malformed("NUL"), line
    row: list[Any] = []
    for value in (fields[place] for _, kind, place in places if kind == "text"):
        try:
            value.decode()
        except UnicodeDecodeError:
            return [], _malformed("not UTF-8"), value
    for name, kind, place in places:
        value = fields[place]
        if not value.strip(b" "):
            return [], _malformed(name) if kind == "count" else _missing(name), value
        read: Any
        if kind == "id":
            read = whole_number(value)
        elif kind == "number":
            read = finite_number(value)
        elif kind == "time":
            read = time_number(value)
        elif kind == "count":
            read = float(value) if _COUNT.fullmatch(value) else None
        else:
            read = value.decode()
        if read is None:
            return [], _malformed(name) if form.lenient else f"`{name}` {_EXPECTED[kind]}", value
        row.append(read)
    return row, None, b""


def _array(values: list[Any], kind: FieldKind) -> pa.Array:
    if kind == "text":
        return pa.array(values, pa.string()).dictionary_encode()
    if kind in ("number", "count"):
        return pa.array(np.array(values, np.float32))
    if kind == "time" and not all(isinstance(value, int) for value in values):
        return pa.array(values, pa.float64())
    return pa.array(values, pa.int64())


def _malformed(what: str) -> str:
    return f"malformed ({what})"


def _missing(name: str) -> str:
    return f"no {name}"


def _stop(path: Path, number: int, line: bytes, reason: str, field: bytes) -> NoReturn:
    shown = field.decode("utf-8", errors="replace")
    whole = "" if field == line else f", in {line[:200].decode('utf-8', errors='replace')!r}"
    raise InputError(
        f"{path}, line {number}: {reason}.\nReceived: {shown[:200]!r}{whole}.\n"
        "The publisher's file has no such line: get it again, or correct or remove the line."
    )
