"""The file format of the NCF paper: training events, one held-out item per user, and fixed negatives for it.

    NAME.train.rating   user, item, rating and time, tabs between them; ids are numbers from 0
    NAME.test.rating    the same, one line per user
    NAME.test.negative  (user,item) and the negatives, tabs between them, in the order of NAME.test.rating

Files are taken as the paper's own loader takes them, and more: without a time (the order of the file stands for it),
the test without a rating, further columns, CR LF, blank lines, trailing tabs, a byte order mark, ``5.0`` for 5. As
there, a training line with a rating of 0 or less is no event, but its user and item are numbered; users may have
different numbers of negatives, which may repeat and may hold the held-out item: an item counts once; and a line that
means nothing stops the reading. Unlike there, tables are as large as all three files need (the paper's code fails at
an item beyond the training file's), and the training file's copy of a held-out pair is left out (the paper's code
would train on it).

Source: https://github.com/hexiangnan/neural_collaborative_filtering (He et al., 2017).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.data.download import fetch, verify
from tfrec.data.files import cache_folder, combined_checksum
from tfrec.data.interactions import Interactions
from tfrec.data.published import (
    FieldKind,
    blocks,
    concatenate,
    finite_number,
    lines_of,
    parse_numbers,
    time_number,
    whole_number,
)
from tfrec.data.published_sets import load_published
from tfrec.data.registry import Loaded, data_set
from tfrec.data.text_files import check_readable
from tfrec.errors import InputError

_PUBLISHER = "https://raw.githubusercontent.com/hexiangnan/neural_collaborative_filtering/master/Data"
#: Of the paper's held-out files for MovieLens-1M.
_ML1M = {
    "ml-1m.test.rating": "0970f5997be60425205b85a6af9d3051",
    "ml-1m.test.negative": "ae0af08bac7fea5a1de4744821015321",
}
_KINDS: dict[str, FieldKind] = {"user": "id", "item": "id", "rating": "number", "timestamp": "time"}
_SUFFIXES = ("train.rating", "test.rating", "test.negative")
#: Users and items are rows of a table, so a number beyond this one is a raw id.
_HIGHEST = 100_000_000
_NOT_POSITIVE = "rating of 0 or less"
_HELD_OUT = "held out for the test"


@dataclass(frozen=True)
class NCFData:
    """What the three files say.

    Args:
        train: the training events; each has the value 1. `Interactions.report` accounts for the lines of the training
            file: those with a rating of 0 or less, and those that repeat a held-out pair, are left out.
        test_items: int32 ``[U]``, the held-out item, -1 for a user without one.
        test_negatives: int32 ``[U, n]``; zeros for a user without a held-out item. Where a user has fewer than the
            others, the held-out item fills the row: an item counts once, so that it changes nothing.
        notes: what -> how many, of what is unusual; numbers of 0 are left out. Items and users without a training
            event that occur in the held-out files are counted here.
    """

    train: Interactions
    test_items: np.ndarray
    test_negatives: np.ndarray
    notes: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return "; ".join(f"{count:,} {what}" for what, count in self.notes.items())


def ncf_files(folder: str | Path) -> tuple[Path, Path, Path]:
    """The three files in ``folder``; or, as in the paper's code, those whose names begin with its last part.

    Raises:
        InputError: no such folder, a file missing, or several data sets.
    """
    folder = Path(folder)
    if not folder.is_dir():
        files = [folder.with_name(f"{folder.name}.{suffix}") for suffix in _SUFFIXES]
        if not files[0].is_file():
            raise InputError(
                f"{folder} is not a folder.\nGive the folder with NAME.train.rating and its two companions."
            )
        for file in files:
            check_readable(file)
        return files[0], files[1], files[2]
    found = []
    for suffix in _SUFFIXES:
        files = sorted(f for f in folder.iterdir() if f.name.lower().endswith(f".{suffix}") and f.name[0] != ".")
        if len(files) != 1:
            names = ", ".join(f.name for f in files) or "none"
            more = f"\nOf several name one: {folder / files[0].name.removesuffix('.' + suffix)}" if files else ""
            raise InputError(f"{folder} must have exactly one *.{suffix}.\nReceived: {names}.{more}")
        check_readable(files[0])
        found.append(files[0])
    return found[0], found[1], found[2]


def load_ncf(folder: str | Path) -> NCFData:
    """Read a data set in the NCF paper's format.

    Args:
        folder: with the three files, or folder and NAME where there are several.

    Raises:
        InputError: see `ncf_files`; a malformed line (with file and line number), a user held out twice, or files that
            do not belong together.
    """
    train_file, test_file, negative_file = ncf_files(folder)
    train = _read_ratings(train_file, least=2)
    held_out = _read_heldout(test_file, negative_file)
    num_users = 1 + max(int(train.user.max()), int(held_out.users.max()))
    num_items = 1 + max(int(train.item.max()), held_out.highest_item)
    test_items, negatives = held_out.tables(num_users)
    positive = train.rating > 0
    is_test = positive & (train.item == test_items[train.user])
    kept = positive & ~is_test
    if not kept.any():
        raise InputError(f"{train_file} has no event to train on.\nExpected lines with a rating above 0.")
    source: dict[str, Any] = {
        "file": str(folder),
        "sha256": combined_checksum([train_file, test_file, negative_file]),
    }
    if train.without_time:
        # The paper's loader does not look at it.
        source["time"] = f"the order of the file ({train.without_time:,} lines have no time)"
    events = Interactions(
        user_index=train.user[kept].astype(np.int32),
        item_index=train.item[kept].astype(np.int32),
        values=np.ones(int(kept.sum()), np.float32),
        user_ids=np.arange(num_users, dtype=np.int64),
        item_ids=np.arange(num_items, dtype=np.int64),
        timestamps=None if train.timestamp is None else train.timestamp[kept],
        kind_rule="the NCF paper's: every rating above 0 is an event",
        name=train_file.name[: -len(".train.rating")],
        source=source,
        left_out={_NOT_POSITIVE: int((~positive).sum()), _HELD_OUT: int(is_test.sum())},
    )
    return NCFData(events, test_items, negatives, held_out.notes(train.user, train.item))


def load_ncf_ml1m(data_dir: str | Path | None = None) -> NCFData:
    """MovieLens-1M with the NCF paper's held-out items and negatives.

    The training events are those of ``ml-1m`` less the held-out ones; users are numbered by raw id, items by first
    appearance in ``ratings.dat``, as in the paper's files. All ratings count as positives.

    Of the 597,960 negatives 156 are the held-out item itself. They do not count against it: the paper's evaluation
    keeps one score for each item, see `tfrec.evaluation.candidates`.

    Args:
        data_dir: a folder with ``ml-1m`` and ``ncf-ml-1m``; by default ``$TFREC_DATA``, else both are downloaded.

    Raises:
        InputError: as `tfrec.data.load`; or the two do not belong together.
    """
    named = data_dir or os.environ.get("TFREC_DATA")
    files = []
    for name, md5 in _ML1M.items():
        places = [Path(named) / "ncf-ml-1m" / name, Path(named) / name] if named else []
        file = next((p for p in places if p.is_file()), None)
        if file is None:
            file = fetch(f"{_PUBLISHER}/{name}", cache_folder() / "downloads" / "ncf-ml-1m" / name, md5)
        check_readable(file)
        verify(file, md5)
        files.append(file)
    events = load_published("ml-1m", data_dir)
    present, first = np.unique(events.item_index, return_index=True)
    number = np.zeros(events.num_items, np.int32)
    number[present[np.argsort(first)]] = np.arange(len(present), dtype=np.int32)
    item = number[events.item_index]
    held_out = _read_heldout(files[0], files[1])
    if held_out.users.max() >= events.num_users or held_out.highest_item >= events.num_items:
        raise InputError(
            f"{files[0]} does not belong to MovieLens-1M: its numbers are beyond ratings.dat's.\n"
            "Give the files of one data set."
        )
    test_items, negatives = held_out.tables(events.num_users)
    is_test = item == test_items[events.user_index]
    if int(is_test.sum()) != events.num_users:
        raise InputError(
            f"{files[0]} does not belong to MovieLens-1M: some of its rows are not in ratings.dat.\n"
            "Give the files of one data set."
        )
    titles = None
    if events.item_titles is not None:
        titles = np.empty(events.num_items, object)
        titles[number] = events.item_titles
    train = Interactions(
        user_index=events.user_index[~is_test],
        item_index=item[~is_test],
        values=np.ones(len(events) - events.num_users, np.float32),
        user_ids=np.arange(events.num_users, dtype=np.int64),
        item_ids=np.arange(events.num_items, dtype=np.int64),
        timestamps=None if events.timestamps is None else events.timestamps[~is_test],
        item_titles=titles,
        kind_rule="the NCF paper's: every rating is an event",
        name="ncf-ml-1m",
        left_out={**events.left_out, _HELD_OUT: int(is_test.sum())},
        source={
            "publisher": _PUBLISHER,
            "ml-1m": events.source,
            "sha256": hashlib.sha256(f"{events.source.get('sha256')} {combined_checksum(files)}".encode()).hexdigest(),
        },
    )
    return NCFData(train, test_items, negatives, held_out.notes(train.user_index, train.item_index))


@data_set("ncf-ml-1m")
def _read(data_dir: str | Path | None) -> Loaded:
    found = load_ncf_ml1m(data_dir)
    return Loaded(found.train, None, found.test_items, found.test_negatives, found.notes)


@dataclass(frozen=True)
class _Ratings:
    """Lines of a file of ratings, N of them: int64 users, items and times, float32 ratings; and their line numbers."""

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray | None
    without_time: int
    line: np.ndarray | None

    def line_of(self, path: Path, row: int) -> str:
        return f"{path}, line {row + 1 if self.line is None else self.line[row]}"


def _read_ratings(path: Path, least: int) -> _Ratings:
    """The lines of ``path``, which have ``least`` columns or more: user, item, rating (else 1) and time."""
    found = _read_fast(path) or _read_slow(path, least)
    if len(found.user) == 0:
        raise InputError(f"{path} has no rows.\nExpected lines of user, item, rating and time, tabs between them.")
    for name, values in (("user", found.user), ("item", found.item)):
        if values.max() >= _HIGHEST:
            row = int(np.flatnonzero(values >= _HIGHEST)[0])
            raise InputError(
                f"{found.line_of(path, row)}: expected a number of the {name} from 0 to {_HIGHEST - 1:,}.\n"
                f"Received: {values[row]}.\nTables have a row for each number: number the {name}s from 0 without gaps."
            )
    return found


def _read_fast(path: Path) -> _Ratings | None:
    """By pyarrow, where all lines have the same columns and no line is blank."""
    tables = []
    names: list[str] = []
    lines = 0
    for _, block in blocks(path):
        if not names:
            width = len(block.split(b"\n", 1)[0].split(b"\t"))
            names = [*_KINDS, *(f"more {i}" for i in range(width))][:width]
        table = parse_numbers(block, "\t", names, {n: kind for n, kind in _KINDS.items() if n in names})
        if table is None or width < 2:
            return None
        lines += block.count(b"\n") + (not block.endswith(b"\n"))
        tables.append(table)
    found = concatenate(tables)
    if found is None or found.num_rows != lines:
        return None
    columns = {name: found[name].to_numpy() for name in found.column_names}
    time = columns.get("timestamp")
    rating = columns.get("rating", np.ones(lines, np.float32))
    missing = lines if time is None else 0
    return _Ratings(columns["user"], columns["item"], rating, _microseconds(time), missing, None)


def _read_slow(path: Path, least: int) -> _Ratings:
    columns: dict[str, list[Any]] = {name: [] for name in (*_KINDS, "line")}
    without_time = 0
    for number, block in blocks(path):
        for at, line in enumerate(lines_of(block), start=number):
            if not line.strip():
                continue
            fields = line.split(b"\t")
            fields = fields[:-1] if len(fields) > least and not fields[-1].strip() else fields
            values: dict[str, Any] = {"rating": 1.0, "timestamp": None, "line": at}
            for (name, kind), text in zip(_KINDS.items(), fields, strict=False):
                read = {"id": whole_number, "number": finite_number, "time": time_number}[kind](text)
                if read is None and not (name == "timestamp" and not text.strip()):
                    raise InputError(
                        f"{path}, line {at}: the {name} must be a number{' from 0' if kind == 'id' else ''}.\n"
                        f"Received: {text[:100].decode(errors='replace')!r}, in {_shown(line)}.\n"
                        "Expected user, item, rating and time, tabs between them."
                    )
                values[name] = read
            if len(fields) < least:
                raise InputError(
                    f"{path}, line {at}: malformed.\nReceived: {_shown(line)}.\n"
                    "Expected user, item, rating and time, tabs between them."
                )
            without_time += values["timestamp"] is None
            for name, column in columns.items():
                column.append(values[name])
    time = None if without_time else np.array(columns["timestamp"])
    user, item, lines = (np.array(columns[name], np.int64) for name in ("user", "item", "line"))
    return _Ratings(user, item, np.array(columns["rating"], np.float32), _microseconds(time), without_time, lines)


def _microseconds(time: np.ndarray | None) -> np.ndarray | None:
    """Times as whole numbers, in microseconds where any has a fraction, as in a user's own table."""
    if time is None or time.dtype.kind == "i":
        return time
    return np.round(time.astype(np.float64) * 1e6).astype(np.int64)


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace")
    return repr(text if len(text) < 80 else text[:77] + "...")


@dataclass(frozen=True)
class _HeldOut:
    """Held-out items and their negatives, in the order of the files."""

    users: np.ndarray
    items: np.ndarray
    negatives: list[np.ndarray]

    @property
    def highest_item(self) -> int:
        """The highest number of an item in both files."""
        return max(int(self.items.max()), max(int(row.max()) for row in self.negatives))

    def tables(self, num_users: int) -> tuple[np.ndarray, np.ndarray]:
        """The held-out items ``[U]`` and their negatives ``[U, n]``."""
        test_items = np.full(num_users, -1, np.int32)
        test_items[self.users] = self.items
        width = max(len(row) for row in self.negatives)
        negatives = np.zeros((num_users, width), np.int32)
        for user, item, row in zip(self.users, self.items, self.negatives, strict=True):
            negatives[user] = item
            negatives[user, : len(row)] = row
        return test_items, negatives

    def notes(self, train_users: np.ndarray, train_items: np.ndarray) -> dict[str, int]:
        """What is unusual about these, besides the training events."""
        lengths = np.array([len(row) for row in self.negatives])
        different = np.array([len(np.unique(row)) for row in self.negatives])
        flat = np.concatenate(self.negatives)
        items = np.unique(np.concatenate([self.items, flat]))
        counts = {
            "users only in the test": len(np.setdiff1d(self.users, train_users)),
            "users without a test item": len(np.setdiff1d(train_users, self.users)),
            "items only in test or negatives": len(np.setdiff1d(items, train_items)),
            "held-out items that no training event has": int((~np.isin(self.items, train_items)).sum()),
            "negatives that are the held-out item (not counted)": int((flat == np.repeat(self.items, lengths)).sum()),
            "negatives that repeat (counted once)": int((lengths - different).sum()),
            "users with fewer negatives than others": int((lengths < lengths.max()).sum()),
        }
        return {what: count for what, count in counts.items() if count}


def _read_heldout(test_file: Path, negative_file: Path) -> _HeldOut:
    test = _read_ratings(test_file, least=2)
    users, items = test.user, test.item
    if len(np.unique(users)) < len(users):
        _, first = np.unique(users, return_index=True)
        again = int(np.setdiff1d(np.arange(len(users)), first)[0])
        raise InputError(
            f"{test.line_of(test_file, again)}: user {users[again]} must have one held-out item.\nReceived: two."
        )
    rows: list[np.ndarray] = []
    expected = "Expected (user,item) and its negatives, tabs between them"
    for start, block in blocks(negative_file):
        for number, line in enumerate(lines_of(block), start=start):
            if not line.strip():
                continue
            where = f"{negative_file}, line {number}"
            head, *rest = line.split(b"\t")
            pair = re.fullmatch(rb" *\( *([0-9]{1,10}) *, *([0-9]{1,10}) *\) *", head)
            while rest and not rest[-1].strip():
                rest.pop()
            if not pair or not rest or not re.fullmatch(rb"(?: *[0-9]{1,10}(?:\.0*)? *(?:\t|$))+", b"\t".join(rest)):
                raise InputError(f"{where}: malformed.\n{expected}.\nReceived: {_shown(line)}.")
            if len(rows) == len(users):
                raise InputError(f"{where}: more lines than {test_file.name}.\nExpected {len(users)}.")
            if (int(pair[1]), int(pair[2])) != (users[len(rows)], items[len(rows)]):
                raise InputError(
                    f"{where}: expected ({users[len(rows)]},{items[len(rows)]}) as in {test_file.name}.\n"
                    f"Received: {head.decode()}."
                )
            negatives = np.array([int(text.split(b".")[0]) for text in rest], np.int64)
            if negatives.max() >= _HIGHEST:
                raise InputError(f"{where}: expected item numbers below {_HIGHEST:,}.\nReceived: {negatives.max()}.")
            rows.append(negatives)
    if len(rows) < len(users):
        raise InputError(
            f"{negative_file} ends too early.\nExpected {len(users)} lines, as in {test_file.name}.\n"
            f"Received: {len(rows)}."
        )
    return _HeldOut(users, items, rows)
