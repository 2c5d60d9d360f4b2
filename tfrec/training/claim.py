"""Rank 0 alone touches the output folder; the other ranks learn how it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tfrec import distributed
from tfrec.errors import InputError

T = TypeVar("T")


def on_rank_zero(do: Callable[[], T]) -> T:
    """The JSON value of ``do()``, called on rank 0 only, on every rank.

    Raises:
        InputError: on every rank, when it was raised on rank 0.
    """
    outcome, problem = None, None
    if distributed.rank() == 0:
        try:
            outcome = {"value": do()}
        except InputError as error:
            problem = error
    outcome = distributed.broadcast_json(outcome)
    if outcome is None:
        raise problem or InputError("Rank 0 stopped with an error; see its message.")
    return outcome["value"]
