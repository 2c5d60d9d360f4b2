"""What the commands share: a quiet start, and errors as one message."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Any

from tfrec.errors import InputError
from tfrec.printing import printable

#: Exit statuses: the user can mend it; interrupted by the user; nobody reads on; stopped by the system.
EXIT_INPUT, EXIT_INTERRUPTED, EXIT_PIPE, EXIT_TERMINATED = 2, 130, 141, 143


class Terminated(BaseException):
    """The system asked the process to stop."""


def rank_from_environment() -> int:
    """This process's rank before Horovod is loaded, for what is printed until then."""
    for name in ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


#: Notices that TensorFlow's libraries print while they load on a machine without a GPU, whatever the log level.
_NOTICES = ("All log messages before absl::InitializeLog", "cudart_stub.cc", "cuda_platform.cc", "cpu_feature_guard.cc")


def quiet_tensorflow() -> None:
    """Load TensorFlow without its start-up notices. The user's own ``TF_CPP_MIN_LOG_LEVEL`` wins.

    Where there is no NVIDIA driver, two libraries say so at every start, past the log level. What is written to
    standard error while they load is held back, and all but those notices is passed on.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or os.path.exists("/proc/driver/nvidia"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import keras  # noqa: F401
            import tensorflow as tf

            tf.config.list_physical_devices()
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if not any(notice in line for notice in _NOTICES):
                    print(line, file=sys.stderr)


def keep_freed_memory() -> None:
    """Have the C library keep large blocks that TensorFlow frees instead of giving them back to the system.

    A training step frees and asks for the same buffers of tens of megabytes every time. By default each of them is
    mapped anew, and the kernel clears it page by page: a sixth of the step on two cores (README, Benchmarks). Does
    nothing where the C library is not glibc.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def run(main: Callable[[], Any], interrupted: str = "") -> None:
    """Call ``main`` and exit: 0, or 2 with the message of an `InputError`, printed by rank 0 only.

    What the system refuses in a place that has no message of its own (a disk that is full, a folder that may not be
    read) is such an error too. A reader of standard output that has seen enough, like ``head``, ends the command.

    Args:
        main: the command.
        interrupted: what to say on Ctrl-C or SIGTERM.
    """

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    keep_freed_memory()
    first = rank_from_environment() == 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # letters that the terminal's encoding does not have
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        sys.exit(EXIT_PIPE)
    except (InputError, OSError) as error:
        if isinstance(error, OSError):
            _silence_stdout()  # it may be what cannot be written, and Python tries again at its end
        if first:
            print(f"error: {printable(error, keep=chr(10))}", file=sys.stderr, flush=True)
        sys.exit(EXIT_INPUT)
    except (KeyboardInterrupt, Terminated) as stop:
        if first:
            print(f"\ninterrupted. {interrupted}".rstrip(), file=sys.stderr, flush=True)
        sys.exit(EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED)


def _silence_stdout() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
