"""Tracing a model without tfrec's native operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras


@contextmanager
def plain_operations(layers: Sequence[keras.layers.Layer]) -> Iterator[None]:
    """Within it, layers that have native operations are traced with their TensorFlow twins: what is written then can
    be read where tfrec is not installed."""
    native = [layer for layer in layers if getattr(layer, "reference", None) is False]
    for layer in native:
        layer.reference = True
    try:
        yield
    finally:
        for layer in native:
            layer.reference = False
