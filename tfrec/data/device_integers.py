"""Whole numbers that lie in a GPU's memory, 4 bytes each."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfrec.errors import InputError


class DeviceIntegers(tf.Module):
    """A table of 32-bit whole numbers that is read where the computation is.

    TensorFlow keeps int32 tensors in host memory, also on a machine with a GPU: it takes them for shapes. A table of
    int32 that a step gathers from would be copied over the bus in each step, all of it. So the bits are kept as
    float32, which nothing computes with, and become integers again after the gather.

    Args:
        values: whole numbers of any shape, within the range of int32.

    Memory: 4 bytes a number.

    Raises:
        InputError: a number that int32 does not have.

    Example:
        >>> table = DeviceIntegers(np.array([[5, -1], [7, 2**31 - 1]]))
        >>> table.gather(tf.constant([1], tf.int64)).numpy().tolist()
        [[7, 2147483647]]
    """

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        bounds = np.iinfo(np.int32)
        if values.dtype != np.int32 and values.size and not bounds.min <= values.min() <= values.max() <= bounds.max:
            raise InputError(
                f"`values` must lie within int32, {bounds.min} to {bounds.max}.\n"
                f"Received: {values.min()} to {values.max()}."
            )
        self._bits = tf.constant(np.ascontiguousarray(values, np.int32).view(np.float32))

    def __len__(self) -> int:
        return int(self._bits.shape[0])

    def gather(self, places: tf.Tensor) -> tf.Tensor:
        """The numbers at these places of the first axis, int64."""
        return tf.cast(tf.bitcast(tf.gather(self._bits, places), tf.int32), tf.int64)
