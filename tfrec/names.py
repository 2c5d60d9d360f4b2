"""From the names that people type, raw ids and titles, to numbers."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import defaultdict
from functools import cached_property
from typing import Any

import numpy as np

from tfrec.errors import InputError
from tfrec.printing import printable


class UserNames:
    """Users by raw id.

    Args:
        ids: ``[U]``, int64 or text.
    """

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids

    @cached_property
    def _numbers(self) -> dict[Any, int]:
        return {raw: number for number, raw in enumerate(self._ids.tolist())}

    def find(self, user: Any) -> int | None:
        """The number of the user with this raw id, or None; blanks around it do not count where no id has them."""
        for wanted in dict.fromkeys((str(user), str(user).strip())):
            key: Any = wanted
            if self._ids.dtype != object:
                if not re.fullmatch("[+-]?[0-9]{1,19}", wanted):
                    continue
                key = int(wanted)
            if key in self._numbers:
                return self._numbers[key]
        return None

    def number(self, user: Any) -> int:
        """The same, where there must be one.

        Raises:
            InputError: there is none.
        """
        found = self.find(user)
        if found is None:
            some = ", ".join(printable(u) for u in self._ids[:3])
            raise InputError(
                f"The user must be one of the data's.\nReceived: {printable(user)}.\nIds look like {some}."
            )
        return found


class ItemNames:
    """Items by title or raw id.

    A title is taken as it is, as it is printed (with escapes), and without regard to capitals and to the ways in which
    Unicode writes one letter. Blanks around the name do not count where nothing has them. A number in Python is a raw
    id.

    Args:
        ids: ``[I]``, int64 or text.
        labels: ``[I]``, titles, or the ids as text.
    """

    def __init__(self, ids: np.ndarray, labels: np.ndarray) -> None:
        self._ids, self._labels = ids, [str(label) for label in labels]

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return {str(raw): number for number, raw in enumerate(self._ids.tolist())}

    @cached_property
    def _by_title(self) -> dict[str, list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for number, label in enumerate(self._labels):
            found[label].append(number)
            shown = printable(label)
            if shown != label:
                found[shown].append(number)
        return found

    @cached_property
    def _by_folded(self) -> dict[str, list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for number, label in enumerate(self._labels):
            found[_folded(label)].append(number)
        return found

    def find(self, name: Any) -> int | None:
        """The number of the item with this title or raw id, or None.

        Raises:
            InputError: there are several.
        """
        if isinstance(name, int | np.integer):
            return self._by_id.get(str(name))
        name = str(name)
        for wanted in dict.fromkeys((name, name.strip())):
            if not wanted:
                continue
            by_id = self._by_id.get(wanted)
            for table, key in ((self._by_title, wanted), (self._by_folded, _folded(wanted))):
                titled = table.get(key, []) if table is self._by_title or by_id is None else []
                found = self._one(name, titled, by_id)
                if found is not None:
                    return found
            if by_id is not None:
                return by_id
        return None

    def number(self, name: Any) -> int:
        """The same, where there must be one.

        Raises:
            InputError: there is none, or several; the message names near ones.
        """
        if not isinstance(name, int | np.integer) and not str(name).strip():
            raise InputError(f"An item's title or id must not be empty.\nReceived: {str(name)!r}.")
        found = self.find(name)
        if found is not None:
            return found
        if isinstance(name, int | np.integer):
            raise InputError(f"The item must be one of the model's.\nReceived: {name}.")
        name = str(name)
        raise InputError(
            f"The item must be the title or id of one of the model's items.\nReceived: {name!r}.\n{self._near(name)}"
        )

    def _one(self, name: str, titled: list[int], by_id: int | None) -> int | None:
        """The one item that fits, None where no title fits."""
        if not titled:
            return None
        if by_id in titled:
            return by_id  # several of that title, of which the id names one
        if len(titled) == 1 and by_id is None:
            return titled[0]
        if len(titled) == 1 and by_id is not None:
            raise InputError(
                f"{name!r} is the title of item {printable(self._ids[titled[0]])} and the id of "
                f"{self._labels[by_id]!r}.\nGive the former's id, or the latter's title."
            )
        ids = ", ".join(printable(self._ids[i]) for i in titled[:5]) + ", ..." * (len(titled) > 5)
        raise InputError(f"{len(titled)} items have the title {name!r}.\nGive the raw id of one: {ids}.")

    def _near(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._labels, n=3, cutoff=0.5)
        part = [label for label in self._labels if name.casefold() in label.casefold()][:3]
        if part or near:
            return f"Did you mean {' or '.join(repr(m) for m in dict.fromkeys(part + near))}?"
        return "It must occur in the training users' interactions."


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
