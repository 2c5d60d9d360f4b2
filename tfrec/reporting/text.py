"""Numbers and other people's text, as HTML."""

from __future__ import annotations

import html
import math

from tfrec.printing import printable

#: Characters of a title or id that are shown; a page stays readable, and small.
_LONGEST = 160


def escaped(text: object) -> str:
    """Text as HTML, for content and for attributes in quotes."""
    return html.escape(str(text), quote=True)


def foreign(text: object) -> str:
    """A title or an id from another person's file, as HTML: it cannot become markup, run, or turn the text around it.

    Invisible characters (control characters, marks of direction, halves of characters) show as an escape. Long text is
    cut.
    """
    return f"<bdi>{plain(text)}</bdi>"


def plain(text: object) -> str:
    """The same where no element may stand, such as the page's title."""
    shown = printable(str(text)[: 2 * _LONGEST])
    if len(shown) > _LONGEST:
        shown = shown[: _LONGEST - 1] + "…"
    return escaped(shown)


def count(number: int) -> str:
    """A whole number, with commas."""
    return f"{int(number):,}"


def counted(number: int, thing: str) -> str:
    """How many of a thing.

    Example:
        >>> counted(1, "item"), counted(2_000, "item")
        ('1 item', '2,000 items')
    """
    return f"{count(number)} {thing}" if number == 1 else f"{count(number)} {thing}s"


def decimal(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """A number with fixed digits; a dash for none. The sign is a real minus."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def exact(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """The same as HTML that keeps all digits for whoever copies it from the source."""
    if value is None or not math.isfinite(value):
        return "–"
    return f'<data value="{value!r}">{decimal(value, digits, sign)}</data>'


def percent(share: float | None, digits: int = 1) -> str:
    """A share as per cent; a dash for none. Less than the last digit shows as such, not as nothing."""
    if share is None or not math.isfinite(share):
        return "–"
    if 0 < share < 0.5 * 10 ** -(digits + 2):
        return f"<{10**-digits:.{digits}f} %"
    return f"{100 * share:.{digits}f} %"


def significant(value: float) -> str:
    """About three digits: 0.0123, 12.3, 1,230, 2.1e-05."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size > 14:
        return f"{value:.2g}".replace("-", "−", 1) if value < 0 else f"{value:.2g}"
    return f"{value:,.{max(0, 2 - size)}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds in the units that people read."""
    if seconds < 0.95:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
