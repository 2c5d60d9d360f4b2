"""The study of tensor-train tables: its choice of ranks."""

import pytest

from tfrec.benchmark.tt_quality import benchmark_tt_quality, largest_ranks
from tfrec.errors import InputError
from tfrec.models import NeuMF


def test_the_largest_rank_that_is_ten_times_smaller():
    model = NeuMF(600, 400, mf_dim=64, layer_dims=(64, 8))
    # Low rank: r numbers a row and an r x 96 map for each table, so (600 + 400 + 2 * 96) r <= 1,000 * 96 / 10.
    assert largest_ranks(model, 1, 10.0) == 8
    assert largest_ranks(model, 1, 1_000.0) == 1  # nothing is small enough: the smallest there is
    # Pairs: half as many rows, two maps each.
    assert largest_ranks(model, 2, 10.0) == 9_600 // (300 + 200 + 4 * 96)


def test_an_unknown_form():
    with pytest.raises(InputError, match="low_rank, low_rank_5, low_rank_20, pairs, three_cores"):
        benchmark_tt_quality(("four_cores",))
