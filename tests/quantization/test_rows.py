"""Item vectors in int8."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec.errors import InputError
from tfrec.quantization import Int8Rows


def integer_scores(rows, vectors):
    """int64 products, float32 scales."""
    values, scales = (part.numpy() for part in rows.queries(vectors))
    totals = values.astype(np.int64) @ rows.values.astype(np.int64).T
    return totals.astype(np.float32) * (scales[:, None] * rows.scales[None, :])


@settings(max_examples=40, deadline=None)
@given(
    items=st.integers(1, 40),
    width=st.integers(1, 70),
    queries=st.integers(1, 9),
    bias=st.sampled_from([None, 0.1, 3.0, 500.0]),
    seed=st.integers(0, 9),
)
def test_scores_are_exact_products_close_to_the_floats(items, width, queries, bias, seed):
    random = np.random.default_rng(seed)
    table = random.normal(size=(items, width)).astype(np.float32)
    vectors = random.normal(size=(queries, width)).astype(np.float32)
    added = None if bias is None else (bias * random.normal(size=items)).astype(np.float32)
    rows = Int8Rows.of(table, added)
    assert np.abs(rows.values.astype(int)).max() <= 127
    found = rows.scores(vectors).numpy()
    np.testing.assert_array_equal(found, integer_scores(rows, vectors))
    expected = vectors @ table.T + (0.0 if added is None else added)
    scale = np.linalg.norm(vectors, axis=1)[:, None] * np.linalg.norm(table, axis=1)[None, :]
    assert (np.abs(found - expected) <= 0.03 * scale + 0.01 * np.abs(expected) + 0.02 * rows.scales * 127).all()
    floats, restored = (None if part is None else part.numpy() for part in rows.dequantize())
    assert (np.abs(floats - table) <= rows.scales[:, None] / 2 * 1.001).all()
    if added is not None:
        assert (np.abs(restored - added) <= rows.scales / 2 * 1.001 + 1e-6 * np.abs(added)).all()


def test_the_best_are_those_of_the_scores(random):
    table, bias = random.normal(size=(300, 24)).astype(np.float32), random.normal(size=300).astype(np.float32)
    rows, vectors = Int8Rows.of(table, bias), random.normal(size=(20, 24)).astype(np.float32)
    ids, scores = rows.top_k(vectors, 7)
    every = rows.scores(vectors).numpy()
    order = np.lexsort((np.broadcast_to(np.arange(300), every.shape), -every))[:, :7]
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(every, order, 1))


def test_candidates_and_a_choice_get_the_same_bits(random):
    table, bias = random.normal(size=(50, 6)).astype(np.float32), random.normal(size=50).astype(np.float32)
    rows, vectors = Int8Rows.of(table, bias), random.normal(size=(4, 6)).astype(np.float32)
    every = rows.scores(vectors).numpy()
    items = random.integers(0, 50, (4, 9))
    np.testing.assert_array_equal(rows.scores(vectors, items), np.take_along_axis(every, items, 1))
    np.testing.assert_array_equal(tf.function(rows.scores)(tf.constant(vectors)), every)
    chosen = np.array([3, 4, 20, 31])
    places, scores = rows.top_k(vectors, 4, chosen=chosen)
    np.testing.assert_array_equal(scores, -np.sort(-every[:, chosen], axis=1))
    np.testing.assert_array_equal(np.take_along_axis(every, chosen[places], 1), scores)


def test_rows_of_zeros_score_zero():
    rows = Int8Rows.of(np.zeros([2, 3], np.float32))
    np.testing.assert_array_equal(rows.scores(np.ones([1, 3], np.float32)), [[0.0, 0.0]])


def test_refused():
    with pytest.raises(InputError, match="neither empty"):
        Int8Rows.of(np.zeros([0, 3], np.float32))
    with pytest.raises(InputError, match="neither empty"):
        Int8Rows.of(np.zeros([2, 3], np.float32), np.zeros(3, np.float32))
    with pytest.raises(InputError, match="finite"):
        Int8Rows.of(np.array([[np.inf]], np.float32))
    with pytest.raises(InputError, match=r"must be \[B, 3\]"):
        Int8Rows.of(np.ones([2, 3], np.float32)).scores(np.ones([1, 2]))
