"""Compare finished runs on the users of their test: tfrec compare RUN RUN ..."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tfrec import commands
from tfrec.errors import InputError
from tfrec.printing import printable


@dataclass(frozen=True)
class Arguments:
    """Compare finished runs of one split: a table of test metrics, and whether their differences could be chance.

    The others are compared with the best run, user by user: the mean difference with its 95 % bootstrap interval, and
    the p-value of a paired sign-flip test, corrected by Holm for the number of runs. It covers what other users would
    have given, not what other seeds would; and a best run picked here leads on average a little less than it seems.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs, two or more."""
    baseline: Path | None = None
    """Compare with this one of them. Default: the best by the first metric."""
    metrics: tuple[str, ...] = ()
    """What to compare by. Default: all that the runs have in common, first what they monitored."""
    samples: int = 10_000
    """Bootstrap samples, and sign flips."""
    seed: int = 0
    """Of both."""
    json: Path | None = None
    """Write all numbers here, as JSON."""
    csv: Path | None = None
    """Write a line for each run and metric here, as CSV."""
    picture: Path | None = None
    """Draw the differences with their intervals here, as PNG."""


def compare(arguments: Arguments) -> None:
    """Read, compare, print."""
    from tfrec.runs.comparison import compare_runs
    from tfrec.runs.comparison_shown import as_text, write_csv, write_json, write_picture

    writers = ((arguments.json, write_json), (arguments.csv, write_csv), (arguments.picture, write_picture))
    check_files(arguments)
    found = compare_runs(
        arguments.runs, arguments.baseline, arguments.metrics, samples=arguments.samples, seed=arguments.seed
    )
    print(as_text(found))
    for path, write in writers:
        if path is not None:
            write(path, found)
            print(f"Wrote {printable(path)}")


def check_files(arguments: Arguments) -> None:
    """Raise InputError unless the files that are asked for can be written, before anything is computed."""
    from tfrec.data.files import check_file

    paths = [path for path in (arguments.json, arguments.csv, arguments.picture) if path is not None]
    runs = {os.path.realpath(run) for run in arguments.runs}
    for path in paths:
        check_file(path)
        if os.path.dirname(os.path.realpath(path)) in runs:
            raise InputError(f"{printable(path)} is in the folder of a run.\nName a file elsewhere.")
    if arguments.picture is not None and arguments.picture.suffix.lower() != ".png":
        raise InputError(f"The picture is a PNG.\nReceived: {printable(arguments.picture)}.\nName it .png.")
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(
            f"Two results cannot be written to one file.\nReceived: {', '.join(map(printable, paths))}.\n"
            "Name a file for each."
        )


def main() -> None:
    """The command."""
    arguments = commands.arguments(Arguments, "compare")
    commands.run(lambda: compare(arguments))


if __name__ == "__main__":
    main()
