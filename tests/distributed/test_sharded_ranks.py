"""Tables in parts on two and four ranks are whole tables on one."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.distributed import sharded_als, sharded_ranks
from tfrec.runs.checkpoint import load_state

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="needs Horovod, which launch/setup builds"
)
TIME_LIMIT_S = 240  # a hang fails the test instead of blocking all that follow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def alone(folder):
    return sharded_ranks.everything(folder)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_parts_of_tables_equal_whole_ones(folder, alone, ranks):
    """Weights, slots, losses and states: unequal and empty batches, ranks that send nothing, a rank without a row."""
    command = [sys.executable, str(Path(sys.executable).with_name("horovodrun")), "-np", str(ranks)]
    command += [sys.executable, sharded_ranks.__file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    with np.load(folder / f"found_{ranks}.npz") as arrays:
        found = dict(arrays)
    assert {"lazy.weight.0", "neumf.float32.dense", "overflow.state", "read.weight.0"} <= found.keys()
    continued = {name for name in found if name.startswith("als.resumed")}
    assert {"als.one item.scores of rows", "als.resumed.items", "als.resumed.test.ndcg@3"} <= found.keys()
    assert ranks > 2 or found.keys() - continued == {name for name in alone if not name.startswith("als.run")}
    # Of the same parts, whose float16 gradients are the same.
    expected = alone | sharded_ranks.neumf_in_parts(ranks)
    # A run that goes on ends as one that was not stopped.
    expected |= {name: alone[name.replace("resumed", "run")] for name in continued}
    for name in found:
        # float16 on the wire rounds, and bfloat16 sums in another order; all else agrees to float32 rounding.
        tolerance = 1e-3 if name.startswith(("float16", "bfloat16", "loop.bfloat16")) else 1e-5
        scale = max(1.0, float(np.abs(expected[name]).max(initial=0)))
        np.testing.assert_allclose(found[name], expected[name], atol=tolerance * scale, err_msg=name)
        if name.startswith("first."):
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    # Of six steps one is skipped, on all ranks, and the loss scale of 2^15 halved.
    assert found["overflow.state"].tolist() == [[5, 2.0**14]]
    assert found["overflow.finite"]

    # Back from many ranks to one.
    model = sharded_ranks.trained_neumf("float32", epochs=0)
    load_state(folder / f"of_{ranks}.npz", model, optimizer=True)
    for name, value in sharded_ranks.values(model, "read").items():
        np.testing.assert_allclose(value, alone[name], atol=1e-5, err_msg=name)
    for name, value in sharded_als.resumed(folder / f"als_stopped_{ranks}").items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)
