"""The data's own picture: what became of the rows, the long tail, lengths of histories, time."""

from __future__ import annotations

import numpy as np

from tfrec.reporting.facts import RunFacts
from tfrec.reporting.html import figure, figures, notes, section, table
from tfrec.reporting.plot import Plot
from tfrec.reporting.scales import Scale, dates, day, linear, logarithmic, per_second
from tfrec.reporting.text import count, counted, escaped, foreign, percent

_POINTS = 120


def data(facts: RunFacts) -> str:
    """Rows, and three pictures of the positive pairs."""
    return section(
        "data",
        "The data",
        table("What became of the rows", ["", "rows"], _rows(facts)),
        table("Positive pairs, before the split leaves out users and items", ["", "number"], _counts(facts)),
        figures(_tail(facts), _histories(facts), _times(facts)),
        notes(_sentence(str(facts.metrics["split"].get("positive", "")))),
    )


def _sentence(words: str) -> str:
    return f"{escaped(words[0].upper() + words[1:])}." if words else ""


def _rows(facts: RunFacts) -> list[list[str]]:
    report = facts.metrics["data"]["report"]
    rows = [["read", count(report["rows"])], ["kept, a pair of user and item each", count(report["kept"])]]
    if report["merged"]:
        rows.append(["merged into other rows of their pair", count(report["merged"])])
    return rows + [[f"dropped: {foreign(reason)}", count(number)] for reason, number in report["dropped"].items()]


def _counts(facts: RunFacts) -> list[list[str]]:
    users, items = facts.data.user_counts, facts.data.item_counts
    pairs = int(users.sum())
    half = int(np.searchsorted(np.cumsum(np.sort(items)[::-1]), pairs / 2)) + 1
    return [
        ["pairs", count(pairs)],
        ["users", count(len(users))],
        ["items", count(len(items))],
        ["share of the matrix that is filled", percent(pairs / max(1, len(users) * len(items)), 3)],
        ["items of a user: median", count(int(np.median(users)))],
        ["users of an item: median", count(int(np.median(items)))],
        ["items that hold half of the pairs", f"{count(half)} ({percent(half / max(1, len(items)))})"],
    ]


def _tail(facts: RunFacts) -> str:
    ordered = np.sort(facts.data.item_counts)[::-1]
    if len(ordered) < 3:
        return ""
    ranks = np.unique(np.round(np.geomspace(1, len(ordered), _POINTS)).astype(int))
    plot = Plot("Users of an item by its rank", logarithmic(1, len(ordered)), logarithmic(1, max(2, int(ordered[0]))),
                "rank of the item", "users")  # fmt: skip
    plot.line("model", [(float(rank), float(ordered[rank - 1])) for rank in ranks])
    return figure("The long tail: users of each item", plot.svg())


def _histories(facts: RunFacts) -> str:
    counts = facts.data.user_counts
    top = int(counts.max(initial=1))
    if top < 2:
        return ""
    edges = np.unique(np.round(np.geomspace(1, top + 1, 16)).astype(int))
    numbers, _ = np.histogram(counts, edges)
    plot = Plot("Users by number of items", logarithmic(1, top + 1), linear(0, float(numbers.max())), "items", "users")
    for low, high, number in zip(edges[:-1], edges[1:], numbers, strict=True):
        items = counted(low, "item") if high - low == 1 else f"{count(low)} to {counted(high - 1, 'item')}"
        plot.bar(float(low), float(high), float(number), f"{items}: {counted(number, 'user')}")
    return figure("Users by the number of their items", plot.svg())


def _times(facts: RunFacts) -> str:
    edges, numbers = facts.data.time_edges, facts.data.time_counts
    if edges is None or numbers is None or len(edges) < 2:
        return ""
    low, high = float(edges[0]), float(edges[-1])
    unit = per_second(low, high)
    x: Scale = dates(low, high, unit) if unit is not None else linear(low, high)
    plot = Plot(
        "Pairs over time", x, linear(0, float(numbers.max())), "time" if unit else "time, in the data's unit", "pairs"
    )
    for start, end, number in zip(edges[:-1], edges[1:], numbers, strict=True):
        when = f"{day(start, unit)} to {day(end, unit)}" if unit else f"{start:g} to {end:g}"
        plot.bar(float(start), float(end), float(number), f"{when}: {counted(number, 'pair')}")
    return figure("Pairs over time", plot.svg())
