"""Whole numbers kept as the bits of float32."""

import numpy as np
import pytest
import tensorflow as tf

from tfrec.data.device_integers import DeviceIntegers
from tfrec.errors import InputError


def test_every_bit_comes_back():
    """Among them the patterns of NaN, of infinities and of numbers below float32's normal ones."""
    special = [0, -1, 1, 2**31 - 1, -(2**31), 0x7F800001, 0x7FC00000, 0x7F800000, 0x00000001 - 2**31]
    values = np.array(special, np.int64)
    table = DeviceIntegers(values)
    assert len(table) == len(values)
    found = table.gather(tf.range(len(values), dtype=tf.int64))
    assert found.dtype == tf.int64
    assert found.numpy().tolist() == special
    assert DeviceIntegers(np.zeros(0, np.int64)).gather(tf.zeros([0], tf.int64)).shape == (0,)


@pytest.mark.parametrize("beyond", [2**31, -(2**31) - 1])
def test_what_does_not_fit_is_refused(beyond):
    with pytest.raises(InputError, match="within int32"):
        DeviceIntegers(np.array([5, beyond]))
