"""Two ranks with unequal data are one rank on the union."""

import importlib.util
import re
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


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3, 4])
def test_rows_that_all_ranks_share(tmp_path, ranks):
    """Three and more parts of a sum: the same bits on every rank, and the sum of one rank."""
    one, several = run("shared_rows", tmp_path, 1), run("shared_rows", tmp_path, ranks)
    assert several["digests"].shape[0] == ranks
    assert (several["digests"] == several["digests"][0]).all()
    for name in (n for n in one if n != "digests"):
        np.testing.assert_allclose(several[name], one[name], atol=2e-3, err_msg=name)


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
    assert {k: v.tolist() for k, v in one.items()} == {k: v.tolist() for k, v in two.items()}
    assert {"recall@20", "shown@10", "shown@50", "found"} <= one.keys()


def test_what_makes_ranks_part(tmp_path):
    found = run("together", tmp_path, 2)
    second, third = found["calls"]
    assert second == third > 20  # the same collectives whether a rank traces or not, in each of ten steps
    assert found["val_loss"] == pytest.approx(0.75)
    np.testing.assert_allclose(found["moving_mean"], 0.75, rtol=1e-6)
    for name in ("kernel", "cache_ids", "cache_rows", "cache_counts"):
        np.testing.assert_array_equal(*found[name], err_msg=name)
    assert (found["cache_ids"][0] >= 0).any()
    assert found["own_loop"].item() == "True"
    assert "begin with different weights" in found["by_hand"].item()
    assert "broadcast_state" in found["by_hand"].item()


def test_uneven_steps_end_with_a_message(tmp_path):
    messages = run("uneven", tmp_path, 2)["messages"].tolist()
    for message in messages:
        assert "same number of steps" in message
        assert "rank 0" in message
        assert "rank 1" in message


def start(tmp_path, options, before=""):
    """Two ranks of the command, which fails; ``$HOROVOD_RANK`` is the rank. Returns what is on the screen."""
    random = np.random.default_rng(0)
    pairs = sorted({tuple(p) for p in np.c_[random.integers(0, 200, 6000), random.integers(0, 60, 6000)].tolist()})
    for rank in (0, 1):
        lines = [f"{u}\t{i}\t{3 if rank and n % 7 else 4}" for n, (u, i) in enumerate(pairs)]
        (tmp_path / f"{rank}.tsv").write_text("\n".join(["user_id\titem_id\trating", *lines]) + "\n")
    command = (
        f"{before} exec '{sys.executable}' -m tfrec.train vae-cf --output-dir '{tmp_path}/out' "
        f"--evaluation.metrics ndcg@10 --evaluation.monitor ndcg@10 {options}"
    )
    done = subprocess.run(
        [sys.executable, str(HOROVODRUN), "-np", "2", "bash", "-c", command],
        capture_output=True, text=True, timeout=TIME_LIMIT_S, cwd=tmp_path,
    )  # fmt: skip
    screen = done.stdout + done.stderr
    assert done.returncode != 0, screen
    # horovodrun has a traceback of its own, and no rank has one.
    assert not re.search(r"\[\d\]<stderr>:(Traceback|error on rank \d of \d on \S+: *$)", screen, re.MULTILINE), screen
    return screen


def train(tmp_path, options):
    """A run that ends before work starts, on all ranks, with one message."""
    screen = start(tmp_path, f"--training.epochs 1 {options}")
    assert not (tmp_path / "out").exists()
    assert screen.count("error: ") == 1, screen
    return screen


def test_other_data_on_one_rank_stops_all(tmp_path):
    screen = train(tmp_path, f"--data.path '{tmp_path}'/$HOROVOD_RANK.tsv")
    assert f"different data from {tmp_path}/0.tsv" in screen
    assert "SHA-256 of 0.tsv" in screen or "events of 0.tsv" in screen
    assert "on rank 0 (" in screen
    assert "on rank 1 (" in screen


def test_other_settings_on_one_rank_stop_all(tmp_path):
    screen = train(
        tmp_path,
        f"--data.path '{tmp_path}/0.tsv' --training.learning-rate 0.00$((HOROVOD_RANK + 1)) --seed $HOROVOD_RANK",
    )
    assert "--training.learning-rate: 0.001 on rank 0 (" in screen
    assert "; 0.002 on rank 1 (" in screen
    assert "--seed: 0 on rank 0 (" in screen


def test_missing_data_on_one_rank_stops_all(tmp_path):
    screen = train(tmp_path, f"--data.path '{tmp_path}'/$((HOROVOD_RANK * 5)).tsv")
    assert "on rank 1 (" in screen
    assert "No such file" in screen
    assert "5.tsv" in screen


def test_a_rank_that_stands_still_is_named(tmp_path):
    """Stopped as a debugger or a machine without memory stops it: the other does not wait forever."""
    pause = "export HOROVOD_GLOO_TIMEOUT_SECONDS=8; if [ $HOROVOD_RANK = 1 ]; then (sleep 15; kill -STOP $$) & fi;"
    options = f"--data.path '{tmp_path}/0.tsv' --training.epochs 100000 --training.patience 100000"
    screen = start(tmp_path, options, before=pause)
    said = r"error on rank 0 of 2 on \S+: rank 1 \(\S+\) has not answered for 8 s, or has ended"
    assert re.search(said, screen), screen
    assert "HOROVOD_GLOO_TIMEOUT_SECONDS" in screen
