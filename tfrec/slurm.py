"""Start the ranks of a Slurm job without ssh and without MPI: ``srun python -m tfrec.slurm COMMAND [ARGUMENT ...]``.

Slurm has started a task for each rank, so nothing is left to start. Horovod's Gloo needs environment variables and a
store of keys and values in which the ranks find each other. Task 0 starts that store, which is Horovod's own, in a
process next to it; then every task becomes ``COMMAND``. So signals and exit statuses are those of ``COMMAND``.
TensorFlow is not imported.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from tfrec.errors import InputError, SharedError

#: What srun tells a task.
_VARIABLES = (
    *("SLURM_PROCID", "SLURM_NODEID", "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_STEP_ID"),
    *("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE"),
)
#: Settings of this module. Horovod's HOROVOD_GLOO_IFACE stays as it is set.
PORT_VARIABLE, WAIT_VARIABLE = "TFREC_RENDEZVOUS_PORT", "TFREC_RENDEZVOUS_SECONDS"
_WAIT_SECONDS = 120
#: How long the store outlives task 0, so that the other ranks can read how it ended.
_LINGER_SECONDS = 10.0
_PRINT_SECONDS = 5.0
#: Below the ports that Linux gives to outgoing connections (32768 and up).
_FIRST_PORT, _NUM_PORTS = 20_000, 12_000


@dataclass(frozen=True)
class Task:
    """One task of a job step, as Slurm describes it in the environment.

    Args:
        rank: of the task, from 0 (``SLURM_PROCID``).
        node: number of its node in the step, from 0 (``SLURM_NODEID``).
        local_rank: number of the task on its node, from 0 (``SLURM_LOCALID``).
        nodes: the step's nodes, such as ``gpu[01-03,07],login`` (``SLURM_STEP_NODELIST``).
        tasks: number of tasks on each node (``SLURM_STEP_TASKS_PER_NODE``).
        job: job and step, such as ``4711.0`` (``SLURM_JOB_ID``, ``SLURM_STEP_ID``).
    """

    rank: int
    node: int
    local_rank: int
    nodes: str
    tasks: tuple[int, ...]
    job: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Task:
        """The task of this process.

        Raises:
            SharedError: ``srun`` did not start this process, or its variables contradict each other.
        """
        if "HOROVOD_RANK" in environment:
            raise SharedError(
                "`python -m tfrec.slurm` must not run under another launcher.\n"
                f"Received: HOROVOD_RANK={environment['HOROVOD_RANK']}.\nUse either srun or horovodrun."
            )
        missing = [name for name in _VARIABLES if not environment.get(name)]
        if missing:
            raise SharedError(
                "`python -m tfrec.slurm` must be started by srun.\n"
                f"Received: no {', '.join(missing)} in the environment.\n"
                "Start it in a Slurm job: srun python -m tfrec.slurm COMMAND. Elsewhere use launch/train -np N."
            )
        task = cls(
            rank=_number(environment, "SLURM_PROCID"),
            node=_number(environment, "SLURM_NODEID"),
            local_rank=_number(environment, "SLURM_LOCALID"),
            nodes=environment["SLURM_STEP_NODELIST"],
            tasks=expand_counts(environment["SLURM_STEP_TASKS_PER_NODE"]),
            job=f"{environment['SLURM_JOB_ID']}.{environment['SLURM_STEP_ID']}",
        )
        size = _number(environment, "SLURM_STEP_NUM_TASKS")
        if task.size != size or task.node >= len(task.tasks) or task.local_rank >= task.tasks[task.node]:
            raise SharedError(
                "The variables of Slurm must describe one job step.\n"
                f"Received: task {task.local_rank} on node {task.node}, rank {task.rank} of {size}; "
                f"SLURM_STEP_TASKS_PER_NODE={environment['SLURM_STEP_TASKS_PER_NODE']}.\n"
                "Start the tasks with one srun, and change none of its SLURM_ variables."
            )
        return task

    @property
    def size(self) -> int:
        """Number of tasks."""
        return sum(self.tasks)

    @property
    def port(self) -> int:
        """Where the store listens: the same on all tasks, another one for the next job or step."""
        return _FIRST_PORT + zlib.crc32(self.job.encode()) % _NUM_PORTS

    def variables(self, address: str, port: int, interface: str) -> dict[str, str]:
        """What Horovod reads.

        Args:
            address: of the store.
            port: of the store.
            interface: network interface over which this rank talks to the others, such as ``eth0``.
        """
        with_this_rank = [n for n, tasks in enumerate(self.tasks) if tasks > self.local_rank]
        return {
            # Horovod groups ranks by this name.
            "HOROVOD_HOSTNAME": f"node{self.node}",
            "HOROVOD_RANK": str(self.rank),
            "HOROVOD_SIZE": str(self.size),
            "HOROVOD_LOCAL_RANK": str(self.local_rank),
            "HOROVOD_LOCAL_SIZE": str(self.tasks[self.node]),
            "HOROVOD_CROSS_RANK": str(with_this_rank.index(self.node)),
            "HOROVOD_CROSS_SIZE": str(len(with_this_rank)),
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_GLOO_IFACE": interface,
        }


def first_and_last(nodes: str) -> tuple[str, str]:
    """The first and the last name of a node list, such as ``gpu[01-03,07]`` (of those: ``scontrol show hostnames``)."""
    # A list sorts its numbers, so the outer ones of the brackets are those of the outer nodes.
    first, last = (re.sub(pattern, r"\1", nodes) for pattern in (r"\[(\d+)[^\]]*\]", r"\[[^\]]*?(\d+)\]"))
    return first.split(",")[0], last.split(",")[-1]


def expand_counts(text: str) -> tuple[int, ...]:
    """The numbers in a list of tasks per node, such as ``8(x2),4``.

    Raises:
        SharedError: it is none.
    """
    matches = [re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part) for part in text.split(",")]
    counts = [n for m in matches if m is not None for n in [int(m[1])] * int(m[2] or 1)]
    if None in matches:
        raise SharedError(
            f"`SLURM_STEP_TASKS_PER_NODE` must be numbers of tasks, such as 8(x2),4.\nReceived: '{text}'.\n"
            "Start the tasks with srun, which sets it."
        )
    return tuple(counts)


def _number(environment: Mapping[str, str], name: str, default: int = 0) -> int:
    text = environment.get(name, str(default))
    if not text.isdigit():
        how = "Unset it, or give a number" if default else "Start the tasks with srun, which sets it"
        raise SharedError(f"`{name}` must be a whole number.\nReceived: '{text}'.\n{how}.")
    return int(text)


def resolve(node: str) -> str:
    """The IPv4 address of a node.

    Raises:
        InputError: its name is unknown here.
    """
    try:
        return socket.gethostbyname(node)
    except OSError as error:
        raise InputError(
            f"The name of a node must have an IPv4 address.\nReceived: '{node}': {error.strerror}.\n"
            "Ask the cluster's administrators to add it to DNS or /etc/hosts."
        ) from error


def check_own_name(name: str, interface: str) -> None:
    """Raise where the other nodes could not reach what this node's own name stands for.

    Horovod looks that name up for its process sets, of which all ranks are one, whatever HOROVOD_GLOO_IFACE is.

    Raises:
        InputError: it stands for the node itself, such as 127.0.1.1.
    """
    address = "" if interface == "lo" else resolve(name)
    if address.startswith("127."):
        raise InputError(
            "The name of a node must stand for an address that the other nodes reach.\n"
            f"Received: '{name}' is {address} on this node, and it reaches them by {interface}.\n"
            "Give it the address of that interface in the node's /etc/hosts, or ask the cluster's administrators to."
        )


def interface_towards(address: str) -> str:
    """The network interface by which this machine reaches an IPv4 address.

    Raises:
        InputError: there is no way to it.
    """
    import psutil  # comes with Horovod

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, 9))  # chooses a route, sends nothing
        except OSError as error:
            raise InputError(
                f"This node must reach {address}, a node of its job.\nReceived: {error.strerror}.\n"
                "Check the network between the nodes, or name an interface: HOROVOD_GLOO_IFACE=eth0."
            ) from error
        mine = sock.getsockname()[0]
    return next(n for n, addresses in psutil.net_if_addrs().items() if mine in [a.address for a in addresses])


def start_store(task: Task, port: int) -> None:
    """Start Horovod's store of keys and values in a process next to this one, which ends after this one.

    Raises:
        InputError: Horovod does not import, or the port is taken.
    """
    try:
        from horovod.runner.common.util.hosts import HostInfo, get_host_assignments
        from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer
    except ImportError as error:
        raise InputError(
            f"Horovod must be installed to start several ranks.\nReceived: {error}.\nRun launch/setup."
        ) from error
    try:
        server = RendezvousHTTPServer(("", port), RendezvousHandler, 0)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"Port {port} of {socket.gethostname()} must be free for the ranks to find each other.\n"
            f"Received: {getattr(error, 'strerror', error)}.\nChoose another one: {PORT_VARIABLE}=29400 srun ..."
        ) from error
    nodes = [HostInfo(f"node{n}", tasks) for n, tasks in enumerate(task.tasks)]
    server.init(get_host_assignments(nodes, task.size))
    server.cache["tfrec.slurm"] = {"job": task.job.encode()}
    parent = os.getpid()
    if os.fork() > 0:
        server.socket.close()
        return
    # A session of its own: a Ctrl-C, which the command outlives for a while, must not end the store.
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.getppid() == parent:
        time.sleep(0.5)
    time.sleep(_LINGER_SECONDS)
    os._exit(0)


def wait_for_store(task: Task, address: str, port: int, seconds: float) -> None:
    """Return when task 0's store answers.

    Raises:
        InputError: it does not, or it belongs to another job.
    """
    # A proxy for the web is none for the machines of a job.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    end, reason = time.monotonic() + seconds, "no answer"
    while time.monotonic() < end:
        try:
            with opener(f"http://{address}:{port}/tfrec.slurm/job", timeout=5) as answer:
                job = answer.read().decode(errors="replace")
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "reason", error))
            time.sleep(0.2)
            continue
        if job != task.job:
            raise InputError(
                f"Port {port} of {address} must belong to job {task.job}.\nReceived: job {job}.\n"
                f"Choose another port: {PORT_VARIABLE}=29400 srun ..."
            )
        return
    raise InputError(
        f"Task 0 must answer at {address}:{port} within {seconds:g} s.\nReceived: {reason}.\n"
        f"Open that port between the nodes, choose another ({PORT_VARIABLE}), or wait longer ({WAIT_VARIABLE})."
    )


def prepare(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a rank, added to those of its task; the store runs when it returns. A task alone needs neither.

    Raises:
        InputError: this cannot work; the message names the reason.
    """
    task = Task.from_environment(environment)
    port = _number(environment, PORT_VARIABLE, task.port)
    seconds = _number(environment, WAIT_VARIABLE, _WAIT_SECONDS)
    if task.size == 1:
        return dict(environment)
    first, last = first_and_last(task.nodes)
    alone = len(task.tasks) == 1
    address = "127.0.0.1" if alone else resolve(first)
    interface = environment.get("HOROVOD_GLOO_IFACE")
    if not interface:
        # By another node's address: a node's own name is often 127.0.1.1 in its /etc/hosts.
        interface = "lo" if alone else interface_towards(address if task.node else resolve(last))
    check_own_name(socket.gethostname(), interface)
    if task.rank == 0:
        start_store(task, port)
    wait_for_store(task, address, port, seconds)
    return {"NCCL_SOCKET_IFNAME": interface, **environment, **task.variables(address, port, interface)}


def main() -> NoReturn:
    """Become a rank."""
    parser = argparse.ArgumentParser(
        prog="srun python -m tfrec.slurm",
        description="Start COMMAND on every task of a Slurm job step as a rank of one training, without ssh or MPI.",
        epilog=f"Environment: HOROVOD_GLOO_IFACE names the network interface (default: the one towards the other "
        f"nodes), {PORT_VARIABLE} the port on the first node (default: from the job's number), {WAIT_VARIABLE} how "
        f"long to wait for it (default {_WAIT_SECONDS}).",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="for example: tfrec train neumf --output-dir runs/a")
    command = parser.parse_args().command
    if not command:
        parser.error("COMMAND is missing, for example: srun python -m tfrec.slurm tfrec train neumf")
    try:
        environment = prepare(os.environ)
    except InputError as error:
        if isinstance(error, SharedError) and os.environ.get("SLURM_PROCID", "0") != "0":
            # srun ends all tasks as soon as one has failed, so the one that prints it must be first.
            time.sleep(_PRINT_SECONDS)
        else:
            print(f"tfrec.slurm: error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        print(f"tfrec.slurm: error: {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        sys.exit(127)


if __name__ == "__main__":
    main()
