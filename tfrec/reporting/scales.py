"""From numbers to places on an axis, and the round numbers that label it."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tfrec.reporting.text import count, significant


@dataclass(frozen=True)
class Scale:
    """An axis.

    Args:
        low, high: the ends, ``low < high``.
        ticks: (value, label) of what is written along it.
        log: logarithmic; both ends are then above 0.
    """

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, 0 at ``low`` and 1 at ``high``; values beyond are moved to the end."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return min(1.0, max(0.0, (value - low) / (high - low)))


def linear(low: float, high: float, label: Callable[[float], str] | None = None, most: int = 5) -> Scale:
    """An axis from ``low`` to ``high`` or a little beyond, so that it ends with round numbers.

    Args:
        low, high: finite; equal ones are moved apart.
        label: writes a tick.
        most: ticks between the ends, about.

    Example:
        >>> linear(0, 0.43).high, [text for _, text in linear(0, 0.43).ticks]
        (0.5, ['0', '0.1', '0.2', '0.3', '0.4', '0.5'])
    """
    if not high > low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    step = round_step((high - low) / most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    values = [round(i * step, digits) for i in range(first, last + 1)]
    write = label or (lambda value: _plain(value, digits))
    return Scale(values[0], values[-1], [(value, write(value)) for value in values])


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least ``least``.

    Example:
        >>> round_step(0.3), round_step(1.5), round_step(7)
        (0.5, 2.0, 10.0)
    """
    power = 10.0 ** math.floor(math.log10(least))
    return next(float(f"{m * power:.12g}") for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def logarithmic(low: float, high: float) -> Scale:
    """An axis over powers of ten; ``low`` above 0.

    Example:
        >>> [text for _, text in logarithmic(1, 3_000).ticks]
        ['1', '10', '100', '1,000']
    """
    high = max(high, 10 * low)
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, (last - first) // 5 + 1)
    ticks = [(10.0**p, significant(10.0**p) if p < 0 else count(10**p)) for p in range(first, last + 1, step)]
    return Scale(low, high, ticks, log=True)


#: Ticks per second of the units in which times since 1970 come, the finest last.
_UNITS = (1, 10**3, 10**6, 10**9)
#: Seconds of 1980 and 2100: numbers beyond are no dates in a unit.
_DATES = (315_532_800, 4_102_444_800)


def per_second(low: float, high: float) -> int | None:
    """In what unit both are moments from 1980 to 2100, as ticks per second; None: they are no dates.

    Example:
        >>> per_second(956_703_932, 1_046_454_590), per_second(0, 700)
        (1, None)
    """
    return next((unit for unit in _UNITS if _DATES[0] <= low / unit and high / unit <= _DATES[1]), None)


def dates(low: float, high: float, unit: int, most: int = 5) -> Scale:
    """An axis of moments, labelled by days, months or years.

    Args:
        low, high: moments, ``low <= high``.
        unit: ticks per second since 1970.
        most: labels, about.
    """
    begin, end = _moment(low, unit), _moment(max(high, low + unit), unit)
    days = (end - begin).total_seconds() / 86_400
    moments: list[datetime.datetime]
    if days > 365 * 1.8:
        years = int(max(1, round_step(days / 365 / most)))
        moments = [begin.replace(year=y, month=1, day=1) for y in range(begin.year, end.year + 1) if y % years == 0]
        form = "%Y"
    elif days > 45:
        months = next(m for m in (1, 2, 3, 6) if days / 30 / m <= most or m == 6)
        first = begin.year * 12
        moments = [
            begin.replace(year=n // 12, month=n % 12 + 1, day=1)
            for n in range(first, end.year * 12 + 13)
            if (n % 12) % months == 0
        ]
        form = "%b %Y"
    elif days > 2:
        step = math.ceil(days / most)
        moments = [begin + datetime.timedelta(days=d) for d in range(0, int(days) + 2, step)]
        form = "%b %-d"
    else:
        step_minutes = max(1, math.ceil(days * 24 * 60 / most / 15) * 15)
        moments = [begin + datetime.timedelta(minutes=m) for m in range(0, int(days * 1440) + 1, step_minutes)]
        return _dated(low, high, unit, moments, "%H:%M", whole_days=False)
    return _dated(low, high, unit, moments, form)


def _dated(
    low: float, high: float, unit: int, moments: Sequence[datetime.datetime], form: str, whole_days: bool = True
) -> Scale:
    ticks = []
    for moment in moments:
        at = moment.replace(hour=0, minute=0, second=0, microsecond=0) if whole_days else moment
        value = at.timestamp() * unit
        if low <= value <= high:
            ticks.append((value, at.strftime(form)))
    return Scale(low, max(high, low + unit), ticks)


def day(value: float, unit: int) -> str:
    """The date of a moment."""
    return _moment(value, unit).strftime("%Y-%m-%d")


def _moment(value: float, unit: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(value / unit, datetime.UTC)


def _plain(value: float, digits: int) -> str:
    if abs(value) >= 10_000 or digits == 0:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.{digits}f}".replace("-", "−") if value else "0"
