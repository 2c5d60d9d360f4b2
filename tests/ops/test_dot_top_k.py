"""Top-k by inner product against a sort of all scores."""

import importlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tfrec import ops
from tfrec.errors import InputError

# The module, which the function of the same name hides.
WRAPPER = importlib.import_module("tfrec.ops.dot_top_k")


def check(random, queries, items, width, k, dtype):
    # Small whole numbers: sums are exact, and there are many ties.
    q = random.integers(-3, 4, (queries, width)).astype(dtype)
    y = random.integers(-3, 4, (items, width)).astype(dtype)
    excluded = [
        np.sort(random.choice(items, random.integers(0, items // 2 + 1), replace=False)) for _ in range(queries)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(e) for e in excluded])]).astype(np.int64)
    flat = np.concatenate([*excluded, np.zeros(0, np.int64)]).astype(np.int32)
    ids, scores = ops.dot_top_k(tf.constant(q), tf.constant(y), k, offsets, flat)
    assert ids.shape == scores.shape == (queries, k)
    for row, wanted in enumerate(oracles.top_k(q, y, k, excluded)):
        left = len(wanted)
        assert ids[row, :left].tolist() == wanted
        np.testing.assert_array_equal(scores[row, :left], (q[row].astype(float) @ y[wanted].astype(float).T))
        assert (ids[row, left:] == -1).all()
        assert (scores[row, left:] == -np.inf).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("queries", "items", "width", "k"),
    [(0, 5, 3, 2), (1, 1, 1, 1), (1, 700, 33, 10), (3, 50, 5, 60), (20, 333, 100, 7), (70, 1500, 16, 20)],
)
def test_against_a_sort(random, kernels, dtype, queries, items, width, k):
    check(random, queries, items, width, k, dtype)


@given(st.integers(0, 80), st.integers(1, 90), st.integers(1, 40), st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_any_shape(queries, items, width, k):
    check(np.random.default_rng(queries * 91 + items), queries, items, width, k, np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("items", "width", "k"), [(512, 8, 5), (777, 33, 10), (1030, 5, 40)])
def test_all_against_all(random, kernels, dtype, items, width, k):
    """One tensor as queries and items: each product is used for both, with many ties; rows of NaN are absent."""
    y = random.integers(-2, 3, (items, width)).astype(dtype)
    table = y.copy()
    absent = sorted({5, *range(0, items, 7)})
    table[absent] = np.nan
    tensor = tf.constant(table)
    ids, scores = ops.dot_top_k(tensor, tensor, k)
    wanted = oracles.top_k(y, y, k, [absent] * items)
    for row in range(items):
        if row in absent:
            assert (ids[row] == -1).all()
        else:
            assert ids[row].tolist() == wanted[row]
            np.testing.assert_array_equal(scores[row], y[row].astype(float) @ y[wanted[row]].astype(float).T)


def test_scores_that_are_not_finite_are_absent(kernels):
    items = tf.constant([[1.0], [float("nan")], [float("-inf")], [2.0]])
    ids, _ = ops.dot_top_k(tf.constant([[1.0]]), items, 4)
    assert ids[0, :2].tolist() == [3, 0]


@pytest.mark.parametrize("k", [-1, 0, 65_537, 2**31 - 1, 300_000_000])
def test_a_length_that_is_memory_for_nothing(kernels, k):
    """Up to 65,536 the lists are filled up, as short catalogues with the usual k need; beyond, k is at most I."""
    items = tf.ones([4, 2])
    with pytest.raises(InputError, match="`k` must be from 1 to 65536"):
        ops.dot_top_k(tf.ones([1, 2]), items, k)
    ids, scores = ops.dot_top_k(tf.ones([1, 2]), items, 65_536)
    assert ids[0, :4].tolist() == [0, 1, 2, 3]
    assert (ids[0, 4:] == -1).all()
    assert (scores[0, 4:] == -np.inf).all()
    many = tf.ones([65_540, 1])
    assert ops.dot_top_k(tf.ones([1, 1]), many, 65_540)[0][0].tolist() == list(range(65_540))


@pytest.mark.skipif(ops.library() is None, reason="needs the native library: TFREC_BUILD_OPS=1 pip install -e .")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": np.ones([4, 3])}, "equal widths"),
        ({"k": 0}, "`k` must be a number of 1 or more"),
        ({"k": -(2**31)}, "`k` must be a number of 1 or more"),
        ({"k": 2**31 - 1}, "`k` must be at most 65536, the larger of the number of items, 4, and 65536"),
        ({"k": [2]}, "`k` must be a scalar. Received shape: [1]"),
        ({"k": []}, "`k` must be a scalar"),
        ({"excluded_offsets": [0, 2**63 - 1]}, "must lie inside `excluded`"),
        ({"excluded_offsets": [-(2**63), 2]}, "must lie inside `excluded`"),
        ({"excluded": [2, 1]}, "ascending within a query"),
        ({"excluded": [-1, 1]}, "`excluded` must be 0 or more"),
        ({"excluded_offsets": [0, 3]}, "must lie inside `excluded`"),
        ({"excluded_offsets": [0]}, "`excluded_offsets` must be [num_queries + 1]"),
    ],
)
def test_the_native_operation_rejects(change, message):
    given = {
        "queries": np.ones([1, 2]),
        "items": np.ones([4, 2]),
        "excluded_offsets": [0, 2],
        "excluded": [0, 1],
        "k": 2,
    }
    kinds = {"excluded_offsets": np.int64, "excluded": np.int32, "k": np.int32}
    arguments = {n: np.asarray(v, kinds.get(n, np.float32)) for n, v in {**given, **change}.items()}
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ops.library().tfrec_dot_top_k(**arguments)
    assert message in caught.value.message
