"""Intervals of means over users and of shares of their targets, in a time that hardly grows with the users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfrec.metrics.significance import bootstrap_interval

#: Draws of a bootstrap: less than a tenth of a second.
_DRAWS = 5_000_000
#: Bounds of the resamples. 200 place the ends of an interval to about a tenth of its half width.
_FEWEST, _MOST = 200, 2_000
#: The normal distribution has 95 % of its mass within so many standard deviations.
_NORMAL = 1.959964


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % interval.

    Args:
        mean: of the users.
        low, high: NaN for a number that is not a mean over users.
    """

    mean: float
    low: float = float("nan")
    high: float = float("nan")


def resamples(users: int, most: int = _MOST) -> int:
    """How many resamples of so many users are drawn.

    Example:
        >>> resamples(600), resamples(10_000), resamples(1_000_000)
        (2000, 500, 200)
    """
    return max(_FEWEST, min(most, _DRAWS // max(users, 1)))


def intervals(columns: Sequence[np.ndarray], most: int = _MOST) -> list[Interval]:
    """The mean of each column and its 95 % percentile bootstrap interval over users.

    Args:
        columns: float64 ``[U]`` each, NaN for users left out. Columns with the same users share the resamples.
        most: resamples, at most.
    """
    found: list[Interval] = [Interval(float("nan"))] * len(columns)
    groups: dict[bytes, list[int]] = {}
    for place, column in enumerate(columns):
        groups.setdefault(np.isfinite(column).tobytes(), []).append(place)
    for places in groups.values():
        there = np.isfinite(columns[places[0]])
        if not there.any():
            continue
        values = np.stack([columns[place][there] for place in places], axis=1)
        low, high = bootstrap_interval(values, samples=resamples(len(values), most))
        for place, mean, begin, end in zip(places, values.mean(axis=0), low, high, strict=True):
            found[place] = Interval(float(mean), float(begin), float(end))
    return found


def share(found: np.ndarray, users: np.ndarray) -> Interval:
    """The share of targets found, and its 95 % interval for another draw of users: targets of a user stay together.

    The interval is the normal one with the linearized variance of a ratio of two sums over users (Cochran, Sampling
    Techniques, 1977, 6.4), cut to 0 and 1.

    Args:
        found: float64 ``[T]``, from 0 to 1, T above 0.
        users: int64 ``[T]``, whose target it is.

    Example:
        >>> together = share(np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1]))
        >>> together.mean, together.low, together.high
        (0.5, 0.0, 1.0)
    """
    mean = float(found.mean())
    _, user = np.unique(users, return_inverse=True)
    error = np.bincount(user, found - mean)
    half = _NORMAL * float(np.sqrt((error**2).sum())) / len(found)
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))
