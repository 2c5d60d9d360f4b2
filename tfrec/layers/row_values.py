"""First values of a table as functions of (seed, row): the same rows whichever part of the table a process makes."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from scipy.special import ndtr, ndtri

from tfrec.errors import InputError

#: Numbers made at once, so that what is computed on the way stays small.
CHUNK = 1 << 20
_GAMMA, _MIX_1, _MIX_2 = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class RowValues:
    """The rows that a Keras initializer stands for, in its distribution; not its numbers, which depend on the shape.

    Args:
        initializer: of constants, uniform, normal or truncated normal numbers, with a scale of its own or one by the
            table's shape (Glorot, He, LeCun, variance scaling).
        rows: of the whole table.
        width: D.

    Raises:
        InputError: another initializer.
    """

    def __init__(self, initializer: Any, rows: int, width: int) -> None:
        kinds = keras.initializers
        self._width = width
        self._kind, self._low, self._scale = "constant", 0.0, 0.0
        if isinstance(initializer, kinds.Zeros):
            return
        if isinstance(initializer, kinds.Ones):
            self._low = 1.0
        elif isinstance(initializer, kinds.Constant) and np.ndim(initializer.value) == 0:
            self._low = float(initializer.value)
        elif isinstance(initializer, kinds.RandomUniform):
            self._kind, self._low = "uniform", float(initializer.minval)
            self._scale = float(initializer.maxval) - self._low
        elif isinstance(initializer, kinds.RandomNormal):
            self._kind, self._low, self._scale = "normal", float(initializer.mean), float(initializer.stddev)
        elif isinstance(initializer, kinds.TruncatedNormal):
            self._kind, self._low, self._scale = "truncated", float(initializer.mean), float(initializer.stddev)
        elif isinstance(initializer, kinds.VarianceScaling):
            fans = {"fan_in": rows, "fan_out": width, "fan_avg": (rows + width) / 2}
            variance = initializer.scale / max(1.0, fans[initializer.mode])
            if initializer.distribution == "uniform":
                limit = math.sqrt(3.0 * variance)
                self._kind, self._low, self._scale = "uniform", -limit, 2 * limit
            elif initializer.distribution == "untruncated_normal":
                self._kind, self._scale = "normal", math.sqrt(variance)
            else:  # of this variance after truncation
                self._kind, self._scale = "truncated", math.sqrt(variance) / 0.87962566103423978
        else:
            name = getattr(initializer, "__name__", type(initializer).__name__)
            raise InputError(
                "`embeddings_initializer` must make each row by itself: zeros, ones, a constant, or uniform, normal or "
                f"truncated normal numbers (with Glorot's, He's or LeCun's scale as well).\nReceived: {name}.\n"
                "Choose one of these, and assign other values with `assign_rows`."
            )
        self._seed = np.uint64(_whole(initializer.seed) % 2**64) if self._kind != "constant" else np.uint64(0)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """float32 ``[n, D]``, the rows ``ids`` (int64 ``[n]``)."""
        if self._kind == "constant":
            return np.full((len(ids), self._width), self._low, np.float32)
        share = self._uniform(ids)
        if self._kind == "uniform":
            return (self._low + self._scale * share).astype(np.float32)
        if self._kind == "truncated":  # at two standard deviations
            outside = ndtr(-2.0)
            share = outside + (1 - 2 * outside) * share
        return (self._low + self._scale * ndtri(share)).astype(np.float32)

    def _uniform(self, ids: np.ndarray) -> np.ndarray:
        """float64 ``[n, D]`` in (0, 1): SplitMix64 of the row's number and column (Steele, Lea, Flood, 2014)."""
        counter = ids.astype(np.uint64)[:, None] * np.uint64(self._width) + np.arange(self._width, dtype=np.uint64)
        key = _mix(np.array([self._seed + _GAMMA]))
        bits = _mix((counter + np.uint64(1)) * _GAMMA + key)
        # The middle of one of 2^53 intervals: neither 0 nor 1.
        return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def _whole(seed: Any) -> int:
    """An initializer's seed as a whole number."""
    if isinstance(seed, int):
        return seed
    first, second = np.asarray(keras.random.draw_seed(seed)).astype(np.int64).tolist()
    return first << 32 | second
