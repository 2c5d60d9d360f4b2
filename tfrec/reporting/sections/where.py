"""Where a model is good: by the popularity of what is to be found, and by how much is known of a user."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfrec.reporting.facts import RunFacts
from tfrec.reporting.html import figure, figures, notes, section, table
from tfrec.reporting.intervals import Interval, intervals
from tfrec.reporting.plot import Plot
from tfrec.reporting.scales import Scale, linear
from tfrec.reporting.text import count, decimal, escaped, exact, percent

#: Groups of about equally many targets, or users.
_ITEM_GROUPS, _USER_GROUPS = 10, 5
#: Fewer than this in a group would be noise.
_FEWEST = 20


def where(facts: RunFacts) -> str:
    """Hits by the popularity of the target's item, and the monitored metric by the length of the history."""
    return section("where", "Where it is good", figures(*_charts(facts)), *_tables(facts))


def groups(values: np.ndarray, most: int) -> list[tuple[int, int, np.ndarray]]:
    """Groups of about equally many, equal values together.

    Args:
        values: int64 ``[N]``, from 0.
        most: groups.

    Returns:
        For each group its least and greatest value, and bool ``[N]``, who belongs to it.

    Example:
        >>> [(low, high, int(inside.sum())) for low, high, inside in groups(np.array([1, 1, 1, 2, 3, 9]), 3)]
        [(1, 2, 4), (3, 9, 2)]
    """
    wanted = max(1, min(most, len(values) // _FEWEST or 2))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, wanted + 1)[1:], method="higher"))
    number = np.searchsorted(edges, values)
    found = []
    for group in range(len(edges)):
        inside = number == group
        if inside.any():
            found.append((int(values[inside].min()), int(values[inside].max()), inside))
    return found


def _by_popularity(facts: RunFacts) -> list[tuple[int, int, int, int, dict[str, Interval]]]:
    """Low, high, items, targets and, by name, the share of targets found."""
    details = {name: report.details for name, report in facts.test.items() if report.details is not None}
    if "model" not in details or not len(details["model"].items):
        return []
    popularity = facts.popularity[details["model"].items]
    rows = []
    for low, high, inside in groups(popularity, _ITEM_GROUPS):
        found = intervals([detail.found[inside] for detail in details.values()], most=1_000)
        items = int(((facts.popularity >= low) & (facts.popularity <= high)).sum())
        rows.append((low, high, items, int(inside.sum()), dict(zip(details, found, strict=True))))
    return rows


def _by_length(facts: RunFacts) -> list[tuple[int, int, int, dict[str, Interval]]]:
    """Low, high, users and, by name, the monitored metric."""
    monitor = facts.metrics["evaluation"]["monitor"]
    columns = {name: report.per_user[monitor] for name, report in facts.test.items() if monitor in report.per_user}
    if "model" not in columns:
        return []
    there = np.isfinite(columns["model"])
    rows = []
    for low, high, inside in groups(facts.history_lengths[there], _USER_GROUPS):
        found = intervals([column[there][inside] for column in columns.values()], most=1_000)
        rows.append((low, high, int(inside.sum()), dict(zip(columns, found, strict=True))))
    return rows


def _charts(facts: RunFacts) -> list[str]:
    k, monitor = _k(facts), facts.metrics["evaluation"]["monitor"]
    charts = []
    by_popularity, by_length = _by_popularity(facts), _by_length(facts)
    if len(by_popularity) > 1:
        title = f"Share of targets found in the first {k}, by the item's popularity"
        labels = [_span(low, high) for low, high, *_ in by_popularity]
        found = [row[4] for row in by_popularity]
        chart = _grouped(title, labels, found, "training users of the item", f"found in the first {k}")
        charts.append(figure(title, chart, list(facts.test)))
    if len(by_length) > 1:
        title = f"{monitor} by the length of the history"
        labels = [_span(low, high) for low, high, *_ in by_length]
        chart = _grouped(title, labels, [row[3] for row in by_length], "items in the user's history", monitor)
        charts.append(figure(title, chart, list(facts.test)))
    return charts


def _grouped(title: str, labels: Sequence[str], rows: Sequence[dict[str, Interval]], x_label: str, y_label: str) -> str:
    top = max([i.high if np.isfinite(i.high) else i.mean for row in rows for i in row.values()], default=1.0)
    every = -(-len(labels) // 6)
    ticks = [(i + 0.5, label if i % every == 0 else "") for i, label in enumerate(labels)]
    plot = Plot(title, Scale(0, len(rows), ticks), linear(0, max(top, 1e-9)), x_label, y_label)
    for i, row in enumerate(rows):
        for j, (name, interval) in enumerate(row.items()):
            at = i + 0.5 + 0.2 * (j - (len(row) - 1) / 2)
            if np.isfinite(interval.low):
                plot.whisker(name, at, interval.low, interval.high)
            plot.point(name, at, interval.mean, f"{name}, {labels[i]}: {decimal(interval.mean)}")
    return plot.svg()


def _tables(facts: RunFacts) -> list[str]:
    k, monitor = _k(facts), facts.metrics["evaluation"]["monitor"]
    by_popularity, by_length = _by_popularity(facts), _by_length(facts)
    parts = []
    if by_popularity:
        total = sum(row[3] for row in by_popularity)
        names = list(by_popularity[0][4])
        rows = [
            [_span(low, high), count(items), percent(targets / total), *(exact(found[name].mean) for name in names)]
            for low, high, items, targets, found in by_popularity
        ]
        header = ["training users of the item", "items", "share of the targets", *names]
        parts.append(table(f"Share of targets found in the first {k}, by the item's popularity", header, rows))
    if by_length:
        names = list(by_length[0][3])
        rows = [
            [_span(low, high), count(users), *(exact(found[name].mean) for name in names)]
            for low, high, users, found in by_length
        ]
        parts.append(table(f"{monitor} by the length of the history", ["items in the history", "users", *names], rows))
    if parts:
        parts.append(
            notes(
                "Groups of about equally many targets, and users; equal values stay together. Bars: 95 % bootstrap "
                f"intervals. The denominator of {escaped('found')} is the group's targets."
            )
        )
    return parts


def _k(facts: RunFacts) -> int:
    details = facts.test["model"].details
    return details.k if details is not None else 10


def _span(low: int, high: int) -> str:
    return count(low) if low == high else f"{count(low)}–{count(high)}"
