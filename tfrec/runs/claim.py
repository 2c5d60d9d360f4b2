"""Rank 0 alone touches the output folder; the other ranks learn how it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tfrec import distributed
from tfrec.errors import InputError, RankLostError, SharedError

T = TypeVar("T")


def on_rank_zero(do: Callable[[], T]) -> T:
    """The JSON value of ``do()``, called on rank 0 only, on every rank.

    Raises:
        SharedError: on every rank, when `InputError` was raised on rank 0.
        RankLostError: on the other ranks, when another error was; rank 0 prints that.
    """
    if distributed.size() == 1:
        return do()
    outcome: dict[str, Any] = {}
    problem: Exception | None = None
    if distributed.rank() == 0:
        try:
            outcome = {"value": do()}
        except Exception as error:
            problem = error
            outcome = {"input" if isinstance(error, InputError) else "other": str(error)}
    outcome = distributed.broadcast_json(outcome)
    if "input" in outcome:
        raise SharedError(outcome["input"]) from problem
    if "other" in outcome:
        raise problem or RankLostError(f"Rank 0 stopped: {outcome['other']}", told=True)
    return outcome["value"]
