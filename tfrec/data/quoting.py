"""The records of delimited text, for messages: on which line each begins, and which a stray quote has swallowed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Literal

from tfrec.data.text_files import TextFile

#: Whether ``"`` quotes; auto: as RFC 4180 says, but not where a quote seems to have swallowed lines.
Quoting = Literal["auto", "on", "off"]

csv.field_size_limit(1 << 30)


class Records:
    """Reads the file again, with Python's csv. Only for messages.

    Args:
        file: the text.
        delimiter: one character.
        quotes: whether ``"`` quotes.
        num_columns: of a whole record.
        skip: lines before the first record.
    """

    def __init__(self, file: TextFile, delimiter: str, quotes: bool, num_columns: int, skip: int) -> None:
        self._file, self._delimiter, self._quotes = file, delimiter, quotes
        self._num_columns, self._skip = num_columns, skip

    def line(self, row: int) -> int:
        """The line on which row ``row`` (from 0, malformed ones not counted) begins."""
        number = -1
        for first, _, fields, _ in self._records():
            number += len(fields) == self._num_columns
            if number == row:
                return first
        return row + 1 + self._skip

    def malformed(self) -> tuple[int, str, int]:
        """Line, text and number of columns of the first record that has another number of columns."""
        for first, _, fields, lines in self._records():
            if len(fields) != self._num_columns and "".join(fields).strip():
                return first, "".join(lines).rstrip("\r\n"), len(fields)
        return 0, "", 0

    def swallowed(self) -> tuple[int, int | None] | None:
        """First and last line of a record in which a quote has probably swallowed lines; no last line at the end.

        That is one whose lines, without quoting, each have as many columns as a record should have, or in which a
        quote that closes is not followed by a delimiter.
        """
        for first, last, fields, lines in self._records(strict=True):
            if len(lines) < 2:
                continue
            if not fields:
                return first, last
            whole = [line for line in lines if line.strip()]
            if all(line.count(self._delimiter) == self._num_columns - 1 for line in whole):
                return first, last
        return None

    def _records(self, strict: bool = False) -> Iterator[tuple[int, int | None, list[str], list[str]]]:
        """First line, last line, fields (none where they break the rules of quoting) and lines of each record."""
        kept: list[str] = []

        def lines() -> Iterator[str]:
            for line in stream:
                kept.append(line)
                yield line

        quoting: Literal[0, 3] = 0 if self._quotes else 3  # csv.QUOTE_MINIMAL, csv.QUOTE_NONE
        with self._file.open_text() as stream:
            for _ in range(self._skip):
                stream.readline()
            reader = csv.reader(lines(), delimiter=self._delimiter, quoting=quoting, strict=strict)
            while True:
                kept.clear()
                first = reader.line_num + 1 + self._skip
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    at_end = "end of data" in str(error)
                    yield first, None if at_end else reader.line_num + self._skip, [], list(kept)
                    if at_end:
                        return
                    continue
                if fields and not (len(fields) == 1 and not fields[0].strip()):
                    yield first, reader.line_num + self._skip, fields, kept
