"""The store by which ranks find each other, and what a rank has to be told: a launcher without ssh.

Horovod on Gloo needs environment variables and a small HTTP store of keys. ``horovodrun`` makes both, and starts the
ranks over ssh; whoever starts ranks in another way uses this.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfrec.errors import InputError


class Rendezvous:
    """A store for one job, which answers until the end of the ``with`` block.

    It listens on all addresses of the network that the thread which enters the block is in.

    Args:
        hosts: the host's name of each rank, the ranks of one host next to each other.

    Raises:
        InputError: Horovod is not installed.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        try:
            from horovod.runner.common.util.hosts import HostInfo, get_host_assignments
            from horovod.runner.http.http_server import RendezvousServer
        except ImportError as error:
            raise InputError(
                f"Horovod must be installed to start several ranks.\nReceived: {error}.\nRun launch/setup."
            ) from error
        names = dict.fromkeys(hosts)
        self._places = get_host_assignments([HostInfo(name, list(hosts).count(name)) for name in names], len(hosts))
        self._server = RendezvousServer()
        self.port = 0

    def __enter__(self) -> Rendezvous:
        self.port = self._server.start()
        self._server.init(self._places)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def variables(self, rank: int, address: str, interface: str) -> dict[str, str]:
        """What Horovod reads from a rank's environment.

        Args:
            rank: from 0.
            address: of the store, as the rank reaches it.
            interface: of the rank's host, for what the ranks send each other.
        """
        place = self._places[rank]
        numbers = ("rank", "size", "local_rank", "local_size", "cross_rank", "cross_size")
        return {
            **{f"HOROVOD_{name.upper()}": str(getattr(place, name)) for name in numbers},
            "HOROVOD_HOSTNAME": place.hostname,
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_GLOO_IFACE": interface,
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(self.port),
        }
