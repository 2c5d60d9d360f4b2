"""Draws docs/images/rooms.svg from the layers in pyproject.toml: python docs/site/rooms.py"""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
#: First room of a group, from the top -> title and colour. A group ends where the next begins.
GROUPS = {
    "__main__": ("Commands", "#c5cae9"),
    "deriving": ("From settings to a run", "#b3e5fc"),
    "families": ("Families and tasks", "#b2dfdb"),
    "commands": ("Runs, names, tables", "#dcedc8"),
    "serving": ("Serving and evaluation", "#fff9c4"),
    "quantization": ("Models", "#ffe0b2"),
    "layers": ("Parts", "#f8bbd0"),
}
_WIDTH, _LEFT, _ROW, _HEIGHT, _GAP = 800, 190, 34, 24, 6


def layers() -> list[list[str]]:
    """The rooms from top to bottom; those of a line do not import each other."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    lines = next(c["layers"] for c in contracts if c["type"] == "layers")
    return [[room.strip().removeprefix("tfrec.") for room in line.split(":")] for line in lines]


def draw() -> str:
    """The picture, as SVG."""
    shapes: list[str] = []
    top, title, colour = 10, "", ""
    for rooms in layers():
        if rooms[0] in GROUPS:
            title, colour = GROUPS[rooms[0]]
            top += 8
            shapes.append(f'<text x="10" y="{top + 16}" class="title">{title}</text>')
        # Names that do not fit one line go on in the next.
        left = _LEFT
        for room in rooms:
            width = 16 + round(7.3 * len(room))
            if left + width > _WIDTH - 10:
                left, top = _LEFT, top + _HEIGHT + 4
            shapes.append(f'<rect x="{left}" y="{top}" width="{width}" height="{_HEIGHT}" rx="4" fill="{colour}"/>')
            shapes.append(f'<text x="{left + width / 2:g}" y="{top + 16}" text-anchor="middle">{room}</text>')
            left += width + _GAP
        top += _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" role="img" '
        'aria-label="Rooms of tfrec from top to bottom; imports point down only">\n'
        "<style>text{font:12px monospace;fill:#222}.title{font:bold 12px sans-serif}</style>\n"
        f'<rect width="{_WIDTH}" height="{top}" fill="#ffffff" rx="6"/>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(), encoding="utf-8")
    print(f"Wrote {PICTURE.relative_to(ROOT)}")
