"""Export a finished run as a SavedModel: tfrec export RUN OUT"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tfrec import commands
from tfrec.errors import InputError
from tfrec.printing import printable


@dataclass(frozen=True)
class Arguments:
    """Export a finished run as a SavedModel that needs TensorFlow only."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    out: Annotated[Path, tyro.conf.Positional]
    """The new folder for the SavedModel. For a server: NAME/1, or NAME with --version."""
    version: str | None = None
    """Write OUT/VERSION: a number, or `auto`, the one after the highest there."""
    keep: int | None = None
    """Afterwards remove all but this many of the highest versions."""
    guard: tuple[str, float] | None = None
    """A test metric and by which part it may be below that of the version served now, such as `ndcg@100 0.02`."""
    k: tuple[int, ...] = ()
    """Lengths of the lists of signatures top_K; the first is that of `recommend` (default 10)."""
    raw_ids: bool = True
    """Accept and return the data's own ids; --no-raw-ids: item numbers from 0."""


def run_export(arguments: Arguments) -> None:
    """Load and write."""
    commands.quiet_tensorflow()
    from tfrec.data.files import check_new_folder
    from tfrec.fitting import load_recommender
    from tfrec.runs.folder import RunFolder
    from tfrec.serving import signatures, versions

    a = arguments
    folder = RunFolder.existing(a.run)
    metrics = folder.read_metrics()["test"]["model"]
    out = _place(a)
    check_new_folder(out)
    if a.guard is not None:
        compared = versions.check_not_worse(out.parent, metrics, *a.guard)
        print(f"Guard: {compared}." if compared else "Guard: no earlier version to compare with.")
    recommender = load_recommender(folder)
    served = recommender.served(a.raw_ids, a.k)
    path = recommender.export(out, served=served, about={"run": a.run.name, "metrics": metrics})
    gone = [] if a.keep is None else versions.prune(out.parent, a.keep)
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    print(
        f"Wrote a SavedModel of {len(recommender.vocabulary.item_ids):,} items to {printable(path)} "
        f"({size / 2**20:.1f} MiB).\n{signatures.lines(served)}"
    )
    if gone:
        print(f"Removed {', '.join(printable(p) for p in gone)}; {a.keep} are kept.")


def _place(arguments: Arguments) -> Path:
    from tfrec.serving import versions

    version, out = arguments.version, arguments.out
    if version is None:
        if arguments.keep is not None or arguments.guard is not None:
            raise InputError(
                "--keep and --guard compare with the versions in OUT.\nReceived: no --version.\nAdd --version auto."
            )
        return out
    if version == "auto":
        return versions.next_version(out)
    if not (version.isascii() and version.isdigit()):
        raise InputError(f"--version must be a number or `auto`.\nReceived: {version!r}.")
    return out / version


def main() -> None:
    """The command."""
    arguments = commands.arguments(Arguments, "export")
    commands.run(lambda: run_export(arguments))


if __name__ == "__main__":
    main()
