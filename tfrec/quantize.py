"""Quantize a finished run: python -m tfrec.quantize RUN [OUT] [--weights 8] [--activations 8] ..."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from tfrec import commands
from tfrec.errors import InputError

if TYPE_CHECKING:
    from tfrec.quantization import QuantizationConfig


@dataclass(frozen=True)
class Arguments:
    """Quantize a finished run.

    NeuMF: calibrate on its training data, write the integer model, the statistics and a report; the result is a run
    folder again, for tfrec.evaluate, tfrec.recommend and tfrec.export. ALS and VAE-CF: write the item vectors in int8
    with a scale per row (tfrec.quantization.Int8Rows) and a report; the options beside OUT are NeuMF's."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    out: Annotated[Path | None, tyro.conf.Positional] = None
    """The new folder. Default: RUN-int8, or RUN-wWaA for other numbers of bits."""
    weights: int = 8
    """Bits of weights and embeddings, 2 to 8."""
    activations: int = 8
    """Bits of activations, 2 to 8."""
    mode: Literal["symmetric", "asymmetric_unsigned", "asymmetric_signed"] = "asymmetric_unsigned"
    """Integers of activations."""
    weight_mode: Literal["symmetric", "asymmetric_unsigned", "asymmetric_signed"] = "symmetric"
    """Integers of weights and embeddings."""
    per_channel: bool = True
    """A scale per output of a layer; --no-per-channel: one per layer."""
    per_row: bool = True
    """A scale per row of an embedding table; --no-per-row: one per table."""
    clipping: Literal["none", "average", "std", "percentile", "mse", "gaussian", "laplace"] = "mse"
    """How an activation's range follows from its statistics."""
    clip_std: float = 3.0
    """For --clipping std: standard deviations."""
    clip_percentile: float = 99.9
    """For --clipping percentile: per cent."""
    relu_ranges: bool = True
    """A layer's range is that after its ReLU."""
    product: Literal["exact", "quantized"] = "exact"
    """The product of the GMF embeddings: summed as it is, or an activation of its own."""
    final_addition: Literal["float32", "int8"] = "float32"
    """The logit in float32 from int32 sums, or in the activations' bits."""
    split_final: bool = True
    """An output layer per branch; --no-split-final: one over both (then --product quantized)."""
    fraction: float = 0.1
    """Share of the training positives to calibrate on."""
    statistics: Path | None = None
    """Statistics to use instead of calibrating: a statistics.yaml, perhaps edited."""
    fine_tune: int = 0
    """Epochs of training with rounding in the loop, before the last calibration."""
    fine_tune_rate: float = 1e-4
    """Its learning rate."""
    seed: int = 0
    """Of the calibration's and the fine-tuning's samples."""
    data_dir: Path | None = field(default=None)
    """Folder with the data set, if it is not where $TFREC_DATA says."""


def quantization_config(arguments: Arguments) -> QuantizationConfig:
    """The part of the arguments that says how."""
    from dataclasses import fields

    from tfrec.quantization import QuantizationConfig

    return QuantizationConfig(**{f.name: getattr(arguments, f.name) for f in fields(QuantizationConfig)})


def run_quantize(arguments: Arguments) -> None:
    """Check, quantize, write, print."""
    commands.quiet_tensorflow()
    from tfrec.training.quantizing import quantize_run

    config = quantization_config(arguments)
    config.check()
    if arguments.fine_tune < 0 or arguments.fine_tune_rate <= 0:
        raise InputError("`fine_tune` must be at least 0 and `fine_tune_rate` positive.")
    name = f"w{config.weights}a{config.activations}" if (config.weights, config.activations) != (8, 8) else "int8"
    # Without `..`, but the name of a link as it is given.
    source = Path(os.path.abspath(arguments.run))
    out = arguments.out or source.parent / f"{source.name}-{name}"
    quantize_run(
        arguments.run,
        out,
        config,
        fraction=arguments.fraction,
        seed=arguments.seed,
        statistics_file=arguments.statistics,
        fine_tune=arguments.fine_tune,
        fine_tune_rate=arguments.fine_tune_rate,
        data_dir=arguments.data_dir,
    )


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, prog="python -m tfrec.quantize", args=sys.argv[1:])
    commands.run(lambda: run_quantize(arguments))


if __name__ == "__main__":
    main()
