"""How training went: loss and validation over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfrec.reporting.facts import RunFacts
from tfrec.reporting.html import figure, figures, notes, section
from tfrec.reporting.plot import Plot
from tfrec.reporting.scales import Scale, linear
from tfrec.reporting.text import counted, decimal, duration, escaped, significant

#: Points of a line; a longer training is drawn by every so many-th epoch.
_MOST_POINTS = 300


def training(facts: RunFacts) -> str:
    """Curves of what was recorded; nothing for a model that is fitted in one go."""
    rows = facts.history
    if not rows:
        return ""
    unit = "iteration" if "iteration" in rows[0] else "epoch"
    monitor = facts.metrics["evaluation"]["monitor"]
    best = facts.metrics["training"].get("best_epoch")
    charts = [_loss(rows, unit, best), _validation(facts, unit, monitor, best)]
    return section(
        "training",
        "Training",
        figures(*charts),
        notes(_words(facts, rows, unit, monitor, best) + ("" if any(charts) else " No curve was recorded.")),
    )


def _loss(rows: Sequence[Mapping[str, float]], unit: str, best: int | None) -> str:
    points = [(row[unit], row["loss"]) for row in rows if "loss" in row]
    if len(points) < 2:
        return ""
    per = next((name for name in ("user", "sample") if f"{name}s_per_second" in rows[0]), None)
    label = f"nats per {per}" if per else "weighted squared error"
    low, high = min(y for _, y in points), max(y for _, y in points)
    plot = Plot(f"Training loss by {unit}", _rounds(points), linear(low, high), unit, label)
    plot.line("model", _thinned(points))
    if best is not None:
        plot.upright(best, f"best {unit} {best}")
    return figure("Training loss", plot.svg())


def _validation(facts: RunFacts, unit: str, monitor: str, best: int | None) -> str:
    key = f"validation_{monitor}"
    points = [(row[unit], row[key]) for row in facts.history if key in row]
    if len(points) < 2:
        return ""
    levels = {
        name: float(report[monitor])
        for name, report in facts.metrics.get("validation", {}).items()
        if name != "model" and report.get(monitor) is not None
    }
    shown = [*(y for _, y in points), *levels.values()]
    plot = Plot(
        f"Validation {monitor} by {unit}",
        _rounds(points),
        linear(min(shown), max(shown)),
        unit,
        f"validation {monitor}",
    )
    for name, value in levels.items():
        plot.level(name, value)
    plot.line("model", _thinned(points))
    at = next((y for x, y in points if x == best), None)
    if best is not None and at is not None:
        plot.upright(best, f"best {unit} {best}")
        plot.point("model", best, at, f"{unit} {best}: {decimal(at)}", large=True)
    return figure(f"Validation {monitor}", plot.svg(), ["model", *levels])


def _rounds(points: Sequence[tuple[float, float]]) -> Scale:
    """An axis of epochs, from the first to the last."""
    first, last = points[0][0], points[-1][0]
    ticks = [tick for tick in linear(first, last).ticks if first <= tick[0] <= last and tick[0] == int(tick[0])]
    return Scale(first, last, ticks)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    step = -(-len(points) // _MOST_POINTS)
    return [*points[:-1:step], points[-1]]


def _words(facts: RunFacts, rows: Sequence[Mapping[str, float]], unit: str, monitor: str, best: int | None) -> str:
    summary: Mapping[str, Any] = facts.metrics["training"]
    words = f"{counted(len(rows), unit)} in {duration(sum(row.get('seconds', 0.0) for row in rows))}"
    speed = next((key for key in summary if key.startswith("median_") and key.endswith("_per_second")), None)
    if speed is not None:
        what = speed.removeprefix("median_").removesuffix("_per_second").replace("_", " ")
        words += f", median {significant(float(summary[speed]))} {what} per second"
    words += "."
    if best is not None:
        words += f" The weights of {unit} {best}, the best by validation {escaped(monitor)}, are the ones that were "
        words += "tested; the line of each reference is what it reaches on validation."
    return words
