"""Weights that are integers, each with the affine map from its integers to numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.quantization.affine import Affine
from tfrec.quantization.config import QuantizationConfig


class IntegerWeights:
    """A mixin for a Keras model: named integers, scales, zero points and biases, as NumPy and in a graph.

    A table of rows may have a scale per row, a kernel one per column (output), an activation has one. What is stored is
    zeros until `store` and `set_affine`, or a file, fill it.

    Attributes:
        quantization: how many bits, and which form.
    """

    quantization: QuantizationConfig
    add_weight: Any

    def begin_weights(self) -> None:
        """Make room for names; before the first `add_value`."""
        self._values: dict[str, Any] = {}
        #: Name -> scale, zero point or None, least and greatest integer.
        self._maps: dict[str, tuple[Any, Any, int, int]] = {}

    # ---- made by the model's `build`

    def add_value(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        """A weight that is stored as it is."""
        self._values[name] = self.add_weight(
            name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False, autocast=False
        )
        return self._values[name]

    def add_map(self, name: str, shape: tuple[int, ...], weight: bool = False) -> None:
        """Scale and, if the mode has one, zero point, of a weight or of an activation."""
        q = self.quantization
        probe = Affine.of_range(-1.0, 1.0, q.weight_mode if weight else q.mode, q.weights if weight else q.activations)
        scale = self.add_value(f"{name}_scale", shape, "float32")
        symmetric = probe.low == -probe.high
        zero_point = None if symmetric else self.add_value(f"{name}_zero_point", shape, "int32")
        self._maps[name] = (scale, zero_point, probe.low, probe.high)

    def add_integers(self, name: str, shape: tuple[int, int], scales: tuple[int, int]) -> None:
        """A weight of integers, with as many scales as that shape has."""
        self.add_map(name, scales, weight=True)
        self.add_value(name, shape, "uint8" if self._maps[name][2] >= 0 else "int8")

    # ---- as NumPy

    def stored(self, name: str) -> np.ndarray | None:
        """A weight as it is stored: integers, or a bias; None: the model has none of this name."""
        return self._values[name].numpy() if name in self._values else None

    def store(self, name: str, value: np.ndarray) -> None:
        """The reverse of `stored`."""
        self._values[name].assign(np.broadcast_to(value, self._values[name].shape))

    def affine(self, name: str) -> Affine:
        """How an activation or a weight becomes integers."""
        scale, zero_point, low, high = self._maps[name]
        zero = np.zeros(scale.shape, np.int32) if zero_point is None else zero_point.numpy()
        return Affine(scale.numpy(), zero, low, high)

    def set_affine(self, name: str, affine: Affine) -> None:
        """The reverse of `affine`."""
        scale, zero_point, _, _ = self._maps[name]
        scale.assign(np.broadcast_to(affine.scale, scale.shape))
        if zero_point is not None:
            zero_point.assign(np.broadcast_to(affine.zero_point, zero_point.shape))

    # ---- in a graph

    def value(self, name: str) -> tf.Tensor:
        """A weight as it is stored."""
        return tf.convert_to_tensor(self._values[name])

    def scale(self, name: str) -> tf.Tensor:
        """float32."""
        return tf.convert_to_tensor(self._maps[name][0])

    def zero(self, name: str) -> tf.Tensor:
        """The zero point, as exact float32."""
        zero_point = self._maps[name][1]
        return tf.constant(0.0) if zero_point is None else tf.cast(tf.convert_to_tensor(zero_point), tf.float32)

    def limits(self, name: str) -> tuple[int, int]:
        """The least and the greatest integer."""
        return self._maps[name][2:]

    def centered(self, name: str, rows: tf.Tensor | None = None) -> tf.Tensor:
        """Integers without their zero point, as exact float32; of a table, these rows."""
        zero = self.zero(name)
        if rows is None:
            values = self.value(name)
        else:
            # From the variable, not from its value: TensorFlow has no other gather of int8 on a GPU.
            values = tf.gather(self._values[name].value, rows)
            zero = zero if zero.shape.num_elements() == 1 else tf.gather(zero, rows)
        return tf.cast(values, tf.float32) - zero

    def row_scale(self, name: str, rows: tf.Tensor) -> tf.Tensor:
        """The scales ``[N, 1]`` of a table's rows."""
        scale = self.scale(name)
        return tf.gather(scale, rows) if self.quantization.per_row else tf.broadcast_to(scale, [tf.size(rows), 1])
