"""Start the ranks of a Slurm job without ssh and without MPI: ``srun python -m tfrec.slurm COMMAND [ARGUMENT ...]``.

Slurm has started a task for each rank, so nothing is left to start. Horovod's Gloo needs environment variables and a
store of keys and values in which the ranks find each other. Task 0 starts that store, which is Horovod's own, and then
``COMMAND`` as its child; every other task waits for the store and becomes ``COMMAND``. TensorFlow is not imported.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import itertools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from tfrec.errors import InputError, SharedError

#: The settings of this module, next to those of Horovod that are kept where they are set (HOROVOD_GLOO_IFACE).
PORT_VARIABLE, WAIT_VARIABLE = "TFREC_RENDEZVOUS_PORT", "TFREC_RENDEZVOUS_SECONDS"
#: Set for a rank whose visible GPUs are its own, since Slurm has bound them to the task.
BOUND_VARIABLE = "TFREC_GPUS_BOUND"
_WAIT_SECONDS = 120
#: How long the store outlives task 0's command, so that the other ranks can read how it ended.
_LINGER_SECONDS = 10.0
#: Below the ports that Linux gives to outgoing connections (32768 and up).
_FIRST_PORT, _NUM_PORTS = 20_000, 12_000
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Task:
    """One task of a job step, as Slurm describes it in the environment.

    Args:
        rank: of the task, from 0 (``SLURM_PROCID``).
        size: number of tasks.
        node: number of the task's node in the step, from 0 (``SLURM_NODEID``).
        local_rank: number of the task on its node, from 0 (``SLURM_LOCALID``).
        nodes: names of the step's nodes.
        tasks: number of tasks on each node.
        job: job and step, such as ``4711.0``.
        gpus_bound: each task sees only its own GPUs.
    """

    rank: int
    size: int
    node: int
    local_rank: int
    nodes: tuple[str, ...]
    tasks: tuple[int, ...]
    job: str
    gpus_bound: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Task:
        """The task of this process.

        Raises:
            SharedError: ``srun`` did not start this process, or its variables contradict each other.
        """
        missing = [name for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID") if name not in environment]
        if missing or not _first(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"):
            raise SharedError(
                "`python -m tfrec.slurm` must be started by srun.\n"
                f"Received: an environment without {', '.join(missing or ['SLURM_NTASKS'])}.\n"
                "Start it in a Slurm job: srun python -m tfrec.slurm COMMAND. Elsewhere use launch/train -np N."
            )
        if "HOROVOD_RANK" in environment:
            raise SharedError(
                "`python -m tfrec.slurm` must not run under another launcher.\n"
                f"Received: HOROVOD_RANK={environment['HOROVOD_RANK']}.\nStart either srun or horovodrun, not both."
            )
        node_list = _first(environment, "SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST")
        per_node = _first(environment, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
        task = cls(
            rank=_number(environment, "SLURM_PROCID"),
            size=_number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
            node=_number(environment, "SLURM_NODEID"),
            local_rank=_number(environment, "SLURM_LOCALID"),
            nodes=tuple(expand_nodes(node_list)),
            tasks=tuple(expand_counts(per_node)),
            job=f"{_first(environment, 'SLURM_JOB_ID', 'SLURM_JOBID')}.{environment.get('SLURM_STEP_ID', '0')}",
            gpus_bound=bool(_first(environment, "SLURM_GPUS_PER_TASK"))
            or "gres/gpu" in environment.get("SLURM_TRES_PER_TASK", ""),
        )
        task._check(node_list, per_node)
        return task

    def _check(self, node_list: str, per_node: str) -> None:
        wrong = (
            f"{len(self.nodes)} nodes in '{node_list}', but {len(self.tasks)} numbers of tasks in '{per_node}'"
            if len(self.nodes) != len(self.tasks)
            else f"'{per_node}' are {sum(self.tasks)} tasks, but the step has {self.size}"
            if sum(self.tasks) != self.size
            else f"task {self.rank} of {self.size} is number {self.local_rank} on node {self.node}"
            if not (self.rank < self.size and self.node < len(self.nodes) and self.local_rank < self.tasks[self.node])
            else ""
        )
        if wrong:
            raise SharedError(
                "The variables of Slurm must describe one job step.\n"
                f"Received: {wrong}.\nStart the tasks with srun, and change none of its SLURM_ variables."
            )

    @property
    def port(self) -> int:
        """Where the store listens: the same on all tasks, another one for the next job or step."""
        numbers = [int(n) for n in re.findall(r"\d+", self.job)] or [0]
        return _FIRST_PORT + (numbers[0] * 7 + sum(numbers[1:])) % _NUM_PORTS

    def variables(self, address: str, port: int, interface: str) -> dict[str, str]:
        """What Horovod reads.

        Args:
            address: of the store.
            port: of the store.
            interface: network interface over which this rank talks to the others, such as ``eth0``.
        """
        with_this_rank = [n for n, tasks in enumerate(self.tasks) if tasks > self.local_rank]
        found = {
            "HOROVOD_HOSTNAME": self.nodes[self.node],
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
        return found | ({BOUND_VARIABLE: "1"} if self.gpus_bound else {})


def expand_nodes(text: str) -> list[str]:
    """The names in a node list of Slurm, such as ``gpu[01-03,07],login`` (``scontrol show hostnames``).

    Raises:
        SharedError: it is none.
    """
    names: list[str] = []
    # Commas outside of brackets.
    for part in re.findall(r"(?:\[[^\]]*\]|[^,\[])+", text.strip()):
        pieces = re.split(r"(\[[^\]]*\])", part)
        choices = [_choices(piece[1:-1], text) if piece.startswith("[") else [piece] for piece in pieces]
        names += ["".join(some) for some in itertools.product(*choices)]
    if not names or any(not name or set(name) & set("[]") for name in names):
        raise _not_a_list("SLURM_STEP_NODELIST", "a node list, such as gpu[01-03,07]", text)
    return names


def _choices(ranges: str, text: str) -> list[str]:
    found = []
    for part in ranges.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise _not_a_list("SLURM_STEP_NODELIST", "a node list, such as gpu[01-03,07]", text)
        first, last = match[1], match[2] or match[1]
        found += [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return found


def expand_counts(text: str) -> list[int]:
    """The numbers in a list of tasks per node, such as ``8(x2),4``.

    Raises:
        SharedError: it is none.
    """
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise _not_a_list("SLURM_STEP_TASKS_PER_NODE", "numbers of tasks, such as 8(x2),4", text)
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _not_a_list(name: str, what: str, text: str) -> SharedError:
    return SharedError(f"`{name}` must be {what}.\nReceived: '{text}'.\nStart the tasks with srun, which sets it.")


def _first(environment: Mapping[str, str], *names: str) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")


def _number(environment: Mapping[str, str], *names: str) -> int:
    text = _first(environment, *names)
    if not text.isdigit():
        raise SharedError(f"`{names[0]}` must be a number.\nReceived: '{text}'.\nStart the tasks with srun.")
    return int(text)


def interface_towards(address: str) -> str:
    """The network interface by which this machine reaches an IPv4 address.

    Raises:
        InputError: there is no way to it.
    """
    get_address = 0x8915  # SIOCGIFADDR
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, 9))  # chooses a route, sends nothing
        except OSError as error:
            raise InputError(
                f"This node must reach {address}, a node of its job.\nReceived: {error.strerror}.\n"
                "Ask for the nodes' network, or name an interface: HOROVOD_GLOO_IFACE=eth0."
            ) from error
        mine = sock.getsockname()[0]
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(sock.fileno(), get_address, struct.pack("256s", name.encode()[:15]))
            except OSError:  # an interface without an IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == mine:
                return name
    raise InputError(
        f"An interface of this node must have the address {mine}, by which it reaches {address}.\n"
        "Received: none.\nName it: HOROVOD_GLOO_IFACE=eth0."
    )


def choose_interface(task: Task, resolve: Callable[[str], str]) -> str:
    """The interface towards the job's other nodes; the loopback where there are none."""
    others = [name for n, name in enumerate(task.nodes) if n != task.node]
    # By another node's address: a node's own name is often 127.0.1.1 in its /etc/hosts.
    return interface_towards(resolve(others[0])) if others else "lo"


def resolve_name(name: str) -> str:
    """The IPv4 address of a node.

    Raises:
        InputError: its name is unknown here.
    """
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise InputError(
            f"The name of a node must have an IPv4 address.\nReceived: '{name}': {error.strerror}.\n"
            "Ask who runs the cluster for its names; ranks connect to each other by them."
        ) from error


def start_store(task: Task, port: int) -> Any:
    """Horovod's store of keys and values, bound to its port; it answers when it is told to serve.

    Raises:
        InputError: Horovod does not import, or the port is taken.
    """
    try:
        from horovod.runner.common.util.hosts import SlotInfo
        from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer
    except ImportError as error:
        raise InputError(
            f"Horovod must be installed to start several ranks.\nReceived: {error}.\nRun launch/setup."
        ) from error
    try:
        server = RendezvousHTTPServer(("", port), RendezvousHandler, 0)
    except OSError as error:
        raise InputError(
            f"Port {port} of {task.nodes[task.node]} must be free for the ranks to find each other.\n"
            f"Received: {error.strerror}.\nGive another one: {PORT_VARIABLE}=29400 srun ..."
        ) from error
    # Of all ranks only their numbers on each host are read.
    server.init(
        [
            SlotInfo(name, 0, local, 0, task.size, tasks, sum(t > local for t in task.tasks))
            for name, tasks in zip(task.nodes, task.tasks, strict=True)
            for local in range(tasks)
        ]
    )
    server.cache["tfrec.slurm"] = {"job": task.job.encode()}
    return server


def wait_for_store(task: Task, address: str, port: int, seconds: float) -> None:
    """Return when task 0's store answers.

    Raises:
        InputError: it does not, or it belongs to another job.
    """
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
                f"Port {port} of {task.nodes[0]} must belong to job {task.job}.\nReceived: job {job}.\n"
                f"Give another port: {PORT_VARIABLE}=29400 srun ..."
            )
        return
    raise InputError(
        f"Task 0 on {task.nodes[0]} must answer at {address}:{port} within {seconds:.0f} s.\nReceived: {reason}.\n"
        f"Open that port between the nodes or choose one: {PORT_VARIABLE}=29400. {WAIT_VARIABLE} is how long to wait."
    )


def run_task_zero(server: Any, command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run ``command`` next to the store. Returns its exit status, 128 + n after signal n."""
    libc = ctypes.CDLL(None)

    def end_with_parent() -> None:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    # In a session of its own: a signal to the task's group then reaches it once, by way of this process. The server's
    # thread starts afterwards, so that there is none while the process forks; until then the socket keeps callers.
    child = subprocess.Popen(command, env=dict(environment), start_new_session=True, preexec_fn=end_with_parent)

    def forward(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    status = child.wait()
    end = time.monotonic() + _LINGER_SECONDS
    while time.monotonic() < end and not _all_ended(server):
        time.sleep(0.1)
    server.shutdown()
    return 128 - status if status < 0 else status


def _all_ended(server: Any) -> bool:
    """Whether every rank that signed in (tfrec.distributed.watch) has signed off."""
    with server.cache_lock:
        ranks = list(server.cache.get("tfrec", {}).values())
    return all("end" in json.loads(value) for value in ranks)


def start(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Become ``command``, as a rank of the job; task 0 returns the exit status of its child.

    Raises:
        InputError: this cannot work; the message says why.
    """
    task = Task.from_environment(environment)
    environment = dict(environment)
    if task.size > 1:
        port = _setting(environment, PORT_VARIABLE, task.port)
        seconds = _setting(environment, WAIT_VARIABLE, _WAIT_SECONDS)
        server = start_store(task, port) if task.rank == 0 else None
        address = "127.0.0.1" if len(task.nodes) == 1 else resolve_name(task.nodes[0])
        interface = environment.get("HOROVOD_GLOO_IFACE") or choose_interface(task, resolve_name)
        environment |= task.variables(address, port, interface)
        environment.setdefault("NCCL_SOCKET_IFNAME", interface)
        if server is not None:
            return run_task_zero(server, command, environment)
        wait_for_store(task, address, port, seconds)
    os.execvpe(command[0], command, environment)


def _setting(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdigit() or not 0 < int(text) < 65_536:
        raise SharedError(f"`{name}` must be a number from 1 to 65535.\nReceived: '{text}'.\nChange or unset it.")
    return int(text)


def main() -> NoReturn:
    """Start one rank."""
    parser = argparse.ArgumentParser(
        prog="srun python -m tfrec.slurm",
        description="Start COMMAND on every task of a Slurm job step as a rank of one training, without ssh or MPI.",
        epilog=f"Environment: HOROVOD_GLOO_IFACE names the network interface (default: the one towards the other "
        f"nodes), {PORT_VARIABLE} the port on the first node (default: from the job's number), {WAIT_VARIABLE} how "
        f"long to wait for it (default {_WAIT_SECONDS}).",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="for example: tfrec train neumf --output-dir runs/a")
    command = parser.parse_args().command
    command = command[1:] if command[:1] == ["--"] else command
    if not command:
        parser.error("COMMAND is missing, for example: srun python -m tfrec.slurm tfrec train neumf")
    try:
        sys.exit(start(command, os.environ))
    except InputError as error:
        if not isinstance(error, SharedError) or os.environ.get("SLURM_PROCID", "0") == "0":
            print(f"tfrec.slurm: error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except OSError as error:
        print(f"tfrec.slurm: error: {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        sys.exit(127)


if __name__ == "__main__":
    main()
