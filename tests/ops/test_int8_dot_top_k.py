"""Top-k by inner product of bytes against a sort of all scores: equal to the last bit."""

import importlib
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
WRAPPER = importlib.import_module("tfrec.ops.int8_dot_top_k")

needs_library = pytest.mark.skipif(
    ops.library() is None, reason="needs the native library: TFREC_BUILD_OPS=1 pip install -e ."
)


def check(random, queries, items, width, k, limit=127):
    """With a small limit there are many ties."""
    q = random.integers(-limit - 1, limit + 1, (queries, width)).astype(np.int8)
    y = random.integers(-limit - 1, limit + 1, (items, width)).astype(np.int8)
    scales = [random.choice(np.float32([0.1, 0.3, 1]), n).astype(np.float32) for n in (queries, items)]
    excluded = [
        np.sort(random.choice(items, random.integers(0, items // 2 + 1), replace=False)) for _ in range(queries)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(e) for e in excluded])]).astype(np.int64)
    flat = np.concatenate([*excluded, np.zeros(0, np.int64)]).astype(np.int32)
    tensors = [tf.constant(t) for t in (q, scales[0], y, scales[1])]
    ids, scores = ops.int8_dot_top_k(*tensors, k, offsets, flat)
    assert ids.shape == scores.shape == (queries, k)
    for row, (wanted, values) in enumerate(oracles.int8_top_k(q, scales[0], y, scales[1], k, excluded)):
        left = len(wanted)
        assert ids[row, :left].tolist() == wanted
        np.testing.assert_array_equal(scores[row, :left].view(np.int32), values.view(np.int32))
        assert (ids[row, left:] == -1).all()
        assert (scores[row, left:] == -np.inf).all()


@pytest.mark.parametrize("limit", [1, 127])
@pytest.mark.parametrize(
    ("queries", "items", "width", "k"),
    [(0, 5, 3, 2), (1, 1, 1, 1), (1, 700, 33, 10), (3, 50, 5, 60), (20, 333, 100, 7), (70, 1500, 16, 20)],
)
def test_against_a_sort(random, kernels, queries, items, width, k, limit):
    check(random, queries, items, width, k, limit)


@given(st.integers(0, 80), st.integers(1, 90), st.integers(1, 80), st.integers(1, 100), st.sampled_from([1, 127]))
@settings(max_examples=60, deadline=None)
def test_any_shape(queries, items, width, k, limit):
    check(np.random.default_rng(queries * 91 + items), queries, items, width, k, limit)


@pytest.mark.parametrize("queries", [1, 40])
def test_the_largest_sums_are_exact(kernels, queries):
    width = 65536
    rows = tf.fill([queries, width], tf.constant(-128, tf.int8))
    items = tf.constant(np.stack([np.full(width, -128), np.full(width, 127)]).astype(np.int8))
    ids, scores = ops.int8_dot_top_k(rows, tf.ones([queries]), items, tf.ones([2]), 2)
    assert (ids == [0, 1]).all()
    assert (scores == np.float32([128 * 128 * width, -128 * 127 * width])).all()


def test_scores_that_are_not_finite_are_absent(kernels):
    items = tf.constant([[1], [1], [-1], [2]], tf.int8)
    scales = tf.constant([1.0, float("nan"), float("inf"), 1.0])
    ids, _ = ops.int8_dot_top_k(tf.constant([[1]], tf.int8), tf.constant([1.0]), items, scales, 4)
    assert ids.tolist() == [[3, 0, -1, -1]]


def test_a_length_that_is_memory_for_nothing(kernels):
    rows, scales = tf.ones([4, 2], tf.int8), tf.ones([4])
    with pytest.raises(InputError, match="`k` must be from 1 to 65536"):
        ops.int8_dot_top_k(rows, scales, rows, scales, 65_537)


@needs_library
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": np.ones([4, 3])}, "equal widths"),
        ({"items": np.ones([4, 70000]), "queries": np.ones([1, 70000])}, "1 to 65536"),
        ({"item_scales": np.ones(3)}, "`item_scales` must have one number per row"),
        ({"query_scales": np.ones([1, 1])}, "`query_scales` and"),
        ({"k": 0}, "`k` must be a number of 1 or more"),
        ({"k": -(2**31)}, "`k` must be a number of 1 or more"),
        ({"k": 2**31 - 1}, "`k` must be at most 65536, the larger of the number of items, 4, and 65536"),
        ({"k": [2]}, "`k` must be a scalar. Received shape: [1]"),
        ({"k": []}, "`k` must be a scalar"),
        ({"excluded_offsets": [0, 2**63 - 1]}, "must lie inside `excluded`"),
        ({"excluded_offsets": [-(2**63), 2]}, "must lie inside `excluded`"),
        ({"excluded": [2, 1]}, "ascending within a query"),
        ({"excluded_offsets": [0, 3]}, "must lie inside `excluded`"),
    ],
)
def test_the_native_operation_rejects(change, message):
    given = {
        "queries": np.ones([1, 2]),
        "query_scales": np.ones(1),
        "items": np.ones([4, 2]),
        "item_scales": np.ones(4),
        "excluded_offsets": [0, 2],
        "excluded": [0, 1],
        "k": 2,
    }
    kinds = {"excluded_offsets": np.int64, "excluded": np.int32, "k": np.int32, "queries": np.int8, "items": np.int8}
    arguments = {n: np.asarray(v, kinds.get(n, np.float32)) for n, v in {**given, **change}.items()}
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ops.library().tfrec_int8_dot_top_k(**arguments)
    assert message in caught.value.message


CHILD = """
import numpy as np
from tests.ops.test_int8_dot_top_k import check

for queries, items, width, k in [(1, 700, 33, 10), (20, 333, 100, 7), (70, 1500, 16, 20), (50, 90, 200, 5)]:
    for limit in (1, 127):
        check(np.random.default_rng(items), queries, items, width, k, limit)
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
