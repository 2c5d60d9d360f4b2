"""Ten jobs in which a worker is killed at a random step and comes back, and two that grow; -s shows the table.

Without dropout and sampling noise, which each rank draws for itself: then a run on other ranks is the same run but for
rounding, and a difference of the metrics is a difference of what was trained. Without early stopping, which the last
bit of a validation metric can decide.
"""

import importlib.util

import numpy as np
import pytest

from tests.distributed import elastic_jobs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("horovod") is None, reason="needs Horovod, which launch/setup builds"),
]
METRIC, EPOCHS = "ndcg@100", 6
DATA = (
    "--data.synthetic.num-users", "1000", "--data.synthetic.num-items", "300", "--training.epochs", str(EPOCHS),
    "--training.patience", "None",
)  # fmt: skip
RECIPES = {
    "vae-cf": ("--model.dropout", "0", "--model.no-variational", "--model.hidden-dims", "64"),
    "neumf": ("--model.dropout", "0", "--training.global-batch-size", "8000", "--training.steps-per-call", "2"),
}
COLUMNS = "{:<8} {:>6} {:>6} {:>9} {:>11} {:>9} {:<18} {:>8} {:>8} {:>8}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Recipe -> the test metrics of one rank, and steps of an epoch."""
    found = {}
    for recipe, options in RECIPES.items():
        folder = tmp_path_factory.mktemp(recipe)
        job = elastic_jobs.run(folder, recipe, *DATA, *options)
        assert job.status == 0, job.screen
        last = max(r["step"] for r in job.of("step"))
        found[recipe] = (job.metrics["test"]["model"], last // EPOCHS)
    print(
        "\n"
        + COLUMNS.format(
            "recipe", "rank", "step", "resumed", "seconds", "workers", "weights", "metric", "undist.", "differ"
        )
    )
    return found


def metric(recipe, report):
    return report.get(METRIC, report.get("ndcg@10"))


def checked(recipe, job, expected):
    assert job.status == 0, job.screen
    weights = job.last_weights()
    found, wanted = metric(recipe, job.metrics["test"]["model"]), metric(recipe, expected)
    return weights, found, wanted


@pytest.mark.parametrize("number", range(10))
def test_a_killed_worker_comes_back(tmp_path, undisturbed, number):
    random = np.random.default_rng([16, number])
    recipe = list(RECIPES)[number % 2]
    expected, steps = undisturbed[recipe]
    rank, step = int(random.integers(2)), int(random.integers(1, (EPOCHS - 2) * steps))
    plan = {"kill": [rank, step], "wait": [EPOCHS - 1, 2]}
    job = elastic_jobs.run(tmp_path / "job", recipe, *DATA, *RECIPES[recipe], "--commit-every", "10", plan=plan)
    weights, found, wanted = checked(recipe, job, expected)
    (killed,) = job.of("killed")
    resumed = next(r["step"] for r in job.of("step") if r["time"] > killed["time"] and r["size"] == 1)
    seconds = job.seconds_lost()
    print(COLUMNS.format(
        recipe, rank, killed["killed"], resumed, f"{seconds:.2f}", len(weights), weights[0], f"{found:.5f}",
        f"{wanted:.5f}", f"{abs(found - wanted):.5f}",
    ))  # fmt: skip
    assert seconds < 5
    assert len(weights) == 2
    assert weights[0] == weights[1]
    assert abs(found - wanted) < 0.002


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_growth_from_two_to_three(tmp_path, undisturbed, recipe):
    expected, _ = undisturbed[recipe]
    plan = {"grow": [2, ["localhost:2", "127.0.0.1:1"]], "wait": [EPOCHS - 1, 3]}
    job = elastic_jobs.run(tmp_path / "job", recipe, *DATA, *RECIPES[recipe], "--commit-every", "10", plan=plan, high=3)
    weights, found, wanted = checked(recipe, job, expected)
    first = next(r for r in job.of("step") if r["size"] == 3)
    before = max(r["time"] for r in job.of("step") if r["size"] == 2 and r["time"] < first["time"])
    print(COLUMNS.format(
        recipe, "2->3", "", first["step"], f"{first['time'] - before:.2f}", len(weights), weights[0], f"{found:.5f}",
        f"{wanted:.5f}", f"{abs(found - wanted):.5f}",
    ))  # fmt: skip
    assert len(weights) == 3
    assert len(set(weights)) == 1
    assert abs(found - wanted) < 0.002


@pytest.mark.parametrize(
    ("rejoin", "named"),
    [
        (["--training.learning-rate", "0.5"], "--training.learning-rate: 0.001 on rank 0 (127.0.0.1); 0.5 on rank 1"),
        (["--data.path", "other.tsv"], "different data from"),
        (["other code"], "file tfrec/models/vae_cf.py"),
    ],
)
def test_a_worker_that_joins_with_something_else_is_refused(tmp_path, rejoin, named):
    """The others go on, and finish."""
    folder = tmp_path / "job"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("plays", "other"):
        rows = sorted({tuple(row) for row in random.integers(0, (300, 120), (12000, 2)).tolist()})
        text = "\n".join(f"{user}\t{item}" for user, item in rows)
        (folder / f"{name}.tsv").write_text(f"user_id\titem_id\n{text}\n")
    options = ["--data.path", "plays.tsv", "--training.epochs", "6", *RECIPES["vae-cf"]]
    plan = {"kill": [0, 50], "rejoin": rejoin, "wait": [4, 2], "pause": 0.02}
    job = elastic_jobs.run(folder, "vae-cf", *options, "--commit-every", "10", plan=plan)
    assert job.status == 0, job.screen
    assert "so this one cannot join" in job.screen
    assert named in job.screen
    assert max(r["epoch"] for r in job.of("epoch")) == 6
    assert job.metrics is not None


def test_all_workers_lost(tmp_path):
    """The same command goes on after the last checkpoint of the folder."""
    plan = {"kill": [0, 170], "all": True}
    options = ("vae-cf", *DATA, *RECIPES["vae-cf"], "--commit-every", "10")
    job = elastic_jobs.run(tmp_path / "job", *options, plan=plan)
    assert job.status != 0
    assert job.metrics is None
    job = elastic_jobs.run(tmp_path / "job", *options)
    assert job.status == 0, job.screen
    assert "Resuming after epoch 4 of" in job.screen


def test_the_reset_limit_is_named(tmp_path):
    plan = {"kill": [0, 50]}
    options = ("vae-cf", *DATA, *RECIPES["vae-cf"])
    job = elastic_jobs.run(tmp_path / "job", *options, plan=plan, more=("--reset-limit", "0"))
    assert job.status != 0
    assert "number of resets during elastic job exceeded limit: 0" in job.screen
