"""Text files: packed or not, in some encoding, with or without column names.

How a file is packed follows from its first bytes, never from its name. Text is UTF-8; UTF-16 and UTF-32 are recognised
by their byte order mark; any other encoding must be named.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from tfrec.data.files import DAMAGE
from tfrec.errors import InputError

#: What reading a packed file that is cut off or damaged may raise.
PACKING_DAMAGE = (*DAMAGE, lzma.LZMAError, pa.ArrowException)

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class TextFile:
    """A file of text.

    Args:
        path: the file.
        encoding: a Python codec.
        named: whether the encoding was named; else it is detected from the first bytes.
    """

    path: Path
    encoding: str
    named: bool

    @classmethod
    def of(cls, path: Path, encoding: str | None = None) -> TextFile:
        """The file at ``path``, its encoding detected from its first bytes unless it is named.

        Raises:
            InputError: no file that can be read, nothing in it, an unknown encoding, or no text.
        """
        check_readable(path)
        named = encoding is not None
        if encoding is not None:
            try:
                encoding = codecs.lookup(encoding).name
            except (LookupError, ValueError) as error:
                raise InputError(
                    f"`encoding` must be one that Python has.\nReceived: {encoding!r}.\n"
                    "Try utf-8, latin-1, cp1252, cp1251, shift_jis or gb18030."
                ) from error
        head = cls(path, "utf-8", False).head()
        if not head:
            raise InputError(f"{path} is empty.\nExpected a line of column names and one line per event.")
        for mark, codec in _MARKS:
            if head.startswith(mark):
                # A mark of UTF-8 is cut off whatever was named; the others say what the bytes are.
                if encoding in (None, "utf-8", codec, "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
                    encoding = codec
                break
        if encoding is None and b"\0" in head[:1000]:
            raise InputError(
                f"{path} is not UTF-8 text: there are zero bytes in it.\nIf it is UTF-16, as some programs of Windows "
                "write, name that: encoding='utf-16-le', --data.encoding utf-16-le."
            )
        return cls(path, encoding or "utf-8", named)

    def head(self) -> bytes:
        """The first bytes, unpacked.

        Raises:
            InputError: it cannot be read.
        """
        try:
            with self.open_bytes() as stream:
                return stream.read(_HEAD_BYTES)
        except PACKING_DAMAGE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.path} cannot be read: {error}.\nIs the file cut off?") from error

    def open_bytes(self) -> IO[bytes]:
        """The unpacked bytes."""
        with self.path.open("rb") as stream:
            first = stream.read(8)
        if first.startswith(b"\x1f\x8b"):
            return cast(IO[bytes], gzip.open(self.path, "rb"))
        if first.startswith(b"BZh"):
            return cast(IO[bytes], bz2.open(self.path, "rb"))
        if first.startswith(b"\xfd7zXZ\0"):
            return cast(IO[bytes], lzma.open(self.path, "rb"))
        if first.startswith(b"\x28\xb5\x2f\xfd"):
            return cast(IO[bytes], io.BufferedReader(cast(Any, pa.input_stream(str(self.path), compression="zstd"))))
        if first.startswith(b"PK\x03\x04"):
            return self._only_member()
        return self.path.open("rb")

    def _only_member(self) -> IO[bytes]:
        archive = zipfile.ZipFile(self.path)
        members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
        if any(m.filename == "[Content_Types].xml" for m in members):
            archive.close()
            raise InputError(f"{self.path} is an Office file, not text.\nSave the sheet as CSV (UTF-8).")
        if len(members) != 1:
            names = ", ".join(m.filename for m in members[:5])
            archive.close()
            raise InputError(
                f"{self.path} is a zip archive of {len(members)} files, and one is expected.\nReceived: {names}.\n"
                "Unpack it, and name the file."
            )
        return archive.open(members[0])

    def open_text(self) -> io.TextIOWrapper:
        """The text, its line ends as they are."""
        return io.TextIOWrapper(self.open_bytes(), encoding=self.encoding, newline="")

    def first_line(self) -> str:
        """The first line without its end.

        Raises:
            InputError: lines end with CR alone.
            UnicodeDecodeError: it is not in the encoding.
        """
        with io.TextIOWrapper(self.open_bytes(), encoding=self.encoding, newline="\n") as stream:
            line = stream.readline(1 << 20)
        line = line.rstrip("\r\n")
        if "\r" in line:
            raise InputError(f"{self.path} ends its lines with CR alone.\nConvert it, e.g. with 'tr \\\\r \\\\n'.")
        return line


class CountedStream(io.RawIOBase):
    """Passes bytes on and counts the line ends and the quotes among them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.lines = self.quotes = 0
        self._last = b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """As of any stream."""
        data = self._stream.read(size)
        self.lines += data.count(b"\n")
        self.quotes += data.count(b'"')
        self._last = data[-1:] or self._last
        return data

    @property
    def total_lines(self) -> int:
        """Lines, also where the last one has no end."""
        return self.lines + (self._last not in (b"", b"\n"))


def check_readable(path: Path) -> None:
    """Raise InputError unless ``path`` is a file with something in it."""
    if not path.exists():
        raise InputError(f"No such file: {path}\nCheck the path; relative paths start at {Path.cwd()}.")
    if not path.is_file():
        raise InputError(f"{path} is not a file.\nGive the CSV, TSV or Parquet file itself.")
    try:
        with path.open("rb") as stream:
            if not stream.read(1):
                raise InputError(f"{path} is empty.\nExpected a line of column names and one line per event.")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}.\nGive a file that you may read.") from error


def numbered_lines(file: TextFile) -> Iterator[tuple[int, bytes]]:
    """Each line's number from 1 and its bytes, of a file whose line ends are single bytes."""
    with file.open_bytes() as stream:
        yield from enumerate(stream, start=1)


@dataclass(frozen=True)
class Undecodable:
    """Text that is not in the expected encoding.

    Args:
        line: the first such line, from 1.
        guess: an encoding in which all of the file can be read.
        sample: what the guess makes of the place.
        mixed: whether other lines are UTF-8 with more than ASCII in them.
    """

    line: int
    guess: str
    sample: str
    mixed: bool


def find_undecodable(file: TextFile) -> Undecodable | None:
    """The first line that is not in the file's encoding; None: every line is."""
    first: tuple[int, bytes, int] | None = None
    mixed, guess = False, "cp1252"
    for number, line in numbered_lines(file):
        if line.isascii():
            continue
        try:
            line.decode(file.encoding)
            mixed = True
        except UnicodeDecodeError as error:
            first = first or (number, line, error.start)
            try:
                line.decode("cp1252")
            except UnicodeDecodeError:
                guess = "latin-1"
    if first is None:
        return None
    number, line, at = first
    start, end = max(0, at - 12), at + 12
    for separator in b',;\t|"\r\n':
        start = max(start, line.rfind(separator, 0, at) + 1)
        found = line.find(separator, at)
        end = min(end, found) if found >= 0 else end
    return Undecodable(number, guess, line[start:end].decode(guess), mixed)
