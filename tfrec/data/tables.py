"""Read a person's own table of interactions: CSV, TSV or Parquet; a file, several, a pattern or a folder of parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tfrec.data.interactions import Interactions
from tfrec.data.parquet_tables import read_parquet
from tfrec.data.quoting import Quoting
from tfrec.data.table_columns import Columns, build
from tfrec.data.table_files import shown, table_files
from tfrec.data.table_parts import Part, Where, concatenate
from tfrec.data.text_tables import TextOptions, read_text
from tfrec.data.value_kinds import value_kind
from tfrec.errors import InputError


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
    options = TextOptions(delimiter, quoting, encoding, list(column_names) if column_names else None)
    parts = [_read_part(file, columns, options) for file in files]
    where = Where(parts)
    problems = [problem for part in parts for problem in part.problems]
    left_out = {"malformed": sum(part.malformed for part in parts)}
    if bad_rows == "drop":
        problems = [p for p in problems if ("bad_rows", "drop") not in p.options]
    table = concatenate(parts)
    if table.num_rows == 0 and not problems:
        if left_out["malformed"]:
            raise InputError(f"{shown(files)}: no row could be read; all {left_out['malformed']:,} are malformed.")
        raise InputError(f"{shown(files)} has column names but no rows.\nGive a file with at least one interaction.")
    read = Columns(columns, text_ids, decimal, time_format, ask_values=values == "auto")
    events = build(table, read, where, problems, left_out, bad_rows == "drop", name or shown(files))
    if rating is None:
        return events
    if values != "auto":
        return events.described(kind=values, kind_rule="as named")
    kind, rule = value_kind(columns["rating"], events.values, 1 - events.num_pairs / len(events))
    return events.described(kind=kind, kind_rule=rule)


def _check_choices(**choices: tuple[Any, tuple[str, ...]]) -> None:
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise InputError(f"`{name}` must be one of {', '.join(allowed)}.\nReceived: {value!r}.")


def _read_part(path: Path, columns: dict[str, str], options: TextOptions) -> Part:
    with path.open("rb") as stream:
        is_parquet = stream.read(4) == b"PAR1"
    if is_parquet or path.suffix.lower() in (".parquet", ".pq"):
        return read_parquet(path, columns)
    return read_text(path, columns, options)
