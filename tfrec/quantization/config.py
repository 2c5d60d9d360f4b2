"""How a model is quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from tfrec.errors import InputError
from tfrec.quantization.affine import Mode, limits
from tfrec.quantization.clipping import CLIPPINGS, Clipping


@dataclass(frozen=True)
class QuantizationConfig:
    """Numbers of bits, modes, granularity and clipping. The default is the best found, see docs/results/int8.md."""

    activations: int = 8
    """Bits of activations, 2 to 8."""
    weights: int = 8
    """Bits of weights and embeddings, 2 to 8."""
    mode: Mode = "asymmetric_unsigned"
    """Integers of activations."""
    weight_mode: Mode = "symmetric"
    """Integers of weights and embeddings."""
    per_channel: bool = True
    """A scale per output of a layer, not one per layer."""
    per_row: bool = True
    """A scale per row of an embedding table, not one per table."""
    clipping: Clipping = "mse"
    """How the range of an activation follows from its statistics."""
    clip_std: float = 3.0
    """For clipping std: standard deviations."""
    clip_percentile: float = 99.9
    """For clipping percentile: per cent."""
    relu_ranges: bool = True
    """A layer's range is that of its output after the ReLU ("net-aware"), not before."""
    product: Literal["exact", "quantized"] = "exact"
    """The product of the GMF embeddings: kept in integers up to the sum (split final layer and symmetric weights only),
    or made an activation of its own."""
    final_addition: Literal["float32", "int8"] = "float32"
    """The logit: float32 from int32 sums; int8: with the activations' bits, as are the branches' logits."""
    split_final: bool = True
    """An output layer per branch."""

    def check(self) -> None:
        """Raise InputError where the settings make no sense."""
        limits(self.mode, self.activations)
        limits(self.weight_mode, self.weights)
        if self.clipping not in CLIPPINGS:
            raise InputError(f"`clipping` must be one of {', '.join(CLIPPINGS)}.\nReceived: {self.clipping!r}.")
        if self.clip_std <= 0 or not 50 < self.clip_percentile <= 100:
            raise InputError(
                "`clip_std` must be positive and `clip_percentile` above 50 and at most 100.\n"
                f"Received: {self.clip_std}, {self.clip_percentile}."
            )
        if self.product == "exact" and self.weight_mode != "symmetric":
            raise InputError(
                "The exact product needs embeddings without zero point.\n"
                f"Received: product='exact', weight_mode={self.weight_mode!r}.\n"
                "Use product='quantized', or weight_mode='symmetric'."
            )
        if self.product == "exact" and not self.split_final:
            raise InputError(
                "One final layer reads both branches on one scale, so the product must be quantized.\n"
                "Received: product='exact', split_final=False.\nUse product='quantized', or split_final=True."
            )


#: Distiller's study: 8 bits everywhere, asymmetric, per channel, tables as a whole, ranges as they come.
STUDY_SPLIT = QuantizationConfig(
    weight_mode="asymmetric_unsigned",
    per_row=False,
    clipping="none",
    relu_ranges=False,
    product="quantized",
    final_addition="int8",
)

#: Configurations with a name, of the most bits; `replace` one's ``weights`` and ``activations`` for fewer.
PRESETS: Mapping[str, QuantizationConfig] = {
    "best": QuantizationConfig(),
    "study-split": STUDY_SPLIT,
    "study-one-final": replace(STUDY_SPLIT, split_final=False),
}
