"""Files of a table that were read, and where each row came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec.data.problems import Problem
from tfrec.data.quoting import Records
from tfrec.data.table_files import shown
from tfrec.errors import InputError


@dataclass
class Part:
    """A file that was read.

    Args:
        path: the file, or what a frame is called.
        table: its columns, named by role.
        problems: what was found on the way.
        malformed: rows that are left out since they have more or fewer columns.
        records: of a text file: finds the line of a row.
        first_line: the line of the first row, where each row is a line.
    """

    path: Path | str
    table: pa.Table
    problems: list[Problem] = field(default_factory=list)
    malformed: int = 0
    records: Records | None = None
    first_line: int | None = None

    def place(self, row: int) -> str:
        """Where the row is, in words."""
        if self.records is not None:
            return f"{self.path}, line {self.records.line(row)}"
        if self.first_line is not None:
            return f"{self.path}, line {row + self.first_line}"
        return f"{self.path}, row {row + 1}"


class Where:
    """Where a row of several parts, one after the other, came from; for messages."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._ends = np.cumsum([part.table.num_rows for part in parts])

    def __call__(self, row: int) -> str:
        """The place of the row, in words."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self._parts[number].place(row - (int(self._ends[number - 1]) if number else 0))

    @property
    def path(self) -> str:
        """The name of the file, or of several."""
        return shown([part.path for part in self._parts])


def concatenate(parts: Sequence[Part]) -> pa.Table:
    """The rows of all parts.

    Raises:
        InputError: a column is of different types.
    """
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
