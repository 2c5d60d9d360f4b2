"""The files that a table stands for: one, several, those of a pattern, the parts in a folder."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from tfrec.data.text_files import check_readable
from tfrec.errors import InputError

#: What is read from a folder.
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".gz", ".bz2", ".xz", ".zst", ".zip")


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


def shown(files: Sequence[Path | str]) -> str:
    """The name of a file, or of the folder of several."""
    if len(files) == 1:
        return str(files[0])
    return f"{files[0]} and {len(files) - 1} more"
