"""What is shown about a run: how it did, and how training went."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from tfrec.errors import InputError
from tfrec.runs.folder import RunFolder
from tfrec.runs.history import read_csv

log = logging.getLogger("tfrec.service")

#: Points of a curve at most.
_POINTS = 300


def run_facts(path: Path) -> dict[str, Any] | None:
    """Metrics and curves of a run as JSON has them, without names of the host; None where the run has no report."""
    folder = RunFolder(path)
    if not folder.metrics.exists():
        return None
    try:
        metrics, rows = folder.read_metrics(), read_csv(folder.history)
    except (InputError, OSError, ValueError) as error:
        log.warning("The report cannot be shown: %s", error)
        return None
    tested, shown = metrics["test"], metrics["evaluation"]["metrics"]
    data = metrics.get("data", {})
    return {
        "recipe": metrics.get("recipe"),
        "family": metrics.get("family"),
        "finished": metrics.get("finished"),
        "data": {"name": Path(str(data.get("name", ""))).name, "users": data.get("users"), "items": data.get("items")},
        "users": tested["model"]["users"],
        # Figures of runs compare where this is the same.
        "split": metrics.get("split", {}).get("sha256"),
        "monitor": metrics["evaluation"]["monitor"],
        "test": {
            name: {row: _finite(tested.get(row, {}).get(name)) for row in ("model", "popularity")} for name in shown
        },
        "curves": _curves(rows, metrics["evaluation"]["monitor"]),
    }


def _finite(value: Any) -> float | None:
    """None for what JSON does not have."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _curves(rows: list[dict[str, float]], monitor: str) -> list[dict[str, Any]]:
    """Loss and validation metric over epochs or iterations, where they were recorded."""
    unit = "iteration" if rows and "iteration" in rows[0] else "epoch"
    rows = rows[:: max(1, -(-len(rows) // _POINTS))]
    curves = []
    for column, title in (("loss", "Training loss"), (f"validation_{monitor}", f"Validation {monitor}")):
        points = [[row[unit], row[column]] for row in rows if _finite(row.get(column)) is not None]
        if len(points) > 1:
            curves.append({"title": title, "unit": unit, "points": points})
    return curves
