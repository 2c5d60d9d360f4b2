"""User-item events as dense indices, with the way back to raw ids and titles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse

from tfrec.errors import InputError


@dataclass(frozen=True)
class Interactions:
    """Events in file order, with N events, U users and I items.

    Args:
        user_index: int32 ``[N]``, in ``[0, U)``.
        item_index: int32 ``[N]``, in ``[0, I)``.
        values: float32 ``[N]``: a rating, a play count, or 1.
        user_ids: ``[U]``, the raw ids (int64, or ``str`` in an object array), ascending.
        item_ids: ``[I]``, the raw ids, ascending.
        timestamps: int64 ``[N]`` in the unit of the source, or None.
        item_titles: ``[I]`` of ``str`` in an object array, or None.
        explicit: True when ``values`` are ratings (a low one means dislike), False when every event is a
            positive signal.
        name: for reports.
        source: where the events came from: path, checksum, rows read and rows left out.

    Raises:
        InputError: lengths that do not match, or indices out of range.
    """

    user_index: np.ndarray
    item_index: np.ndarray
    values: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    timestamps: np.ndarray | None = None
    item_titles: np.ndarray | None = None
    explicit: bool = False
    name: str = "interactions"
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.user_index)
        for what in ("item_index", "values", "timestamps"):
            array = getattr(self, what)
            if array is not None and len(array) != n:
                raise InputError(f"`{what}` must have one entry per event.\nReceived: {len(array)} for {n} events.")
        for what, index, ids in (
            ("user_index", self.user_index, self.user_ids),
            ("item_index", self.item_index, self.item_ids),
        ):
            if n and not (index.min() >= 0 and index.max() < len(ids)):
                raise InputError(f"`{what}` must lie in [0, {len(ids)}).\nReceived: {index.min()} to {index.max()}.")
        if self.item_titles is not None and len(self.item_titles) != len(self.item_ids):
            raise InputError(
                f"`item_titles` must have one entry per item.\n"
                f"Received: {len(self.item_titles)} for {len(self.item_ids)} items."
            )

    def __len__(self) -> int:
        return len(self.user_index)

    @property
    def num_users(self) -> int:
        """U, the number of users."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """I, the number of items."""
        return len(self.item_ids)

    def to_csr(self, *, binary: bool = False) -> scipy.sparse.csr_matrix:
        """The U x I matrix of values, float32, columns sorted. Repeated events of a pair are summed.

        Args:
            binary: 1 for every pair that occurs, whatever its value.
        """
        matrix = scipy.sparse.coo_matrix(
            (self.values, (self.user_index, self.item_index)), shape=(self.num_users, self.num_items)
        ).tocsr()
        matrix.sort_indices()
        if binary:
            matrix.data[:] = 1.0
        return matrix

    def labels(self) -> np.ndarray:
        """What to show for each item: its title, or its raw id as text where there is none. ``[I]`` of str."""
        if self.item_titles is not None:
            return self.item_titles
        return np.array([str(i) for i in self.item_ids], dtype=object)

    def summary(self) -> dict[str, Any]:
        """Counts for a report."""
        pairs = self.num_users * self.num_items
        return {
            "name": self.name,
            "events": len(self),
            "users": self.num_users,
            "items": self.num_items,
            "density": len(self) / pairs if pairs else 0.0,
            "explicit": self.explicit,
            "timestamps": self.timestamps is not None,
            "source": self.source,
        }


def index_ids(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct values of ``raw`` in ascending order.

    Args:
        raw: int64 ``[N]``, none negative.

    Returns:
        index: int32 ``[N]``, and ids: int64, ascending, with ``ids[index] == raw``.
    """
    if len(raw) == 0:
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    top = int(raw.max())
    if raw.min() >= 0 and top <= max(8 * len(raw), 1 << 20):
        # Ids of this kind are nearly dense: one pass over a table is several times faster than a sort.
        seen = np.zeros(top + 1, bool)
        seen[raw] = True
        ids = np.flatnonzero(seen).astype(np.int64)
        table = np.zeros(top + 1, np.int32)
        table[ids] = np.arange(len(ids), dtype=np.int32)
        return table[raw], ids
    ids, index = np.unique(raw, return_inverse=True)
    return index.astype(np.int32), ids.astype(np.int64)
