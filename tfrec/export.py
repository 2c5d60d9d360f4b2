"""Export a finished run as a SavedModel: python -m tfrec.export RUN OUT"""

from __future__ import annotations

import sys
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
    """Take and give the data's own item ids; --no-raw-ids: item numbers from 0."""


def run_export(arguments: Arguments) -> None:
    """Load and write."""
    commands.quiet_tensorflow()
    from tfrec.data.files import check_new_folder
    from tfrec.serving import export
    from tfrec.training.load_run import load_recommender, load_vocabulary
    from tfrec.training.run_folder import RunFolder

    folder = RunFolder.existing(arguments.run)
    check_new_folder(arguments.out)
    vocabulary = load_vocabulary(folder)
    recommender = load_recommender(folder, vocabulary, arguments.raw_ids)
    path = export(recommender, arguments.out)
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    print(
        f"Wrote a SavedModel of {len(vocabulary.item_ids):,} items to {printable(path)} ({size / 2**20:.1f} MiB).\n"
        + _signatures(vocabulary.user_ids is not None, "raw " if arguments.raw_ids else "")
    )


def _signatures(by_user: bool, raw: str) -> str:
    if by_user:
        return (
            f"Signature serving_default: user_ids {raw}[B], k -> ids [B, k], scores [B, k], counts [B], known [B].\n"
            f"Signature score: user_ids {raw}[B], item_ids {raw}[B, C] -> scores [B, C], known [B, C]."
        )
    return (
        f"Signature serving_default: item_ids {raw}[N], row_splits [B + 1], k -> ids [B, k], scores [B, k], counts [B]."
    )


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, prog="python -m tfrec.export", args=sys.argv[1:])
    commands.run(lambda: run_export(arguments))


if __name__ == "__main__":
    main()
