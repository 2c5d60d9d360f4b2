"""What a model's item and user numbers stand for, and users' histories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from tfrec.data.arrow import read_table, write_table
from tfrec.data.files import DAMAGE, reason
from tfrec.errors import InputError


@dataclass(frozen=True)
class Vocabulary:
    """The model's items, in its order, and everybody it may be asked about.

    Args:
        item_ids: ``[I]`` raw ids, int64 or text.
        item_titles: ``[I]`` titles, or None.
        popularity: ``[I]`` number of training users.
        user_ids: ``[V]`` raw ids, int64 or text. The model's users by number come first, in its order.
        histories: float32 ``[V, I]``: above 0 for a user's items, as the model takes it; below 0 for what is disliked;
            a stored 0 for what a user has seen without liking it. None of it is recommended to the user.
        weights: ``[I]``, the value that an item has in the history of a new user; None: 1.
    """

    item_ids: np.ndarray
    item_titles: np.ndarray | None
    popularity: np.ndarray
    user_ids: np.ndarray
    histories: scipy.sparse.csr_matrix
    weights: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """What to show for each item: its title, or its raw id as text. ``[I]`` of str."""
        if self.item_titles is not None:
            return self.item_titles
        return np.array([*map(str, self.item_ids), None], dtype=object)[:-1]

    def save(self, items: Path, users: Path) -> None:
        """Write both files, each whole or not at all."""
        columns = {"id": self.item_ids, "popularity": self.popularity.astype(np.float32)}
        if self.item_titles is not None:
            columns["title"] = self.item_titles
        if self.weights is not None:
            columns["weight"] = self.weights.astype(np.float32)
        write_table(items, columns)
        lists = {"items": self.histories.indices.astype(np.int32)}
        if (self.histories.data != 1).any():
            lists["values"] = self.histories.data.astype(np.float32)
        write_table(users, {"id": self.user_ids}, lists=(self.histories.indptr, lists))

    @classmethod
    def load(cls, items: Path, users: Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            InputError: a damaged file.
        """
        try:
            path = items
            of_items = read_table(items)
            columns = of_items.columns
            path = users
            of_users = read_table(users)
            assert of_users.offsets is not None
            entries = of_users.lists["items"]
            values = of_users.lists.get("values", np.ones(len(entries), np.float32))
            shape = (len(of_users.columns["id"]), len(columns["id"]))
            if len(entries) and entries.max() >= shape[1]:
                raise ValueError(f"it has item number {entries.max():,}, and {items.name} has {shape[1]:,} items")
            histories = scipy.sparse.csr_matrix((values, entries, of_users.offsets), shape=shape)
            histories.check_format(full_check=True)
            found = cls(
                columns["id"],
                columns.get("title"),
                columns["popularity"],
                of_users.columns["id"],
                histories,
                columns.get("weight"),
            )
            found.check()
            return found
        except DAMAGE as error:
            raise InputError(f"{path} is damaged: {reason(error)}.") from error

    def check(self) -> None:
        """Raise ValueError for what does not fit together."""
        for ids in (self.item_ids, self.user_ids):
            if ids.ndim != 1 or ids.dtype not in (object, np.int64, np.int32):
                raise ValueError("ids are neither whole numbers nor text")
        items = self.item_ids.shape
        for name, array in (("titles", self.item_titles), ("popularity", self.popularity), ("weights", self.weights)):
            if array is not None and array.shape != items:
                raise ValueError(f"{items} items, {name} of {array.shape}")
        numbers = [self.popularity, self.histories.data, *([] if self.weights is None else [self.weights])]
        if not all(np.isfinite(array).all() for array in numbers):
            raise ValueError("numbers are not finite")
        if self.histories.shape != (len(self.user_ids), len(self.item_ids)):
            raise ValueError(f"histories of {self.histories.shape}")
