"""Find the columns of a table by their names."""

from __future__ import annotations

from pathlib import Path

from tfrec.errors import InputError


def check_columns(path: Path | str, columns: dict[str, str], present: list[str], by_line: bool) -> None:
    """Raise InputError unless every column exists, once; ``by_line``: the names are those of a first line."""
    if not any(present):
        raise InputError(f"{path} has no column names in its first line.\nWrite them there, e.g. user_id,item_id.")
    if by_line and _looks_like_data(columns, present):
        names = [f"column{number}" for number in range(1, len(present) + 1)]
        for role, place in zip(columns, range(len(names)), strict=False):
            names[place] = role
        raise InputError(
            f"{path}: the first line looks like data, not like column names.\n"
            f"Received: {', '.join(present)[:200]}.\n"
            "Name the columns in the order of the file, and use these names: column_names=[...], on the command line "
            "e.g. "
            f"--data.column-names {' '.join(names)} --data.user {names[0]}"
            + (f" --data.item {names[1]}" if len(names) > 1 else "")
        )
    twice = [column for column in columns.values() if present.count(column) > 1]
    if twice:
        raise InputError(
            f"{path} has column `{twice[0]}` more than once.\nReceived columns: {', '.join(present)}.\n"
            "Rename one of them."
        )
    missing = {role: column for role, column in columns.items() if column not in present}
    if missing:
        asked = ", ".join(f"`{column}` (for the {role})" for role, column in missing.items())
        role = next(iter(missing))
        raise InputError(
            f"{path} has no column {asked}.\nReceived columns: {', '.join(present)}.\n"
            f"Name the right one, e.g. {role}={present[0]!r}, on the command line --data.{role} {present[0]}."
        )


def _looks_like_data(columns: dict[str, str], present: list[str]) -> bool:
    """Whether column names are numbers or dates; 0, 1, 2 ... are what pandas calls columns without a name."""
    numbers = [str(number) for number in range(len(present))]
    if present in (numbers, [str(number + 1) for number in range(len(present))]):
        return False
    data = [_is_value(field) for field in present]
    asked = [column for column in columns.values() if column in present]
    if all(column in present for column in columns.values()):
        # They were named so; but columns of users and items are not called 196 and 242.
        return all(_is_value(column) for column in asked)
    return any(data)


def _is_value(field: str) -> bool:
    text = field.strip()
    try:
        float(text)
        return True
    except ValueError:
        return len(text) >= 8 and text[:4].isdigit() and text[4] in "-/" and text[5:7].strip("-/").isdigit()
