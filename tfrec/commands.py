"""What the commands share: a quiet start, and errors as one message."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from tfrec import quiet
from tfrec.errors import InputError, RankLostError, SharedError
from tfrec.printing import printable

T = TypeVar("T")

#: Exit statuses: something failed; the user can fix it; interrupted by the user; the reader has closed; stopped by the
#: system.
EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED, EXIT_PIPE, EXIT_TERMINATED = 1, 2, 130, 141, 143
#: How long another rank waits before it says what rank 0 may be saying.
_RANK_ZERO_SECONDS = 2.0


class Terminated(BaseException):
    """The system asked the process to stop."""


def rank_from_environment() -> int:
    """This process's rank before Horovod is loaded, for what is printed until then."""
    for name in ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def quiet_tensorflow() -> None:
    """Load TensorFlow without its start-up notices, whatever ``TF_CPP_MIN_LOG_LEVEL`` is."""
    quiet.load_tensorflow(whatever_level=True)


def arguments(kind: type[T], command: str) -> T:
    """The arguments of a command from the command line.

    Args:
        kind: a dataclass, whose docstrings are the help.
        command: its name, as in ``tfrec COMMAND``.
    """
    import tyro

    return parsed(lambda: tyro.cli(kind, prog=f"tfrec {command}", args=sys.argv[1:]))


def parsed(parse: Callable[[], T]) -> T:
    """``parse()`` of the command line, whose messages are printed by rank 0, and by another one that is alone with it.

    All ranks of a launcher have the same command line; if one does not take it (it has another version of tfrec), that
    one reports it, and the others, which wait for it, are ended by the launcher.
    """
    _join_help_lines()
    if rank_from_environment() == 0:
        try:
            return parse()
        except BrokenPipeError:  # of a help that is read by `head`
            _silence_stdout()
            sys.exit(EXIT_PIPE)
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return parse()
    except SystemExit as stop:
        if stop.code not in (0, None):
            # Rank 0 is a little ahead, and its launcher ends this process when it fails too.
            time.sleep(_RANK_ZERO_SECONDS)
            where = f"rank {rank_from_environment()} on {platform.node()}"
            print(f"error on {where}:\n{out.getvalue()}{err.getvalue()}", file=sys.stderr, flush=True)
        raise


def _join_help_lines() -> None:
    """Have the help of an option wrapped by the terminal, not where the source breaks the line.

    tyro joins the lines of a field's docstring, but only those that are not indented, as those in a class are.
    """
    import docstring_parser

    parse = docstring_parser.parse_from_object
    if getattr(parse, "joins_lines", False):
        return

    def joined(obj: Any) -> Any:
        found = parse(obj)
        for parameter in found.params:
            if parameter.description is not None:
                parameter.description = " ".join(parameter.description.split())
        return found

    joined.joins_lines = True  # type: ignore[attr-defined]
    docstring_parser.parse_from_object = joined


def keep_freed_memory() -> None:
    """Have the C library keep large blocks that TensorFlow frees instead of giving them back to the system.

    A training step frees and asks for the same buffers of tens of megabytes every time. By default each of them is
    mapped again, and the kernel clears it page by page: a sixth of the step on two cores (docs/results/speed.md). Does
    nothing where the C library is not glibc.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def run(main: Callable[[], Any], interrupted: str = "") -> None:
    """Call ``main`` and exit: 0; 2 with the message of an `InputError`; 1 with the traceback of another error.

    On several ranks each error is printed once, with its rank and host.

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
    except Exception as error:
        # This rank is ending; the launcher, which ends the others then, must not cut it off while it says why or waits.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if isinstance(error, OSError):
            _silence_stdout()  # it may be what cannot be written, and Python tries again at its end
        sys.exit(_report(error))
    except (KeyboardInterrupt, Terminated) as stop:
        if first:
            print(f"\ninterrupted. {interrupted}".rstrip(), file=sys.stderr, flush=True)
        sys.exit(EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED)


def _silence_stdout() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: Exception) -> int:
    """Print ``error`` once over all ranks, with a traceback unless the user can fix it; returns the exit status."""
    prefix, says = "error", True
    # Where ranks have not met, TensorFlow may not even be loaded.
    if "tfrec.distributed" in sys.modules:
        from tfrec.distributed import ranks

        meant = ranks.meaning(error)
        assert isinstance(meant, Exception)
        error = meant
        says = ranks.says(error)
        if ranks.size() > 1 and not isinstance(error, SharedError):
            prefix = f"error on {ranks.where()}"
    # What the system refuses can be fixed by the user, too.
    fixable = isinstance(error, InputError | OSError)
    if says:
        if not (fixable or isinstance(error, RankLostError) or getattr(error, "on_all_ranks", False)):
            traceback.print_exception(error)
        print(f"{prefix}: {printable(error, keep=chr(10))}", file=sys.stderr, flush=True)
    if "tfrec.distributed" in sys.modules:
        ranks.told(says)
    return EXIT_INPUT if fixable else EXIT_FAILED
