import numpy as np
import pytest

from tfrec.benchmark.ease import benchmark_ease, generated
from tfrec.errors import InputError


def test_generated_histories():
    matrix = generated(200, num_users=3_000, entries=20)
    assert matrix.shape == (3_000, 200)
    assert (matrix.data == 1).all()
    lengths = np.diff(matrix.indptr)
    # Items drawn twice are there once.
    assert lengths.min() >= 1
    assert lengths.max() <= 100
    assert 10 < lengths.mean() < 20
    counts = np.bincount(matrix.indices, minlength=200)
    assert np.sort(counts)[-20:].sum() > 2 * np.sort(counts)[:20].sum()
    assert (generated(200, num_users=3_000, entries=20) != matrix).nnz == 0


def test_reports_speed_and_memory():
    result = benchmark_ease(30, 2)
    assert result["items"] == 30
    for name in ("gramian_seconds", "inverse_seconds", "weights_seconds"):
        assert 0 <= result[name]["min"] <= result[name]["max"]
    assert result["weight_error"] < 1e-3
    assert result["highest_gib"] > result["weights_gib"] == round(4 * 30**2 / 2**30, 3)
    with pytest.raises(InputError, match="at least 1"):
        benchmark_ease(0, 1)
