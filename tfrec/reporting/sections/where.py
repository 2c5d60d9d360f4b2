"""Where a model is good: by the popularity of what is to be found, and by the length of the user's history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfrec.reporting.facts import RunFacts
from tfrec.reporting.html import figure, figures, notes, section, table
from tfrec.reporting.intervals import Interval, intervals, share
from tfrec.reporting.plot import Plot
from tfrec.reporting.scales import Scale, linear
from tfrec.reporting.text import count, decimal, exact, percent

#: Groups of about equally many targets, or users.
_ITEM_GROUPS, _USER_GROUPS = 10, 5
#: Fewer than this in a group would be noise.
_FEWEST = 20


def where(facts: RunFacts) -> str:
    """Hits by the popularity of the target's item, and the monitored metric by the length of the history."""
    by_popularity, by_length = _by_popularity(facts), _by_length(facts)
    details, monitor = facts.test["model"].details, facts.metrics["evaluation"]["monitor"]
    charts, tables = [], []
    if by_popularity and details is not None:
        k = count(details.k)
        title = f"Share of targets found in the first {k}, by the item's popularity"
        charts.append(_chart(title, by_popularity, "training users of the item", f"found in the first {k}"))
        tables.append(_table(title, by_popularity, ["training users of the item", "items", "share of the targets"]))
    if by_length:
        title = f"{monitor} by the length of the history"
        charts.append(_chart(title, by_length, "items in the user's history", monitor))
        tables.append(_table(title, by_length, ["items in the history", "users"]))
    words = (
        "Groups of about equally many targets, or users; equal values stay together. Vertical lines: 95 % "
        "intervals for another draw of users. A share counts the targets of the group that are found."
    )
    return section("where", "Where it is good", figures(*charts), *tables, notes(words if tables else ""))


@dataclass(frozen=True)
class _Group:
    """Targets or users that belong together.

    Args:
        low, high: the least and the greatest value.
        sizes: cells of the table, as HTML.
        found: name of the model -> its mean and interval.
    """

    low: int
    high: int
    sizes: Sequence[str]
    found: Mapping[str, Interval]

    @property
    def span(self) -> str:
        """From the least to the greatest value."""
        return count(self.low) if self.low == self.high else f"{count(self.low)}–{count(self.high)}"


def groups(values: np.ndarray, most: int, fewest: int = _FEWEST) -> list[tuple[int, int, np.ndarray]]:
    """Groups of about equally many, equal values together.

    Args:
        values: int64 ``[N]``, from 0.
        most: groups.
        fewest: values in a group, about.

    Returns:
        For each group its least and greatest value, and bool ``[N]``, who belongs to it.

    Example:
        >>> [(low, high, int(inside.sum())) for low, high, inside in groups(np.array([1, 1, 1, 2, 3, 9]), 3, 1)]
        [(1, 1, 3), (2, 3, 2), (9, 9, 1)]
    """
    wanted = max(1, min(most, len(values) // fewest))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, wanted + 1)[1:], method="higher"))
    number = np.searchsorted(edges, values)
    found = []
    for group in range(len(edges)):
        inside = number == group
        if inside.any():
            found.append((int(values[inside].min()), int(values[inside].max()), inside))
    return found


def _by_popularity(facts: RunFacts) -> list[_Group]:
    """The share of targets found, by the training users of the target's item."""
    details = {name: report.details for name, report in facts.test.items() if report.details is not None}
    if "model" not in details or not len(details["model"].items):
        return []
    popularity = facts.popularity[details["model"].items]
    rows = []
    for low, high, inside in groups(popularity, _ITEM_GROUPS):
        found = [share(detail.found[inside], detail.users[inside]) for detail in details.values()]
        items = int(((facts.popularity >= low) & (facts.popularity <= high)).sum())
        sizes = [count(items), percent(inside.mean())]
        rows.append(_Group(low, high, sizes, dict(zip(details, found, strict=True))))
    return rows


def _by_length(facts: RunFacts) -> list[_Group]:
    """The monitored metric, by the items in the user's history; empty where it is none of a user."""
    monitor = facts.metrics["evaluation"]["monitor"]
    columns = {name: report.per_user[monitor] for name, report in facts.test.items() if monitor in report.per_user}
    if "model" not in columns:
        return []
    there = np.isfinite(columns["model"])
    if not there.any():
        return []
    rows = []
    for low, high, inside in groups(facts.history_lengths[there], _USER_GROUPS):
        found = intervals([column[there][inside] for column in columns.values()], most=1_000)
        rows.append(_Group(low, high, [count(inside.sum())], dict(zip(columns, found, strict=True))))
    return rows


def _chart(title: str, groups: Sequence[_Group], x_label: str, y_label: str) -> str:
    """A point and an interval for each model in each group; nothing for one group."""
    if len(groups) < 2:
        return ""
    found = [interval for group in groups for interval in group.found.values()]
    top = max([i.high if np.isfinite(i.high) else i.mean for i in found], default=1.0)
    ticks = [(i + 0.5, group.span) for i, group in enumerate(groups)]
    plot = Plot(title, Scale(0, len(groups), ticks), linear(0, top or 1.0), x_label, y_label)
    for i, group in enumerate(groups):
        for j, (name, interval) in enumerate(group.found.items()):
            at = i + 0.5 + 0.2 * (j - (len(group.found) - 1) / 2)
            if np.isfinite(interval.low):
                plot.whisker(name, at, interval.low, interval.high)
            plot.point(name, at, interval.mean, f"{name}, {group.span}: {decimal(interval.mean)}")
    return figure(title, plot.svg(), list(groups[0].found))


def _table(title: str, groups: Sequence[_Group], header: Sequence[str]) -> str:
    rows = [
        [
            f'<span class="whole">{group.span}</span>',
            *group.sizes,
            *(exact(interval.mean) for interval in group.found.values()),
        ]
        for group in groups
    ]
    return table(title, [*header, *groups[0].found], rows)
