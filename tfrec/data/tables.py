"""From a table, in files or in memory, to interactions: what `Interactions.from_table` and `from_frame` do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from tfrec.data import frames
from tfrec.data.interactions import AUTO, KIND_KEY, Interactions
from tfrec.data.parquet_tables import read_parquet
from tfrec.data.quoting import Quoting
from tfrec.data.table_columns import Columns, build
from tfrec.data.table_files import shown, table_files
from tfrec.data.table_parts import Part, Where, concatenate
from tfrec.data.text_tables import TextOptions, read_text
from tfrec.data.value_kinds import value_kind
from tfrec.errors import InputError


@dataclass(frozen=True)
class Reading:
    """How the columns of a table are named and read; the arguments of `Interactions.from_table`."""

    user: str
    item: str
    value: str | None
    time: str | None
    title: str | None
    value_kind: Literal["auto", "ratings", "counts", "votes"]
    bad_rows: Literal["error", "drop"]
    time_format: str | None
    text_ids: bool
    decimal: str = "."

    def __post_init__(self) -> None:
        _check_choice("value_kind", self.value_kind, ("auto", "ratings", "counts", "votes"))
        _check_choice("bad_rows", self.bad_rows, ("error", "drop"))
        _check_choice("decimal", self.decimal, (".", ","))
        self._check_kind()
        for role, column in self.named().items():
            if not isinstance(column, str):
                raise InputError(f"`{role}` must be the name of a column.\nReceived: {column!r}.")
        names = [column for column in self.columns().values() if column != AUTO]
        if len(set(names)) < len(names):
            raise InputError(
                f"user, item, value, time and title must be different columns.\nReceived: {self.columns()}."
            )

    def _check_kind(self) -> None:
        if self.value_kind != "auto" and self.value is None:
            raise InputError(
                f"`value_kind` needs a column of ratings, counts or votes, and none is named.\n"
                f"Received: value_kind={self.value_kind!r}.\nName it: value='COLUMN', --data.value COLUMN."
            )

    def found(self, present: Sequence[str]) -> Reading:
        """With `AUTO` replaced: the column of the role's own name where ``present`` has it, else none."""
        roles = [role for role in ("value", "time", "title") if getattr(self, role) == AUTO]
        names: dict[str, Any] = {role: role if role in present else None for role in roles}
        taken = {column for column in self.columns().values() if column != AUTO}
        chosen: dict[str, Any] = {role: None if name in taken else name for role, name in names.items()}
        return replace(self, **chosen)

    def named(self) -> dict[str, str]:
        """Role -> name of the column, as it was given."""
        roles = ("user", "item", "value", "time", "title")
        return {role: getattr(self, role) for role in roles if getattr(self, role) is not None}

    def columns(self) -> dict[str, str]:
        """Role -> name of the column, without blanks around it."""
        return {role: column.strip() for role, column in self.named().items()}


def read_files(
    path: str | Path | Sequence[str | Path],
    reading: Reading,
    delimiter: str | None,
    quoting: Quoting,
    encoding: str | None,
    column_names: Sequence[str] | None,
    name: str | None,
) -> Interactions:
    """Interactions of files; arguments and errors as of `Interactions.from_table`."""
    _check_choice("quoting", quoting, ("auto", "on", "off"))
    files = table_files(path)
    columns = reading.columns()
    options = TextOptions(delimiter, quoting, encoding, list(column_names) if column_names else None)
    parts = [_read_part(file, columns, options) for file in files]
    return _interactions(parts, reading, name or shown(files))


def read_frame(frame: Any, reading: Reading, name: str | None) -> Interactions:
    """Interactions of a data frame; arguments and errors as of `Interactions.from_frame`."""
    kind = _kept_kind(frame, reading)
    opened = frames.Frame(frame)
    reading = reading.found(opened.present)
    if kind is not None and reading.value is not None:
        reading = replace(reading, value_kind=kind)
    table = opened.table(reading.columns())
    return _interactions([Part(frames.NAME, table)], reading, name or frames.NAME)


def _kept_kind(frame: Any, reading: Reading) -> Any:
    """The kind of the values of a table that `Interactions.to_frame` made; None: it does not say."""
    if not isinstance(frame, pa.Table) or (reading.value, reading.value_kind) != (AUTO, "auto"):
        return None
    kind = (frame.schema.metadata or {}).get(KIND_KEY, b"").decode()
    return kind if kind in ("ratings", "counts", "votes") else None


def _interactions(parts: list[Part], reading: Reading, name: str) -> Interactions:
    where = Where(parts)
    problems = [problem for part in parts for problem in part.problems]
    left_out = {"malformed": sum(part.malformed for part in parts)}
    if reading.bad_rows == "drop":
        problems = [p for p in problems if ("bad_rows", "drop") not in p.options]
    table: pa.Table = concatenate(parts)
    if table.num_rows == 0 and not problems:
        if left_out["malformed"]:
            raise InputError(
                f"{where.path}: no row could be read.\nReceived: {left_out['malformed']:,} malformed ones."
            )
        raise InputError(f"{where.path} has column names but no rows.\nGive a table with at least one interaction.")
    read = Columns(
        reading.columns(),
        reading.text_ids,
        reading.decimal,
        reading.time_format,
        ask_values=reading.value_kind == "auto",
    )
    events = build(table, read, where, problems, left_out, reading.bad_rows == "drop", name)
    if reading.value is None:
        return events
    if reading.value_kind != "auto":
        return events.described(kind=reading.value_kind, kind_rule="as named")
    kind, rule = value_kind(reading.value.strip(), events.values, 1 - events.num_pairs / len(events))
    return events.described(kind=kind, kind_rule=rule)


def _check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"`{name}` must be one of {', '.join(allowed)}.\nReceived: {value!r}.")


def _read_part(path: Path, columns: dict[str, str], options: TextOptions) -> Part:
    with path.open("rb") as stream:
        is_parquet = stream.read(4) == b"PAR1"
    if is_parquet or path.suffix.lower() in (".parquet", ".pq"):
        return read_parquet(path, columns)
    return read_text(path, columns, options)
