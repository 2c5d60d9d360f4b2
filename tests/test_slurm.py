"""Ranks that srun starts: nothing but Slurm's variables tells a process who it is. Slurm itself is not needed."""

import importlib.util
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from tests import starting
from tfrec import data, slurm
from tfrec.distributed import ranks
from tfrec.errors import InputError, SharedError

LAUNCH = Path(__file__).parent.parent / "launch"
needs_horovod = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="needs Horovod, which launch/setup builds"
)
TASK = {
    "SLURM_PROCID": "0",
    "SLURM_NODEID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "gpu[07,09]",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}


def free_port():
    with socket.socket() as sock:
        sock.bind(("", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("login", ("login", "login")),
        ("gpu[01-03,07]", ("gpu01", "gpu07")),
        ("gpu[7,9-12]", ("gpu7", "gpu12")),
        ("gpu[01-03],login", ("gpu01", "login")),
        ("login,gpu[01-03]", ("login", "gpu03")),
        ("rack[1-2]n[0-3]", ("rack1n0", "rack2n3")),
        ("n[1-2]-ib,n7-ib", ("n1-ib", "n7-ib")),
        ("10.0.0.1,10.0.0.2", ("10.0.0.1", "10.0.0.2")),
    ],
)
def test_the_outer_nodes_of_a_list(text, ends):
    assert slurm.first_and_last(text) == ends


@pytest.mark.parametrize(("text", "counts"), [("4", (4,)), ("2(x3)", (2, 2, 2)), ("8(x2),4", (8, 8, 4))])
def test_tasks_on_each_node(text, counts):
    assert slurm.expand_counts(text) == counts


@needs_horovod
@pytest.mark.parametrize("tasks", [(1, 1), (2, 2, 2), (3, 1, 2)])
def test_ranks_are_numbered_as_horovodrun_numbers_them(tasks):
    from horovod.runner.common.util.hosts import HostInfo, get_host_assignments

    hosts = [HostInfo(f"node{n}", count) for n, count in enumerate(tasks)]
    for place in get_host_assignments(hosts, sum(tasks)):
        node = int(place.hostname.removeprefix("node"))
        task = slurm.Task(place.rank, node, place.local_rank, "n[0-9]", tasks, job="1.0")
        found = task.variables("10.0.0.1", 20_000, "eth0")
        assert found["HOROVOD_HOSTNAME"] == place.hostname
        for name in ("rank", "size", "local_rank", "local_size", "cross_rank", "cross_size"):
            assert found[f"HOROVOD_{name.upper()}"] == str(getattr(place, name)), (name, place)


def test_the_port_is_one_that_all_tasks_compute_and_another_in_the_next_step():
    ports = {
        slurm.Task.from_environment({**TASK, "SLURM_PROCID": r, "SLURM_NODEID": r, "SLURM_STEP_ID": step}).port
        for step in ("2", "3")
        for r in ("0", "1")
    }
    assert len(ports) == 2
    assert all(1024 <= port < 32_768 for port in ports)


def test_a_node_without_an_address():
    with pytest.raises(InputError, match=r"(?s)must have an IPv4 address\..*'no-such-node\.invalid'.*DNS"):
        slurm.resolve("no-such-node.invalid")


def test_a_node_whose_name_is_itself():
    slurm.check_own_name("localhost", "lo")
    with pytest.raises(InputError, match=r"(?s)'localhost' is 127\.0\.0\.1 on this node.*by eth0.*/etc/hosts"):
        slurm.check_own_name("localhost", "eth0")


@needs_horovod
def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError) as error:
            slurm.start_store(slurm.Task.from_environment(TASK), port)
    assert str(error.value) == (
        f"Port {port} of {socket.gethostname()} must be free for the ranks to find each other.\n"
        "Received: Address already in use.\nChoose another one: TFREC_RENDEZVOUS_PORT=29400 srun ..."
    )


def test_a_first_node_that_does_not_answer():
    port = free_port()
    with pytest.raises(InputError) as error:
        slurm.wait_for_store(slurm.Task.from_environment(TASK), "127.0.0.1", port, seconds=0.3)
    assert str(error.value).splitlines() == [
        f"Task 0 must answer at 127.0.0.1:{port} within 0.3 s.",
        "Received: [Errno 111] Connection refused.",
        "Open that port between the nodes, choose another (TFREC_RENDEZVOUS_PORT), or wait longer "
        "(TFREC_RENDEZVOUS_SECONDS).",
    ]


@needs_horovod
def test_the_store_of_another_job():
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    server = RendezvousHTTPServer(("127.0.0.1", 0), RendezvousHandler, 0)
    server.cache["tfrec.slurm"] = {"job": b"4242.0"}
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        with pytest.raises(InputError, match=r"(?s)must belong to job 4711\.2\..*Received: job 4242\.0\."):
            slurm.wait_for_store(slurm.Task.from_environment(TASK), "127.0.0.1", server.server_port, seconds=5)
    finally:
        server.shutdown()
        server.server_close()


def test_a_task_alone_is_one_process():
    alone = {**TASK, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}
    assert slurm.prepare(alone) == alone


def test_only_the_first_task_prints_what_all_tasks_find(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["slurm", "true"])
    monkeypatch.setattr(slurm, "_PRINT_SECONDS", 0)
    for rank, printed in (("0", True), ("1", False)):
        for name, value in {**TASK, "SLURM_PROCID": rank, "SLURM_STEP_TASKS_PER_NODE": "1(x3)"}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as stop:
            slurm.main()
        assert stop.value.code == 2
        assert ("must describe one job step" in capsys.readouterr().err) is printed


#: Starts two tasks as srun does, each on a node with a disk of its own, and ends all as soon as one fails.
SRUN = f"""#!{sys.executable}
import os, subprocess, sys, time
option, *command = sys.argv[1:]
assert option == "--kill-on-bad-exit=1", option
tasks = [
    subprocess.Popen(command, cwd=f"disk{{n}}", env={{**os.environ, "SLURM_PROCID": str(n), "SLURM_NODEID": str(n)}})
    for n in range(2)
]
while any(task.poll() is None for task in tasks):
    if any(task.poll() for task in tasks):
        [task.kill() for task in tasks if task.poll() is None]
    time.sleep(0.05)
sys.exit(max(task.returncode for task in tasks))
"""


@pytest.fixture
def cluster(tmp_path):
    """A folder with launch/setup, which has nothing to do, and the environment of a job of two nodes."""
    for name, text in (("srun", SRUN), ("launch/setup", "#!/bin/sh\n")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for n in range(2):
        (tmp_path / f"disk{n}").mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HOROVOD_", "SLURM_", "PMI"))}
    return tmp_path, {
        **kept,
        **TASK,
        "SLURM_STEP_NODELIST": "127.0.0.[1-2]",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "TFREC_VENV": sys.prefix,
        "TFREC_RENDEZVOUS_PORT": str(free_port()),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(LAUNCH.parent),
        # Two ranks on the cores of one.
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
    }


@needs_horovod
def test_two_tasks_train_what_one_process_does(cluster, tmp_path):
    folder, environment = cluster
    table = data.load("synthetic", num_users=300, num_items=100).to_frame()
    for n in range(2):
        lines = zip(*(table.column(c).to_pylist() for c in ("user_id", "item_id")), strict=True)
        Path(folder, f"disk{n}", "plays.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in lines))
    options = (
        "vae-cf", "--data.path", "plays.csv", "--data.user", "user", "--data.item", "item",
        "--model.no-variational", "--model.dropout", "0", "--model.hidden-dims", "32", "--model.latent-dim", "8",
        "--training.epochs", "2", "--training.global-batch-size", "50", "--output-dir", "run",
    )  # fmt: skip
    done = subprocess.run(
        [LAUNCH / "slurm", *options], env=environment, cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 ranks" in done.stdout
    # The first task writes on its own disk, the other reads its own copy of the data.
    assert not (folder / "disk1" / "run").exists()
    starting.run("train", *options[:-1], "alone", cwd=folder / "disk0")
    ranks, alone = (starting.report_of(folder / "disk0" / name) for name in ("run", "alone"))
    measured = [{k: v for k, v in one["test"]["model"].items() if k != "ties"} for one in (ranks, alone)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-3)
    assert "ndcg@100" in measured[0]


def test_the_status_of_a_failed_task(cluster):
    """Refused by tfrec.slurm on both tasks: 2, as tfrec's commands end."""
    folder, environment = cluster
    done = subprocess.run(
        [LAUNCH / "slurm", "als"],
        env={**environment, "SLURM_STEP_TASKS_PER_NODE": "3"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("must describe one job step") == 1


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"SLURM_JOB_ID": ""}, "this is not a Slurm job. Submit it: sbatch"),
        ({"PATH": "/usr/bin:/bin"}, "no srun found"),
        ({"SLURM_SUBMIT_DIR": "/"}, "'/' is not tfrec's repository"),
    ],
)
def test_where_a_job_cannot_be_started(cluster, changes, match):
    folder, environment = cluster
    done = subprocess.run(
        [LAUNCH / "slurm", "als"], env={**environment, **changes}, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert match in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_tasks_of_srun_that_are_no_ranks_are_refused(monkeypatch, tmp_path):
    """Each would train alone, and write over the others' folder."""
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)
    _, err = starting.run("train", "als", *starting.SMALL_DATA, cwd=tmp_path, code=2)
    assert "srun python -m tfrec.slurm COMMAND" in err
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert starting.run("train", "als", *starting.SMALL_DATA, cwd=tmp_path, code=2)[1] == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "seen", "taken"),
    [
        ({}, ["a", "b", "c"], "c"),
        # Each task sees its own alone (--gpus-per-task), however Slurm's version tells it.
        ({"SLURM_GPUS_PER_TASK": "1"}, ["c"], "c"),
        ({"SLURM_TRES_PER_TASK": "cpu=8,gres/gpu=1"}, ["c"], "c"),
        ({"SLURM_GPUS_PER_TASK": "1"}, ["a", "b", "c"], "c"),
        # One GPU of the node, which all tasks would take.
        ({}, ["a"], None),
    ],
)
def test_the_gpu_of_the_third_task_of_a_node(monkeypatch, variables, seen, taken):
    visible = []
    for name in ("SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "_hvd", SimpleNamespace(local_rank=lambda: 2, rank=lambda: 2, size=lambda: 3))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: seen)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, on: None)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda gpu, kind: visible.append(gpu))
    problem = ranks._take_gpu()
    assert visible == ([taken] if taken else [])
    assert (problem is None) is (taken is not None)
    assert problem is None or "--gpus-per-task 1" in str(problem)


def test_the_error_of_a_wrong_number_names_it():
    with pytest.raises(SharedError, match=r"(?s)`SLURM_LOCALID` must be a whole number\.\nReceived: 'x'\."):
        slurm.Task.from_environment({**TASK, "SLURM_LOCALID": "x"})
