"""The file format of the NCF paper: training events, one held-out item per user, and fixed negatives for it.

    NAME.train.rating   user, item, rating and time, tabs between them; ids are numbers from 0
    NAME.test.rating    the same, one line per user
    NAME.test.negative  (user,item) and the negatives, tabs between them, in the order of NAME.test.rating

Source: https://github.com/hexiangnan/neural_collaborative_filtering (He et al., 2017).
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tfrec.data.datasets import load
from tfrec.data.delimited import parse_csv
from tfrec.data.download import fetch, verify
from tfrec.data.files import cache_folder, combined_checksum
from tfrec.data.interactions import Interactions
from tfrec.data.tables import check_readable
from tfrec.errors import InputError

_COLUMNS = ("user", "item", "rating", "timestamp")
_PUBLISHER = "https://raw.githubusercontent.com/hexiangnan/neural_collaborative_filtering/master/Data"
#: Of the paper's held-out files for MovieLens-1M.
_ML1M = {
    "ml-1m.test.rating": "0970f5997be60425205b85a6af9d3051",
    "ml-1m.test.negative": "ae0af08bac7fea5a1de4744821015321",
}


@dataclass(frozen=True)
class NCFData:
    """What the three files say.

    Args:
        train: the training events.
        test_items: int32 ``[U]``, the held-out item, -1 for a user without one.
        test_negatives: int32 ``[U, n]``; zeros for a user without a held-out item.
    """

    train: Interactions
    test_items: np.ndarray
    test_negatives: np.ndarray


def ncf_files(folder: str | Path) -> tuple[Path, Path, Path]:
    """The three files in ``folder``.

    Raises:
        InputError: no such folder, a file missing, or several data sets.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.\nGive the folder with NAME.train.rating and its two companions.")
    found = []
    for suffix in ("train.rating", "test.rating", "test.negative"):
        files = sorted(folder.glob(f"*.{suffix}"))
        if len(files) != 1:
            names = ", ".join(f.name for f in files) or "none"
            raise InputError(f"{folder} must have exactly one *.{suffix}.\nReceived: {names}.")
        check_readable(files[0])
        found.append(files[0])
    return found[0], found[1], found[2]


def load_ncf(folder: str | Path) -> NCFData:
    """Read a data set in the NCF paper's format.

    Args:
        folder: with the three files.

    Raises:
        InputError: see `ncf_files`; a malformed line (with file and line number), an id beyond the training data's, a
            user held out twice, or files that do not belong together.
    """
    train_file, test_file, negative_file = ncf_files(folder)
    train = _read_ratings(train_file)
    num_users, num_items = int(train["user"].max()) + 1, int(train["item"].max()) + 1
    events = Interactions(
        user_index=train["user"].astype(np.int32),
        item_index=train["item"].astype(np.int32),
        values=train["rating"],
        user_ids=np.arange(num_users, dtype=np.int64),
        item_ids=np.arange(num_items, dtype=np.int64),
        timestamps=train["timestamp"],
        name=train_file.name.removesuffix(".train.rating"),
        source={"file": str(folder), "sha256": combined_checksum([train_file, test_file, negative_file])},
    )
    return NCFData(events, *_read_heldout(test_file, negative_file, num_users, num_items))


def load_ncf_ml1m(data_dir: str | Path | None = None) -> NCFData:
    """MovieLens-1M with the NCF paper's held-out items and negatives.

    The training events are those of ``ml-1m`` less the held-out ones; users are numbered by raw id, items by first
    appearance in ``ratings.dat``, as in the paper's files. All ratings count as positives.

    Of the 597,960 negatives 156 are the held-out item itself. They stay, for comparability: with pessimistic ties such
    an item competes with itself.

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
    events = load("ml-1m", data_dir)
    present, first = np.unique(events.item_index, return_index=True)
    number = np.zeros(events.num_items, np.int32)
    number[present[np.argsort(first)]] = np.arange(len(present), dtype=np.int32)
    item = number[events.item_index]
    test_items, negatives = _read_heldout(files[0], files[1], events.num_users, events.num_items)
    is_test = item == test_items[events.user_index]
    if int(is_test.sum()) != events.num_users:
        raise InputError(f"{files[0]} does not belong to MovieLens-1M: some of its rows are not in ratings.dat.")
    titles = None
    if events.item_titles is not None:
        titles = np.empty(events.num_items, object)
        titles[number] = events.item_titles
    train = Interactions(
        user_index=events.user_index[~is_test],
        item_index=item[~is_test],
        values=events.values[~is_test],
        user_ids=np.arange(events.num_users, dtype=np.int64),
        item_ids=np.arange(events.num_items, dtype=np.int64),
        timestamps=None if events.timestamps is None else events.timestamps[~is_test],
        item_titles=titles,
        name="ncf-ml-1m",
        source={
            "publisher": _PUBLISHER,
            "ml-1m": events.source,
            "sha256": hashlib.sha256(f"{events.source.get('sha256')} {combined_checksum(files)}".encode()).hexdigest(),
        },
    )
    return NCFData(train, test_items, negatives)


def _read_ratings(path: Path) -> dict[str, np.ndarray]:
    table = parse_csv(
        path,
        delimiter="\t",
        include=list(_COLUMNS),
        types={"user": pa.int64(), "item": pa.int64(), "rating": pa.float32(), "timestamp": pa.int64()},
        quoting=False,
        names=list(_COLUMNS),
    )
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows.\nExpected lines of user, item, rating and time, tabs between them.")
    arrays = {}
    for name in _COLUMNS:
        column = table[name]
        if column.null_count:
            line = int(np.flatnonzero(column.is_null().to_numpy())[0]) + 1
            raise InputError(f"{path}, line {line}: the {name} is missing.\nExpected user, item, rating and time.")
        arrays[name] = column.to_numpy()
    for name in ("user", "item"):
        low = arrays[name].min()
        if low < 0 or arrays[name].max() >= 2**31 - 1:
            line = int(np.flatnonzero((arrays[name] < 0) | (arrays[name] >= 2**31 - 1))[0]) + 1
            raise InputError(
                f"{path}, line {line}: expected a {name} number from 0 to 2^31 - 2.\n"
                f"Received: {arrays[name][line - 1]}."
            )
    return arrays


def _read_heldout(
    test_file: Path, negative_file: Path, num_users: int, num_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """The held-out items ``[U]`` and their negatives ``[U, n]``."""
    test = _read_ratings(test_file)
    users, items = test["user"], test["item"]
    for name, values, count in (("user", users, num_users), ("item", items, num_items)):
        if values.max() >= count:
            at = int(np.flatnonzero(values >= count)[0]) + 1
            raise InputError(
                f"{test_file}, line {at}: {name} {values[at - 1]} is beyond the training data, which has "
                f"{count} {name}s.\nUsers and items are numbered from 0; each number up to the highest one counts."
            )
    if len(np.unique(users)) < len(users):
        seen, counts = np.unique(users, return_counts=True)
        at = int(np.flatnonzero(users == seen[counts > 1][0])[1]) + 1
        raise InputError(f"{test_file}, line {at}: user {users[at - 1]} has a held-out item already.")
    test_items = np.full(num_users, -1, np.int32)
    test_items[users] = items
    rows: list[list[int]] = []
    expected = "Expected (user,item) and its negatives, tabs between them"
    with negative_file.open(encoding="utf-8", errors="replace") as stream:
        for number, text in enumerate(stream, start=1):
            line = text.rstrip("\r\n")
            if not line:
                continue
            where = f"{negative_file}, line {number}"
            head, *rest = line.split("\t")
            pair = re.fullmatch(r"\(([0-9]{1,10}), ?([0-9]{1,10})\)", head)
            rest = rest[:-1] if rest and rest[-1] == "" else rest
            if not pair or not rest or not all(r.isascii() and r.isdigit() and len(r) < 11 for r in rest):
                shown = line if len(line) < 80 else line[:77] + "..."
                raise InputError(f"{where}: malformed.\n{expected}.\nReceived: {shown!r}.")
            if len(rows) == len(users):
                raise InputError(f"{where}: more lines than {test_file.name}, which has {len(users)}.")
            user, item = int(pair[1]), int(pair[2])
            if (user, item) != (users[len(rows)], items[len(rows)]):
                raise InputError(
                    f"{where}: expected ({users[len(rows)]},{items[len(rows)]}) as in {test_file.name}.\n"
                    f"Received: {head}."
                )
            negatives = [int(r) for r in rest]
            if rows and len(negatives) != len(rows[0]):
                raise InputError(f"{where}: expected {len(rows[0])} negatives as before.\nReceived: {len(negatives)}.")
            if max(negatives) >= num_items:
                raise InputError(
                    f"{where}: item {max(negatives)} is beyond the training data, which has {num_items} items."
                )
            rows.append(negatives)
    if len(rows) < len(users):
        raise InputError(f"{negative_file} ends after {len(rows)} of {len(users)} lines of {test_file.name}.")
    negatives_of = np.zeros((num_users, len(rows[0])), np.int32)
    negatives_of[users] = np.array(rows, np.int32)
    return test_items, negatives_of
