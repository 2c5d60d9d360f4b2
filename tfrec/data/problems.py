"""What is wrong with a table, collected, so that all of it is reported together, with the options that get past it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfrec.errors import InputError

#: A Python keyword argument and its value.
Option = tuple[str, Any]
#: Gets past rows that cannot be read.
DROP: tuple[Option, ...] = (("bad_rows", "drop"),)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        what: what is wrong, and what was expected.
        received: the first value that is wrong, as it is shown.
        fix: how to get past it.
        options: that get past it, for `Interactions.from_table`; none where the file must be corrected.
        bad: bool ``[N]``, the rows concerned; None where it concerns the whole column or file.
        reason: of leaving these rows out, for the account; None where that is not possible.
        place: of the first, where ``bad`` does not give it.
    """

    what: str
    received: str | None
    fix: str
    options: tuple[Option, ...] = ()
    bad: np.ndarray | None = field(default=None, repr=False)
    reason: str | None = None
    place: str | None = None

    def text(self, where: Callable[[int], str]) -> str:
        """The message without its fix.

        Args:
            where: the name of a row's place.
        """
        place, more = self.place, ""
        if self.bad is not None:
            rows = np.flatnonzero(self.bad)
            place = where(int(rows[0]))
            more = f" ({len(rows):,} such rows)" if len(rows) > 1 else ""
        text = f"{place}: {self.what}" if place else self.what
        return text if self.received is None else f"{text}.\nReceived: {self.received}{more}"


def raise_problems(problems: Sequence[Problem], where: Callable[[int], str], path: Any) -> None:
    """Raise one InputError that has all of ``problems`` and the options that get past them."""
    if len(problems) == 1:
        only = problems[0]
        text = only.text(where)
        raise InputError(f"{text}.\n{only.fix}" if str(path) in text else f"{path}: {text}.\n{only.fix}")
    options: dict[str, Any] = {}
    for problem in problems:
        for name, value in problem.options:
            options.setdefault(name, value)
    lines = [f"{path}: {len(problems)} problems."]
    for number, problem in enumerate(problems, start=1):
        lines.append(f"{number}. " + problem.text(where).replace("\n", "\n   ") + f".\n   {problem.fix}")
    if options:
        lines.append("These options read the file: " + command_line(options) + f" (in Python: {keywords(options)})")
        if any(not problem.options for problem in problems):
            lines[-1] = "Correct what has no option; for the rest: " + lines[-1].removeprefix(
                "These options read the file: "
            )
    raise InputError("\n".join(lines))


def keywords(options: dict[str, Any]) -> str:
    """The options as Python arguments."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def command_line(options: dict[str, Any]) -> str:
    """The options as they are typed."""
    words = []
    for name, value in options.items():
        words.append(f"--data.{name.replace('_', '-')}")
        if value is not True:
            text = str(value)
            words.append(f"'{text}'" if set(text) & set(" %|;&$,<>()") else text)
    return " ".join(words)


def either(options: dict[str, Any]) -> str:
    """The options in both spellings, for a sentence."""
    return f"{keywords(options)}, on the command line {command_line(options)}"
