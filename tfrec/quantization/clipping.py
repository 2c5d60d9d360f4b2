"""From the statistics of an activation to the range that its integers cover."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import scipy.optimize

from tfrec.errors import InputError
from tfrec.quantization.affine import Affine, Mode
from tfrec.quantization.statistics import TensorStatistics

#: none: least to greatest value. average: the mean of the samples' least and greatest values. std: mean +- n standard
#: deviations. percentile: between the p-th lowest and highest. mse: the range of least mean squared error over the
#: histogram. gaussian, laplace: the range of least expected error if that were the distribution (Banner, Nahshan,
#: Soudry, "Post training 4-bit quantization of convolutional networks for rapid-deployment", NeurIPS 2019).
Clipping = Literal["none", "average", "std", "percentile", "mse", "gaussian", "laplace"]
CLIPPINGS: tuple[Clipping, ...] = ("none", "average", "std", "percentile", "mse", "gaussian", "laplace")


def clip_range(
    statistics: TensorStatistics,
    method: Clipping,
    mode: Mode,
    bits: int,
    num_std: float = 3.0,
    percentile: float = 99.9,
) -> tuple[float, float]:
    """The range ``(low, high)``; never wider than the values were.

    Raises:
        InputError: an unknown method, or statistics without what it needs.
    """
    s = statistics
    if method not in CLIPPINGS:
        raise InputError(f"`method` must be one of {', '.join(CLIPPINGS)}.\nReceived: {method!r}.")
    if method in ("percentile", "mse") and not sum(s.histogram):
        raise InputError(f"Clipping by {method} needs a histogram.\nReceived: statistics without one. Calibrate again.")
    if method == "none":
        return s.min, s.max
    if method == "average":
        return _inside(s, s.avg_min, s.avg_max)
    if method == "std":
        return _inside(s, s.mean - num_std * s.std, s.mean + num_std * s.std)
    if method == "percentile":
        return _inside(s, s.percentile(100.0 - percentile), s.percentile(percentile))
    if method == "mse":
        return _least_error(s, mode, bits)
    half = s.std * _width(_gaussian_error, bits) if method == "gaussian" else s.deviation * _width(_laplace_error, bits)
    return _inside(s, s.mean - half, s.mean + half)


def _inside(s: TensorStatistics, low: float, high: float) -> tuple[float, float]:
    return max(s.min, min(low, high)), min(s.max, max(low, high))


def _least_error(s: TensorStatistics, mode: Mode, bits: int) -> tuple[float, float]:
    """Shrinks both ends, each in turn, as long as the squared error over the histogram falls."""
    counts = np.asarray(s.histogram, np.float64)
    edges = np.linspace(s.min, s.max, len(counts) + 1)
    centers, counts = ((edges[:-1] + edges[1:]) / 2)[counts > 0], counts[counts > 0]

    def error(low: float, high: float) -> float:
        affine = Affine.of_range(low, high, mode, bits)
        return float((counts * np.square(centers - affine.dequantize(affine.quantize(centers)))).sum())

    low, high = s.min, s.max
    shares = np.linspace(0.02, 1.0, 99)
    for _ in range(3):
        high = s.max * shares[np.argmin([error(low, s.max * share) for share in shares])] if s.max > 0 else high
        low = s.min * shares[np.argmin([error(s.min * share, high) for share in shares])] if s.min < 0 else low
    return float(low), float(high)


def _width(error: Callable[[float, int], float], bits: int) -> float:
    found = scipy.optimize.minimize_scalar(lambda width: error(width, bits), bounds=(0.1, 30.0), method="bounded")
    return float(found.x)


def _gaussian_error(width: float, bits: int) -> float:
    """Clipping and rounding error of a standard normal, clipped at +-width."""
    tail = (1 + width**2) * (1 - math.erf(width / math.sqrt(2)))
    return tail - math.sqrt(2 / math.pi) * width * math.exp(-(width**2) / 2) + width**2 / (3 * 4**bits)


def _laplace_error(width: float, bits: int) -> float:
    """The same for a Laplace distribution of b = 1."""
    return 2 * math.exp(-width) + width**2 / (3 * 4**bits)
