"""Files for clusters and containers, by the tools that read such files: they cannot be started here."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.test_launch import launch_train
from tfrec import train

LAUNCH = Path(__file__).parent.parent / "launch"
JOBS = sorted((LAUNCH / "kubernetes").glob("*.yaml"))
SCRIPTS = [
    path for path in sorted(LAUNCH.rglob("*")) if path.is_file() and re.match(rb"#!.*\b(ba)?sh\n", path.read_bytes())
]


def tool(name):
    path = Path(sys.executable).with_name(name)
    assert path.exists(), f"{name} is missing: launch/setup --test"
    return str(path)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(LAUNCH)))
def test_shell_scripts(path):
    done = subprocess.run([tool("shellcheck"), path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_script_is_left_out():
    assert {"setup", "train", "test", "slurm", "gpu", "docs", "wheel"} <= {path.name for path in SCRIPTS}


def test_dockerfile():
    done = subprocess.run([tool("hadolint"), LAUNCH / "docker" / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_copies_what_setup_reads():
    """Folders that an image is built without are none that launch/setup and pip need."""
    left_out = set((LAUNCH.parent / ".dockerignore").read_text().split())
    assert not left_out & {"launch", "tfrec", "custom_ops", "setup.py", "setup.cfg", "pyproject.toml", "README.md"}


def count(least=0):
    return {"type": "integer", "minimum": least}


def closed(**properties):
    return {"type": "object", "properties": properties, "additionalProperties": False}


TEXT, FLAG = {"type": "string"}, {"type": "boolean"}
REPLICA = {
    **closed(
        replicas=count(),
        restartPolicy={"enum": ["Never", "OnFailure", "Always", "ExitCode"]},
        template={"type": "object", "required": ["spec"]},  # a pod, checked by Kubernetes's own schema
    ),
    "required": ["replicas", "template"],
}
#: The fields of an MPIJob and their values, written after what the operator publishes: the properties of its custom
#: resource (manifests/base/kubeflow.org_mpijobs.yaml) and pkg/apis/kubeflow/v2beta1/types.go in kubeflow/mpi-operator.
#: Closed where that is open: Kubernetes drops a field that it does not know without a word.
MPI_JOB = {
    **closed(
        apiVersion={"const": "kubeflow.org/v2beta1"},
        kind={"const": "MPIJob"},
        metadata={"type": "object", "required": ["name"]},
        spec={
            **closed(
                slotsPerWorker=count(1),
                runLauncherAsWorker=FLAG,
                runPolicy=closed(
                    cleanPodPolicy={"enum": ["All", "Running", "None"]},
                    ttlSecondsAfterFinished=count(),
                    activeDeadlineSeconds=count(1),
                    backoffLimit=count(),
                    schedulingPolicy=closed(
                        minAvailable=count(),
                        queue=TEXT,
                        minResources={"type": "object"},
                        priorityClass=TEXT,
                        scheduleTimeoutSeconds=count(),
                    ),
                    suspend=FLAG,
                    managedBy=TEXT,
                ),
                mpiReplicaSpecs={**closed(Launcher=REPLICA, Worker=REPLICA), "required": ["Launcher", "Worker"]},
                sshAuthMountPath=TEXT,
                launcherCreationPolicy={"enum": ["AtStartup", "WaitForWorkersReady"]},
                mpiImplementation={"enum": ["OpenMPI", "Intel", "MPICH"]},
            ),
            "required": ["mpiReplicaSpecs"],
        },
    ),
    "required": ["apiVersion", "kind", "metadata", "spec"],
}


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def check(job):
    """Raise unless Kubernetes with the MPI operator would accept it."""
    jsonschema.validate(job, MPI_JOB)
    for name, replica in job["spec"]["mpiReplicaSpecs"].items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name.lower()}, **replica["template"]}
        kubernetes_validate.validate(pod, "1.31", strict=True)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_kubernetes_accepts_the_job(path):
    check(read(path))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec, worker: spec.update(slots=1),
        lambda spec, worker: spec.update(slotsPerWorker="1"),
        lambda spec, worker: spec.update(launcherCreationPolicy="WaitForWorkers"),
        lambda spec, worker: spec["runPolicy"].update(cleanPodPolicy="Runing"),
        lambda spec, worker: worker["containers"][0].update(volumeMount=[]),
        lambda spec, worker: worker["containers"][0].update(args=[1]),
        lambda spec, worker: worker["volumes"][1]["emptyDir"].update(size="2Gi"),
    ],
)
def test_the_check_finds(spoil):
    job = copy.deepcopy(read(LAUNCH / "kubernetes" / "train.yaml"))
    spoil(job["spec"], job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"])
    with pytest.raises(jsonschema.ValidationError):
        check(job)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_the_launcher_starts_as_many_ranks_as_the_workers_have_room_for(path, tmp_path):
    """What horovodrun is given, by launch/train itself, and tfrec, by its own parser."""
    spec = read(path)["spec"]
    replicas = spec["mpiReplicaSpecs"]
    launcher, worker = (replicas[kind]["template"]["spec"]["containers"][0] for kind in ("Launcher", "Worker"))
    folder = re.findall(r"^WORKDIR (.*)$", (LAUNCH / "docker" / "Dockerfile").read_text(), re.MULTILINE)[-1]
    assert launcher["command"] == [f"{folder}/launch/train"]
    # As the operator writes them (newConfigMap and updateDiscoverHostsInConfigMap in its controller).
    hosts = [f"tfrec-worker-{n}.tfrec.default.svc" for n in range(replicas["Worker"]["replicas"])]
    (tmp_path / "hostfile").write_text("".join(f"{host} slots={spec['slotsPerWorker']}\n" for host in hosts))
    (tmp_path / "discover_hosts.sh").write_text("#!/bin/sh\n" + "".join(f"echo {host}\n" for host in hosts))
    (tmp_path / "discover_hosts.sh").chmod(0o755)
    start = launch_train(tmp_path, "import sys\nprint(*sys.argv[1:], sep='\\n')\n")
    arguments = [argument.replace("/etc/mpi", str(tmp_path)) for argument in launcher["args"]]
    environment = {"TFREC_VENV": str(tmp_path / "venv"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([start, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    given = done.stdout.splitlines()
    assert int(given[given.index("-np") + 1]) == len(hosts) * spec["slotsPerWorker"]
    if "--slots-per-host" in given:
        assert int(given[given.index("--slots-per-host") + 1]) == spec["slotsPerWorker"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == spec["slotsPerWorker"]
    _, config = train.parse(given[given.index("tfrec.train") + 1 :])
    assert config.output_dir.is_relative_to(launcher["volumeMounts"][0]["mountPath"])
    assert config.elastic is ("--host-discovery-script" in given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "--hostfile must name a readable file. Received: 'hosts'"),
        ("", "--hostfile needs a line 'HOST slots=N' for each host. 'hosts' has: nothing"),
        ("a slots=2\n\n", "--hostfile needs a line 'HOST slots=N' for each host. 'hosts' has: 2:"),
        ("a slots=2\nb:2\n", "--hostfile needs a line 'HOST slots=N' for each host. 'hosts' has: 2:b:2"),
    ],
)
def test_a_wrong_hostfile(tmp_path, text, said):
    if text is not None:
        (tmp_path / "hosts").write_text(text)
    done = subprocess.run(
        [LAUNCH / "train", "--hostfile", "hosts", "als"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (2, f"launch/train: {said}\n")


def test_hosts_reach_horovodrun(tmp_path):
    start = launch_train(tmp_path, "import sys\nprint(*sys.argv[1:6])\n")
    done = subprocess.run(
        [start, "-np", "16", "-H", "node1:8,node2:8", "vae-cf"],
        capture_output=True,
        text=True,
        env={"TFREC_VENV": str(tmp_path / "venv"), "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout.split()[:4] == ["-np", "16", "-H", "node1:8,node2:8"]
