"""A worker that is lost: the other goes on, and the weights are those that no loss would have given."""

import importlib.util

import numpy as np
import pytest

from tests import starting
from tests.distributed import elastic_jobs

needs_horovod = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="needs Horovod, which launch/setup builds"
)
#: Tiny, and without noise, which each rank draws for itself: the number of ranks then changes no more than rounding.
OPTIONS = (
    "vae-cf", "--data.synthetic.num-users", "200", "--data.synthetic.num-items", "120",
    "--model.hidden-dims", "16", "--model.latent-dim", "8", "--model.dropout", "0", "--model.no-variational",
    "--training.epochs", "3", "--commit-every", "5",
)  # fmt: skip


@needs_horovod
def test_rank_0_is_killed_in_the_middle_of_an_epoch(tmp_path):
    job = elastic_jobs.run(tmp_path / "killed", *OPTIONS, plan={"kill": [0, 47]}, cooldown=())
    assert job.status == 0, job.screen
    (killed,) = job.of("killed")
    alone = [r for r in job.of("step") if r["time"] > killed["time"] and r["size"] == 1]
    # Committed after 5 steps of the epoch; the folder, the screen and the number 0 are the other worker's now.
    assert alone[0]["step"] == 46
    assert alone[0]["rank"] == 0
    assert "Going on with 1 rank from epoch 2, step 5" in job.screen
    assert sorted({r["epoch"] for r in job.of("epoch")}) == [1, 2, 3]

    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    starting.run("train", *OPTIONS, "--output-dir", "out", cwd=undisturbed)
    one, other = (np.load(folder / "out/checkpoint/last.npz") for folder in (undisturbed, tmp_path / "killed"))
    for name in one.files:
        if name != "progress":
            np.testing.assert_allclose(other[name], one[name], atol=1e-4, err_msg=name)
    # The epoch that was begun by two and ended by one has the loss of all its batches.
    losses = [
        np.loadtxt(folder / "out/history.csv", delimiter=",", skiprows=1, usecols=1)
        for folder in (undisturbed, tmp_path / "killed")
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
