"""Metrics by the names they have in reports.

A new one is one decorated function in a module that `tfrec.metrics` imports. A metric of a *ranking* measures for each
user where the targets stand. A metric of the *catalogue* is one number for all users: what they were shown, whether
they like it or not.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from tfrec.errors import InputError
from tfrec.metrics.exposure import Exposure
from tfrec.metrics.tied_ranks import TiedRanks

#: Whether a metric looks at the first K only: it must, may, or never does.
Cutoff = Literal["required", "optional", "none"]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Definition:
    """A metric without its cutoff.

    Args:
        function: of `TiedRanks` (or `Exposure`) and the cutoff, where it takes one.
        cutoff: whether it does.
        of_catalogue: whether it is one number for all users, from what they were shown.
        needs_popularity: whether it needs each item's number of training users.
    """

    function: Callable[..., Any]
    cutoff: Cutoff = "required"
    of_catalogue: bool = False
    needs_popularity: bool = False


#: Name -> metric.
REGISTRY: dict[str, Definition] = {}


def ranking_metric(name: str, *, cutoff: Cutoff = "required") -> Callable[[F], F]:
    """Register a function ``(ranks, k) -> float64 [B]``, NaN for users without targets, under ``name``."""
    return _register(name, cutoff=cutoff)


def catalogue_metric(name: str, *, needs_popularity: bool = False) -> Callable[[F], F]:
    """Register a function ``(exposure) -> float`` of each user's first K under ``name``."""
    return _register(name, of_catalogue=True, needs_popularity=needs_popularity)


def _register(name: str, **options: Any) -> Callable[[F], F]:
    def register(function: F) -> F:
        if name in REGISTRY:
            raise ValueError(f"There is a metric {name} already.")
        REGISTRY[name] = Definition(function, **options)
        return function

    return register


@dataclass(frozen=True)
class Metric:
    """A metric by its name in reports, such as ``recall@20`` or ``auc``.

    Args:
        name: one of `REGISTRY`.
        k: the cutoff; None where it has none.
    """

    name: str
    k: int | None

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Read a name such as ``ndcg@100``.

        Raises:
            InputError: an unknown metric, or a cutoff that is missing, out of place or no number.
        """
        match = re.fullmatch(r"([a-z_]+)(?:@([1-9]\d{0,8}))?", text)
        if not match or match[1] not in REGISTRY:
            near = difflib.get_close_matches(text.split("@")[0], REGISTRY, n=1)
            raise InputError(
                f"A metric must be one of {', '.join(REGISTRY)}, with a cutoff such as ndcg@100.\nReceived: {text!r}."
                + (f"\nDid you mean {near[0]}?" if near else "")
            )
        name, k = match[1], int(match[2]) if match[2] else None
        cutoff = REGISTRY[name].cutoff
        if (cutoff == "none" and k is not None) or (cutoff == "required" and k is None):
            raise InputError(
                f"{name} must have {'no cutoff' if cutoff == 'none' else 'a cutoff, such as ' + name + '@20'}.\n"
                f"Received: {text!r}."
            )
        return cls(name, k)

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"

    @property
    def of_catalogue(self) -> bool:
        """Whether it is one number for all users."""
        return REGISTRY[self.name].of_catalogue

    @property
    def needs_popularity(self) -> bool:
        """Whether it needs each item's number of training users."""
        return REGISTRY[self.name].needs_popularity

    @property
    def needs_all_ranks(self) -> bool:
        """Whether it looks beyond a cutoff."""
        return self.k is None

    def __call__(self, ranks: TiedRanks) -> np.ndarray:
        """Of a ranking: the metric per user, float64 ``[B]``."""
        function = REGISTRY[self.name].function
        return function(ranks) if self.k is None else function(ranks, self.k)

    def of(self, exposure: Exposure) -> float:
        """Of the catalogue: the metric of each user's first K items."""
        return float(REGISTRY[self.name].function(exposure))
