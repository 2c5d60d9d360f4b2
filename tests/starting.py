"""Commands, as a person starts them: in this process, which is quick, or in one of their own."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

#: Settings of a small data set, of 300 users and 150 items.
SMALL_DATA = ("--data.synthetic.num-users", "300", "--data.synthetic.num-items", "150")


def run(command: str, *arguments: Any, cwd: Path, code: int = 0) -> tuple[str, str]:
    """Call a command's ``main`` in this process.

    Args:
        command: ``train``, ``evaluate``, ...
        arguments: of the command line.
        cwd: where it is started.
        code: the exit status that is expected.

    Returns:
        What it printed, and what it printed to standard error.
    """
    module = importlib.import_module(f"tfrec.{command}")
    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    handler = signal.getsignal(signal.SIGTERM)
    with (
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", [command, *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            module.main()
        except SystemExit as stop:
            status = stop.code or 0
        finally:
            signal.signal(signal.SIGTERM, handler)
    return _checked(status, code, out.getvalue(), err.getvalue())


def start(command: str, *arguments: Any, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"tfrec.{command}", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
        env={**os.environ, **environment},
    )  # fmt: skip


def run_apart(command: str, *arguments: Any, cwd: Path, code: int = 0) -> tuple[str, str]:
    """As `run`, in a process of its own."""
    process = start(command, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=300)
    return _checked(process.returncode, code, out, err)


def _checked(status: Any, code: int, out: str, err: str) -> tuple[str, str]:
    assert status == code, out + err
    if code == 2:
        assert "Traceback" not in err, err
        assert "\x1b" not in err
    return out, err


def report_of(folder: Path) -> Any:
    """The content of a run's metrics.json."""
    return json.loads((folder / "metrics.json").read_text())
