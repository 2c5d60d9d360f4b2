"""Ranks on hosts of their own, which are network namespaces: the links between them are slow, cut or come back."""

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import time
from unittest import mock

import numpy as np
import pytest

from tests.distributed import namespace_rank
from tfrec.benchmark import namespaces
from tfrec.benchmark.namespaces import Hosts
from tfrec.errors import InputError

TIME_LIMIT_S = 120  # a hang fails the test instead of blocking all that follow


@pytest.fixture(scope="module")
def allowed():
    """Skip, with the reason, where no hosts can be made."""
    reason = namespaces.why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def horovod(allowed):
    if importlib.util.find_spec("horovod") is None:
        pytest.skip("needs Horovod, which launch/setup builds")


@pytest.fixture(scope="module")
def alone():
    return namespace_rank.train()


def start(hosts, path, pause=0.0, **environment):
    command = [sys.executable, namespace_rank.__file__, str(path), str(pause)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", **environment}
    return hosts.start_ranks(command, variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    """Its exit status and what it printed."""
    out, err = process.communicate(timeout=TIME_LIMIT_S)
    return process.returncode, out + err


def wait_for_step(process, number):
    for line in process.stdout:
        if line == f"step {number}\n":
            return
    pytest.fail(process.stderr.read())


def assert_same(path, alone):
    with np.load(path) as found:
        assert set(found) == set(alone)
        for name in alone:
            np.testing.assert_allclose(found[name], alone[name], atol=2e-4, err_msg=name)


def names():
    said = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in said.splitlines() if line.startswith(f"tfrec-{os.getpid()}-")}


def test_two_hosts_on_a_slow_link_are_one(horovod, alone, tmp_path):
    with Hosts(2) as hosts:
        hosts.set_rate(50e6)
        for process in start(hosts, tmp_path / "found.npz"):
            status, screen = ended(process)
            assert status == 0, screen
        # What ranks exchange has gone over the links: each sends at least half of the dense table's gradient a step.
        assert min(hosts.bytes_sent()) > 20 * namespace_rank.ITEMS * 16 * 4 / 2
    assert_same(tmp_path / "found.npz", alone)


@pytest.mark.slow
def test_four_hosts_are_one(horovod, alone, tmp_path):
    with Hosts(4) as hosts:
        hosts.set_rate(100e6)
        for process in start(hosts, tmp_path / "found.npz"):
            status, screen = ended(process)
            assert status == 0, screen
    assert_same(tmp_path / "found.npz", alone)


@pytest.mark.slow
def test_a_link_with_delay(horovod, alone, tmp_path):
    with Hosts(2) as hosts:
        try:
            hosts.set_delay(0.01)
        except InputError as error:
            pytest.skip(f"the kernel has no netem: {error}")
        for process in start(hosts, tmp_path / "found.npz"):
            status, screen = ended(process)
            assert status == 0, screen
    assert_same(tmp_path / "found.npz", alone)


@pytest.mark.slow
def test_a_host_that_loses_power_is_named(horovod, tmp_path):
    """The others hear nothing of it; they end when they have waited for HOROVOD_GLOO_TIMEOUT_SECONDS."""
    with Hosts(3) as hosts:
        processes = start(hosts, tmp_path / "found.npz", pause=0.5, HOROVOD_GLOO_TIMEOUT_SECONDS="5")
        wait_for_step(processes[0], 3)
        hosts.kill(2)
        said = []
        for process in processes[:2]:
            status, screen = ended(process)
            assert status not in (0, None), screen
            said.append(screen)
    # Each of the two may be the one to say so.
    found = re.findall(r"error on rank (\d) of 3 on host(\d): rank 2 \(host2\) has not answered for 5 s", "".join(said))
    assert found, "\n".join(said)
    assert all(rank == host for rank, host in found)
    assert "Traceback" not in "".join(said)


@pytest.mark.slow
def test_a_partition_of_20_seconds_is_survived(horovod, alone, tmp_path):
    """Shorter than the time that ranks wait, 30 s: training goes on as if nothing had been."""
    with Hosts(2) as hosts:
        processes = start(hosts, tmp_path / "found.npz", pause=0.5)
        wait_for_step(processes[0], 3)
        hosts.cut_off(1)
        time.sleep(20)
        assert all(process.poll() is None for process in processes)
        hosts.reconnect(1)
        for process in processes:
            status, screen = ended(process)
            assert status == 0, screen
    assert_same(tmp_path / "found.npz", alone)


@pytest.mark.slow
def test_a_longer_partition_ends_both_sides_with_a_message(horovod, tmp_path):
    with Hosts(2) as hosts:
        processes = start(hosts, tmp_path / "found.npz", pause=0.5, HOROVOD_GLOO_TIMEOUT_SECONDS="5")
        wait_for_step(processes[0], 3)
        hosts.cut_off(1)
        screens = []
        for process in processes:
            status, screen = ended(process)
            assert status not in (0, None), screen
            screens.append(screen)
    for mine, other in ((0, 1), (1, 0)):
        said = f"error on rank {mine} of 2 on host{mine}: rank {other} (host{other}) has not answered for 5 s"
        assert said in screens[mine], screens


def test_hosts_are_removed_after_an_error(allowed):
    with pytest.raises(KeyboardInterrupt), Hosts(2) as hosts:
        sleeper = hosts.start(1, ["sleep", "1000"], os.environ)
        assert len(names()) == 3
        raise KeyboardInterrupt
    assert names() == set()
    assert sleeper.returncode is not None


def test_hosts_that_a_killed_process_left_behind_are_removed(allowed):
    ended_process = subprocess.Popen(["true"])
    ended_process.wait()
    left, others = f"tfrec-{ended_process.pid}-switch", f"tfrec-{os.getppid()}-switch"
    try:
        for name in (left, others):
            subprocess.run(["ip", "netns", "add", name], check=True)
        with Hosts(1):
            said = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        assert left not in said
        assert others in said
    finally:
        for name in (left, others):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (mock.patch.object(os, "geteuid", return_value=1_000), "need root"),
        (mock.patch.object(sys, "platform", "darwin"), "need Linux, and this is darwin"),
        (mock.patch.object(namespaces.shutil, "which", lambda tool: None if tool == "tc" else tool), "need tc"),
        (mock.patch.object(namespaces.subprocess, "run", mock.Mock(side_effect=OSError("not permitted"))), "permitted"),
    ],
)
def test_why_not(patch, reason):
    with mock.patch.object(os, "geteuid", return_value=0), contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(namespaces.shutil, "which", lambda tool: tool))
        stack.enter_context(patch)
        assert reason in namespaces.why_not()
