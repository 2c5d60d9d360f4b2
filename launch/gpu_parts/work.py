"""One part at work: it runs commands within its time limit, keeps their output, and collects what they found."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

#: For what is compared with float32 tolerances: NVIDIA's libraries then round no float32 to TF32's ten bits.
EXACT = {"NVIDIA_TF32_OVERRIDE": "0"}
#: Between asking a command that runs over to end and ending it.
_GRACE_S = 5.0


class Failed(Exception):
    """The part found something wrong."""


class Skipped(Exception):
    """The part does not apply here; the message says why."""


class RanOver(Exception):
    """The part's time is up."""


class Work:
    """What a part is given.

    Args:
        root: the checkout.
        log: file that takes the output of all its commands.
        limit_s: seconds that all of them may take together.
        environment: of every command.
    """

    def __init__(self, root: Path, log: Path, limit_s: float, environment: dict[str, str]) -> None:
        self.root, self.log, self.limit_s, self.environment = root, log, limit_s, environment
        self.deadline = time.monotonic() + limit_s
        self.commands: list[str] = []
        self.figures: dict[str, Any] = {}
        #: What was measured: what, value, unit, and where known lowest, highest, tflops (of which peak), gbs.
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.raw: dict[str, Any] = {}
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")

    def run(self, command: list[str], ok: tuple[int, ...] = (0,), **environment: str) -> tuple[int, str]:
        """Run a command to its end; returns its exit status and what it printed.

        Raises:
            Failed: it ended with another status than ``ok``; the message has its last lines.
            RanOver: the time of the part was up, and the command was ended with all that it had started.
        """
        shown = " ".join([*(f"{k}={shlex.quote(v)}" for k, v in environment.items()), *map(shlex.quote, command)])
        self.commands.append(shown.replace(f"{self.root}/", ""))
        start = self.log.stat().st_size
        with open(self.log, "ab") as log:
            log.write(f"$ {shown}\n".encode())
            log.flush()
            try:
                # A session of its own, so that what it starts can be ended with it.
                process = subprocess.Popen(
                    command,
                    cwd=self.root,
                    env={**self.environment, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise Failed(f"{command[0]} cannot be started: {error}") from error
            try:
                status = process.wait(max(0.0, self.deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _end(process)
                raise RanOver from None
            except BaseException:
                _end(process)
                raise
        with open(self.log, "rb") as log:
            log.seek(start)
            output = log.read().decode(errors="replace").partition("\n")[2]
        if status not in ok:
            program = next(
                (Path(word).name for word in command if word.endswith((".py", ".sh"))), Path(command[0]).name
            )
            said = tail(output)
            last = said.splitlines()[-1]
            raise Failed(f"{program} ended with status {status}: {last}\n{said}\nIt was: {shown}")
        return status, output

    def said(self) -> str:
        """All that the part's commands have printed so far; also of one that ran over."""
        return self.log.read_text(errors="replace")

    def measure(self, command: list[str], **environment: str) -> dict[str, Any]:
        """Run a script that writes what it found as JSON into the file named by ``--json``, and give that back."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "found.json")
            self.run([*command, "--json", str(path)], **environment)
            return json.loads(path.read_text())


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and all processes of its session."""
    for how, seconds in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, 60.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            if how == signal.SIGKILL:
                return


#: What TensorFlow prints at every start.
_NOTICES = ("All log messages before absl", "oneDNN custom operations", "cpu_feature_guard", "To enable the following")


def tail(text: str, lines: int = 12) -> str:
    """The last lines that say something."""
    said = [line.rstrip()[:400] for line in text.splitlines() if line.strip()]
    return "\n".join([line for line in said if not any(n in line for n in _NOTICES)][-lines:]) or "(nothing)"
