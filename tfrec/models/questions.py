"""What every model is asked with: numbers of rows, how many answers, and which rows may be answers."""

from __future__ import annotations

import operator
import reprlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrec.errors import InputError


def row_numbers(given: Any, name: str, limit: int | None) -> np.ndarray:
    """int64 ``[B]``, each from 0 and below ``limit``.

    Raises:
        InputError: something else than a whole number or a list of them, or one out of range.
    """
    try:
        array = np.atleast_1d(np.asarray(given))
    except ValueError:  # lists of different lengths
        array = np.zeros([0, 0])
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"`{name}` must be a whole number or a list of them.\nReceived: {reprlib.repr(given)}.")
    end = 2**63 - 1 if limit is None else limit
    if array.size and (int(array.min()) < 0 or int(array.max()) >= end):
        wrong = array[(array < 0) | (array >= end)][0]
        expected = "be at least 0" if limit is None else f"lie in 0 to {limit - 1}"
        raise InputError(f"`{name}` must {expected}.\nReceived: {wrong}.")
    return array.astype(np.int64)


def row_number(given: Any, name: str, limit: int) -> int:
    """One number, from 0 and below ``limit``."""
    if np.ndim(given) != 0:
        raise InputError(f"`{name}` must be one whole number.\nReceived: {reprlib.repr(given)}.")
    return int(row_numbers(given, name, limit)[0])


@dataclass(frozen=True)
class Choice:
    """Which rows of a table may be answered.

    Args:
        rows: int64, ascending; None: all.
        most: answers that there may be: the rows of the table, or those to choose among.
    """

    rows: np.ndarray | None
    most: int

    @classmethod
    def of(cls, num_rows: int, among: tuple[str, Any], without: tuple[str, Any]) -> Choice:
        """From the rows to choose among, or those to leave out, with the names of the arguments.

        Raises:
            InputError: both, or rows that the table does not have.
        """
        unwanted = row_numbers([] if without[1] is None else without[1], without[0], num_rows)
        if among[1] is None:
            return cls(np.setdiff1d(np.arange(num_rows), unwanted) if len(unwanted) else None, num_rows)
        wanted = row_numbers(among[1], among[0], num_rows)
        if len(unwanted):
            raise InputError(
                f"Give `{among[0]}` to choose among, or `{without[0]}` to leave out, not both.\n"
                f"Received: {len(wanted)} and {len(unwanted)} numbers."
            )
        wanted = np.unique(wanted)
        return cls(wanted, len(wanted))


def count(k: Any, name: str = "k") -> int:
    """How many, from 1.

    Raises:
        InputError: no whole number, or less.
    """
    try:
        number = None if isinstance(k, bool | np.bool_) else operator.index(k)
    except TypeError:
        number = None
    if number is None:
        raise InputError(f"`{name}` must be a whole number from 1.\nReceived: {name}={reprlib.repr(k)}.")
    if number < 1:
        raise InputError(f"`{name}` must be at least 1.\nReceived: {name}={number}.")
    return number
