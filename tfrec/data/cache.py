"""Prepared interactions on disk: uncompressed npz, found by the checksum of what they were made from.

Text is kept as UTF-8 bytes and offsets, never as pickled objects; files are read with ``allow_pickle=False``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.data.files import DAMAGE, atomic_write, cache_folder, locked, make_folder, remove_leftovers
from tfrec.data.interactions import Interactions

#: Changes whenever a change of this package's code would prepare other arrays from the same source.
_FORMAT = 2


def cached(key: dict[str, Any], prepare: Callable[[], Interactions], folder: Path | None = None) -> Interactions:
    """The interactions that ``key`` stands for, from the cache or prepared now and put there.

    Several processes that ask at once prepare once. A file that cannot be read is prepared again.

    Args:
        key: everything the result depends on: checksums and options. JSON values.
        prepare: makes the interactions.
        folder: default ``~/.cache/tfrec/prepared``.
    """
    folder = make_folder(folder or cache_folder() / "prepared", "prepared data")
    text = json.dumps({"format": _FORMAT, **key}, sort_keys=True, default=str)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
    with locked(path):
        remove_leftovers(path)
        found = _read(path)
        if found is not None:
            return found
        made = prepare()
        with atomic_write(path) as stream:
            np.savez(stream, **_to_arrays(made))
        return made


def _read(path: Path) -> Interactions | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _from_arrays(dict(arrays))
    except DAMAGE:
        # Damaged on disk (never by a kill: files appear whole). It is only a cache, so make it again.
        if path.is_file():
            path.unlink()
        return None


def pack_strings(strings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An object array of ``str`` as UTF-8 bytes (uint8) and offsets (int64, one more than strings)."""
    encoded = [s.encode() for s in strings]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(e) for e in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def unpack_strings(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The inverse of `pack_strings`."""
    raw = data.tobytes()
    bounds = offsets.tolist()
    return np.array([raw[a:b].decode() for a, b in itertools.pairwise(bounds)] + [None], dtype=object)[:-1]


def put_ids(arrays: dict[str, np.ndarray], name: str, ids: np.ndarray | None) -> None:
    """Add ids or titles, numbers or text, to what is going to be saved."""
    if ids is None:
        return
    if ids.dtype == object:
        arrays[f"{name}_bytes"], arrays[f"{name}_offsets"] = pack_strings(ids)
    else:
        arrays[name] = ids


def get_ids(arrays: dict[str, np.ndarray], name: str) -> np.ndarray | None:
    """What `put_ids` added under ``name``."""
    if f"{name}_bytes" in arrays:
        return unpack_strings(arrays[f"{name}_bytes"], arrays[f"{name}_offsets"])
    return arrays.get(name)


def _to_arrays(events: Interactions) -> dict[str, Any]:
    about = {
        "kind": events.kind,
        "kind_rule": events.kind_rule,
        "name": events.name,
        "source": events.source,
        "left_out": dict(events.left_out),
        "num_pairs": events.num_pairs,
    }
    arrays: dict[str, Any] = {
        "user_index": events.user_index,
        "item_index": events.item_index,
        "values": events.values,
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
    }
    if events.timestamps is not None:
        arrays["timestamps"] = events.timestamps
    put_ids(arrays, "user_ids", events.user_ids)
    put_ids(arrays, "item_ids", events.item_ids)
    put_ids(arrays, "item_titles", events.item_titles)
    return arrays


def _from_arrays(arrays: dict[str, np.ndarray]) -> Interactions:
    about = json.loads(arrays["about"].tobytes())
    user_ids, item_ids = get_ids(arrays, "user_ids"), get_ids(arrays, "item_ids")
    if user_ids is None or item_ids is None:
        raise KeyError("ids")
    num_pairs = about.pop("num_pairs")
    return Interactions(
        user_index=arrays["user_index"],
        item_index=arrays["item_index"],
        values=arrays["values"],
        user_ids=user_ids,
        item_ids=item_ids,
        timestamps=arrays.get("timestamps"),
        item_titles=get_ids(arrays, "item_titles"),
        **about,
    ).with_num_pairs(num_pairs)
