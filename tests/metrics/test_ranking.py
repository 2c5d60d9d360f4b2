import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tfrec.errors import InputError
from tfrec.metrics import (
    Metric,
    auc,
    average_precision,
    hit_rate,
    ndcg,
    precision,
    recall,
    reciprocal_rank,
    tied_ranks,
)

NAMES = ["recall", "recall_relevant", "precision", "hit_rate", "ndcg", "map", "mrr", "auc"]


def ranks_of(scores, relevant, seen=()):
    row = lambda items: scipy.sparse.csr_matrix([[float(i in items) for i in range(len(scores))]])  # noqa: E731
    return tied_ranks(np.array([scores], float), row(relevant), row(seen))


@pytest.mark.parametrize("ties", ["expected", "pessimistic", "optimistic"])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equals_the_mean_over_all_tie_orders(name, ties, data):
    n = data.draw(st.integers(2, 6))
    scores = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    state = data.draw(st.lists(st.sampled_from("tsn"), min_size=n, max_size=n))  # target, seen, neither
    k = data.draw(st.integers(1, n))
    relevant = {i for i, s in enumerate(state) if s == "t"}
    seen = {i for i, s in enumerate(state) if s == "s"}
    if not relevant or (name == "auc" and len(relevant) + len(seen) == n):
        return
    ranks = ranks_of(scores, relevant, seen).resolve(ties)
    metric = Metric(name, None if name == "auc" else k)
    expected = oracles.metric(scores, relevant, seen, k, name, ties)
    np.testing.assert_allclose(metric(ranks), [expected], atol=1e-12)


def test_values_by_hand():
    # Ranking: items 0 1 2 3 4; targets are 1, 3 and 4, so they have ranks 2, 4 and 5.
    ranks = ranks_of([5, 4, 3, 2, 1], {1, 3, 4})
    assert recall(ranks, 2)[0] == 1 / 2
    assert recall(ranks, 2, "relevant")[0] == 1 / 3
    assert precision(ranks, 4)[0] == 2 / 4
    assert hit_rate(ranks, 1)[0] == 0
    assert reciprocal_rank(ranks)[0] == 1 / 2
    np.testing.assert_allclose(average_precision(ranks, 5), 1 / 3 * (1 / 2 + 2 / 4 + 3 / 5))
    np.testing.assert_allclose(
        ndcg(ranks, 4), (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3) + 1 / np.log2(4))
    )
    np.testing.assert_allclose(auc(ranks), (1 + 0 + 0) / (3 * 2))


def test_large_tie_group():
    # One target among 1000 tied candidates: its rank is uniform.
    ranks = ranks_of([0] * 1000, {17})
    np.testing.assert_allclose(recall(ranks, 10), 10 / 1000)
    np.testing.assert_allclose(hit_rate(ranks, 10), 10 / 1000)
    np.testing.assert_allclose(reciprocal_rank(ranks), np.mean(1 / np.arange(1, 1001)))


def test_user_without_targets_is_nan_not_zero():
    targets = scipy.sparse.csr_matrix([[0.0, 0.0], [0.0, 1.0]])
    ranks = tied_ranks(np.array([[1.0, 2.0], [1.0, 2.0]]), targets)
    for name in NAMES:
        values = Metric(name, None if name == "auc" else 1)(ranks)
        assert np.isnan(values[0])
        assert values[1] == 1


def test_rejects():
    ranks = ranks_of([1, 2], {0})
    with pytest.raises(InputError, match="at least 1"):
        recall(ranks, 0)
    with pytest.raises(InputError, match="denominator"):
        recall(ranks, 1, "all")
    with pytest.raises(InputError, match="ties"):
        ranks.resolve("random")
    with pytest.raises(InputError, match="both seen and a target"):
        ranks_of([1, 2], {0}, {0})
    with pytest.raises(InputError, match="NaN"):
        ranks_of([np.nan, 2], {0})
