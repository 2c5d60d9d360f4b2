"""Answer over HTTP from finished runs: tfrec serve RUN [RUN ...] --port 8000"""

from __future__ import annotations

import logging
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tfrec import commands
from tfrec.errors import InputError
from tfrec.printing import printable

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Arguments:
    """Answer over HTTP from finished runs."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders of runs; NAME=FOLDER where an address should have another name than the folder's."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for all of this machine's."""
    port: int = 8000
    """Port to listen at; 0: any that is free."""
    host_names: tuple[str, ...] = ()
    """Names by which a request may call the service (its header Host), `*` for any. By default those of this machine's
    loopback where it listens there, so that no page of another site can ask it by a name of its own; else any."""
    token_file: Path | None = None
    """File with a token that each request must bring as `Authorization: Bearer TOKEN`."""
    reload_s: float = 5.0
    """Seconds between looks at the runs for a new model; 0: never."""
    batch: int = 64
    """Rows that are answered together at most."""
    wait_ms: float = 1.0
    """How long the first request of a batch waits for others."""
    max_k: int = 1_000
    """Length of a list at most."""
    max_ids: int = 1_000
    """Ids at most in one history, filter, or row of candidates."""
    max_instances: int = 256
    """Rows of one predict request at most."""
    max_body_bytes: int = 1_000_000
    """Size of a request's body at most."""
    max_queue: int = 1_024
    """Rows at most that wait for one function of a model."""
    timeout_s: float = 10.0
    """Time for an answer at most."""


def serve(arguments: Arguments) -> None:
    """Listen, load, answer until stopped."""
    a = arguments
    check(a)
    token = read_token(a.token_file) if a.token_file is not None else None
    try:
        import httptools  # noqa: F401
        import orjson  # noqa: F401
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise InputError(
            f"`tfrec serve` needs more packages.\nReceived: no {error.name}.\nInstall them: pip install 'tfrec[serve]'."
        ) from error
    with listen(a.host, a.port) as listening:
        commands.quiet_tensorflow()
        from tfrec.service.limits import Limits
        from tfrec.service.metrics import Metrics
        from tfrec.service.models import Batching, Models, named_runs
        from tfrec.service.protocol import bounded
        from tfrec.service.routes import Service, Settings

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        limits = Limits(a.max_body_bytes, a.max_k, a.max_ids, a.max_instances, a.timeout_s, a.max_queue)
        metrics = Metrics()
        models = Models(named_runs(a.runs), limits, Batching(a.batch, a.wait_ms), metrics)
        app = Service(models, metrics, Settings(limits, token, a.reload_s, host_names(a))).application()
        config = uvicorn.Config(
            app,
            http=bounded(a.timeout_s),
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(a.timeout_s)),
        )
        server = uvicorn.Server(config)
        names = ", ".join(f"{n} ({m.current.engine.num_items:,} items)" for n, m in models.by_name.items())
        host, port = listening.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"Serving {names} at {url}; Ctrl-C or SIGTERM stops.", flush=True)
        # While the server runs it handles these two, ends what it has begun, and raises them again: nothing is left.
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, signal.SIG_IGN)
        try:
            server.run(sockets=[listening])
        finally:
            models.close()
        print("Stopped.", flush=True)


def host_names(arguments: Arguments) -> frozenset[str] | None:
    """Names by which the service may be called, None for any."""
    names = arguments.host_names
    if "*" in names:
        return None
    if not names and arguments.host not in _LOOPBACK:
        return None
    return frozenset(name.lower() for name in (*names, *_LOOPBACK, arguments.host))


def check(arguments: Arguments) -> None:
    """Raise InputError for an option out of its range."""
    a = arguments
    if not a.runs:
        raise InputError("At least one run must be given.\nReceived: none.\nGive the folder of a finished run.")
    if not 0 <= a.port <= 65_535:
        raise InputError(f"--port must lie in [0, 65535].\nReceived: {a.port}.\nGive 0 for any that is free.")
    for name in ("batch", "max_k", "max_ids", "max_instances", "max_body_bytes", "max_queue"):
        if getattr(a, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1.\nReceived: {getattr(a, name)}.")
    for name, least in (("reload_s", 0.0), ("wait_ms", 0.0), ("timeout_s", 0.001)):
        # Written so that NaN is refused.
        if not least <= getattr(a, name) <= 86_400:
            raise InputError(
                f"--{name.replace('_', '-')} must lie in [{least:g}, 86400].\nReceived: {getattr(a, name)}."
            )


def read_token(path: Path) -> str:
    """The token in a file, without blanks around it.

    Raises:
        InputError: the file cannot be read, or has no token that a header can have.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file cannot be read.\nReceived: {printable(path)}: {error}.") from error
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"--token-file must have one token of at least 16 letters of ASCII, without blanks.\nReceived: "
            f"{len(token)} letters in {printable(path)}.\nMake one: python -c 'import secrets; "
            "print(secrets.token_urlsafe())'."
        )
    return token


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything is loaded.

    Raises:
        InputError: the port is taken, or this machine has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host must be an address of this machine.\nReceived: {host!r}: {error}.") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(2048)
    except OSError as error:
        found.close()
        raise InputError(
            f"--host and --port must be free to listen at.\nReceived: {host} and {port}: {error.strerror}.\n"
            "Stop what listens there, or give another --port; 0 takes any that is free."
        ) from error
    return found


def main() -> None:
    """The command."""
    arguments = commands.arguments(Arguments, "serve")
    commands.run(lambda: serve(arguments))


if __name__ == "__main__":
    main()
