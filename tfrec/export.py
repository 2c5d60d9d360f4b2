"""Export a finished run as a SavedModel: tfrec export RUN OUT"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tfrec import commands
from tfrec.printing import printable


@dataclass(frozen=True)
class Arguments:
    """Export a finished run as a SavedModel that needs TensorFlow only."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    out: Annotated[Path, tyro.conf.Positional]
    """The new folder for the SavedModel. For TensorFlow Serving: MODEL_NAME/1."""
    raw_ids: bool = True
    """Accept and return the data's own ids; --no-raw-ids: item numbers from 0."""


def run_export(arguments: Arguments) -> None:
    """Load and write."""
    commands.quiet_tensorflow()
    from tfrec.data.files import check_new_folder
    from tfrec.fitting import load_recommender
    from tfrec.runs.folder import RunFolder

    folder = RunFolder.existing(arguments.run)
    check_new_folder(arguments.out)
    recommender = load_recommender(folder)
    path = recommender.export(arguments.out, raw_ids=arguments.raw_ids)
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    print(
        f"Wrote a SavedModel of {len(recommender.vocabulary.item_ids):,} items to {printable(path)} "
        f"({size / 2**20:.1f} MiB).\n{recommender.served(arguments.raw_ids).signature_text}"
    )


def main() -> None:
    """The command."""
    arguments = commands.arguments(Arguments, "export")
    commands.run(lambda: run_export(arguments))


if __name__ == "__main__":
    main()
