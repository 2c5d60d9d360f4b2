"""Read the format of LightGCN and its family: one line per user, ``user item item ...``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec.data.columns import NUMBER, WHOLE, Texts, number_texts, numpy_of
from tfrec.data.files import checksum
from tfrec.data.interactions import Interactions, index_ids
from tfrec.data.text_files import PACKING_DAMAGE, TextFile, find_undecodable
from tfrec.errors import InputError

EMPTY_LIST = "users with an empty list"
_FIELD = re.compile(r"[^ \t\r\n]+")


def read_user_lists(
    path: str | Path, *, encoding: str | None = None, text_ids: bool = False, name: str | None = None
) -> Interactions:
    """Read a file of lists: each line has a user's id, then those of the items, with blanks or tabs between them.

    Used by LightGCN, NGCF and KGAT (``train.txt``, ``test.txt``) and by many that compare with them. A user may have
    several lines. A user without items is no user here; these lines are counted in the report, and blank ones are not.

    Ids are whole numbers where all of a kind are, written in the one usual way (not 007), else text.

    Args:
        path: the file, also packed (gzip, bz2, xz, zstd, or zip with one file).
        encoding: of the text; None: UTF-8, or UTF-16 and UTF-32 with a byte order mark.
        text_ids: take ids as text even where they look like numbers.
        name: for reports; default the file's name.

    Returns:
        Interactions of kind ``events``, without times, in the order of the file.

    Raises:
        InputError: no such file, an empty one, one that is not text in its encoding, a NUL byte, an id that is a
            number and not a whole one from 0, or no user with an item; with the line.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "train.txt"
        >>> _ = path.write_text("0 10 11\\n1 10\\n2\\n")
        >>> events = read_user_lists(path)
        >>> events.to_csr().toarray().tolist()
        [[1.0, 1.0], [1.0, 0.0]]
        >>> print(events.report)
        4 rows: 3 pairs kept; 1 users with an empty list
    """
    file = TextFile.of(Path(path), encoding)
    lists = _read(file)
    if not lists.items:
        raise InputError(
            f"{path} has no user with an item.\nExpected a line for each user: the user's id, then those of the items, "
            "blanks between them."
        )
    lengths = np.array(lists.lengths)
    line = np.array(lists.lines)
    user_index, user_ids = _number("user", lists.users, file.path, line, text_ids)
    item_index, item_ids = _number("item", lists.items, file.path, np.repeat(line, lengths), text_ids)
    return Interactions(
        user_index=np.repeat(user_index, lengths),
        item_index=item_index,
        values=np.ones(len(item_index), np.float32),
        user_ids=user_ids,
        item_ids=item_ids,
        name=name or str(path),
        source={"file": str(path), "sha256": checksum(file.path)},
        left_out={EMPTY_LIST: lists.empty} if lists.empty else {},
    )


@dataclass(frozen=True)
class _Lists:
    """The ids as text: of L users, each with its number of items and its line, and of all items."""

    users: list[str]
    lengths: list[int]
    lines: list[int]
    items: list[str]
    empty: int


def _read(file: TextFile) -> _Lists:
    users: list[str] = []
    lengths: list[int] = []
    lines: list[int] = []
    items: list[str] = []
    empty = 0
    try:
        with file.open_text() as stream:
            for number, line in enumerate(stream, start=1):
                if "\0" in line:
                    raise InputError(f"{file.path}, line {number}: there is a NUL byte.\nIs it a file of text?")
                fields = _FIELD.findall(line)
                if len(fields) > 1:
                    users.append(fields[0])
                    lengths.append(len(fields) - 1)
                    lines.append(number)
                    items += fields[1:]
                else:
                    empty += len(fields)
    except UnicodeError as error:
        found = find_undecodable(file)
        place = f", line {found.line}" if found else ""
        guess = found.guess if found else "latin-1"
        raise InputError(
            f"{file.path}{place}: not {file.encoding} text.\nName its encoding: encoding={guess!r}, or another."
        ) from error
    except PACKING_DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file.path} cannot be read: {error}.\nIs the file cut off?") from error
    return _Lists(users, lengths, lines, items, empty)


def _number(role: str, texts: list[str], path: Path, line: np.ndarray, text_ids: bool) -> tuple[np.ndarray, np.ndarray]:
    """Number the ids in ascending order: int32 ``[N]``, and the ids."""
    column = pa.array(texts, pa.large_string())
    if not text_ids and pc.all(pc.match_substring_regex(column, NUMBER)).as_py():
        digits = pc.match_substring_regex(column, "^[0-9]+$")
        if not pc.all(digits).as_py():
            row = int(np.flatnonzero(~numpy_of(digits))[0])
            raise InputError(
                f"{path}, line {line[row]}: the {role} id must be a whole number from 0, as others are, or text.\n"
                f"Received: {texts[row]!r}.\nCorrect the line, or take all ids as text: text_ids=True."
            )
        if pc.all(pc.match_substring_regex(column, WHOLE)).as_py():
            try:
                return index_ids(numpy_of(pc.cast(column, pa.int64())))
            except pa.ArrowInvalid:
                pass  # from 2^63 on a whole number is kept as text, exactly
    return number_texts(Texts.of(pa.chunked_array([column]), strip=False))
