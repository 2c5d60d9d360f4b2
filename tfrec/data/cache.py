"""Prepared interactions on disk: Arrow files, found by the checksum of what they were made from.

An entry is a folder: ``events.arrow`` with a row for each event, ``users.arrow`` and ``items.arrow`` with the ids and
titles. It appears whole or not at all. Numbers are mapped, not copied, so that processes on one machine share them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfrec.data.arrow import read_table, write_table
from tfrec.data.files import DAMAGE, atomic_folder, cache_folder, locked, make_folder
from tfrec.data.interactions import Interactions

#: Changes whenever a change of this package's code would prepare other arrays from the same source.
_FORMAT = 3


def cached(key: dict[str, Any], prepare: Callable[[], Interactions], folder: Path | None = None) -> Interactions:
    """The interactions that ``key`` stands for, from the cache or prepared now and put there.

    Several processes that ask at once prepare once. An entry that cannot be read is prepared again. Arrays of numbers
    from the cache cannot be written to.

    Args:
        key: everything the result depends on: checksums and options. JSON values.
        prepare: makes the interactions.
        folder: default ``~/.cache/tfrec/prepared``.
    """
    folder = make_folder(folder or cache_folder() / "prepared", "prepared data")
    text = json.dumps({"format": _FORMAT, **key}, sort_keys=True, default=str)
    path = folder / hashlib.sha256(text.encode()).hexdigest()[:32]
    with locked(path):
        try:
            return _read(path)
        except DAMAGE:
            # Not there, or damaged on disk (never by a kill: folders appear whole). It is only a cache: make it again.
            _remove(path)
        made = prepare()
        with atomic_folder(path) as temporary:
            _write(made, temporary)
        return made


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write(events: Interactions, folder: Path) -> None:
    columns = {"user_index": events.user_index, "item_index": events.item_index, "values": events.values}
    if events.timestamps is not None:
        columns["timestamps"] = events.timestamps
    about = {
        "kind": events.kind,
        "kind_rule": events.kind_rule,
        "name": events.name,
        "source": events.source,
        "left_out": dict(events.left_out),
        "num_pairs": events.num_pairs,
    }
    items = {"id": events.item_ids}
    if events.item_titles is not None:
        items["title"] = events.item_titles
    write_table(folder / "events.arrow", columns, about)
    write_table(folder / "users.arrow", {"id": events.user_ids})
    write_table(folder / "items.arrow", items)


def _read(folder: Path) -> Interactions:
    """What `_write` wrote.

    Raises:
        DAMAGE: it cannot be read.
    """
    events, users, items = (read_table(folder / f"{name}.arrow") for name in ("events", "users", "items"))
    columns, about = events.columns, events.metadata
    num_pairs = about.pop("num_pairs")
    return Interactions(
        user_index=columns["user_index"],
        item_index=columns["item_index"],
        values=columns["values"],
        timestamps=columns.get("timestamps"),
        user_ids=users.columns["id"],
        item_ids=items.columns["id"],
        item_titles=items.columns.get("title"),
        **about,
    ).with_num_pairs(num_pairs)
