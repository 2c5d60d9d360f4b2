"""What happened in each epoch, as CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from tfrec.data.files import atomic_write


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """A line per epoch; a value that an epoch has not (no validation then) is empty."""
    columns: dict[str, None] = {}
    for row in rows:
        columns.update(dict.fromkeys(row))
    with atomic_write(path, "w") as stream:
        writer = csv.DictWriter(stream, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, float]]:
    """The lines of `write_csv`, without empty values; none where the file does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(stream)]
