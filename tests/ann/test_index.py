"""What an index finds, beside a full search that a test can read."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec.ann import DTYPES, KINDS, AnnIndex
from tfrec.ann.index import IndexReport, recall_of
from tfrec.errors import InputError


def vectors(num_items=1_500, width=8, seed=0):
    """Clusters whose norms lie apart, as factors have them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, width))
    rows = centres[rng.integers(20, size=num_items)] + 0.3 * rng.standard_normal((num_items, width))
    rows *= rng.gamma(2.0, 1.0, (num_items, 1))
    return tf.constant(rows, tf.float32), (centres + 0.1).astype(np.float32)


def ragged(lists):
    return np.concatenate([[0], np.cumsum([len(x) for x in lists])]), np.concatenate([*lists, []]).astype(np.int32)


def by_sorting(table, queries, k, lists, without=()):
    """Best first, equal ones by lower number first."""
    ids = np.full((len(queries), k), -1)
    for row, query in enumerate(queries):
        scores = table.astype(np.float64) @ query.astype(np.float64)
        left = [i for i in np.argsort(-scores, kind="stable") if i not in set(lists[row]) | set(without)]
        ids[row, : len(left[:k])] = left[:k]
    return ids


def recall(found, truth):
    """Where no two scores are equal."""
    return np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found.tolist(), truth.tolist(), strict=True)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_finds_what_a_full_search_finds(kind, dtype):
    table, queries = vectors()
    index = AnnIndex.build(table, queries, kind, dtype, recall=0.99)
    best = by_sorting(table.numpy(), queries, 10, [[]] * 20)
    ids, scores = index.search(queries, 10)
    assert recall(ids, best) == pytest.approx(index.report.recall)
    assert index.report.recall >= 0.99
    # Whatever the index stores: scores are those of the model's vectors.
    np.testing.assert_allclose(scores, np.einsum("qkf,qf->qk", table.numpy()[ids], queries), rtol=1e-5)
    assert index.report.items == 1_500
    assert f"{kind} of 1,500 items in {dtype}" in str(index.report)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_counts_in_the_recall(kind):
    """Everybody has the best 200: what the first lists or neighbours have is of no use."""
    table, queries = vectors()
    lists = [np.sort(row) for row in by_sorting(table.numpy(), queries, 200, [[]] * 20)]
    offsets, excluded = ragged(lists)
    index = AnnIndex.build(table, queries, kind, "float32", offsets=offsets, excluded=excluded, recall=1.0)
    truth = by_sorting(table.numpy(), queries, 10, lists)
    assert recall(index.search(queries, 10, offsets, excluded)[0], truth) == pytest.approx(index.report.recall)
    assert (
        index.report.recall == 1.0 if kind == "ivf" else index.report.recall > 0.5
    )  # not all can be reached in a graph
    without = np.unique(truth[:, 0])
    truth = by_sorting(table.numpy(), queries, 10, lists, without)
    found = index.search(queries, 10, offsets, excluded, without=without, effort=1_500)[0]
    assert recall(found, truth) == 1.0 if kind == "ivf" else recall(found, truth) > 0.5


_small = {kind: AnnIndex.build(*vectors(60, 3), kind, "float32") for kind in KINDS}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_nothing_left_out_appears_and_k_are_given_whenever_k_remain(data):
    index = _small[data.draw(st.sampled_from(KINDS))]
    items = st.sets(st.integers(0, 59))
    lists = [sorted(x) for x in data.draw(st.lists(items, min_size=1, max_size=4))]
    without, k = np.array(sorted(data.draw(items)), np.int64), data.draw(st.integers(1, 60))
    queries = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal((len(lists), 3)).astype(np.float32)
    ids, scores = index.search(queries, k, *ragged(lists), without=without, effort=data.draw(st.integers(1, 100)))
    for row, out in enumerate(lists):
        left = 60 - len(set(out) | set(without.tolist()))
        found = ids[row][ids[row] >= 0]
        assert len(found) == len(set(found.tolist())) == min(k, left)
        assert not set(found.tolist()) & (set(out) | set(without.tolist()))
        assert (ids[row, len(found) :] == -1).all()
        assert np.isneginf(scores[row, len(found) :]).all()
        assert (np.diff(scores[row, : len(found)]) <= 0).all()


def test_equal_scores_go_to_the_lower_number():
    table = tf.constant(np.tile([[1.0, 2.0]], (50, 1)), tf.float32)
    for kind in KINDS:
        index = AnnIndex.build(table, np.ones((1, 2), np.float32), kind, "float32", recall=1.0)
        ids = index.search(np.ones((1, 2), np.float32), 50)[0][0]
        np.testing.assert_array_equal(ids, np.arange(50))


@pytest.mark.parametrize("kind", KINDS)
def test_one_item(kind):
    index = AnnIndex.build(tf.constant([[1.0, 0.5]]), np.ones((2, 2), np.float32), kind)
    assert index.search(np.ones((2, 2), np.float32), 1)[0].tolist() == [[0], [0]]
    offsets, excluded = np.array([0, 1, 1]), np.array([0], np.int32)
    assert index.search(np.ones((2, 2), np.float32), 1, offsets, excluded)[0].tolist() == [[-1], [0]]


def test_more_recall_takes_no_less_effort():
    table, queries = vectors(4_000)
    for kind in KINDS:
        efforts = [AnnIndex.build(table, queries, kind, recall=wanted).report.effort for wanted in (0.5, 0.9, 1.0)]
        assert efforts == sorted(efforts)


def test_recall_counts_what_is_tied_with_the_last_and_no_empty_place():
    none = -np.inf
    truth = np.array([[3.0, 2.0, 2.0], [5.0, none, none], [none, none, none]])
    found = np.array([[3.0, 2.0, 1.0], [5.0, none, none], [none, none, none]])
    assert recall_of(found, truth) == pytest.approx((2 / 3 + 1) / 2)
    assert recall_of(np.array([[2.0, 2.0, 2.0]]), truth[:1]) == 1.0
    assert recall_of(found[2:], truth[2:]) == 1.0


def test_what_is_not_reached_is_said():
    report = IndexReport("hnsw", "int8", 10, 4_096, 0.9996, 1.0, 0.1)
    assert "recall@10 0.999, below the 1 that was asked for" in str(report)


def test_progress_is_told():
    told = []
    table, queries = vectors(100_000, 2)
    AnnIndex.build(table, queries, "ivf", progress=lambda done, all_: told.append((done, all_)))
    assert told == [(65_536, 100_000), (100_000, 100_000)]


@pytest.mark.parametrize(
    "wrong", [{"kind": "tree"}, {"dtype": "int4"}, {"recall": 0.0}, {"recall": 1.5}, {"recall": float("nan")}]
)
def test_an_index_that_there_is_not(wrong):
    with pytest.raises(InputError, match=f"`{next(iter(wrong))}` must"):
        AnnIndex.build(*vectors(50), **{"kind": "ivf", **wrong})


def test_vectors_that_are_no_numbers():
    table, queries = vectors(50)
    broken = table.numpy()
    broken[7, 1] = np.nan
    with pytest.raises(InputError, match="finite"):
        AnnIndex.build(tf.constant(broken), queries, "ivf")
    with pytest.raises(InputError, match="item"):
        AnnIndex.build(table[:0], queries, "ivf")
