"""A chart as inline SVG: a frame with two axes, and marks in it. Colours and type are the page's, by class."""

from __future__ import annotations

from collections.abc import Sequence

from tfrec.reporting.scales import Scale
from tfrec.reporting.text import escaped

#: Units of a chart; on a phone about a pixel each, so that its text can be read there.
WIDTH, HEIGHT = 360, 228
_TOP, _RIGHT, _BOTTOM = 20, 14, 44
#: About the width of a character of the labels.
_CHARACTER = 7.2
#: Shapes of points, by series: colour alone must not tell them apart.
_SHAPES = {"model": "circle", "popularity": "square", "oracle": "triangle"}


class Plot:
    """A frame of two axes.

    Args:
        title: what it shows, for people who do not see it.
        x, y: the scales.
        x_label, y_label: what the axes are, with units.
        height: of the whole, in units.
        grid: lines across at the ticks of y; else at those of x.
    """

    def __init__(
        self,
        title: str,
        x: Scale,
        y: Scale,
        x_label: str,
        y_label: str,
        *,
        height: int = HEIGHT,
        grid: bool = True,
    ) -> None:
        self._title, self._x, self._y = title, x, y
        self._height, self._grid = height, grid
        self._labels = x_label, y_label
        widest = max((len(label) for _, label in y.ticks), default=0)
        self._left = round(min(WIDTH / 2, (20 if y_label else 4) + _CHARACTER * widest + 6))
        self._marks: list[str] = []

    def x(self, value: float) -> float:
        """Units from the left."""
        return self._left + self._x.place(value) * (WIDTH - self._left - _RIGHT)

    def y(self, value: float) -> float:
        """Units from the top."""
        return _TOP + (1 - self._y.place(value)) * (self._height - _TOP - _BOTTOM)

    def line(self, series: str, points: Sequence[tuple[float, float]]) -> None:
        """A line through points in data units."""
        if points:
            self._marks.append(f'<path class="line {series}" d="{path([(self.x(x), self.y(y)) for x, y in points])}"/>')

    def level(self, series: str, value: float) -> None:
        """A line across at a height."""
        y = _n(self.y(value))
        self._marks.append(f'<path class="line {series}" d="M{self._left} {y}H{WIDTH - _RIGHT}"/>')

    def point(self, series: str, x: float, y: float, tip: str, shift: float = 0.0, large: bool = False) -> None:
        """A point, with a text that shows when a mouse rests on it; ``shift`` is in units, downwards."""
        at_x, at_y, r = self.x(x), self.y(y) + shift, 5.0 if large else 3.5
        shape = _SHAPES.get(series, "circle")
        if shape == "circle":
            drawn = f'<circle cx="{_n(at_x)}" cy="{_n(at_y)}" r="{r}"'
        elif shape == "square":
            drawn = f'<rect x="{_n(at_x - r + 0.5)}" y="{_n(at_y - r + 0.5)}" width="{2 * r - 1}" height="{2 * r - 1}"'
        else:
            corners = [(at_x, at_y - r - 0.5), (at_x + r + 0.5, at_y + r), (at_x - r - 0.5, at_y + r)]
            drawn = f'<path d="{path(corners)}Z"'
        self._marks.append(f'{drawn} class="point {series}"><title>{escaped(tip)}</title></{drawn[1:].split()[0]}>')

    def whisker(
        self, series: str, at: float, low: float, high: float, *, across: bool = False, shift: float = 0
    ) -> None:
        """An interval from ``low`` to ``high``: upright at x ``at``, or ``across`` at y ``at``, moved by ``shift``."""
        if across:
            y = _n(self.y(at) + shift)
            d = f"M{_n(self.x(low))} {y}H{_n(self.x(high))}"
        else:
            x = _n(self.x(at) + shift)
            d = f"M{x} {_n(self.y(low))}V{_n(self.y(high))}"
        self._marks.append(f'<path class="whisker {series}" d="{d}"/>')

    def bar(self, low: float, high: float, value: float, tip: str) -> None:
        """A bar from x ``low`` to ``high``, as high as ``value``, with a text that shows when a mouse rests on it."""
        x, width = self.x(low), self.x(high) - self.x(low)
        y, foot = self.y(value), self.y(self._y.low)
        gap = min(1.0, width / 5)
        self._marks.append(
            f'<rect class="bar" x="{_n(x + gap / 2)}" y="{_n(y)}" width="{_n(width - gap)}" height="{_n(foot - y)}">'
            f"<title>{escaped(tip)}</title></rect>"
        )

    def upright(self, value: float, text: str) -> None:
        """A thin line over the whole height at x, with words above it."""
        x = self.x(value)
        anchor, dx = ("end", 3) if x > WIDTH * 0.6 else ("start", -3)
        self._marks.append(
            f'<path class="marker" d="M{_n(x)} {_TOP}V{self._height - _BOTTOM}"/>'
            f'<text x="{_n(x + dx)}" y="{_TOP - 7}" text-anchor="{anchor}">{escaped(text)}</text>'
        )

    def svg(self) -> str:
        """The chart."""
        frame: list[str] = []
        foot, end = self._height - _BOTTOM, WIDTH - _RIGHT
        for value, label in self._y.ticks:
            y = self.y(value)
            if self._grid:
                frame.append(f'<path class="grid" d="M{self._left} {_n(y)}H{end}"/>')
            frame.append(f'<text x="{self._left - 6}" y="{_n(y + 3.5)}" text-anchor="end">{escaped(label)}</text>')
        taken = 0.0
        for value, label in self._x.ticks:
            x, half = self.x(value), _CHARACTER * len(label) / 2
            if not self._grid:
                frame.append(f'<path class="grid" d="M{_n(x)} {_TOP}V{foot}"/>')
            middle = min(x, WIDTH - half)
            if middle - half >= taken:  # else it would run into the label before it
                frame.append(f'<text x="{_n(middle)}" y="{foot + 18}" text-anchor="middle">{escaped(label)}</text>')
                taken = middle + half + _CHARACTER
        x_label, y_label = self._labels
        frame.append(f'<path class="axis" d="M{self._left} {foot}H{end}"/>')
        frame.append(
            f'<text class="label" x="{end}" y="{self._height - 7}" text-anchor="end">{escaped(x_label)}</text>'
        )
        if y_label:
            frame.append(
                f'<text class="label" transform="translate(11 {_TOP}) rotate(-90)" text-anchor="end">'
                f"{escaped(y_label)}</text>"
            )
        return (
            f'<svg viewBox="0 0 {WIDTH} {self._height}" role="img" aria-label="{escaped(self._title)}">'
            f"{''.join(frame)}{''.join(self._marks)}</svg>"
        )


def path(points: Sequence[tuple[float, float]]) -> str:
    """The ``d`` of a line through points, in units; points that fall on the one before are left out.

    Example:
        >>> path([(0, 1), (2.04, 3), (2.04, 3), (5, 3)])
        'M0 1L2 3L5 3'
    """
    placed = [f"{_n(x)} {_n(y)}" for x, y in points]
    kept = [p for i, p in enumerate(placed) if i == 0 or p != placed[i - 1]]
    return "M" + "L".join(kept)


def _n(value: float) -> str:
    """A tenth of a unit is finer than the eye sees."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
