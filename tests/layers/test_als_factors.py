"""The table of factors: as a Keras layer, and longer than it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src import testing

from tfrec.errors import InputError
from tfrec.layers import ALSFactors


class Conformance(testing.TestCase):
    def test_layer(self):
        self.run_layer_test(
            ALSFactors,
            init_kwargs={"num_rows": 5, "factors": 3, "seed": 4},
            input_data=np.array([[0, 4, 2], [1, 1, 3]], np.int32),
            expected_output_shape=(2, 3, 3),
            expected_output_dtype="float32",
            expected_num_trainable_weights=0,
            expected_num_non_trainable_weights=1,
            run_training_check=False,  # nothing to train by gradients
        )


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "float16", "mixed_bfloat16", "float64"])
def test_what_keras_is_told_is_what_comes(policy):
    layer = ALSFactors(num_rows=5, factors=3, factor_dtype="float16", dtype=policy)
    symbolic, result = layer(keras.Input((2,), dtype="int32")), layer(tf.constant([[0, 4]]))
    assert symbolic.dtype == keras.backend.standardize_dtype(result.dtype) == "float32"
    assert symbolic.shape == (None, 2, 3)
    np.testing.assert_array_equal(result[0], layer.table.numpy()[[0, 4]].astype(np.float32))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("built", [False, True])
def test_set_rows(dtype, built):
    layer = ALSFactors(num_rows=3, factors=2, factor_dtype=dtype)
    if built:
        layer(tf.constant([0]))
    before = layer.table.numpy()
    for numbers in ([1], [7, 0], [5]):
        rows = np.arange(2 * len(numbers)).reshape(-1, 2).astype(dtype) + max(numbers)
        layer.set_rows(np.array(numbers), rows)
        wanted = np.zeros([max(len(before), max(numbers) + 1), 2], dtype)
        wanted[: len(before)] = before
        wanted[numbers] = rows
        np.testing.assert_array_equal(layer.table.numpy(), wanted)
        assert layer.num_rows == layer.get_config()["num_rows"] == len(wanted)
        assert [v.path for v in layer.weights] == [layer.table.path]
        before = wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_rows": 0}, "`num_rows` must be a whole number, at least 1"),
        ({"num_rows": 2.5}, "Received: 2.5"),
        ({"num_rows": True}, "Received: True"),
        ({"num_rows": 2**31}, r"numbers of rows end at 2,147,483,647"),
        ({"num_rows": 2**31 - 1, "factors": 1024}, r"takes 8,192.0 GiB, this machine has .* free"),
        ({"factors": True}, "Received: factors=True"),
    ],
)
def test_rejected(arguments, message):
    with pytest.raises(InputError, match=message):
        ALSFactors(**{"num_rows": 3, "factors": 2, **arguments})
