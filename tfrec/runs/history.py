"""What happened in each epoch, as CSV and as a picture."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from tfrec.data.files import atomic_write


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """A line per epoch; a value that an epoch has not (no validation then) is empty."""
    columns: dict[str, None] = {}
    for row in rows:
        columns.update(dict.fromkeys(row))
    with atomic_write(path, "w") as stream:
        writer = csv.DictWriter(stream, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_curve(path: Path, rows: list[dict[str, Any]], monitor: str, references: dict[str, float], unit: str) -> None:
    """Training loss and the monitored validation metric over epochs, with reference lines.

    Args:
        path: the PNG.
        rows: as for `write_csv`.
        monitor: the validation metric.
        references: name -> value of that metric for others, e.g. popularity.
        unit: what the loss is per, ``user`` or ``sample``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([r["epoch"] for r in rows], [r["loss"] for r in rows], color="tab:blue")
    left.set(xlabel="epoch", ylabel=f"training loss (nats per {unit})")
    key = f"validation_{monitor}"
    validated = [r for r in rows if r.get(key) is not None]
    right.plot([r["epoch"] for r in validated], [r[key] for r in validated], color="tab:blue", label="model")
    for (name, value), color in zip(references.items(), ("tab:gray", "tab:green"), strict=False):
        right.axhline(value, color=color, linestyle="--", label=name)
    right.set(xlabel="epoch", ylabel=f"validation {monitor}")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png")
