"""Recommend from a finished run: tfrec recommend RUN --user ada bob -k 10"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from tfrec import commands
from tfrec.errors import InputError
from tfrec.printing import printable

if TYPE_CHECKING:
    from tfrec.recommender import Recommender


@dataclass(frozen=True)
class Arguments:
    """Recommend items to users of the data, or to a new user by their items; or show similar items, or reasons."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    user: tuple[str, ...] = ()
    """Raw ids of users in the run's data."""
    users_from: Path | None = None
    """File with a raw id of a user on each line."""
    items: tuple[str, ...] = ()
    """Titles or raw ids of a new user's items."""
    similar_to: tuple[str, ...] = ()
    """Titles or raw ids of items; shows the items most similar to each."""
    explain: str | None = None
    """With one --user, or --items: title or raw id of an item; shows what each item of the history contributes."""
    write_recommendations: Path | None = None
    """Write the k best items of every user here: .parquet, .csv or .tsv with user, rank, item, title, score. Titles
    are written as they are, in quotes where the format needs it. A spreadsheet reads one that begins with = + - or @
    as a formula: import its column as text."""
    write_similar: Path | None = None
    """The same of the k most similar items of every item: item, title, rank, similar_item, similar_title, score."""
    exclude: tuple[str, ...] = ()
    """Titles or raw ids of items to leave out."""
    among: tuple[str, ...] = ()
    """Choose among these items only."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """How many items of each list."""


def recommend(arguments: Arguments) -> None:
    """Load, answer, print."""
    users = bool(arguments.user) + (arguments.users_from is not None)
    files = arguments.write_similar is not None or arguments.write_recommendations is not None
    given = users + bool(arguments.items) + bool(arguments.similar_to) + files
    if given != 1:
        raise InputError(
            f"Exactly one question must be asked.\nReceived: {given or 'none'}.\nGive --user ID [ID ...], --users-from "
            "FILE, --items TITLE [TITLE ...], --similar-to TITLE, or a file to write."
        )
    if arguments.explain is not None and not (len(arguments.user) == 1 or arguments.items):
        raise InputError(
            "--explain needs one --user, or --items.\nReceived: neither, or several users.\n"
            "Name one user, or the items of a new one."
        )
    commands.quiet_tensorflow()
    from tfrec.fitting import load_recommender
    from tfrec.runs.folder import RunFolder

    folder = RunFolder.existing(arguments.run)
    check_files(arguments, folder)
    names = read_users(arguments.users_from) if arguments.users_from is not None else list(arguments.user)
    recommender = load_recommender(folder)
    chosen: dict[str, Any] = {"exclude": arguments.exclude, "among": arguments.among or None}
    if files:
        for path, what in (
            (arguments.write_similar, "similar_items"), (arguments.write_recommendations, "recommendations")
        ):  # fmt: skip
            if path is not None:
                recommender.write(path, arguments.k, what=what, **chosen)
    elif arguments.explain is not None:
        show_reasons(recommender, arguments)
    elif arguments.similar_to:
        names = list(dict.fromkeys(arguments.similar_to))
        tables = [recommender.similar_items([name], arguments.k, **chosen).to_pylist() for name in names]
        for name, lines in zip(names, tables, strict=True):
            print(f"Similar to {printable(lines[0]['title'] if lines else name)}:")
            print_items(lines, "similar_", arguments.k)
    elif arguments.items:
        table = recommender.recommend_to([arguments.items], arguments.k, **chosen)
        print_items(table.to_pylist(), "", arguments.k)
    else:
        show_for_users(recommender, names, arguments.k, chosen)


def show_for_users(recommender: Recommender, names: list[str], k: int, chosen: dict[str, Any]) -> None:
    """Lists for users of the data, each after a line about the user's history.

    Raises:
        InputError: a user that the data does not have.
    """
    names = list(dict.fromkeys(names))
    described = [recommender.describe(name) for name in names]
    table = recommender.recommend(names, k, **chosen).to_pylist()
    for name, about in zip(names, described, strict=True):
        print(about)
        lines = [row for row in table if row["user"] == name]
        print_items(lines, "", k)


def show_reasons(recommender: Recommender, arguments: Arguments) -> None:
    """What each item of a history contributes to one."""
    who: Any = list(arguments.items) if arguments.items else arguments.user[0]
    found = recommender.explain(who, arguments.explain, arguments.k)
    print(f"{printable(found.title)}  [{printable(found.item)}]: score {found.score:.4f}, because of")
    for row in found.because.to_pylist():
        print(f"{row['contribution']:>+10.4f}  {printable(row['title'])}  [{printable(row['item'])}]")
    if found.because.num_rows == 0:
        print("nothing: no item of this history is known and liked.")


def print_items(lines: list[dict[str, Any]], prefix: str, k: int) -> None:
    """A line with rank, score, title and raw id of each item."""
    for row in lines:
        title, item = printable(row[f"{prefix}title"]), printable(row[f"{prefix}item"])
        print(f"{row['rank']:>4}  {row['score']:.4f}  {title}  [{item}]")
    if len(lines) < k:
        print(f"Only {len(lines)} item{'' if len(lines) == 1 else 's'} to recommend." if lines else "No item is left.")


def read_users(path: Path) -> list[str]:
    """Raw ids, one on each line; empty lines do not count.

    Raises:
        InputError: the file cannot be read, or has none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read: {error}.\nGive a text file in UTF-8 with an id on each line."
        ) from error
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise InputError(f"{path} has no user.\nWrite an id on each line.")
    return found


def check_files(arguments: Arguments, folder: Any) -> None:
    """Raise InputError unless the files that are asked for can be written, before anything is computed."""
    from tfrec.lists import check_lists_path

    paths = [p for p in (arguments.write_similar, arguments.write_recommendations) if p is not None]
    for path in paths:
        check_lists_path(path)
        folder.check_not_inside(path)
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(
            f"Two tables cannot be written to one file.\nReceived: {paths[0]} and {paths[1]}.\nName two files."
        )


def main() -> None:
    """The command."""
    arguments = commands.arguments(Arguments, "recommend")
    commands.run(lambda: recommend(arguments))


if __name__ == "__main__":
    main()
