"""Hosts without hosts: network namespaces on one machine, joined by a switch, with a rate of one's choice.

Each host is a namespace with a name of its own and one interface, ``eth0``, that a veth pair connects to a bridge in one
more namespace. Nothing is added to the machine's own network. Rates are set by token buckets (``tc`` tbf) on both ends
of each pair; delay and loss would need netem, which many kernels do not have. Linux, root, iproute2.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from tfrec.errors import InputError

_NETWORK = "10.213.7"
#: Bytes that a token bucket must hold at least: a packet as TCP hands it over, and four milliseconds of the rate, in
#: which the kernel's clock may not tick.
_LEAST_BURST, _TICK_SECONDS = 128 * 1024, 0.004


def why_not() -> str | None:
    """Why no such hosts can be made here, or None."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    for tool in ("ip", "tc", "unshare"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian: iproute2, util-linux)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Hosts(1) as hosts:
            hosts.set_rate(1e9)
    except InputError as error:
        return " ".join(str(error).split())
    return None


class Hosts:
    """So many hosts on a switch. A context: all of it is gone, by name, when it ends.

    Args:
        number: of hosts, named ``host0``, ``host1``, ...

    Raises:
        InputError: the system does not allow it.
    """

    def __init__(self, number: int) -> None:
        self._prefix = f"tfrec-{os.getpid()}-"
        self._switch = f"{self._prefix}switch"
        self.number = number
        self.addresses = [f"{_NETWORK}.{n + 1}" for n in range(number)]
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Hosts:
        try:
            _run("ip", "netns", "add", self._switch)
            _run("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
            _run("ip", "-n", self._switch, "link", "set", "bridge", "up")
            for n in range(self.number):
                name = self._name(n)
                _run("ip", "netns", "add", name)
                _run(
                    *("ip", "-n", name, "link", "add", "eth0", "type", "veth"),
                    *("peer", "name", f"port{n}", "netns", self._switch),
                )
                _run("ip", "-n", self._switch, "link", "set", f"port{n}", "master", "bridge", "up")
                _run("ip", "-n", name, "address", "add", f"{self.addresses[n]}/24", "dev", "eth0")
                _run("ip", "-n", name, "link", "set", "eth0", "up")
                _run("ip", "-n", name, "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _name(self, host: int) -> str:
        return f"{self._prefix}{host}"

    def start(self, host: int, command: Sequence[str], environment: Mapping[str, str], **options: Any) -> Any:
        """Start a process on a host, whose name is ``host0`` and so on there.

        Args:
            host: number of the host.
            command: what to run.
            environment: all of its variables.
            **options: of `subprocess.Popen`.
        """
        inside = 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"'
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._name(host), "unshare", "--uts", "sh", "-c", inside, f"host{host}", *command],
            env=dict(environment),
            **options,
        )
        self._started.append(process)
        return process

    def slurm_environment(self, rank: int, ranks_per_host: int = 1) -> dict[str, str]:
        """The variables that ``srun`` would set for a task, a host a node."""
        return {
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_STEP_ID": "0",
            "SLURM_PROCID": str(rank),
            "SLURM_STEP_NUM_TASKS": str(self.number * ranks_per_host),
            "SLURM_LOCALID": str(rank % ranks_per_host),
            "SLURM_NODEID": str(rank // ranks_per_host),
            "SLURM_STEP_NODELIST": ",".join(self.addresses),
            "SLURM_STEP_TASKS_PER_NODE": f"{ranks_per_host}(x{self.number})",
        }

    def set_rate(self, bits_per_second: float) -> None:
        """Let each host send, and receive, so many bits per second."""
        burst = max(_LEAST_BURST, int(bits_per_second / 8 * _TICK_SECONDS * 2))
        bucket = f"tbf rate {bits_per_second:.0f}bit burst {burst} latency 400ms".split()
        for n in range(self.number):
            _run("tc", "-n", self._name(n), "qdisc", "replace", "dev", "eth0", "root", *bucket)
            _run("tc", "-n", self._switch, "qdisc", "replace", "dev", f"port{n}", "root", *bucket)

    def cut(self, host: int) -> None:
        """Pull a host's cable."""
        _run("ip", "-n", self._switch, "link", "set", f"port{host}", "down")

    def join(self, host: int) -> None:
        """Put a host's cable back."""
        _run("ip", "-n", self._switch, "link", "set", f"port{host}", "up")

    def kill(self, host: int) -> None:
        """Take a host's power: the others hear nothing of its end, not even from its kernel."""
        self.cut(host)
        self._kill_processes(self._name(host))

    def bytes_sent(self) -> list[int]:
        """What each host has sent so far, packets' headers included."""
        found = []
        for n in range(self.number):
            shown = json.loads(_run("ip", "-j", "-s", "-n", self._name(n), "link", "show", "eth0"))
            found.append(int(shown[0]["stats64"]["tx"]["bytes"]))
        return found

    def close(self) -> None:
        """End what runs there, and remove the namespaces with all that is in them."""
        for name in (*(self._name(n) for n in range(self.number)), self._switch):
            with contextlib.suppress(InputError):
                self._kill_processes(name)
            with contextlib.suppress(InputError):
                _run("ip", "netns", "delete", name)
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)

    @staticmethod
    def _kill_processes(name: str) -> None:
        for pid in _run("ip", "netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(
            f"Hosts made of network namespaces need root and a kernel that has them, veth, bridges and tbf.\n"
            f"Received: {(done.stderr or done.stdout).strip()}, from: {' '.join(command)}.\n"
            "Run it as root on Linux, outside of a container or in one with CAP_NET_ADMIN and CAP_SYS_ADMIN."
        )
    return done.stdout
