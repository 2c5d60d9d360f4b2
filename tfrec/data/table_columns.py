"""From the parsed columns of a table to interactions; all that is wrong is found, counted and reported together."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tfrec.data.columns import read_ids, read_titles, read_values
from tfrec.data.interactions import Interactions, ValueKind
from tfrec.data.problems import Problem, raise_problems
from tfrec.data.table_parts import Part, Where
from tfrec.data.times import read_times
from tfrec.data.value_kinds import unclear_values
from tfrec.errors import InputError


@dataclass(frozen=True)
class Columns:
    """How the columns are read."""

    names: dict[str, str]
    text_ids: bool = False
    decimal: str = "."
    time_format: str | None = None
    ask_values: bool = False


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
        columns: role (``user``, ``item``, ``value``, ``time``, ``title``) -> name of the column.
        name: for reports.
        kind: what a value means.
        text_ids: ids are text.
        first_line: the line of the first row, for errors.

    Raises:
        InputError: an entry that is missing or wrong, with its line.
    """
    part = Part(path, table.select(list(columns.values())).rename_columns(list(columns)), first_line=first_line)
    events = build(part.table, Columns(columns, text_ids), Where([part]), [], {}, False, name)
    return events.described(kind=kind)


def build(
    table: pa.Table,
    read: Columns,
    where: Where,
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


def _place(where: Where, origin: np.ndarray | None, row: int) -> str:
    return where(row if origin is None else int(origin[row]))


def _convert(table: pa.Table, read: Columns, where: Where) -> tuple[list[Problem], dict[str, Any], Any, Any]:
    found: list[Problem] = []
    try:
        ids = {role: read_ids(role, read.names[role], table[role], read.text_ids) for role in ("user", "item")}
        found += ids["user"].problems + ids["item"].problems
        values = times = None
        if "value" in read.names:
            values, problems = read_values(read.names["value"], table["value"], read.decimal)
            found += problems
            unclear = unclear_values(read.names["value"], values) if read.ask_values else None
            found += [unclear] if unclear is not None else []
        if "time" in read.names:
            times, problems = read_times(read.names["time"], table["time"], read.time_format)
            found += problems
    except InputError as error:
        raise InputError(f"{where.path}: {error}") from error
    return found, ids, values, times
