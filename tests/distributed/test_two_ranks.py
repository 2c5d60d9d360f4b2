"""Two ranks with unequal data are one rank on the union."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="needs Horovod, which launch/setup builds"
)
SCRIPT = Path(__file__).with_name("two_ranks.py")
HOROVODRUN = Path(sys.executable).with_name("horovodrun")
TIME_LIMIT_S = 240  # a hang fails the test instead of blocking all that follow


def run(task, folder, ranks):
    out = folder / f"{task}-{ranks}.npz"
    command = [sys.executable, str(SCRIPT), task, str(out)]
    if ranks > 1:
        command = [sys.executable, str(HOROVODRUN), "-np", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    with np.load(out) as arrays:
        return dict(arrays)


def test_two_ranks_equal_one(tmp_path):
    one, two = run("equal", tmp_path, 1), run("equal", tmp_path, 2)
    assert one.keys() == two.keys()
    for name in one:
        # float16 on the wire rounds; all else agrees to float32 rounding.
        tolerance = 2e-3 if name.startswith("float16") else 1e-5
        relative = 1e-3 if name.endswith("loss") else 0
        np.testing.assert_allclose(two[name], one[name], atol=tolerance, rtol=relative, err_msg=name)


def test_an_overflow_on_one_rank_makes_all_skip(tmp_path):
    found = run("overflow", tmp_path, 2)
    assert found["state"].tolist() == [[19, 2.0**14], [19, 2.0**14]]  # 20 steps, one skipped; scale 2^15 halved
    assert found["finite"].all()


def test_sparse_gradients(tmp_path):
    one, two = run("embedding", tmp_path, 1), run("embedding", tmp_path, 2)
    for name in one:
        np.testing.assert_allclose(two[name], one[name], atol=1e-5)
    expected = np.arange(20, dtype=float).reshape(10, 2)
    for i in (1, 1, 3, 7, 9):
        expected[i] -= 2 * np.arange(20).reshape(10, 2)[i] / (5 * 2)
    np.testing.assert_allclose(one["table.False"], expected, atol=1e-5)
    np.testing.assert_allclose(one["table.True"], expected, atol=1e-5)


def test_als(tmp_path):
    """Rows are solved by the rank that has them; factors go over the wire as they are stored."""
    one, two = run("als", tmp_path, 1), run("als", tmp_path, 2)
    assert one.keys() == two.keys()
    for name in one:
        tolerance = 2e-3 if name.startswith("float16") else 1e-5
        np.testing.assert_allclose(two[name], one[name], atol=tolerance * np.abs(one[name]).max(), err_msg=name)


def test_als_stops_on_all_ranks_when_one_fails(tmp_path):
    assert run("als_failure", tmp_path, 2)["seen"].tolist() == [[1.0], [1.0]]


def test_neumf_on_device_samples(tmp_path):
    """Dense and lazy tables, compressed and accumulated: two ranks do what one does."""
    one, two = run("neumf", tmp_path, 1), run("neumf", tmp_path, 2)
    assert one.keys() == two.keys()
    for name in one:
        tolerance = 2e-2 if name.startswith("float16") else 2e-4
        np.testing.assert_allclose(two[name], one[name], atol=tolerance, err_msg=name)


def test_tensor_train_tables(tmp_path):
    """By the model's optimizer and by their own: two ranks do what one does."""
    one, two = run("tensor_train", tmp_path, 1), run("tensor_train", tmp_path, 2)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], atol=5e-4, err_msg=name)


def test_an_overflow_in_a_sparse_gradient_makes_all_skip(tmp_path):
    (first, second) = run("neumf_overflow", tmp_path, 2)["state"].tolist()
    iterations, scale, steps = first
    assert first == second
    assert iterations == steps - 1
    assert scale == 2.0**14


def test_drift_is_found_and_named(tmp_path):
    message = str(run("drift", tmp_path, 2)["message"])
    assert "item_bias on ranks [1]" in message


def test_evaluation_is_the_same_number(tmp_path):
    one, two = run("metrics", tmp_path, 1), run("metrics", tmp_path, 2)
    assert {k: v.item() for k, v in one.items()} == {k: v.item() for k, v in two.items()}
