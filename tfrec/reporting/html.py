"""Pieces of a page. What they are given is HTML already, see `tfrec.reporting.text`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfrec.reporting.text import escaped


def section(name: str, title: str, *parts: str) -> str:
    """A section with a heading, that can be linked to as ``#name``; nothing where it has no parts."""
    body = "\n".join(part for part in parts if part)
    return f'<section id="{name}">\n<h2>{escaped(title)}</h2>\n{body}\n</section>' if body else ""


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text_columns: int = 1,
) -> str:
    """A table; the first column names the row.

    Args:
        caption: what it shows.
        header: of each column.
        rows: cells.
        text_columns: columns from the left that are words; the others are numbers, and stand to the right.
    """

    def cell(tag: str, content: str, column: int, scope: str = "") -> str:
        kind = "" if column < text_columns else ' class="n"'
        return f"<{tag}{scope}{kind}>{content}</{tag}>"

    head = "".join(cell("th", text, i, ' scope="col"') for i, text in enumerate(header))
    body = "".join(
        "<tr>"
        + "".join(cell("td" if i else "th", text, i, "" if i else ' scope="row"') for i, text in enumerate(row))
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escaped(caption)}"><table>'
        f"<caption>{escaped(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def figure(caption: str, chart: str, series: Sequence[str] = ()) -> str:
    """A chart with its caption and a key of its series."""
    keys = "".join(f"<li>{_key(name)}{escaped(name)}</li>" for name in series)
    legend = f'<ul class="key">{keys}</ul>' if len(series) > 1 else ""
    return f"<figure><figcaption>{escaped(caption)}</figcaption>{legend}{chart}</figure>"


def figures(*drawn: str) -> str:
    """Charts next to each other, below each other on a phone."""
    return f'<div class="figures">{"".join(drawn)}</div>' if any(drawn) else ""


def notes(*lines: str) -> str:
    """Small print below a figure or a table; lines are HTML."""
    return "".join(f'<p class="note">{line}</p>' for line in lines if line)


def folded(summary: str, *parts: str) -> str:
    """Parts that are hidden until they are opened."""
    return f"<details><summary>{escaped(summary)}</summary>\n{''.join(parts)}\n</details>"


def pairs(caption: str, values: Mapping[str, str]) -> str:
    """Names and values as a table; values are HTML."""
    return table(caption, ["name", "value"], [[escaped(k), v] for k, v in values.items()], text_columns=2)


def _key(series: str) -> str:
    shape = {
        "popularity": '<rect x="9.5" y="3" width="6" height="6" class="point popularity"/>',
        "oracle": '<path d="M12.5 2L16.5 9.5L8.5 9.5Z" class="point oracle"/>',
    }.get(series, f'<circle cx="12.5" cy="6" r="3.5" class="point {escaped(series)}"/>')
    return (
        '<svg class="swatch" viewBox="0 0 25 12" aria-hidden="true">'
        f'<path class="line {escaped(series)}" d="M0 6H25"/>{shape}</svg>'
    )
