"""Hosts without a cluster: network namespaces on one machine, joined by a switch, with links as slow as you like.

Each host is a namespace with its own name, its own loopback and one interface, ``eth0``, which a veth pair connects to
a bridge in one more namespace, the switch. Nothing is added to the machine's own network. ``tc`` sets rates (tbf, a
token bucket) and delays (netem, which many kernels do not have) at both ends of each pair. Memory, files and processor
are the machine's, so ranks compute as slowly as they share it.

Linux, root, iproute2 and util-linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tfrec.distributed.rendezvous import Rendezvous
from tfrec.errors import InputError

T = TypeVar("T")

_NETWORK, _SWITCH_ADDRESS = "10.213.7", "10.213.7.254"
_TOOLS = ("ip", "tc", "unshare", "mount")
#: Run on a host before the command: its name, and the file in which it finds the others' addresses.
_SETUP = 'echo "$0" >/proc/sys/kernel/hostname && mount --bind "$1" /etc/hosts && shift && exec "$@"'
_PREFIX = "tfrec-"
#: A bucket holds at least a packet as TCP hands it over, and what arrives until the kernel's clock ticks again.
_LEAST_BURST_BYTES, _TICK_SECONDS = 64 * 1024, 0.001
#: How long a packet may wait in a full queue before it is dropped, milliseconds.
_QUEUE_MS = 400
_CLONE_NEWNET = 0x40000000


def why_not() -> str | None:
    """Why no such hosts can be made here; None where they can."""
    if sys.platform != "linux":
        return f"network namespaces need Linux, and this is {sys.platform}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in _TOOLS:
        if shutil.which(tool) is None:
            return f"network namespaces need {tool}, which is not installed (Debian: iproute2, util-linux)"
    try:
        with Hosts(1) as hosts:
            hosts.set_rate(1e9)
            process = hosts.start(0, ["true"], os.environ, stderr=subprocess.PIPE, text=True)
            _, said = process.communicate()
            if process.returncode:
                return f"the system refuses a host's name or its list of hosts: {' '.join(said.split())}"
    except InputError as error:
        return "the system refuses network namespaces: " + str(error).split("Received: ")[-1].splitlines()[0]
    return None


class Hosts:
    """So many hosts on a switch. All of it is gone at the end of the ``with`` block, however that ends.

    What a process left behind that was killed before its end is removed by the next one.

    Args:
        number: of hosts, named ``host0``, ``host1``, ...

    Raises:
        InputError: the system does not allow it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.names = [f"host{n}" for n in range(number)]
        self.addresses = [f"{_NETWORK}.{n + 1}" for n in range(number)]
        self._prefix = f"{_PREFIX}{os.getpid()}-"
        self._switch = f"{self._prefix}switch"
        self._processes: list[subprocess.Popen[Any]] = []
        self._at_end = contextlib.ExitStack()

    def __enter__(self) -> Hosts:
        _remove_leftovers()
        try:
            self._add()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self) -> None:
        # Horovod looks its own host's name up, whatever HOROVOD_GLOO_IFACE is (its process sets do not get that).
        folder = self._at_end.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX))
        self._hosts_file = f"{folder}/hosts"
        lines = ["127.0.0.1 localhost", *map(" ".join, zip(self.addresses, self.names, strict=True))]
        with open(self._hosts_file, "w") as file:
            file.write("\n".join(lines) + "\n")
        _run("ip", "netns", "add", self._switch)
        _run("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", self._switch, "address", "add", f"{_SWITCH_ADDRESS}/24", "dev", "bridge")
        _run("ip", "-n", self._switch, "link", "set", "bridge", "up")
        for n, address in enumerate(self.addresses):
            name = self._namespace(n)
            _run("ip", "netns", "add", name)
            pair = ("link", "add", "eth0", "type", "veth", "peer", "name", f"port{n}", "netns", self._switch)
            _run("ip", "-n", name, *pair)
            _run("ip", "-n", self._switch, "link", "set", f"port{n}", "master", "bridge", "up")
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            _run("ip", "-n", name, "link", "set", "eth0", "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")

    def _namespace(self, host: int) -> str:
        return f"{self._prefix}{host}"

    # ---- processes

    def start(
        self, host: int, command: Sequence[str], environment: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a process on a host, which has the host's name.

        Args:
            host: its number.
            command: what to run.
            environment: all of the process's variables.
            **options: of `subprocess.Popen`.
        """
        # `ip netns exec` gives the process mounts of its own.
        inside = ["ip", "netns", "exec", self._namespace(host), "unshare", "--uts", "sh", "-c", _SETUP]
        inside += [self.names[host], self._hosts_file, *command]
        process = subprocess.Popen(inside, env=dict(environment), **options)
        self._processes.append(process)
        return process

    def start_ranks(
        self, command: Sequence[str], environment: Mapping[str, str], **options: Any
    ) -> list[subprocess.Popen[Any]]:
        """Start a rank of one job on each host. The store by which they find each other is at the switch.

        Args:
            command: of each rank.
            environment: variables that all have; Horovod's are added.
            **options: of `subprocess.Popen`.

        Raises:
            InputError: Horovod is not installed.
        """
        store = Rendezvous(self.names)
        self._inside(self._switch, store.__enter__)
        self._at_end.callback(store.__exit__, None, None, None)
        return [
            self.start(n, command, {**environment, **store.variables(n, _SWITCH_ADDRESS, "eth0")}, **options)
            for n in range(self.number)
        ]

    @staticmethod
    def _inside(namespace: str, do: Callable[[], T]) -> T:
        """``do()`` in a thread of its own in another network: the sockets that it opens stay there."""
        found: list[T] = []
        failed: list[BaseException] = []

        def work() -> None:
            try:
                with open(f"/run/netns/{namespace}") as file:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(file.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")
                found.append(do())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return found[0]

    # ---- links

    def set_rate(self, bits_per_second: float | None) -> None:
        """Let each host send, and receive, so many bits per second at a time; None: as fast as the machine can."""
        for namespace, device in self._ends():
            if bits_per_second is None:
                with contextlib.suppress(InputError):  # there was no limit
                    _run("tc", "-n", namespace, "qdisc", "delete", "dev", device, "root")
                continue
            burst = max(_LEAST_BURST_BYTES, int(bits_per_second / 8 * _TICK_SECONDS))
            bucket = f"tbf rate {bits_per_second:.0f}bit burst {burst} latency {_QUEUE_MS}ms".split()
            _run("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", *bucket)

    def set_delay(self, seconds: float) -> None:
        """Have each packet wait on its way out of and into a host, in the place of a rate.

        Raises:
            InputError: the kernel has no netem.
        """
        for namespace, device in self._ends():
            _run("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "netem", "delay", f"{seconds}s")

    def _ends(self) -> list[tuple[str, str]]:
        """Both ends of each pair: where a host sends, and where the switch sends to it."""
        return [end for n in range(self.number) for end in ((self._namespace(n), "eth0"), (self._switch, f"port{n}"))]

    def cut_off(self, host: int) -> None:
        """Lose all packets from and to a host, which is not told so."""
        _run("ip", "-n", self._switch, "link", "set", f"port{host}", "nomaster")

    def reconnect(self, host: int) -> None:
        """Undo `cut_off`."""
        _run("ip", "-n", self._switch, "link", "set", f"port{host}", "master", "bridge")

    def kill(self, host: int) -> None:
        """Take a host's power: its processes end, and the others hear nothing of it, not even from its kernel."""
        self.cut_off(host)
        _kill_processes(self._namespace(host))

    def bytes_sent(self) -> list[int]:
        """What each host has sent so far.

        The kernel cuts packets to the link's size only where a link needs it, and counts before that: up to 64 KiB with
        one header.
        """
        found = []
        for n in range(self.number):
            shown = json.loads(_run("ip", "-j", "-s", "-n", self._namespace(n), "link", "show", "eth0"))
            found.append(int(shown[0]["stats64"]["tx"]["bytes"]))
        return found

    def close(self) -> None:
        """End what runs there, and remove the namespaces with all that is in them."""
        _remove([*(self._namespace(n) for n in range(self.number)), self._switch])
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self._at_end.close()


def _remove(names: Sequence[str]) -> None:
    for name in names:
        with contextlib.suppress(InputError):
            _kill_processes(name)
        with contextlib.suppress(InputError):
            _run("ip", "netns", "delete", name)


def _remove_leftovers() -> None:
    """Remove the hosts of processes that have ended without doing so."""
    names = [line.split()[0] for line in _run("ip", "netns", "list").splitlines() if line]
    for name in names:
        made = re.fullmatch(rf"{_PREFIX}(\d+)-\w+", name)
        if made is not None and not os.path.exists(f"/proc/{made[1]}"):
            _remove([name])


def _kill_processes(name: str) -> None:
    for pid in _run("ip", "netns", "pids", name).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise _refused(command, str(error)) from error
    if done.returncode:
        raise _refused(command, (done.stderr or done.stdout).strip())
    return done.stdout


def _refused(command: Sequence[str], said: str) -> InputError:
    return InputError(
        "Hosts made of network namespaces must be allowed by the system: root, and a kernel with namespaces, veth, "
        f"bridges and tbf.\nReceived: {' '.join(said.split())}, from `{' '.join(command)}`.\n"
        "Run as root on Linux; in a container with CAP_NET_ADMIN and CAP_SYS_ADMIN."
    )
