"""Compress a finished run: tfrec compress RUN OUT --ranks 16 [--group 1] [--fine-tune 3]"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from tfrec import commands
from tfrec.families import CompressSettings, compressing


@dataclass(frozen=True)
class Arguments:
    """Replace the embedding tables of a finished run of NeuMF by tensor trains, and measure before and after."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder; it is not changed."""
    out: Annotated[Path, tyro.conf.Positional]
    """The new folder, a run with the compressed model: evaluate, recommend and export read it."""
    settings: Annotated[CompressSettings, tyro.conf.arg(name="")] = field(default_factory=CompressSettings)
    """Settings."""
    data_dir: Path | None = None
    """Folder with the data set, if it is not in $TFREC_DATA."""


def compress(arguments: Arguments) -> None:
    """Have it done."""
    commands.quiet_tensorflow()
    from tfrec.deriving import derive

    derive(arguments.run, arguments.out, lambda family: compressing(family, arguments.settings), arguments.data_dir)


def main() -> None:
    """The command."""
    arguments = commands.arguments(Arguments, "compress")
    commands.run(lambda: compress(arguments))


if __name__ == "__main__":
    main()
