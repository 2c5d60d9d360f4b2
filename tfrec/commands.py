"""What the commands share: a quiet start, and errors as one message."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from tfrec.errors import InputError

#: Exit statuses: the user can mend it; interrupted by the user; stopped by the system.
EXIT_INPUT, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 130, 143


class Terminated(BaseException):
    """The system asked the process to stop."""


def rank_from_environment() -> int:
    """This process's rank before Horovod is loaded, for what is printed until then."""
    for name in ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def quiet_tensorflow() -> None:
    """Leave TensorFlow's notices out, before it is loaded; its errors stay. The user's own setting wins."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def run(main: Callable[[], Any], interrupted: str = "") -> None:
    """Call ``main`` and exit: 0, or 2 with the message of an `InputError`, printed by rank 0 only.

    Args:
        main: the command.
        interrupted: what to say on Ctrl-C or SIGTERM.
    """

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    first = rank_from_environment() == 0
    try:
        main()
    except InputError as error:
        if first:
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_INPUT)
    except (KeyboardInterrupt, Terminated) as stop:
        if first:
            print(f"\ninterrupted. {interrupted}".rstrip(), file=sys.stderr, flush=True)
        sys.exit(EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED)
