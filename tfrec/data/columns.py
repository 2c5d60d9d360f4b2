"""Columns of a table as arrays: ids, values and titles. What cannot be converted is collected, not raised.

Text columns come dictionary-encoded, so that each different text is converted once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec.data.interactions import index_ids
from tfrec.data.problems import DROP, Problem, either
from tfrec.errors import InputError

_TEXT_IDS = (("text_ids", True),)
#: How programs write that there is no value. In a column of text ids these may be names, so they count only where all
#: other ids are numbers.
MISSING = ("NULL", "null", "None", "NaN", "nan", "NA", "N/A", "<NA>", "\\N", "#N/A", "None.0")
#: Text that is one whole number, written in the one usual way: not 007, not 0x7, not 1e3.
WHOLE = r"^(0|[1-9][0-9]{0,18})$"
_WHOLE_WITH_ZEROS = r"^(0|[1-9][0-9]{0,18})\.0+$"
_DIGITS = r"^[0-9]+$"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_TRUE = ("true", "t", "yes", "y")
_FALSE = ("false", "f", "no", "n")


def numpy_of(column: Any) -> np.ndarray:
    """A NumPy array of an Arrow column."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Texts:
    """A column of text: N rows, K different texts.

    Args:
        index: int32 ``[N]``, -1 where there is nothing.
        texts: Arrow string ``[K]``, blanks around them stripped, none empty.
    """

    index: np.ndarray
    texts: pa.Array

    @classmethod
    def of(cls, column: pa.ChunkedArray, strip: bool = True) -> Texts:
        """Encode a column of strings, plain or dictionary-encoded."""
        if not pa.types.is_dictionary(column.type):
            column = pc.dictionary_encode(column)
        encoded = column.unify_dictionaries().combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):  # a single chunk is left as it is
            encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], encoded.type)
        texts = pc.cast(encoded.dictionary, pa.large_string())
        index = numpy_of(pc.fill_null(pc.cast(encoded.indices, pa.int32()), -1))
        shown = pc.utf8_trim_whitespace(texts) if strip else texts
        missing = pc.fill_null(pc.equal(shown, ""), True)
        if pc.any(missing).as_py() or (strip and not shown.equals(texts)):
            again = pc.dictionary_encode(pc.if_else(missing, pa.scalar(None, pa.large_string()), shown))
            renumber = np.append(numpy_of(pc.fill_null(pc.cast(again.indices, pa.int32()), -1)), -1).astype(np.int32)
            index, shown = renumber[index], again.dictionary
        used = np.zeros(len(shown) + 1, bool)
        used[index] = True
        if not used[:-1].all():  # categories without rows, and those of rows that were left out
            renumber = np.append(np.cumsum(used[:-1]) - 1, -1).astype(np.int32)
            index, shown = renumber[index], shown.filter(pa.array(used[:-1]))
        return cls(index, shown)

    def rows(self, mask: Any) -> np.ndarray:
        """bool ``[N]`` of a mask over the texts; False where there is nothing."""
        return np.append(numpy_of(pc.fill_null(mask, False)), False)[self.index]

    def first(self, bad: np.ndarray) -> str:
        """The first text of these rows, as it is shown in a message."""
        found = self.index[int(np.flatnonzero(bad)[0])]
        return "nothing" if found < 0 else repr(self.texts[int(found)].as_py())


@dataclass(frozen=True)
class Ids:
    """A column of ids: numbers, or text.

    Args:
        problems: rows that have none, and others that cannot be an id.
        numbers: int64 ``[N]``, or None.
        texts: where they are text.
    """

    problems: list[Problem]
    numbers: np.ndarray | None
    texts: Texts | None

    def number(self) -> tuple[np.ndarray, np.ndarray]:
        """Number the ids in ascending order: int32 ``[N]``, and the ids."""
        if self.numbers is not None:
            return index_ids(self.numbers)
        assert self.texts is not None
        return number_texts(self.texts)


def number_texts(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Number texts, none of which is missing, in ascending order: int32 ``[N]``, and the texts ``[K]``."""
    # Ascending by UTF-8 bytes, which is by code point: the same order on every machine.
    order = numpy_of(pc.array_sort_indices(texts.texts))
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    ids = np.array([*pc.take(texts.texts, pa.array(order)).to_pylist(), None], dtype=object)[:-1]
    return rank[texts.index], ids


def read_ids(role: str, name: str, column: pa.ChunkedArray, text_ids: bool) -> Ids:
    """The ids of a column of whole numbers or text.

    Text is a number where every id is a whole number, written in the one usual way or followed by ``.0`` (as
    spreadsheets and pandas write whole numbers in a column with gaps); else every id is text, as it is written. A whole
    number that occurs in both spellings among text is not guessed.

    Args:
        role: user or item.
        name: of the column, for messages.
        column: of any type.
        text_ids: take all ids as text.

    Raises:
        InputError: a column that cannot hold ids.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_dictionary(column.type) and not is_text(kind):
        column = pc.cast(column, kind)
    if is_text(kind):
        return _text_ids(role, name, column, text_ids)
    if pa.types.is_decimal(kind):
        # As text they are exact, and 12.00 is read as a spreadsheet's 12.
        return _text_ids(role, name, pc.cast(column, pa.string()), text_ids)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InputError(
            f"Column `{name}` must hold ids: whole numbers or text.\nReceived: {kind}.\n"
            f"Name another column for the {role}."
        )
    problems = []
    missing = numpy_of(pc.is_null(column, nan_is_null=True))
    if missing.any():
        problems.append(_no_id(role, name, missing))
    if text_ids and pa.types.is_integer(kind):
        return Ids(problems, None, Texts.of(pc.cast(column, pa.string())))
    if pa.types.is_floating(kind):
        floats = numpy_of(pc.cast(column, pa.float64()))
        with np.errstate(invalid="ignore"):
            bad = ~missing & ~((floats == np.floor(floats)) & (np.abs(floats) < 2**53))
        values = np.where(missing | bad, 0, np.nan_to_num(floats)).astype(np.int64)
        if text_ids:
            return Ids(problems, None, Texts.of(pc.cast(pa.chunked_array([pa.array(values)]), pa.string())))
    else:
        raw = numpy_of(pc.fill_null(column, 0))
        bad = ~missing & (raw > np.iinfo(np.int64).max)
        values = np.where(bad, 0, raw).astype(np.int64)
    if bad.any():
        shown = repr(column[int(np.flatnonzero(bad)[0])].as_py())
        what = f"the {role} id must be a whole number from 0 to 2^53, or text"
        if not pa.types.is_floating(kind):
            what = f"the {role} id must be less than 2^63"
        problems.append(_bad_id(role, name, what, shown, bad))
    negative = values < 0
    if negative.any():
        shown = str(values[int(np.flatnonzero(negative)[0])])
        problems.append(_bad_id(role, name, f"the {role} id must not be negative", shown, negative, _TEXT_IDS))
    return Ids(problems, values, None)


def _no_id(role: str, name: str, bad: np.ndarray, received: str = "nothing") -> Problem:
    fix = f"Correct or remove the row, name another column for the {role} (now `{name}`), or leave such rows out: "
    return Problem(
        f"the {role} id is missing", received, fix + either(dict(DROP)) + ".", DROP, bad, f"without {role} id"
    )


def _bad_id(role: str, name: str, what: str, shown: str, bad: np.ndarray, options: Any = ()) -> Problem:
    fix = f"Correct or remove the row, name another column for the {role} (now `{name}`), "
    if options:
        fix += "take all ids as text (text_ids=True, --data.text-ids), "
    fix += f"or leave such rows out: {either(dict(DROP))}."
    return Problem(what, shown, fix, options or DROP, bad, f"with a {role} id that is none")


def _text_ids(role: str, name: str, column: pa.ChunkedArray, keep_text: bool) -> Ids:
    texts = Texts.of(column)
    missing = texts.index < 0
    if keep_text:
        return Ids([_no_id(role, name, missing)] if missing.any() else [], None, texts)
    different = texts.texts
    whole = pc.match_substring_regex(different, WHOLE)
    padded = pc.match_substring_regex(different, _WHOLE_WITH_ZEROS)
    marker = pc.is_in(different, pa.array(MISSING, different.type))
    usual = pc.or_(whole, padded)
    if pc.all(pc.or_(usual, marker)).as_py() and pc.any(usual).as_py():
        missing = missing | texts.rows(marker)
        problems = [_no_id(role, name, missing, texts.first(missing))] if missing.any() else []
        number = pc.replace_substring_regex(different, r"\.0+$", "") if pc.any(padded).as_py() else different
        try:
            values = numpy_of(pc.cast(pc.if_else(usual, number, "0"), pa.int64()))
        except pa.ArrowInvalid:
            return Ids(problems, None, texts)  # from 2^63 on a whole number is kept as text, exactly
        return Ids(problems, np.append(values, 0)[texts.index], None)
    problems = [_no_id(role, name, missing)] if missing.any() else []
    digits = pc.match_substring_regex(different, _DIGITS)
    numeric = pc.match_substring_regex(different, NUMBER)
    if pc.all(pc.or_(numeric, marker)).as_py():
        marked = texts.rows(marker)
        if marked.any():
            problems = [_no_id(role, name, missing | marked, texts.first(missing | marked))]
        # Digits with leading zeros are codes, and stay as they are; -3 and 1.5 are mistakes.
        negative = texts.rows(pc.and_(numeric, pc.starts_with(different, "-")))
        if negative.any():
            what = f"the {role} id must not be negative"
            problems.append(_bad_id(role, name, what, texts.first(negative), negative, _TEXT_IDS))
        other = texts.rows(pc.and_(numeric, pc.invert(pc.or_(digits, padded)))) & ~negative
        if other.any():
            what = f"the {role} id must be a whole number from 0, or text"
            problems.append(_bad_id(role, name, what, texts.first(other), other, _TEXT_IDS))
        if problems and any(p.reason != f"without {role} id" for p in problems):
            return Ids(problems, None, texts)
    # 12 and 12.0 among text: one id or two? That is not guessed.
    stems = pc.replace_substring_regex(different.filter(padded), r"\.0+$", "")
    twice = pc.and_(padded, pc.is_in(pc.replace_substring_regex(different, r"\.0+$", ""), different.filter(whole)))
    if len(stems) and pc.any(twice).as_py():
        bad = texts.rows(twice)
        shown = texts.first(bad)
        problems.append(
            Problem(
                f"the {role} id is written in two ways, with and without .0, among ids that are text",
                f"{shown}, and {shown.split('.')[0]}' elsewhere",
                f"Write column `{name}` in one way; or take each spelling as an id: {either(dict(_TEXT_IDS))}.",
                _TEXT_IDS,
                bad,
            )
        )
    return Ids(problems, None, texts)


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is one of text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def read_values(name: str, column: pa.ChunkedArray, decimal: str) -> tuple[np.ndarray, list[Problem]]:
    """float32 ``[N]`` of a column of numbers, text that is numbers, or true and false (1 and 0).

    Args:
        name: of the column, for messages.
        column: of any type.
        decimal: the sign before the fraction in text: a point or a comma.

    Raises:
        InputError: a column that cannot hold numbers.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if is_text(kind):
        return _text_values(name, Texts.of(column), decimal)
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, kind)
    if pa.types.is_decimal(kind):
        column = pc.cast(column, pa.float64())
    elif pa.types.is_boolean(kind):
        column = pc.cast(column, pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InputError(
            f"Column `{name}` must hold ratings or counts: numbers.\nReceived: {kind}.\n"
            "Name another column for the value."
        )
    values = numpy_of(pc.cast(pc.fill_null(column, 0), pa.float32(), safe=False))
    missing = numpy_of(pc.is_null(column))
    bad = missing | ~np.isfinite(values)
    if not bad.any():
        return values, []
    row = int(np.flatnonzero(bad)[0])
    shown = "nothing" if missing[row] else repr(column[row].as_py())
    return np.where(bad, 0, values), [_bad_value(name, shown, bad)]


def _bad_value(name: str, shown: str, bad: np.ndarray, hint: str = "", options: Any = DROP) -> Problem:
    is_number = shown == "nothing" or shown.strip("'+-").lower() in ("nan", "inf", "infinity")
    fix = (
        f"Correct or remove the row, name another column for the value (now `{name}`), {hint}or leave such rows "
        f"out: {either(dict(DROP))}."
    )
    return Problem(
        "the value must be a finite number" if is_number else f"column `{name}` must be a number",
        shown,
        fix,
        options,
        bad,
        "with a value that is no number",
    )


def _text_values(name: str, texts: Texts, decimal: str) -> tuple[np.ndarray, list[Problem]]:
    different = texts.texts
    lower = pc.utf8_lower(different)
    if len(different) and pc.all(pc.is_in(lower, pa.array([*_TRUE, *_FALSE], lower.type))).as_py():
        number = numpy_of(pc.is_in(lower, pa.array(_TRUE, lower.type))).astype(np.float32)
        ok = np.ones(len(number), bool)
    else:
        plain = different
        if decimal == ",":
            plain = pc.replace_substring(pc.replace_substring(different, ".", "?"), ",", ".")
        fits = pc.match_substring_regex(plain, NUMBER)
        signless = pc.replace_substring_regex(pc.if_else(fits, plain, "0"), r"^\+", "")
        # Through float64, as 3e38 and more digits than float32 has are rounded once.
        with np.errstate(over="ignore"):
            number = np.array([float(t) for t in signless.to_pylist()], np.float64).astype(np.float32)
        ok = numpy_of(fits).astype(bool) & np.isfinite(number)
    number = np.append(number, np.float32(0))
    values = number[texts.index]
    bad = ~np.append(ok, False)[texts.index]
    if not bad.any():
        return values, []
    hint, options = "", DROP
    wrong = different.filter(pa.array(~ok))
    if decimal == "." and len(wrong) and pc.all(pc.match_substring_regex(wrong, r"^[+-]?[0-9]+,[0-9]{1,2}$")).as_py():
        options = (("decimal", ","),)
        hint = f"say that a comma comes before the fraction ({either(dict(options))}), "
    return np.where(bad, np.float32(0), values), [_bad_value(name, texts.first(bad), bad, hint, options)]


def read_titles(column: pa.ChunkedArray, name: str, rows: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
    """The title of each item, that of its first row; where that is empty, the id as text.

    Args:
        column: of text or numbers.
        name: of the column, for messages.
        rows: int64 ``[I]``, the first row of each item.
        item_ids: ``[I]``.

    Raises:
        InputError: a column that cannot hold titles.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InputError(f"Column `{name}` must hold titles: text.\nReceived: {kind}.\nName another column.")
    chosen = pc.cast(pc.cast(column.take(pa.array(rows)), kind), pa.string()).to_pylist()
    return np.array([t if t and t.strip() else str(i) for t, i in zip(chosen, item_ids, strict=True)] + [None], object)[
        :-1
    ]
