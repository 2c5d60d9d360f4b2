"""Start ranks of a benchmark, each of which runs one of its modules."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tfrec.errors import InputError

_SECONDS = 3_600


def started(ranks: int, module: str, arguments: list[str]) -> dict[str, Any]:
    """What rank 0 of so many writes.

    Args:
        ranks: their number; one is started without a launcher.
        module: run by each, with the file to write and ``arguments`` as its command line.
        arguments: see there.

    Raises:
        InputError: a rank failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "result.json")
        launcher = [str(Path(sys.executable).with_name("horovodrun")), "-np", str(ranks)] if ranks > 1 else []
        command = [*launcher, sys.executable, "-m", module, str(written), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode != 0 or not written.is_file():
            raise InputError(
                f"{ranks} ranks must be able to train here.\n"
                f"Received: status {done.returncode} of {' '.join(command)}\n"
                f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return dict(json.loads(written.read_text()))
