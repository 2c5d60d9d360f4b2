"""The report for people, rendered from the JSON file."""

from __future__ import annotations

from typing import Any

from gpu_parts.parts import Part
from gpu_parts.session import ON_GPU

_COPY = "copy"


def render(data: dict[str, Any], parts: list[Part]) -> str:
    """Markdown of a report's JSON."""
    mode, machine = data["mode"], data["machine"]
    cards = [f"{g['name']}, driver {g['driver']}" for g in machine["gpus"]]
    lines = ["# tfrec on a GPU", ""]
    if mode != ON_GPU:
        lines += [f"**Mode: {mode}. No figure here was measured on a GPU.**", ""]
    lines += [
        f"{'; '.join(cards) or 'No GPU'}. {machine['toolkit']}. TensorFlow {machine['tensorflow']}. "
        f"Python {machine['python']}, {machine['processor']}, {machine['cores']} cores.",
        "",
    ]
    lines += ["| part | status | seconds | commit | |", "|---|---|---|---|---|"]
    for part in parts:
        one = data["parts"].get(part.name)
        if one is None:
            lines.append(f"| {part.name} | not run yet | | | {part.what} |")
        else:
            said = one["reason"].splitlines()[0] if one["reason"] else part.what
            lines.append(
                f"| {part.name} | {one['status']} | {one['seconds']:.0f} | {one['commit']} | {_escaped(said)} |"
            )
    peaks = _peaks(data)
    for part in parts:
        one = data["parts"].get(part.name)
        if one is not None and (one["figures"] or one["rows"] or one["notes"] or "\n" in one["reason"]):
            lines += ["", f"## {part.name}", "", *_part(one, peaks, mode)]
    return "\n".join(lines) + "\n"


def _peaks(data: dict[str, Any]) -> dict[str, float]:
    """Name of a peak -> TFLOPS, and ``copy`` -> GB/s, as the part `peaks` measured them on this card."""
    raw = data["parts"].get("peaks", {}).get("raw", {})
    return dict(raw.get("peaks", {}))


def _part(one: dict[str, Any], peaks: dict[str, float], mode: str) -> list[str]:
    lines = []
    if "\n" in one["reason"]:
        lines += ["```", *one["reason"].splitlines(), "```", ""]
    lines += [f"- {name}: {_text(value)}" for name, value in one["figures"].items()]
    lines += [f"- {note}" for note in one["notes"]]
    if one["rows"]:
        lines += ["", *_table(one["rows"], peaks, "what" if mode == ON_GPU else f"what ({mode})")]
    return lines


def _table(rows: list[dict[str, Any]], peaks: dict[str, float], first: str) -> list[str]:
    """A table with the columns that some row has something for."""
    names = [first, "median (lowest-highest)", "TFLOPS", "share of peak", "GB/s", "share of bandwidth"]
    cells = [_cells(row, peaks) for row in rows]
    shown = [column for column in range(len(names)) if column < 2 or any(line[column] for line in cells)]
    lines = [[names[column] for column in shown], ["---"] * len(shown)]
    lines += [[_escaped(line[column]) for column in shown] for line in cells]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cells(row: dict[str, Any], peaks: dict[str, float]) -> list[str]:
    value = _number(row["value"])
    if "low" in row:
        value += f" ({_number(row['low'])}-{_number(row['high'])})"
    tflops, gbs = row.get("tflops"), row.get("gbs")
    peak, copy = peaks.get(row.get("peak", "")), peaks.get(_COPY)
    return [
        row["what"],
        f"{value} {row['unit']}".strip(),
        _number(tflops) if tflops is not None else "",
        f"{tflops / peak:.1%} of {row['peak']}" if tflops is not None and peak else "",
        _number(gbs) if gbs is not None else "",
        f"{gbs / copy:.1%}" if gbs is not None and copy else "",
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{k} {_text(v)}" for k, v in value.items())
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
