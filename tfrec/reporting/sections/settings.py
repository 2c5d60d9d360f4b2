"""Settings, versions and machine, folded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tfrec.reporting.facts import RunFacts
from tfrec.reporting.html import folded, pairs, section
from tfrec.reporting.text import foreign


def settings(facts: RunFacts) -> str:
    """All that makes the run again."""
    m = facts.metrics
    parts = {
        "Settings": dict(_flat(m["config"])),
        "Versions": dict(_flat(m["versions"])),
        "Machine": dict(_flat(m["hardware"])),
    }
    return section("settings", "How it was made", *(folded(name, pairs(name, found)) for name, found in parts.items()))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings with the sections before their names; values as HTML."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", foreign(", ".join(map(str, value)) or "–")
        else:
            yield f"{prefix}{name}", foreign("–" if value is None else value)
