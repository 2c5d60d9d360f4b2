"""Confidence weights, against their formulas and at their edges."""

import math

import numpy as np
import pytest
import scipy.sparse

from tfrec.data import confidence
from tfrec.errors import InputError


def test_a_user_of_everything_says_nothing():
    """log(I) - log(1 + n) is below 0 for n = I; a weight never is."""
    matrix = scipy.sparse.csr_matrix(np.array([[1.0, 2, 3, 4], [5, 0, 0, 0]]))
    for weigh in (confidence.bm25, confidence.tf_idf):
        found = weigh(matrix)
        assert found.nnz == 5
        assert found.toarray()[0].tolist() == [0, 0, 0, 0]
        assert found[1, 0] > 0


def test_bm25_by_hand():
    # Lengths of the items 4, 0, 2; mean 2. idf(u) = log 3 - log 2.
    matrix = scipy.sparse.csr_matrix(np.array([[4.0, 0, 0], [0, 0, 2]]))
    found = confidence.bm25(matrix, k1=3.0, b=0.5)
    idf = math.log(3) - math.log(2)
    assert found[0, 0] == pytest.approx(idf * 4 * 4 / (3 * (0.5 + 0.5 * 4 / 2) + 4), rel=1e-6)
    assert found[1, 2] == pytest.approx(idf * 2 * 4 / (3 * (0.5 + 0.5 * 2 / 2) + 2), rel=1e-6)


def test_confidence_weights():
    """Against the formulas, one entry at a time."""
    dense = np.array([[5, 0, 1, 0], [0, 2, 3, 0], [1, 1, 0, 4.0]])
    matrix = scipy.sparse.csr_matrix(dense)
    users, items = dense.shape
    per_item = dense.sum(0)
    for u in range(users):
        count = (dense[u] > 0).sum()
        idf = np.log(items) - np.log(1 + count)
        for i in range(items):
            v = dense[u, i]
            if not v:
                continue
            norm = 1 - 0.8 + 0.8 * per_item[i] / per_item.mean()
            bm25 = idf * v * (100 + 1) / (100 * norm + v)
            assert confidence.bm25(matrix)[u, i] == pytest.approx(max(bm25, 0), rel=1e-5)
            assert confidence.tf_idf(matrix)[u, i] == pytest.approx(max(np.sqrt(v) * idf, 0), rel=1e-5)
            assert confidence.log(matrix, 2.0)[u, i] == pytest.approx(np.log(1 + v / 2), rel=1e-5)
    with pytest.raises(InputError, match="must be at least 0"):
        confidence.bm25(-matrix)
    with pytest.raises(InputError, match="`epsilon` must be above 0"):
        confidence.log(matrix, 0.0)
