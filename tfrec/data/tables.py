"""Read a person's own table of interactions: CSV, TSV or Parquet; a file, several, a pattern or a folder of parts.

pyarrow parses (all cores, columns that are not asked for are skipped). Every column of text stays text until
`tfrec.data.columns` and `tfrec.data.times` make ids and numbers of it, so that all that is wrong is found, counted and
said at once. Lines are looked up again only for a message.
"""

from __future__ import annotations

import csv
import functools
import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from tfrec.data.columns import read_ids, read_titles, read_values
from tfrec.data.interactions import Interactions, ValueKind
from tfrec.data.problems import Problem, either, raise_problems
from tfrec.data.quoting import Quoting, Records
from tfrec.data.text_files import PACKING_DAMAGE, CountedStream, TextFile, check_readable, find_undecodable
from tfrec.data.times import read_times
from tfrec.data.value_kinds import unclear_values, value_kind
from tfrec.errors import InputError

#: What `from_table` reads from a folder.
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".gz", ".bz2", ".xz", ".zst", ".zip")
_DROP = (("bad_rows", "drop"),)


def from_table(
    path: str | Path | Sequence[str | Path],
    user: str = "user_id",
    item: str = "item_id",
    rating: str | None = None,
    timestamp: str | None = None,
    *,
    title: str | None = None,
    values: Literal["auto", "ratings", "counts", "votes"] = "auto",
    bad_rows: Literal["error", "drop"] = "error",
    delimiter: str | None = None,
    quoting: Quoting = "auto",
    decimal: str = ".",
    encoding: str | None = None,
    column_names: Sequence[str] | None = None,
    time_format: str | None = None,
    text_ids: bool = False,
    name: str | None = None,
) -> Interactions:
    """Read interactions from a table with named columns.

    Blanks around ids and column names are stripped. Empty lines are no rows.

    Args:
        path: CSV, TSV or other delimited text, also packed (gzip, bz2, xz, zstd, or zip with one file), or Parquet;
            what it is is told by its first bytes. A list of such files, a pattern (``plays/*.parquet``), or a folder
            of parts.
        user: name of the column of user ids, whole numbers from 0 or text, see `tfrec.data.columns.read_ids`.
        item: name of the column of item ids.
        rating: name of the column of ratings, counts or votes; None: every event counts 1 and is positive.
        timestamp: name of the column of times, numbers or dates; None: no times, and the order of the file is that of
            time.
        title: name of a column with the item's title; None: none.
        values: what ``rating`` holds; auto: told by the rule in `tfrec.data.value_kinds`.
        bad_rows: rows without an id, with a number of columns other than the first line's, a rating that is no number
            or a time that is none. error: refuse the table, and name the first of each kind. drop: leave them out,
            counted in ``report``.
        delimiter: one character; None: tab for ``.tsv``, else the one of ``, ; tab |`` that the first line has most of.
        quoting: whether ``"`` quotes (RFC 4180). auto: in all text but that delimited by tabs, and an error where a
            quote that is probably not closed would swallow lines. on: always. off: never.
        decimal: what stands before the fraction of a rating: ``.`` or ``,``.
        encoding: of the text; None: UTF-8, or UTF-16 and UTF-32 with a byte order mark.
        column_names: the names of the columns where the first line is data already.
        time_format: how dates are written, as ``datetime.strptime`` takes it; None: ISO 8601.
        text_ids: take ids as text even where they look like numbers.
        name: for reports; default the file's name.

    Returns:
        Interactions, events in the order of the file, with the account of all rows in ``report``.

    Raises:
        InputError: no such file, an empty one, a missing column, or rows that cannot be read (with file and line); what
            can be got past by options is said together, with these options.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "plays.csv"
        >>> _ = path.write_text("who,what,stars\\nada,Dune,5\\nada,Solaris,3\\ngrace,Dune,4\\n")
        >>> events = from_table(path, user="who", item="what", rating="stars")
        >>> events.num_users, events.num_items, list(events.item_ids), events.kind
        (2, 2, ['Dune', 'Solaris'], 'ratings')
        >>> print(events.report)
        3 rows: 3 pairs kept
    """
    _check_choices(values=(values, ("auto", "ratings", "counts", "votes")), bad_rows=(bad_rows, ("error", "drop")))
    _check_choices(quoting=(quoting, ("auto", "on", "off")), decimal=(decimal, (".", ",")))
    if values != "auto" and rating is None:
        raise InputError(
            f"`values` says what the column of ratings or counts holds, and none is named.\n"
            f"Received: values={values!r}.\nName it: rating='COLUMN', --data.rating COLUMN."
        )
    files = table_files(path)
    wanted = {"user": user, "item": item, "rating": rating, "timestamp": timestamp, "title": title}
    columns = {role: column.strip() for role, column in wanted.items() if column is not None}
    if len(set(columns.values())) < len(columns):
        raise InputError(f"Each role needs a column of its own.\nReceived: {columns}.")
    options = _TextOptions(delimiter, quoting, encoding, list(column_names) if column_names else None)
    parts = [_read_part(file, columns, options) for file in files]
    where = _Where(parts)
    problems = [problem for part in parts for problem in part.problems]
    left_out = {"malformed": sum(part.malformed for part in parts)}
    if bad_rows == "drop":
        problems = [p for p in problems if ("bad_rows", "drop") not in p.options]
    table = _concatenate(parts)
    if table.num_rows == 0 and not problems:
        if left_out["malformed"]:
            raise InputError(f"{_shown(files)}: no row could be read; all {left_out['malformed']:,} are malformed.")
        raise InputError(f"{_shown(files)} has column names but no rows.\nGive a file with at least one interaction.")
    read = _Columns(columns, text_ids, decimal, time_format, ask_values=values == "auto")
    events = _build(table, read, where, problems, left_out, bad_rows == "drop", name or _shown(files))
    if rating is None:
        return events
    if values != "auto":
        return events.described(kind=values, kind_rule="as named")
    kind, rule = value_kind(columns["rating"], events.values, 1 - events.num_pairs / len(events))
    return events.described(kind=kind, kind_rule=rule)


def build_interactions(
    path: Path,
    table: pa.Table,
    columns: dict[str, str],
    *,
    name: str,
    kind: ValueKind,
    text_ids: bool = False,
    first_line: int = 1,
) -> Interactions:
    """Check the columns of a table that has been parsed already, and number users and items.

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
    part = _Part(path, table.select(list(columns.values())).rename_columns(list(columns)), first_line=first_line)
    events = _build(part.table, _Columns(columns, text_ids), _Where([part]), [], {}, False, name)
    return events.described(kind=kind)


@dataclass(frozen=True)
class _Columns:
    """How the columns are read."""

    names: dict[str, str]
    text_ids: bool = False
    decimal: str = "."
    time_format: str | None = None
    ask_values: bool = False


@dataclass(frozen=True)
class _TextOptions:
    delimiter: str | None
    quoting: Quoting
    encoding: str | None
    column_names: list[str] | None


@dataclass
class _Part:
    """A file that was read: its columns by role, and what was found on the way."""

    path: Path
    table: pa.Table
    problems: list[Problem] = field(default_factory=list)
    malformed: int = 0
    records: Records | None = None
    first_line: int | None = None

    def place(self, row: int) -> str:
        if self.records is not None:
            return f"{self.path}, line {self.records.line(row)}"
        if self.first_line is not None:
            return f"{self.path}, line {row + self.first_line}"
        return f"{self.path}, row {row + 1}"


class _Where:
    """Where a row came from, for messages."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts
        self._ends = np.cumsum([part.table.num_rows for part in parts])

    def __call__(self, row: int) -> str:
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self._parts[number].place(row - (int(self._ends[number - 1]) if number else 0))

    @property
    def path(self) -> str:
        return _shown([part.path for part in self._parts])


def _build(
    table: pa.Table,
    read: _Columns,
    where: _Where,
    problems: list[Problem],
    left_out: dict[str, int],
    drop: bool,
    name: str,
) -> Interactions:
    """Interactions of the columns by role; rows that cannot be read are dropped, or all of ``problems`` raised."""
    origin: np.ndarray | None = None  # the rows of the first table that are left
    while True:
        found, ids, values, times = _convert(table, read, where)
        droppable = [p for p in found if p.bad is not None and p.reason is not None] if drop else []
        found = [p for p in found if p not in droppable]
        if problems or found:
            raise_problems(problems + found, functools.partial(_place, where, origin), where.path)
        if not droppable:
            break
        bad = np.zeros(table.num_rows, bool)
        for problem in droppable:
            assert problem.bad is not None
            assert problem.reason is not None
            left_out[problem.reason] = left_out.get(problem.reason, 0) + int((problem.bad & ~bad).sum())
            bad |= problem.bad
        origin = np.flatnonzero(~bad) if origin is None else origin[~bad]
        table = table.filter(pa.array(~bad))
        if table.num_rows == 0:
            raise InputError(
                f"{where.path}: no row is left.\nLeft out: "
                + "; ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)
                + "."
            )
    user_index, user_ids = ids["user"].number()
    item_index, item_ids = ids["item"].number()
    titles = None
    if "title" in read.names:
        _, first = np.unique(item_index, return_index=True)
        titles = read_titles(table["title"], read.names["title"], first, item_ids)
    return Interactions(
        user_index=user_index,
        item_index=item_index,
        values=np.ones(table.num_rows, np.float32) if values is None else values,
        user_ids=user_ids,
        item_ids=item_ids,
        timestamps=times,
        item_titles=titles,
        name=name,
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def _place(where: _Where, origin: np.ndarray | None, row: int) -> str:
    return where(row if origin is None else int(origin[row]))


def _convert(table: pa.Table, read: _Columns, where: _Where) -> tuple[list[Problem], dict[str, Any], Any, Any]:
    found: list[Problem] = []
    try:
        ids = {role: read_ids(role, read.names[role], table[role], read.text_ids) for role in ("user", "item")}
        found += ids["user"].problems + ids["item"].problems
        values = times = None
        if "rating" in read.names:
            values, problems = read_values(read.names["rating"], table["rating"], read.decimal)
            found += problems
            unclear = unclear_values(read.names["rating"], values) if read.ask_values else None
            found += [unclear] if unclear is not None else []
        if "timestamp" in read.names:
            times, problems = read_times(read.names["timestamp"], table["timestamp"], read.time_format)
            found += problems
    except InputError as error:
        raise InputError(f"{where.path}: {error}") from error
    return found, ids, values, times


def table_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that ``path`` stands for: itself, those of a pattern, the parts in a folder, or all of a list.

    Parts are taken in the order of their names; names that begin with ``.`` or ``_`` are no parts (as in Spark, Hive).

    Raises:
        InputError: there is none, or one cannot be read.
    """
    if not isinstance(path, str | Path):
        found = [file for one in path for file in table_files(one)]
        if not found:
            raise InputError("No file was given.\nReceived: an empty list.")
        return found
    one = Path(path)
    if one.is_dir():
        parts = [
            file
            for file in sorted(one.rglob("*"))
            if file.is_file()
            and not any(part.startswith((".", "_")) for part in file.relative_to(one).parts)
            and file.suffix.lower() in SUFFIXES
        ]
        if not parts:
            raise InputError(
                f"{one} is not a file, and no table is in that folder.\n"
                f"Expected files ending in {', '.join(SUFFIXES)}.\n"
                "Give the CSV, TSV or Parquet file itself; or, for the NCF paper's three files, add --data.format ncf."
            )
    elif not one.exists() and glob.has_magic(str(path)):
        parts = [file for file in map(Path, sorted(glob.glob(str(path), recursive=True))) if file.is_file()]
        if not parts:
            raise InputError(f"No file matches {path}\nCheck the pattern; relative paths start at {Path.cwd()}.")
    else:
        parts = [one]
    for file in parts:
        check_readable(file)
    return parts


def _shown(files: Sequence[Path]) -> str:
    """The name of a file, or of the folder of several."""
    if len(files) == 1:
        return str(files[0])
    return f"{files[0]} and {len(files) - 1} more"


def _concatenate(parts: Sequence[_Part]) -> pa.Table:
    tables = [part.table for part in parts]
    if len(tables) == 1:
        return tables[0]
    try:
        return pa.concat_tables([_plain(table) for table in tables], promote_options="permissive")
    except pa.ArrowException as error:
        kinds = {f"{part.path}: {part.table.schema.types}" for part in parts}
        raise InputError(
            f"The files do not fit together: {error}.\nReceived: {'; '.join(sorted(kinds)[:3])}."
        ) from error


def _plain(table: pa.Table) -> pa.Table:
    """Without dictionary encoding where that is not of text, which could not be joined."""
    for number, name in enumerate(table.column_names):
        kind = table.schema.types[number]
        if pa.types.is_dictionary(kind) and kind.value_type != pa.string():
            table = table.set_column(number, name, pc.cast(table[name], kind.value_type))
    return table


def _check_choices(**choices: tuple[Any, tuple[str, ...]]) -> None:
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise InputError(f"`{name}` must be one of {', '.join(allowed)}.\nReceived: {value!r}.")


def _check_columns(path: Path, columns: dict[str, str], present: list[str], by_line: bool) -> None:
    """Raise InputError unless every column is there, once; ``by_line``: the names are those of a first line."""
    if not any(present):
        raise InputError(f"{path} has no column names in its first line.\nWrite them there, e.g. user_id,item_id.")
    if by_line and _looks_like_data(columns, present):
        names = [f"column{number}" for number in range(1, len(present) + 1)]
        for role, place in zip(columns, range(len(names)), strict=False):
            names[place] = role
        raise InputError(
            f"{path}: the first line looks like data, not like column names.\n"
            f"Received: {', '.join(present)[:200]}.\n"
            "Name the columns in the order of the file, and use these names: column_names=[...], on the command line "
            "e.g. "
            f"--data.column-names {' '.join(names)} --data.user {names[0]}"
            + (f" --data.item {names[1]}" if len(names) > 1 else "")
        )
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


def _looks_like_data(columns: dict[str, str], present: list[str]) -> bool:
    """Whether column names are numbers or dates; 0, 1, 2 ... are what pandas calls columns without a name."""
    numbers = [str(number) for number in range(len(present))]
    if present in (numbers, [str(number + 1) for number in range(len(present))]):
        return False
    data = [_is_value(field) for field in present]
    asked = [column for column in columns.values() if column in present]
    if all(column in present for column in columns.values()):
        # Somebody named them so; but nobody calls the columns of users and items 196 and 242.
        return all(_is_value(column) for column in asked)
    return any(data)


def _is_value(field: str) -> bool:
    text = field.strip()
    try:
        float(text)
        return True
    except ValueError:
        return len(text) >= 8 and text[:4].isdigit() and text[4] in "-/" and text[5:7].strip("-/").isdigit()


def _read_part(path: Path, columns: dict[str, str], options: _TextOptions) -> _Part:
    with path.open("rb") as stream:
        is_parquet = stream.read(4) == b"PAR1"
    if is_parquet or path.suffix.lower() in (".parquet", ".pq"):
        return _read_parquet(path, columns)
    return _read_text(path, columns, options)


def _read_parquet(path: Path, columns: dict[str, str]) -> _Part:
    try:
        raw = pa.parquet.read_schema(path).names
        present = [column.strip() for column in raw]
        _check_columns(path, columns, present, by_line=False)
        table = pa.parquet.ParquetFile(path).read(columns=[raw[present.index(column)] for column in columns.values()])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no Parquet file that can be read: {error}.") from error
    arrays = []
    for column in columns.values():
        array = table[raw[present.index(column)]]
        if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
            try:  # text, as some writers store it
                array = pc.cast(array, pa.large_string())
            except pa.ArrowInvalid as error:
                raise InputError(f"{path}: column `{column}` holds bytes that are no text.\nName another.") from error
        arrays.append(array)
    return _Part(path, pa.table(arrays, names=list(columns)))


def _read_text(path: Path, columns: dict[str, str], options: _TextOptions) -> _Part:
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
        raise InputError(f"{path} cannot be read: {error}. Is the file cut off?") from error
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
    _check_columns(path, columns, present, by_line=options.column_names is None)
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
                f"Mend or remove the line (a quote that is not closed does this, or a {delimiter!r} inside a value), "
                f"or leave such rows out: {either(dict(_DROP))}.",
                _DROP,
                place=f"{path}, line {line}",
            )
        )
    return _Part(path, table, problems, malformed, records)


def _quote_problem(path: Path, first: int, last: int | None) -> Problem:
    closed = f"is closed in line {last}, so one value spans lines {first} to {last}" if last else "is never closed"
    return Problem(
        f"a quote opens here and {closed}",
        None,
        f"Mend the quote. If quotes mean nothing in this file: {either({'quoting': 'off'})}. If values do span lines: "
        f"{either({'quoting': 'on'})}.",
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
    kinds = {"user": text, "item": text, "rating": text, "timestamp": pa.string(), "title": text}
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
        raise InputError(f"{file.path} cannot be read as a table: {error}. Is the file cut off?") from error
    return table.rename_columns(roles), malformed, stream


def _guessed_encoding(file: TextFile) -> tuple[TextFile, Problem]:
    """The file in the encoding it probably has, and the problem that nobody named it."""
    found = find_undecodable(file)
    if found is None:
        raise InputError(f"{file.path} is not {file.encoding} text.\nName its encoding: --data.encoding NAME.")
    options = {"encoding": found.guess}
    advice = f"Name its encoding: {either(options)}, which reads {found.sample!r} here. If that is wrong, try another."
    if found.mixed:
        advice = (
            f"Other lines are {file.encoding} text, so mend this one; or read all of it otherwise: {either(options)}."
        )
    problem = Problem(
        f"not {file.encoding.replace('-', '')} text" if not file.named else f"not {file.encoding} text, as was named",
        None,
        advice,
        tuple(options.items()),
        place=f"{file.path}, line {found.line}",
    )
    return TextFile(file.path, found.guess, True), problem
