"""Titles of published data sets: what to show for an item. They change no number, so a bad line never stops a run."""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: u.item: the title ends where the date of release begins.
_RELEASED = re.compile(r"[0-9]{1,2}-[A-Za-z]{3}-[0-9]{4}")
#: Fields of a line of u.item, and those after the title.
_U_ITEM_FIELDS, _U_ITEM_REST = 24, 22


@dataclass(frozen=True)
class Titles:
    """Titles by the raw id of their item.

    Args:
        of: id -> title.
        encoding: ``utf-8``, ``latin-1`` (where a line is not valid UTF-8) or ``utf-16``.
        left_out: lines without an id and a title.
        repeated: lines that give an item another title than before; the last one counts, as in implicit.
    """

    of: dict[int, str]
    encoding: str
    left_out: int
    repeated: int

    def array(self, item_ids: np.ndarray) -> np.ndarray:
        """``[I]`` of str: each item's title, or its id as text where there is none."""
        return np.array([self.of.get(int(i), str(i)) for i in item_ids] + [None], dtype=object)[:-1]

    def summary(self, item_ids: np.ndarray) -> dict[str, Any]:
        """For reports."""
        without = sum(int(i) not in self.of for i in item_ids)
        return {
            "encoding": self.encoding,
            "items_without_title": without,
            "lines_left_out": self.left_out,
            "lines_with_another_title": self.repeated,
        }


def read_titles(path: Path, delimiter: str, header: bool) -> Titles:
    """The titles in ``path``.

    A line is UTF-8 where it is valid UTF-8, else latin-1: the publisher's ml-1m is latin-1, and copies of it are
    often re-coded. A byte order mark is left out. Delimiters inside a title belong to it: what follows the title is
    known (genres; a date; an address).

    Args:
        path: the file; lines without an id (a whole number) or with a blank title are left out and counted.
        delimiter: ``,`` (quoted by ``"``), ``::``, ``|`` or a tab.
        header: whether the first line has column names.
    """
    data = path.read_bytes()
    lines: list[str] = []
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
        lines = re.split(r"\r\n|\n|\r", data.decode("utf-16", errors="replace"))
    else:
        encoding = "utf-8"
        # Not `str.splitlines`, to which latin-1's 0x85 and others are the end of a line.
        for raw in data.removeprefix(codecs.BOM_UTF8).splitlines():
            try:
                lines.append(raw.decode())
            except UnicodeDecodeError:
                encoding = "latin-1"
                lines.append(raw.decode("latin-1"))
    columns = (0, 1)
    if header and lines:
        columns = _columns(_split(lines[0], delimiter))
        lines = lines[1:]
    titles: dict[int, str] = {}
    left_out = repeated = 0
    for line in lines:
        if not line.strip():
            continue
        key, title = _id_and_title(line, delimiter, columns)
        if not (key.isascii() and key.isdigit() and len(key) < 19 and title):
            left_out += 1
            continue
        repeated += titles.get(int(key), title) != title
        titles[int(key)] = title
    return Titles(titles, encoding, left_out, repeated)


def _split(line: str, delimiter: str) -> list[str]:
    if delimiter != ",":
        return line.split(delimiter)
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:  # a quote that is not closed
        return []


def _columns(names: list[str]) -> tuple[int, int]:
    """Where the id and the title are, by the names of MovieLens; else the first two."""
    names = [name.strip() for name in names]
    if "movieId" in names and "title" in names:
        return names.index("movieId"), names.index("title")
    return 0, 1


def _id_and_title(line: str, delimiter: str, columns: tuple[int, int]) -> tuple[str, str]:
    """Both without blanks around them; empty where there is none."""
    fields = _split(line, delimiter)
    if len(fields) <= max(columns):
        return "", ""
    title = fields[columns[1]]
    if delimiter == "::":
        # From the right, since a title may end in a colon: `Foo:::Drama`.
        rest = line.split("::", 1)[1]
        title = rest.rsplit("::", 1)[0]
    elif delimiter == "|":
        dates = [place for place, text in enumerate(fields) if place > 1 and _RELEASED.fullmatch(text.strip())]
        if dates:
            title = "|".join(fields[1 : dates[0]])
        elif len(fields) > _U_ITEM_FIELDS:
            title = "|".join(fields[1 : len(fields) - _U_ITEM_REST])
    elif delimiter == "\t":
        addresses = [place for place, text in enumerate(fields) if place > 1 and text.startswith("http")]
        if addresses:
            title = " ".join(fields[1 : addresses[0]])
    return fields[columns[0]].strip(), title.strip()
