"""The model of a step on several ranks: its bytes by hand, its fit on steps that obey it, what it plans."""

import dataclasses
import os
from unittest import mock

import numpy as np
import pytest

from tests import starting
from tfrec.benchmark import scaling
from tfrec.benchmark.scaling_model import (
    NAMES,
    Measured,
    Step,
    crossover_rows,
    distinct,
    errors,
    fit,
    predict,
    rounds,
    share,
    traffic,
)

TABLES = ("replicated", "sharded")
STEP = Step(4, 3_000, 1_000, 10, 500, 100, 5, "replicated", "float32")
NUMBERS = dict(zip(NAMES, (0.5e-9, 3e-9, 1e-3, 2e-9, 3e-9, 9e-9, 1.1, 1.5), strict=True))


def steps():
    for ranks in (2, 4):
        for tables in ("replicated", "sharded"):
            for wire in ("float32", "float16"):
                for users in (3_000, 300_000):
                    yield dataclasses.replace(STEP, ranks=ranks, tables=tables, wire=wire, users=users)


def test_bytes_of_replicated_tables():
    # (4,000 rows x 10 + 500) numbers, of which three quarters go around the ring twice.
    assert traffic(STEP) == {"allreduce": pytest.approx(1.5 * 40_500 * 4), "alltoall": 0}
    half = dataclasses.replace(STEP, wire="float16")
    assert traffic(half)["allreduce"] == pytest.approx(1.5 * 40_500 * 2)
    # One meeting and one sum, each of two messages, one after the other, among four ranks.
    assert rounds(STEP) == 2 * 2


def test_bytes_of_sharded_tables():
    step = dataclasses.replace(STEP, tables="sharded", wire="float16", users=10**9, items=10**9)
    # 20 users and 100 items, all different, of which three quarters are on other ranks: fetched in float32, sent back
    # in float16, each way with a place.
    assert traffic(step)["alltoall"] == pytest.approx(0.75 * 120 * (4 + 40 + 4 + 20), rel=1e-4)
    assert traffic(step)["allreduce"] == pytest.approx(1.5 * 500 * 2)


def test_distinct(random):
    assert distinct(10, 1e9) == pytest.approx(10)
    assert distinct(10**9, 5) == pytest.approx(5)
    drawn = [len(np.unique(random.integers(50, size=80))) for _ in range(2_000)]
    assert distinct(50, 80) == pytest.approx(np.mean(drawn), rel=0.01)


def test_a_step_by_hand():
    sent = traffic(STEP)["allreduce"]
    copied = 40_500 * 4 * 0.5e-9
    # A slow link counts, or else the processor, which goes on meanwhile.
    for rate, travels in ((1e6, 8 / 1e6 * 1.1 * sent), (1e12, 2e-9 * sent), (None, 2e-9 * sent)):
        expected = 0.5 + copied + 4 * 1e-3 + travels
        assert predict(NUMBERS, STEP, rate, 0.5, None) == pytest.approx(expected)
    # On two cores four ranks compute twice as long; the link does not care.
    expected = 2 * (0.5 + copied + 4 * 1e-3) + 8 / 1e6 * 1.1 * sent
    assert predict(NUMBERS, STEP, 1e6, 0.5, 2) == pytest.approx(expected)


def test_cores():
    assert share(4, 2) == 2
    assert share(2, 4) == 1
    assert share(64, None) == 1


def test_a_fit_finds_the_numbers_of_steps_that_obey_it():
    measured = [
        Measured(step, rate, 0.02, predict(NUMBERS, step, rate, 0.02, 2))
        for step in steps()
        for rate in (None, 1e9, 1e8)
    ]
    found = fit(measured, 2)
    np.testing.assert_allclose(errors(found, measured, 2), 0, atol=1e-6)
    assert found == pytest.approx(NUMBERS, rel=1e-3)


def test_the_error_of_one_that_does_not():
    measured = [Measured(STEP, 1e9, 0.02, 2 * predict(NUMBERS, STEP, 1e9, 0.02, 2))]
    np.testing.assert_allclose(errors(NUMBERS, measured, 2), -0.5)


def test_crossover():
    step = dataclasses.replace(STEP, users=75, items=25)
    rows = crossover_rows(NUMBERS, step, 1e9)
    for factor, better in ((0.97, "replicated"), (1.03, "sharded")):
        users = round(0.75 * rows * factor)
        sized = dataclasses.replace(step, users=users, items=users // 3)
        times = {t: predict(NUMBERS, dataclasses.replace(sized, tables=t), 1e9, 0, None) for t in TABLES}
        assert min(times, key=times.__getitem__) == better
    # A larger batch has more rows to fetch.
    assert crossover_rows(NUMBERS, dataclasses.replace(step, batch=10_000), 1e9) > 1.2 * rows
    # Nothing is gained where the link costs nothing.
    free = {name: 0.0 if "allreduce" in name or "float32" in name else value for name, value in NUMBERS.items()}
    assert crossover_rows(free, step, 1e9) is None


def cases():
    """Cases as measured, of which those on four ranks take twice as long as the model says."""
    for work in scaling.WORKLOADS:
        if work.wire == "float32":
            yield {"ranks": 1, "bits_per_second": None, **dataclasses.asdict(work), "milliseconds": 20.0}
        for ranks in (2, 4):
            for rate in scaling.RATES:
                seconds = predict(NUMBERS, scaling.step_of(work, ranks), rate, 0.02, 2)
                case = {"ranks": ranks, "bits_per_second": rate, **dataclasses.asdict(work)}
                yield {**case, "milliseconds": 1e3 * seconds * ranks / 2}


def test_errors_are_of_what_was_not_fitted():
    found = scaling.analysed(list(cases()), 2)
    assert found["errors"]["fitted"]["largest"] == found["errors"]["other rate"]["largest"] == 0
    assert found["errors"]["more ranks"]["median"] == found["errors"]["not fitted"]["largest"] == 0.5
    groups = {(case["ranks"], case["bits_per_second"]): case["group"] for case in found["measured"]}
    assert {key for key, group in groups.items() if group == "fitted"} == {(2, None), (2, 1e9), (2, 100e6)}


def test_plan():
    found = scaling.plan(NUMBERS, 1e7, 1 << 18)
    for row in found["steps"]:
        for way in (f"{t} {w}" for t in TABLES for w in ("float32", "float16")):
            assert 0 < row[way]["speed_up"] < row["ranks"]
            assert row[way]["milliseconds"] > found["compute_milliseconds"]
    by_batch = [row["float32"] for row in found["sharding_wins_from_rows"] if row["ranks"] == 8][:3]
    assert by_batch == sorted(by_batch)


def test_it_refuses_where_no_hosts_can_be_made(tmp_path):
    with mock.patch.object(os, "geteuid", return_value=1_000):
        _, screen = starting.run("benchmark.__main__", "scaling", cwd=tmp_path, code=2)
    assert "error: `scaling` must be allowed to make hosts" in screen
    assert "Received: network namespaces need root." in screen


def test_bad_arguments(tmp_path):
    _, screen = starting.run("benchmark.__main__", "scaling", "--samples-per-second", "0", cwd=tmp_path, code=2)
    assert "`--samples-per-second` must be above 0." in screen
