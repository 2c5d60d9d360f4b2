"""Which part of the catalogue the lists show, and how evenly."""

from __future__ import annotations

import numpy as np

from tfrec.metrics import Exposure
from tfrec.metrics.coverage import coverage as share_shown
from tfrec.metrics.gini import gini
from tfrec.metrics.novelty import novelty
from tfrec.reporting.facts import RunFacts
from tfrec.reporting.html import figure, figures, notes, section, table
from tfrec.reporting.plot import Plot
from tfrec.reporting.scales import Scale
from tfrec.reporting.text import count, decimal, percent

#: Points of a curve.
_POINTS = 100


def coverage(facts: RunFacts) -> str:
    """Coverage, Gini index and novelty of the lists, and their Lorenz curves; nothing where candidates were sampled."""
    exposures = {
        name: report.details.exposure
        for name, report in facts.test.items()
        if report.details is not None and report.details.exposure
    }
    if "model" not in exposures:
        return ""
    cutoffs = sorted(exposures["model"])
    header = ["lists", "by", "shown", "Gini", "novelty"]
    rows = [[f"first {count(k)}", name, *_cells(exposures[name][k])] for k in cutoffs for name in exposures]
    k = cutoffs[0]
    return section(
        "coverage",
        "The catalogue in the lists",
        figures(figure(f"Who gets the places in the first {k}", _lorenz(facts, k), [*exposures, "targets"])),
        table(f"Lists of {count(facts.test['model'].users)} test users", header, rows, text_columns=2),
        notes(
            "shown: share of the catalogue that is in at least one list. Gini: 0 where every item is shown equally "
            "often, near 1 where a few fill the lists. novelty: mean self-information of what is shown, in bits. The "
            "curve gives the share of all places that the most shown items fill; the thin line is an even share. "
            "targets: the held-out items."
        ),
    )


def _cells(exposure: Exposure) -> list[str]:
    return [percent(share_shown(exposure)), decimal(gini(exposure), 3), decimal(novelty(exposure), 2)]


def _lorenz(facts: RunFacts, k: int) -> str:
    share = Scale(0, 1, [(0.0, "0"), (0.25, "25 %"), (0.5, "50 %"), (0.75, "75 %"), (1.0, "100 %")])
    title = f"Share of places over share of items, first {k}"
    plot = Plot(title, share, share, "share of items, the most shown first", "share of places")
    plot.line("even", [(0, 0), (1, 1)])
    for name, report in facts.test.items():
        if report.details is not None and k in report.details.exposure:
            plot.line(name, cumulative(report.details.exposure[k].shown))
    targets = facts.test["model"].details
    if targets is not None:
        plot.line("targets", cumulative(np.bincount(targets.items, minlength=len(facts.popularity))))
    return plot.svg()


def cumulative(times: np.ndarray) -> list[tuple[float, float]]:
    """The share of all that the greatest share of numbers holds.

    Args:
        times: int64 ``[I]``, from 0, not all 0.

    Example:
        >>> cumulative(np.array([0, 3, 1]))
        [(0.0, 0.0), (0.3333333333333333, 0.75), (0.6666666666666666, 1.0), (1.0, 1.0)]
    """
    ordered = np.sort(times)[::-1].astype(np.float64)
    total = ordered.sum()
    if total == 0:
        return []
    sums = np.concatenate([[0.0], np.cumsum(ordered) / total])
    places = np.unique(np.round(np.linspace(0, 1, _POINTS + 1) ** 2 * len(times)).astype(int))
    return [(float(place / len(times)), float(sums[place])) for place in places]
