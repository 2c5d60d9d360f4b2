"""The plan's arithmetic, by hand."""

import pytest

from tfrec.benchmark.scaling import distinct, plan, step_seconds


def test_step_by_hand():
    # 165,237 rows x 192 + 106,561 + 577 - 129 + 129 weights: see below; at 4 bytes over 1 GB/s and 2 ranks once around.
    weights = (138_493 + 26_744) * 192 + 256 * 256 + 256 + 256 * 128 + 128 + 128 * 64 + 64 + 128 + 1
    compute, communication = step_seconds(2, 1_000, 100.0, 1e9, rows=False, item_bytes=4)
    assert compute == pytest.approx(1_000 / (2 * 100))
    assert communication == pytest.approx(weights * 4 / 1e9)
    _, half = step_seconds(2, 1_000, 100.0, 1e9, rows=False, item_bytes=2)
    assert half == pytest.approx(communication / 2)


def test_rows_of_a_tiny_batch():
    # 5 samples on each of 4 ranks: a user and five items, nearly all different, in 192 numbers and an index each.
    network = 256 * 256 + 256 + 256 * 128 + 128 + 128 * 64 + 64 + 128 + 1
    _, communication = step_seconds(4, 20, 1.0, 1.0, rows=True, item_bytes=4)
    assert communication == pytest.approx(2 * 3 / 4 * network * 4 + 3 * 6 * (192 * 4 + 8), rel=1e-3)


def test_distinct():
    assert distinct(10, 1e9) == pytest.approx(10)
    assert distinct(10**9, 5) == pytest.approx(5)
    assert distinct(1_000, 1_000) == pytest.approx(1_000 * (1 - 0.999**1_000), rel=1e-3)


def test_speed_up_never_exceeds_the_ranks():
    found = [
        (int(ranks), numbers["speed_up"])
        for ways in plan(1e7)["planned_not_measured"].values()
        for by_ranks in ways.values()
        for ranks, numbers in by_ranks.items()
    ]
    assert len(found) > 10
    assert all(0 < speed_up <= ranks for ranks, speed_up in found)
    # The network takes its part.
    assert any(speed_up < 0.99 * ranks for ranks, speed_up in found if ranks > 1)
