"""What this run is, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfrec.reporting.facts import RunFacts
from tfrec.reporting.text import count, counted, duration, escaped, foreign


def opening(facts: RunFacts) -> str:
    """The title and the lead: recipe, data, split, when, how long, where."""
    m = facts.metrics
    data, split, report = m["data"], m["split"], m["data"]["report"]
    made = f" (family {escaped(m['family'])})" if m["family"] != m["recipe"] else ""
    what = (
        f"Recipe <strong>{escaped(m['recipe'])}</strong>{made} on <strong>{foreign(data['name'])}</strong>: "
        f"{count(report['kept'])} pairs kept of {count(report['rows'])} rows with {count(data['users'])} users and "
        f"{count(data['items'])} items. "
        f"Split {escaped(split['name'])}, which {escaped(facts.held_out)}."
    )
    where = f"Folder: <code>{foreign(facts.place)}</code>"
    if "made_from" in m:
        where += f", made from <code>{foreign(m['made_from'])}</code>"
    return (
        f"<header>\n<h1>{escaped(m['recipe'])} on {foreign(Path(data['name']).name)}</h1>\n"
        f'<p class="lead">{what}</p>\n<p class="lead">{_when(m)} {where}.</p>\n</header>'
    )


def _when(m: Mapping[str, Any]) -> str:
    hardware = m["hardware"]
    gpus = [str(gpu) for gpu in hardware.get("gpus", [])]
    machine = ", ".join([*gpus, f"{hardware['processor']}, {hardware['cores']} cores"])
    took = f" after {duration(m['seconds'])}" if "seconds" in m else ""
    return (
        f"Finished {escaped(m['finished'].replace('T', ' ').replace('+00:00', ''))} UTC{took}, "
        f"on {counted(hardware['ranks'], 'rank')}: {escaped(machine)}."
    )
