"""Confidence weights at their edges; the formulas themselves are tested with the ALS commands."""

import math

import numpy as np
import pytest
import scipy.sparse

from tfrec.data import confidence


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
