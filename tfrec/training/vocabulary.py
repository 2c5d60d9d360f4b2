"""What a model's item and user numbers stand for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from tfrec.data.files import DAMAGE, atomic_write, read_npz, reason
from tfrec.errors import InputError


@dataclass(frozen=True)
class Vocabulary:
    """The model's items, in its order.

    Args:
        item_ids: ``[I]`` raw ids, int64 or text.
        labels: ``[I]`` titles, or the raw ids.
        popularity: ``[I]`` number of training users.
        user_ids: ``[U]`` raw ids of the model's users, int64 or text; None for a model that takes histories.
        seen: with ``user_ids``: ``[U, I]``, what each user has, and what is not recommended to her.
    """

    item_ids: np.ndarray
    labels: np.ndarray
    popularity: np.ndarray
    user_ids: np.ndarray | None = None
    seen: scipy.sparse.csr_matrix | None = None

    def save(self, path: Path) -> None:
        """Write to ``path``, whole or not at all."""
        arrays: dict[str, Any] = {"popularity": self.popularity}
        put_ids(arrays, "item_ids", self.item_ids)
        put_ids(arrays, "labels", self.labels)
        if self.user_ids is not None and self.seen is not None:
            put_ids(arrays, "user_ids", self.user_ids)
            arrays |= {"seen_offsets": self.seen.indptr, "seen_items": self.seen.indices}
        with atomic_write(path) as stream:
            np.savez_compressed(stream, **arrays)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            InputError: a damaged file.
        """
        try:
            arrays = read_npz(path)
            item_ids, labels = get_ids(arrays, "item_ids"), get_ids(arrays, "labels")
            if item_ids is None or labels is None:
                raise KeyError("item_ids")
            user_ids, seen = get_ids(arrays, "user_ids"), None
            if user_ids is not None:
                items, offsets = arrays["seen_items"], arrays["seen_offsets"]
                ones = np.ones(len(items), np.float32)
                seen = scipy.sparse.csr_matrix((ones, items, offsets), shape=(len(user_ids), len(item_ids)))
                seen.check_format(full_check=True)
            found = cls(item_ids, labels, arrays["popularity"], user_ids, seen)
            found.check()
            return found
        except DAMAGE as error:
            raise InputError(f"{path} is damaged: {reason(error)}.") from error

    def check(self) -> None:
        """Raise ValueError for what does not fit together."""
        ids = [self.item_ids] if self.user_ids is None else [self.item_ids, self.user_ids]
        if any(array.ndim != 1 or array.dtype not in (object, np.int64, np.int32) for array in ids):
            raise ValueError("ids are neither whole numbers nor text")
        items = self.item_ids.shape
        if self.labels.shape != items or self.popularity.shape != items or not np.isfinite(self.popularity).all():
            raise ValueError(
                f"{items} items, titles of {self.labels.shape}, popularity of {self.popularity.shape} finite numbers"
            )


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
