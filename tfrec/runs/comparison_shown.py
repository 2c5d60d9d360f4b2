"""A comparison as text, as a table to compute with, and as a picture."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

from tfrec.data.files import atomic_write
from tfrec.runs.comparison import LEVEL, Comparison

#: Panels of the picture that stand side by side.
_PANELS = 3


def as_text(found: Comparison) -> str:
    """Two tables: the test metrics of all runs, and the differences from the baseline."""
    test = found.runs[0].test["model"]
    note = f" ({found.users_left_out:,} without a value left out)" if found.users_left_out else ""
    split = found.runs[0].split.get("name", "")
    lines = [
        f"Test of {split}, {found.users:,} users{note}, ties {test['ties']}. *: the best run.",
        "",
        *_values(found),
        "",
        f"Differences from {found.baseline}{f', the best by {found.best_by}' if found.best_by else ''}, over the same "
        f"{found.users:,} users,",
        f"with the {LEVEL:.0%} interval of {found.samples:,} bootstrap samples (seed {found.seed}); p: two-sided "
        "sign-flip test, corrected by",
        f"Holm for {len(found.runs) - 1} {'run' if len(found.runs) == 2 else 'runs'}. Other seeds of the models are "
        "not accounted for.",
        *_differences(found),
    ]
    return "\n".join(lines)


def write_json(path: Path, found: Comparison) -> None:
    """Write all of it as JSON."""
    with atomic_write(path, "w") as stream:
        stream.write(json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, found: Comparison) -> None:
    """Write a line for each run and metric."""
    rows = found.rows()
    with atomic_write(path, "w") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_picture(path: Path, found: Comparison) -> None:
    """Draw a panel for each metric: each run's difference from the baseline, with its interval, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = list(dict.fromkeys(p.metric for p in found.paired))
    names = [run.name for run in found.runs if run.name != found.baseline]
    columns = min(_PANELS, len(metrics))
    rows = -(-len(metrics) // columns)
    size = (2.5 + 3.5 * columns, rows * (1.3 + 0.35 * len(names)))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel, metric in zip(panels, metrics, strict=False):
        ours = [p for p in found.paired if p.metric == metric]
        mean = [p.difference for p in ours]
        # The ends of a percentile interval need not lie around the mean.
        below = [max(0.0, p.difference - p.low) for p in ours]
        above = [max(0.0, p.high - p.difference) for p in ours]
        panel.errorbar(mean, range(len(ours)), xerr=[below, above], fmt="o", color="tab:blue", capsize=3)
        panel.axvline(0, color="tab:gray", linestyle="--")
        panel.set_xlabel(metric)
        panel.grid(axis="x", alpha=0.3)
        # A name is no formula, whatever dollars it has.
        panel.set_yticks(range(len(names)), names, parse_math=False)
        panel.set_ylim(len(names) - 0.5, -0.5)
    for panel in panels[len(metrics) :]:
        panel.set_axis_off()
    figure.suptitle(f"Difference from {found.baseline}, {LEVEL:.0%} intervals", fontsize="medium", parse_math=False)
    with atomic_write(path) as stream:
        figure.savefig(stream, format="png")


def _values(found: Comparison) -> list[str]:
    best = {metric: found.best(metric) for metric in found.metrics}
    table = [["run", "recipe", *found.metrics]]
    for run in found.runs:
        cells = [
            _number(run.test["model"][metric]) + ("*" if run.name in best[metric] else " ") for metric in found.metrics
        ]
        table.append([run.name, run.recipe, *cells])
    for name, values in found.references.items():
        table.append([name, "", *(_number(values[metric]) + " " for metric in found.metrics)])
    return _aligned(table, left=2)


def _differences(found: Comparison) -> list[str]:
    lines = []
    for metric in dict.fromkeys(p.metric for p in found.paired):
        table = [
            [f"  {p.run}", f"{p.difference:+.4f}", f"[{p.low:+.4f}, {p.high:+.4f}]", f"p {p.p_holm:.2g}"]
            for p in found.paired
            if p.metric == metric
        ]
        lines += ["", metric, *_aligned(table, left=1)]
    return lines


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _aligned(table: list[list[str]], left: int) -> list[str]:
    """Rows with columns of one width, the first ``left`` of them flush left."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
