"""Read the columns of a delimited text file.

pyarrow parses (all cores, columns that are not asked for are skipped). Every column stays text until
`tfrec.data.columns` and `tfrec.data.times` make ids and numbers of it. Lines are looked up again only for a message.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from tfrec.data.column_names import check_columns
from tfrec.data.problems import DROP, Problem, either
from tfrec.data.quoting import Quoting, Records
from tfrec.data.table_parts import Part
from tfrec.data.text_files import PACKING_DAMAGE, CountedStream, TextFile, find_undecodable
from tfrec.errors import InputError


@dataclass(frozen=True)
class TextOptions:
    """How text is delimited, quoted, encoded and named, see `Interactions.from_table`."""

    delimiter: str | None
    quoting: Quoting
    encoding: str | None
    column_names: list[str] | None


def read_text(path: Path, columns: dict[str, str], options: TextOptions) -> Part:
    """The columns of the file, by role, as text.

    Args:
        path: the file.
        columns: role -> name of the column.
        options: how it is written.

    Raises:
        InputError: it is no such text, or a column is missing.
    """
    file = TextFile.of(path, options.encoding)
    problems: list[Problem] = []
    try:
        header = file.first_line()
    except UnicodeError:
        file, problem = _guessed_encoding(file)
        problems.append(problem)
        header = file.first_line()
    except PACKING_DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read: {error}.\nIs the file cut off?") from error
    skip = 0
    delimiter = options.delimiter
    if header.lower().startswith("sep=") and len(header) == 5:  # a line for Excel alone
        delimiter, skip = delimiter or header[4], 1
        with file.open_text() as lines:
            lines.readline()
            header = lines.readline().rstrip("\r\n")
    if delimiter is None:
        is_tsv = ".tsv" in [suffix.lower() for suffix in path.suffixes]
        delimiter = "\t" if is_tsv else max(",\t;|", key=lambda c: (header.count(c), c == ","))
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise InputError(f"`delimiter` must be one ASCII character, and no quote.\nReceived: {delimiter!r}.")
    quotes = options.quoting == "on" or (options.quoting == "auto" and delimiter != "\t")
    fields = next(
        csv.reader([header], delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE), []
    )
    raw = fields if options.column_names is None else options.column_names
    if len(raw) != len(fields):
        raise InputError(
            f"{path} has {len(fields)} columns, and `column_names` must name each of them.\n"
            f"Received: {len(raw)}: {', '.join(raw)}. The first line: {header[:200]!r}."
        )
    present = [column.strip() for column in raw]
    check_columns(path, columns, present, by_line=options.column_names is None)
    places = [present.index(column) for column in columns.values()]
    parse = _Parse(delimiter, quotes, skip + (options.column_names is None), len(present), places)
    try:
        table, malformed, stream = _parse(file, parse, list(columns))
    except _Undecodable:
        file, problem = _guessed_encoding(file)
        problems.append(problem)
        table, malformed, stream = _parse(file, parse, list(columns))
    records = Records(file, delimiter, quotes, len(present), parse.skip)
    if quotes and options.quoting == "auto" and stream.quotes:
        swallowed = records.swallowed() if table.num_rows + malformed + parse.skip < stream.total_lines else None
        if swallowed is not None:
            problems.append(_quote_problem(path, *swallowed))
    if malformed and not any(p.what.startswith("a quote") for p in problems):
        line, text, count = records.malformed()
        problems.append(
            Problem(
                f"expected {len(present)} columns ({', '.join(present)[:200]})",
                f"{count}: {text[:200]!r}" + (f" ({malformed:,} such rows)" if malformed > 1 else ""),
                f"Correct or remove the line (a quote that is not closed does this, or a {delimiter!r} inside a "
                f"value), or leave such rows out: {either(dict(DROP))}.",
                DROP,
                place=f"{path}, line {line}",
            )
        )
    return Part(path, table, problems, malformed, records)


def _quote_problem(path: Path, first: int, last: int | None) -> Problem:
    closed = f"is closed in line {last}, so one value spans lines {first} to {last}" if last else "is never closed"
    return Problem(
        f"a quote opens here and {closed}",
        None,
        f"Correct the quote. If quotes mean nothing in this file: {either({'quoting': 'off'})}. If values do span "
        f"lines: {either({'quoting': 'on'})}.",
        (("quoting", "off"),),
        place=f"{path}, line {first}",
    )


@dataclass(frozen=True)
class _Parse:
    delimiter: str
    quotes: bool
    skip: int  # lines before the first row
    num_columns: int
    places: list[int]  # of the columns that are read


class _Undecodable(Exception):
    """Text is not in the file's encoding."""


def _parse(file: TextFile, parse: _Parse, roles: list[str]) -> tuple[pa.Table, int, CountedStream]:
    """The columns of all rows that have as many as expected, by role; how many others there are."""
    names = [f"c{number}" for number in range(parse.num_columns)]
    text = pa.dictionary(pa.int32(), pa.string())
    # As text, since Arrow would read 007 and 0x7 as the number 7; each different one is kept once.
    kinds = {"user": text, "item": text, "value": text, "time": pa.string(), "title": text}
    malformed = 0

    def skip(row: Any) -> str:
        nonlocal malformed
        malformed += bool(row.text.strip())
        return "skip"

    is_bytes = file.encoding in ("utf-8", "utf-8-sig")
    read = pa.csv.ReadOptions(
        column_names=names,
        skip_rows=parse.skip,
        encoding="utf8" if is_bytes else file.encoding,
        block_size=8 << 20,
    )
    layout = pa.csv.ParseOptions(
        delimiter=parse.delimiter,
        quote_char='"' if parse.quotes else False,
        newlines_in_values=parse.quotes,
        invalid_row_handler=skip,
    )
    included = [names[place] for place in parse.places]
    convert = pa.csv.ConvertOptions(
        include_columns=included,
        column_types={column: kinds[role] for column, role in zip(included, roles, strict=True)},
        strings_can_be_null=False,
    )
    try:
        with file.open_bytes() as opened:
            stream = CountedStream(opened)
            table = pa.csv.read_csv(stream, read, layout, convert)
    except UnicodeError as error:
        raise _Undecodable from error
    except PACKING_DAMAGE as error:
        if "UTF8" in str(error):
            raise _Undecodable from error
        if "Empty CSV" in str(error) or "Could not skip" in str(error):
            return pa.table({role: pa.array([], kinds[role]) for role in roles}), malformed, stream
        raise InputError(f"{file.path} cannot be read as a table: {error}.\nIs the file cut off?") from error
    return table.rename_columns(roles), malformed, stream


def _shown(encoding: str) -> str:
    return {"utf8": "UTF-8", "utf-8": "UTF-8"}.get(encoding.lower(), encoding)


def _guessed_encoding(file: TextFile) -> tuple[TextFile, Problem]:
    """The file in the encoding it probably has, and the problem that it was not named."""
    found = find_undecodable(file)
    if found is None:
        raise InputError(
            f"{file.path}: the text must be {_shown(file.encoding)}.\nName its encoding: --data.encoding NAME."
        )
    options = {"encoding": found.guess}
    advice = f"Name its encoding: {either(options)}, which reads {found.sample!r} here. If that is wrong, try another."
    if found.mixed:
        advice = (
            f"Other lines are {_shown(file.encoding)} text, so correct this one; or read all of it otherwise: "
            f"{either(options)}."
        )
    problem = Problem(
        f"the text must be {_shown(file.encoding)}" + ("" if file.named else ", as no encoding is named"),
        None,
        advice,
        tuple(options.items()),
        place=f"{file.path}, line {found.line}",
    )
    return TextFile(file.path, found.guess, True), problem
