"""Scores in int8 against integers in NumPy: equal to the last bit."""

import importlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tfrec import ops
from tfrec.errors import InputError

# The module, which the function of the same name hides.
WRAPPER = importlib.import_module("tfrec.ops.int8_score")

needs_library = pytest.mark.skipif(
    ops.library() is None, reason="needs the native library: TFREC_BUILD_OPS=1 pip install -e ."
)


def bounds(random):
    """Of an activation: any range, or a ReLU."""
    low, high = np.sort(random.integers(-128, 256, 2)).tolist()
    zero_point = low if random.random() < 0.5 else int(random.integers(-300, 500))
    return zero_point, low, high


def problem(random, pairs=(3, 5), widths=(7, 6, 5), gmf_dim=4, tables=(4, 9)):
    """Arguments of int8_score, in the order of its signature. The range of values is used to its ends."""
    users, items = tables
    terms = [None, None]
    layers, final, scale, first = None, None, None, None
    if widths:
        # Many sums lie exactly between two whole numbers.
        terms = [(random.integers(-600, 600, (n, widths[0])) / 4).astype(np.float32) for n in tables]
        first = bounds(random)
        layers = []
        for depth, width in itertools.pairwise(widths):
            kernel = random.integers(-128, 128, (depth, width)).astype(np.int8)
            kernel[random.random(kernel.shape) < 0.2] = 127
            multiplier = np.exp(random.normal(-5 - 0.5 * np.log(depth), 1, width)).astype(np.float32)
            offset = random.integers(-(10**6), 10**6, width).astype(np.int32)
            layers.append((kernel, offset, multiplier, *bounds(random)))
        final = random.integers(-127, 128, widths[-1]).astype(np.int8), np.int32(random.integers(-(10**6), 10**6))
        scale = np.float32(random.random() / 1000)
    gmf = None
    if gmf_dim:
        rows = [random.integers(-127, 128, (n, gmf_dim)).astype(np.int8) for n in tables]
        scales = [(random.random(n) / 100).astype(np.float32) for n in tables]
        gmf = (*rows, *scales, random.integers(-127, 128, gmf_dim).astype(np.int8), np.float32(random.random()))
    index = random.integers(0, users, pairs[0]).astype(np.int32), random.integers(0, items, pairs).astype(np.int32)
    return [*terms, *index, first, layers, final, scale, gmf, np.float32(random.normal())]


def check(arguments):
    found = ops.int8_score(*arguments)
    wanted = oracles.int8_score(*arguments)
    assert found.dtype == tf.float32
    assert found.shape == wanted.shape
    # Bits, not values.
    np.testing.assert_array_equal(found.numpy().view(np.int32), wanted.view(np.int32))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pairs": (1, 1), "widths": (1, 1), "gmf_dim": 1, "tables": (1, 1)},
        {"pairs": (1, 300)},
        {"pairs": (70, 1)},
        {"pairs": (0, 4)},
        {"pairs": (4, 0)},
        {"widths": (5,)},
        {"widths": (), "pairs": (9, 11), "gmf_dim": 33},
        {"gmf_dim": 0},
        {"pairs": (3, 40), "widths": (256, 256, 128, 64), "gmf_dim": 64},
        {"pairs": (5, 13), "widths": (64, 33, 31, 16), "gmf_dim": 100},
        {"pairs": (2, 3), "widths": (3, 700, 2)},  # past float32's whole numbers
    ],
    ids=str,
)
def test_against_integers(random, kernels, options):
    check(problem(random, **options))


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 30)),
    st.lists(st.integers(1, 70), max_size=4),
    st.integers(0, 70),
    st.tuples(st.integers(1, 5), st.integers(1, 20)),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_any_shape_and_zero_point(pairs, widths, gmf_dim, tables, seed):
    check(problem(np.random.default_rng(seed), pairs, widths, gmf_dim or (not widths) * 5, tables))


def test_the_largest_sums_are_exact(kernels):
    """All activations 255, all weights at an end of int8, depth and GMF width at their limits."""
    depth, gmf_dim = 4096, 1024
    for sign in (-128, 127):
        arguments = [
            np.full([1, depth], 300, np.float32),
            np.full([1, depth], 300, np.float32),
            np.zeros(1, np.int32),
            np.zeros([1, 2], np.int32),
            (0, -128, 255),
            [(np.full([depth, 3], sign, np.int8), np.zeros(3, np.int32), np.full(3, 1e-6, np.float32), 0, -128, 255)],
            (np.full(3, sign, np.int8), np.int32(0)),
            np.float32(1),
            (
                *[np.full([1, gmf_dim], -128, np.int8)] * 2,
                *[np.ones(1, np.float32)] * 2,
                np.full(gmf_dim, sign, np.int8),
                np.float32(1),
            ),
            np.float32(0),
        ]
        check(arguments)


def test_values_that_are_not_finite(random, kernels):
    arguments = problem(random, widths=(3, 4), tables=(4, 4))
    arguments[0] = np.repeat(np.float32([[np.nan], [np.inf], [-np.inf], [3e38]]), 3, axis=1)
    arguments[1] = np.repeat(np.float32([[0], [3e38], [5], [-3e38]]), 3, axis=1)
    arguments[2], arguments[3] = np.arange(4, dtype=np.int32), np.tile(np.arange(4, dtype=np.int32), (4, 1))
    arguments[4] = (3, -10, 100)
    with np.errstate(over="ignore"):
        check(arguments)


def test_in_a_function_of_unknown_shapes(random, kernels):
    arguments = problem(random, pairs=(6, 7), widths=(40, 30, 20))
    run = tf.function(
        lambda users, items: ops.int8_score(*arguments[:2], users, items, *arguments[4:]),
        input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)],
    )
    assert run.get_concrete_function().structured_outputs.shape.as_list() == [None, None]
    np.testing.assert_array_equal(run(*arguments[2:4]), oracles.int8_score(*arguments))


def test_exported(random, kernels, tmp_path):
    arguments = problem(random, pairs=(6, 7), widths=(40, 30, 20))

    class Scores(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, 7], tf.int32)])
        def score(self, users, items):
            return ops.int8_score(*arguments[:2], users, items, *arguments[4:])

    tf.saved_model.save(Scores(), str(tmp_path))
    read = tf.saved_model.load(str(tmp_path))
    found = read.score(*(tf.constant(a) for a in arguments[2:4]))
    assert read.score.get_concrete_function().structured_outputs.shape.as_list() == [None, 7]
    np.testing.assert_array_equal(found, oracles.int8_score(*arguments))


@pytest.mark.parametrize(("place", "name", "value"), [(2, "user", 4), (2, "user", -1), (3, "item", 9), (3, "item", -7)])
@pytest.mark.parametrize("options", [{}, {"widths": ()}, {"gmf_dim": 0}], ids=str)
def test_an_index_out_of_range_is_named(random, kernels, options, place, name, value):
    if tf.config.list_physical_devices("GPU") and WRAPPER.library() is None:
        pytest.skip("TensorFlow's gather reads zeros on a GPU")
    arguments = problem(random, **options)
    arguments[place].flat[2] = value
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ops.int8_score(*arguments)
    assert f"{value}" in caught.value.message
    if WRAPPER.library() is not None:
        assert f"`{name}_index` must lie in [0, {4 if name == 'user' else 9})" in caught.value.message
        assert f"Received: {value} at position 2" in caught.value.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": (0, 5, 4)}, "hidden layer 0 with zero_point=0, low=5, high=4"),
        ({"first": (0, -129, 4)}, "-128 <= low"),
        ({"first": (0, 0, 256)}, "high <= 255"),
        ({"first": (20000, 0, 255)}, "a zero point in [-16384, 16384]"),
        ({"final_scale": None}, "Received: None as final_scale"),
        ({"user_terms": None}, "Received: None as user_terms"),
        ({"user_terms": None, "item_terms": None, "layers": None, "final_kernel": None, "gmf": None}, "neither"),
    ],
)
def test_rejects(random, change, message):
    names = ops.int8_score.__annotations__.keys()
    arguments = dict(zip(names, problem(random), strict=False))
    with pytest.raises(InputError) as caught:
        ops.int8_score(**{**arguments, **change})
    assert message in str(caught.value)


@needs_library
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_terms": np.ones([9, 6], np.float32)}, "`item_terms` must be"),
        ({"user_index": np.zeros(2, np.int32)}, "`user_index` must be"),
        ({"final_kernel": (np.zeros(4, np.int8), 0)}, "`final_kernel` must be [5]"),
        ({"final_scale": np.ones(1, np.float32)}, "`final_scale` must be []"),
        ({"user_terms": np.ones([4, 4097], np.float32)}, "at most 4096 wide"),
        ({"layers": [(np.ones([6, 5], np.int8), np.ones(5), np.ones(5), 0, 0, 9)]}, "Kernel 0 must be [7, 1 to 4096]"),
        ({"layers": [(np.ones([7, 5], np.int8), np.ones(4), np.ones(5), 0, 0, 9)]}, "`biases` must be [5]"),
        ({"gmf": "wide"}, "GMF rows 1024. Received: 7 and 1025"),
        ({"gmf": "few"}, "`gmf_user` must be [4,4]"),
    ],
    ids=lambda c: next(iter(c)) if isinstance(c, dict) else "",
)
def test_the_native_operation_rejects(random, change, message):
    names = ops.int8_score.__annotations__.keys()
    arguments = dict(zip(names, problem(random), strict=False))
    if change.get("gmf") == "wide":
        change = {"gmf": problem(random, gmf_dim=1025)[8]}
    elif change.get("gmf") == "few":
        change = {"gmf": problem(random, tables=(3, 9))[8]}
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ops.int8_score(**{**arguments, **change})
    assert message in caught.value.message


CHILD = """
import numpy as np
from tests.ops.test_int8_score import check, problem

for seed in range(6):
    random = np.random.default_rng(seed)
    for pairs in [(1, 1), (1, 50), (7, 9)]:
        for widths in [(), (19,), (64, 48, 32), (5, 33, 17, 4)]:
            for gmf_dim in (5, 40):
                check(problem(random, pairs, widths, gmf_dim))
check(problem(random, (3, 20), (256, 256, 128, 64), 64))
print("good")
"""


@needs_library
@pytest.mark.parametrize("kernels", ["baseline", "avx2", "avx512"])
def test_kernels_of_smaller_processors(kernels):
    """The copies for other instruction sets, which this machine would not choose. Not AVX-512 unless it has it."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env={**os.environ, "TFREC_CPU_KERNELS": kernels}, capture_output=True, text=True
    )
    assert done.stdout.endswith("good\n"), done.stderr
