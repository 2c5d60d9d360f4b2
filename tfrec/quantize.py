"""Quantize a finished run: tfrec quantize RUN [OUT] [--bits 8] [--preset best] ..."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from tfrec import commands
from tfrec.families import QuantizeSettings, quantizing


@dataclass(frozen=True)
class Arguments:
    """Quantize a finished run, and measure before and after.

    NeuMF becomes integers, calibrated on its training data. Of ALS and VAE-CF the item vectors become int8 with a scale
    per row. The result is a run again, for tfrec.evaluate, tfrec.recommend and tfrec.export."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder; it is not changed."""
    out: Annotated[Path | None, tyro.conf.Positional] = None
    """The new folder. Default: RUN-int8, RUN-int4 for 4 bits."""
    settings: Annotated[QuantizeSettings, tyro.conf.arg(name="")] = field(default_factory=QuantizeSettings)
    """Settings."""
    data_dir: Path | None = None
    """Folder with the data set, if it is not in $TFREC_DATA."""


def quantize(arguments: Arguments) -> None:
    """Have it done."""
    commands.quiet_tensorflow()
    from tfrec.deriving import derive

    # Without `..`, but the name of a link as it is given.
    source = Path(os.path.abspath(arguments.run))
    out = arguments.out or source.parent / f"{source.name}-int{arguments.settings.bits}"
    derive(arguments.run, out, lambda family: quantizing(family, arguments.settings), arguments.data_dir)


def main() -> None:
    """The command."""
    arguments = commands.arguments(Arguments, "quantize")
    commands.run(lambda: quantize(arguments))


if __name__ == "__main__":
    main()
