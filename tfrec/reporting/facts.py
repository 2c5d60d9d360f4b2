"""What a page is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrec.evaluation import Report


@dataclass(frozen=True)
class DataFacts:
    """The positive pairs of a data set, held out or not, with U users and I items.

    Args:
        user_counts: int64 ``[U]``, pairs of each user who has any.
        item_counts: int64 ``[I]``, pairs of each item that has any.
        time_edges: float64 ``[B + 1]``, borders of equal stretches of time, in the source's unit; None: no times.
        time_counts: int64 ``[B]``, pairs in each stretch.
    """

    user_counts: np.ndarray
    item_counts: np.ndarray
    time_edges: np.ndarray | None = None
    time_counts: np.ndarray | None = None


@dataclass(frozen=True)
class Example:
    """One test user. Ids and titles are other people's text.

    Args:
        user: the raw id.
        num_items: how many items the user has.
        latest: titles of the latest of them, the latest first.
        recommended: titles of the best items, each with whether it is one of the user's targets.
        num_targets: how many targets the user has.
    """

    user: str
    num_items: int
    latest: Sequence[str]
    recommended: Sequence[tuple[str, bool]]
    num_targets: int


@dataclass(frozen=True)
class RunFacts:
    """A finished run, with B test users and I items.

    Args:
        metrics: the content of metrics.json.
        place: the run's folder, as it was named.
        held_out: what the split does, in words: "holds out ...".
        history: the rows of history.csv: column -> number; empty where the model is fitted in one go.
        test: ``model``, ``popularity`` and maybe ``oracle`` -> what the test found, with details.
        history_lengths: int64 ``[B]``, how many items each test user has.
        popularity: int64 ``[I]``, how many training users have each item.
        data: the positive pairs.
        examples: some test users.
        no_examples: why there are none; empty where there are.
        latest_by: what the order of a user's items is by: "time", or "the order of the file".
    """

    metrics: Mapping[str, Any]
    place: str
    held_out: str
    history: Sequence[Mapping[str, float]]
    test: Mapping[str, Report]
    history_lengths: np.ndarray
    popularity: np.ndarray
    data: DataFacts
    examples: Sequence[Example] = ()
    no_examples: str = ""
    latest_by: str = "time"
