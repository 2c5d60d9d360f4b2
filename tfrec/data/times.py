"""Times of events: numbers as they are, dates as microseconds since 1970 (UTC where no zone is written)."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec.data.columns import NUMBER, Texts, is_text, numpy_of
from tfrec.data.problems import DROP, Problem, either
from tfrec.errors import InputError

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
_DAYS = (
    "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%m/%d/%y", "%d/%m/%y", "%d.%m.%Y", "%m.%d.%Y", "%d.%m.%y", "%d-%m-%Y",
    "%m-%d-%Y",     "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%d-%b-%y", "%Y.%m.%d",
)  # fmt: skip
_CLOCKS = ("", "%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p")
_OTHERS = ("%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %Y")
#: What is tried where dates are not ISO 8601, to name it in the message.
FORMATS = (
    *(f"{day}{gap}{clock}" for day in _DAYS for clock in _CLOCKS for gap in ((" ", "T", ", ") if clock else ("",))),
    *_OTHERS,
)
_SAMPLE = 1_000


def read_times(name: str, column: pa.ChunkedArray, time_format: str | None) -> tuple[np.ndarray, list[Problem]]:
    """int64 ``[N]``: whole numbers as they are; dates, and numbers with a fraction (seconds), in microseconds.

    Dates as text are ISO 8601 (``2024-12-31``, ``2024-12-31 23:59:59.5+01:00``) or as ``time_format`` says.

    Args:
        name: of the column, for messages.
        column: of any type.
        time_format: of dates as text, as for ``datetime.strptime``; None: ISO 8601.

    Raises:
        InputError: a column that cannot hold times.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if is_text(kind):
        usual = _usual(column) if time_format is None else _usual_format(column, time_format)
        if usual is not None:
            return usual, []
        texts = Texts.of(column)
        return _text_times(name, texts) if time_format is None else _formatted(name, texts, time_format)
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, kind)
    missing = numpy_of(pc.is_null(column))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        # Finer than a microsecond is cut off.
        micro = pc.cast(pc.cast(column, pa.timestamp("us", getattr(kind, "tz", None)), safe=False), pa.int64())
        values, bad = numpy_of(pc.fill_null(micro, 0)), missing
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values, bad = _of_floats(numpy_of(pc.fill_null(pc.cast(column, pa.float64()), np.nan)))
    elif pa.types.is_integer(kind):
        raw = numpy_of(pc.fill_null(column, 0))
        bad = missing | (raw > np.iinfo(np.int64).max)
        values = np.where(bad, 0, raw).astype(np.int64)
    else:
        raise InputError(
            f"Column `{name}` must hold times: numbers or dates.\nReceived: {kind}.\nName another column, or none."
        )
    if not bad.any():
        return values, []
    row = int(np.flatnonzero(bad)[0])
    return values, [_bad_time(name, "nothing" if missing[row] else repr(column[row].as_py()), bad)]


def _usual(column: pa.ChunkedArray) -> np.ndarray | None:
    """The times of a column of text in which every one is a whole number, or every one a date; else None.

    As a whole, without looking for equal ones: times are nearly all different.
    """
    for kind in (pa.int64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            found = pc.cast(column.slice(0, 1_000), kind)  # most that do not fit show here
            found = pc.cast(pc.cast(column, kind), pa.int64())
        except pa.ArrowInvalid:
            continue
        return None if found.null_count else numpy_of(found)
    return None


#: What Arrow's parser lacks or reads otherwise than Python's: fractions of a second, zones, AM and PM, short years.
_SLOW = ("%f", "%z", "%Z", "%p", "%y")


def _usual_format(column: pa.ChunkedArray, time_format: str) -> np.ndarray | None:
    """The times of a column of text where Arrow reads every one by ``time_format``; else None."""
    _check_format(time_format)
    if any(part in time_format for part in _SLOW):
        return None
    try:
        plain = pc.cast(column, pa.string())
        return numpy_of(pc.cast(pc.strptime(plain, format=time_format, unit="us"), pa.int64()))
    except pa.ArrowInvalid:
        return None


def _of_floats(seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(seconds) < 2**63 / 1e6)
    # Microseconds, as for dates: the fraction of a second orders events too.
    return np.round(np.where(bad, 0, seconds) * 1e6).astype(np.int64), bad


def _bad_time(name: str, shown: str, bad: np.ndarray, expected: str = "a number up to 9.2e12, or a date") -> Problem:
    return Problem(
        f"the time must be {expected}",
        shown,
        f"Correct or remove the row, name another column for the time (now `{name}`), or leave such rows out: "
        f"{either(dict(DROP))}.",
        DROP,
        bad,
        "with a time that is none",
    )


def _text_times(name: str, texts: Texts) -> tuple[np.ndarray, list[Problem]]:
    different = texts.texts
    numeric = pc.match_substring_regex(different, NUMBER)
    share = (pc.sum(numeric).as_py() or 0) / max(len(different), 1)
    if share >= 0.5:
        numbers = pc.if_else(numeric, pc.replace_substring_regex(different, r"^\+", ""), "0")
        ok = numpy_of(numeric).astype(bool)
        try:
            found, wrong = numpy_of(pc.cast(numbers, pa.int64())), ~ok
        except pa.ArrowInvalid:
            found, wrong = _of_floats(numpy_of(pc.cast(numbers, pa.float64())))
            wrong |= ~ok
        expected = "a number up to 9.2e12, as the others are"
    else:
        found, wrong = _iso(different)
        if len(different) and wrong.mean() > 0.5:
            return np.zeros(len(texts.index), np.int64), [_other_format(name, different, wrong)]
        expected = "a date that exists, written as 2024-12-31 or 2024-12-31 23:59:59"
    return _spread(name, texts, found, wrong, expected)


def _spread(
    name: str, texts: Texts, found: np.ndarray, wrong: np.ndarray, expected: str
) -> tuple[np.ndarray, list[Problem]]:
    bad = np.append(wrong, True)[texts.index]
    values = np.append(found, 0)[texts.index]
    return values, ([_bad_time(name, texts.first(bad), bad, expected)] if bad.any() else [])


def _iso(different: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds of each text, and which are no date in ISO 8601."""
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            found = pc.cast(pc.cast(different, kind), pa.int64())
            return numpy_of(found), np.zeros(len(different), bool)
        except pa.ArrowInvalid:
            continue
    return _each(different, datetime.datetime.fromisoformat)


def _each(different: pa.Array, parse: Any) -> tuple[np.ndarray, np.ndarray]:
    found, wrong = np.zeros(len(different), np.int64), np.zeros(len(different), bool)
    for place, text in enumerate(different.to_pylist()):
        try:
            moment = parse(text)
            found[place] = ((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)) - _EPOCH) // _MICROSECOND
        except (ValueError, OverflowError):
            wrong[place] = True
    return found, wrong


def _formatted(name: str, texts: Texts, time_format: str) -> tuple[np.ndarray, list[Problem]]:
    fast = pc.strptime(texts.texts, format=time_format, unit="us", error_is_null=True)
    found = numpy_of(pc.fill_null(pc.cast(fast, pa.int64()), 0)).copy()
    wrong = numpy_of(pc.is_null(fast)).copy()
    slow = np.arange(len(wrong)) if any(part in time_format for part in _SLOW) else np.flatnonzero(wrong)
    found[slow], wrong[slow] = _each(
        texts.texts.take(pa.array(slow)), lambda t: datetime.datetime.strptime(t, time_format)
    )
    return _spread(name, texts, found, wrong, f"a date in the format {time_format!r}")


def _check_format(time_format: str) -> None:
    try:
        shown = datetime.datetime(2024, 12, 31, tzinfo=datetime.UTC).strftime(time_format)
        datetime.datetime.strptime(shown, time_format)
    except ValueError as error:
        raise InputError(
            f"`time_format` must be one of datetime.strptime, e.g. '%m/%d/%Y %H:%M'.\n"
            f"Received: {time_format!r} ({error})."
        ) from error


def _other_format(name: str, different: pa.Array, wrong: np.ndarray) -> Problem:
    """The problem of dates that are not ISO 8601; it names the formats that fit."""
    places = np.flatnonzero(wrong)
    step = max(1, len(places) // _SAMPLE)
    sample = different.take(pa.array(places[::step])).to_pylist()
    fitting = [f for f in FORMATS if _fits(sample, f)]
    if not fitting:
        advice = "Say how they are written, as datetime.strptime takes it, e.g. " + either({"time_format": "%d.%m.%Y"})
        options: Any = (("time_format", "FORMAT"),)
    elif len(fitting) == 1:
        advice = "Say how they are written: " + either({"time_format": fitting[0]})
        options = (("time_format", fitting[0]),)
    else:
        named = " or ".join(command_words(f) for f in fitting[:4])
        advice = f"They can be read in {len(fitting)} ways, and none is guessed. Say which, on the command line {named}"
        options = (("time_format", fitting[0]),)
    return Problem(
        f"column `{name}` must hold times: numbers, or dates as 2024-12-31 or 2024-12-31 23:59:59",
        repr(sample[0]),
        advice + ".",
        options,
    )


def command_words(time_format: str) -> str:
    """The option as it is typed."""
    return f"--data.time-format '{time_format}'"


def _fits(sample: list[str], time_format: str) -> bool:
    """Whether nearly all of the sample can be read so."""
    allowed = len(sample) // 20
    for text in sample:
        try:
            datetime.datetime.strptime(text, time_format)
        except ValueError:
            allowed -= 1
            if allowed < 0:
                return False
    return True
