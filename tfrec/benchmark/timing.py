"""Alternating timing, and the machine's matmul peak to compare with."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def seconds_of(run: Callable[[], Any]) -> float:
    """How long one call takes, until a GPU has done all that it started."""
    start = time.perf_counter()
    run()
    if tf.config.list_logical_devices("GPU"):
        tf.test.experimental.sync_devices()
    return time.perf_counter() - start


def spread(values: np.ndarray | list[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    values = np.asarray(values)
    return {
        "median": round(float(np.median(values)), 3),
        "min": round(float(values.min()), 3),
        "max": round(float(values.max()), 3),
    }


@tf.function(reduce_retracing=True)
def _first_row(a: tf.Tensor, b: tf.Tensor, transposed: bool) -> tf.Tensor:
    return tf.reduce_sum(tf.matmul(a, b, transpose_b=transposed)[0])


def _product(a: tf.Tensor, b: tf.Tensor, transposed: bool) -> np.ndarray:
    return _first_row(a, b, transposed).numpy()


def matmul_peak(shapes: Sequence[tuple[int, int, int]]) -> float:
    """The fastest float32 matrix product seen on this machine, in operations per second.

    Args:
        shapes: (rows, inner, columns) to try besides two large square ones.
    """
    best = 0.0
    for rows, inner, columns in [(2_048, 2_048, 2_048), (4_096, 4_096, 4_096), *shapes]:
        for transposed in (False, True):
            a = tf.random.normal([rows, inner])
            b = tf.random.normal([columns, inner] if transposed else [inner, columns])
            seconds = min(seconds_of(functools.partial(_product, a, b, transposed)) for _ in range(4))
            best = max(best, 2.0 * rows * inner * columns / seconds)
    return best
