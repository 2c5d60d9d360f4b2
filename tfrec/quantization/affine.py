"""Affine quantization of numbers: q = clamp(round(x / scale) + zero_point), x' = scale (q - zero_point).

Rounding is half to even and all floating-point steps are float32, here and in the integer model, so that two
implementations can agree to the bit. Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from tfrec.errors import InputError

#: symmetric: [-(2^(b-1) - 1), 2^(b-1) - 1] and zero point 0; asymmetric_unsigned: [0, 2^b - 1];
#: asymmetric_signed: [-2^(b-1), 2^(b-1) - 1].
Mode = Literal["symmetric", "asymmetric_unsigned", "asymmetric_signed"]
MODES: tuple[Mode, ...] = ("symmetric", "asymmetric_unsigned", "asymmetric_signed")


def limits(mode: Mode, bits: int) -> tuple[int, int]:
    """The least and the greatest integer of a mode.

    Raises:
        InputError: an unknown mode, or bits outside 2 to 8.
    """
    if mode not in MODES:
        raise InputError(f"`mode` must be one of {', '.join(MODES)}.\nReceived: {mode!r}.")
    if not 2 <= bits <= 8:
        raise InputError(f"`bits` must be from 2 to 8.\nReceived: {bits}.")
    if mode == "symmetric":
        return -(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1
    return (0, 2**bits - 1) if mode == "asymmetric_unsigned" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@dataclass(frozen=True)
class Affine:
    """How numbers become integers.

    Args:
        scale: float32, a scalar or one number per channel or row (broadcast against the numbers).
        zero_point: int32, in the shape of ``scale``.
        low: least integer.
        high: greatest integer.
    """

    scale: Any
    zero_point: Any
    low: int
    high: int

    @classmethod
    def of_range(cls, low: Any, high: Any, mode: Mode, bits: int) -> Affine:
        """Scale and zero point so that ``[low, high]``, widened to contain 0, is covered; 0 is represented exactly.

        A range of nothing but 0 gets the scale 1.
        """
        least, greatest = limits(mode, bits)
        low = np.minimum(np.asarray(low, np.float64), 0.0)
        high = np.maximum(np.asarray(high, np.float64), 0.0)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise InputError("The values to quantize must be finite.\nReceived: NaN or infinity.")
        scale = np.maximum(-low, high) / greatest if mode == "symmetric" else (high - low) / (greatest - least)
        # A range so small that its scale is 0 in float32 holds nothing but 0 for our purposes.
        scale = np.where(scale.astype(np.float32) > np.finfo(np.float32).tiny, scale, 1.0)
        if mode == "symmetric":
            zero_point = np.zeros(scale.shape)
        else:
            zero_point = np.clip(np.rint(least - low / scale), least, greatest)
        return cls(scale.astype(np.float32), zero_point.astype(np.int32), least, greatest)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Integers, int32, of numbers."""
        found = np.rint(np.asarray(x, np.float32) / self.scale) + self.zero_point.astype(np.float32)
        return np.clip(found, self.low, self.high).astype(np.int32)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """Numbers, float32, of integers."""
        return ((np.asarray(q, np.int32) - self.zero_point).astype(np.float32) * self.scale).astype(np.float32)

    def fake(self, x: tf.Tensor) -> tf.Tensor:
        """Numbers rounded to what the integers can hold; the gradient passes straight through inside the range and is
        0 outside (Bengio et al., 2013; Jacob et al., 2018)."""
        scale = tf.constant(self.scale)
        zero_point = tf.constant(self.zero_point, tf.float32)
        inside = tf.clip_by_value(x, scale * (self.low - zero_point), scale * (self.high - zero_point))
        rounded = tf.clip_by_value(tf.round(x / scale) + zero_point, float(self.low), float(self.high)) - zero_point
        return inside + tf.stop_gradient(rounded * scale - inside)

    @property
    def storage(self) -> str:
        """The smallest NumPy type for the integers."""
        return "uint8" if self.low >= 0 else "int8"


def weight_affine(weight: np.ndarray, mode: Mode, bits: int, axis: int | None) -> Affine:
    """The affine map of a matrix ``[K, N]`` by its least and greatest element: over all of it, or along ``axis``, that
    is per channel (0) or per row (1); scale and zero point keep the axis, for broadcasting."""
    if axis is None:
        return Affine.of_range(weight.min(), weight.max(), mode, bits)
    return Affine.of_range(weight.min(axis=axis, keepdims=True), weight.max(axis=axis, keepdims=True), mode, bits)
