"""The tables of docs/reference/commands.md, made from the commands themselves, so that they stay true."""

from __future__ import annotations

import html
import importlib
import re
import warnings
from collections.abc import Iterable
from typing import Any

PAGE = "reference/commands.md"
MARK = "<!-- options of every command -->"
_DEFAULT = re.compile(r"\s*\((?:default: (?P<value>.*)|(?P<required>required))\)$", re.DOTALL)
#: Sections of a recipe's options in the order in which people need them, with a title.
_SECTIONS = {
    "": "Run",
    "data": "Data and split",
    "evaluation": "Evaluation",
    "data.synthetic": "Generated data",
    "data.catalog": "Generated catalogue",
}


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put the tables where the page asks for them."""
    return markdown.replace(MARK, commands()) if page.file.src_uri == PAGE else markdown


def commands() -> str:
    """A section for each command."""
    from tfrec.__main__ import COMMANDS

    return "\n".join(
        f"## tfrec {name}\n\n{about[0].upper()}{about[1:]}.\n\n{_train() if name == 'train' else _one(name)}"
        for name, about in COMMANDS.items()
    )


def _one(name: str) -> str:
    """The options of a command that is one dataclass."""
    module = importlib.import_module("tfrec.benchmark.__main__" if name == "benchmark" else f"tfrec.{name}")
    if not hasattr(module, "Arguments"):
        return f"`tfrec {name} --help` prints its options.\n"
    return _table(_rows(module.Arguments))


def _train() -> str:
    """What all recipes have in common, once; then what each family has of its own, with the defaults of its recipe."""
    from tfrec.families import FAMILIES, RECIPES

    recipes = [f"| `{name}` | {_cell((make.__doc__ or '').strip())} |" for name, make in RECIPES.items()]
    parts = ["### Recipes\n", "| recipe | trains |\n|---|---|\n" + "\n".join(recipes) + "\n"]
    of_family = {}
    for name, family in FAMILIES.items():
        config = family.recipes[name]()
        of_family[name] = _rows(type(config), config)
    first = next(iter(of_family.values()))
    common = {flag for flag in first if all(flag in rows for rows in of_family.values())}
    for flag in common:
        flags, values, default, text = first[flag]
        if any(rows[flag][2] != default for rows in of_family.values()):
            first[flag] = (flags, values, "by recipe", text)
    parts.append("Options of every recipe. `tfrec train RECIPE --help` prints the defaults that differ by recipe.\n")
    for section, title in _SECTIONS.items():
        rows = {
            f: row for f, row in first.items() if f in common and f.removeprefix("--").rpartition(".")[0] == section
        }
        parts.append(f"### {title}\n\n{_table(rows)}")
    parts.append("### Training\n\n" + _table({f: r for f, r in first.items() if f in common and "--training." in f}))
    for name, rows in of_family.items():
        own = {flag: row for flag, row in rows.items() if flag not in common}
        if own:
            parts.append(f"### Only {name}\n\nDefaults of the recipe `{name}`.\n\n{_table(own)}")
    return "\n".join(parts)


def _rows(arguments: type, default: Any = None) -> dict[str, tuple[str, str, str, str]]:
    """First flag -> flags, values, default and help, as ``--help`` has them."""
    import tyro

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the only way to the parser that prints --help
        parser = (
            tyro.extras.get_parser(arguments) if default is None else tyro.extras.get_parser(arguments, default=default)
        )
    rows = {}
    for action in parser._actions:
        if "--help" in action.option_strings:
            continue
        text = re.sub(r"\s+", " ", (action.help or "").replace("%%", "%")).strip()
        found = _DEFAULT.search(text)
        value = "required" if found and found["required"] else (found["value"] if found else "") or ""
        flags = action.option_strings or [action.dest]
        rows[flags[0]] = (
            " ".join(f"`{flag}`" for flag in flags), _values(action), "" if value == "None" else value,
            _DEFAULT.sub("", text),
        )  # fmt: skip
    return rows


def _values(action: Any) -> str:
    """What an option accepts: its choices, or kinds."""
    if action.choices:
        return " ".join(f"`{choice}`" for choice in action.choices)
    kinds = []
    for part in (action.metavar or "").replace("{None}", "").split("|"):
        words = part.strip("{}[] ").replace("[", "").split()
        if words and words[0] != "None":
            kinds.append(f"{words[0].lower()} ..." if "..." in part else words[0])
    return " or ".join(
        kind.lower() if kind.isupper() or "..." in kind else " ".join(f"`{choice}`" for choice in kind.split(","))
        for kind in kinds
    )


def _table(rows: dict[str, tuple[str, str, str, str]]) -> str:
    lines = ["| option | values | default | meaning |", "|---|---|---|---|"]
    for flags, values, default, text in rows.values():
        lines.append(f"| {flags} | {_cell(values)} | {_default(default)} | {_cell(text)} |")
    return "\n".join(lines) + "\n"


def _default(value: str) -> str:
    plain = {"True": "on", "False": "off", "by recipe": "by recipe", "required": "required", "": ""}
    return plain[value] if value in plain else f"`{_cell(value)}`"


def _cell(text: str) -> str:
    """Text as a cell of a table."""
    return _lines(part if code else html.escape(part, quote=False) for code, part in _split(text))


def _split(text: str) -> Iterable[tuple[bool, str]]:
    """Parts of a text, and whether each is code in backticks."""
    return ((number % 2 == 1, part) for number, part in enumerate(re.split(r"(`[^`]*`)", text)))


def _lines(parts: Iterable[str]) -> str:
    return " ".join("".join(parts).split()).replace("|", "\\|")
