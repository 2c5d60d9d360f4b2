"""The report's JSON file: what each part found, written after every part, so that a stop loses nothing."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from gpu_parts.machine import Machine
from gpu_parts.problems import Unusable

#: Parts with one of these are not done again.
DONE = ("passed",)


class Record:
    """``report.json`` of an output folder.

    Raises:
        Unusable: the folder has the report of another card or of another kind of run, or a file that is none.
    """

    def __init__(self, folder: Path, mode: str, machine: Machine, fresh: bool) -> None:
        self.path = folder / "report.json"
        card = [gpu.told.get("uuid", gpu.name) for gpu in machine.gpus]
        self.data: dict[str, Any] = {"mode": mode, "cards": card, "parts": {}}
        if self.path.exists() and not fresh:
            try:
                old = json.loads(self.path.read_text())
                same = (old["mode"], old["cards"]) == (mode, card)
                self.data["parts"] = old["parts"]
            except (ValueError, KeyError, TypeError):
                raise Unusable(
                    f"{self.path} is no report of launch/gpu. Name another folder: --output FOLDER"
                ) from None
            if not same:
                raise Unusable(
                    f"{folder} has the report of another run: {old['mode']}, cards {', '.join(old['cards']) or 'none'}"
                    f"; now: {mode}, cards {', '.join(card) or 'none'}.\nName another folder with --output, or write "
                    "it anew with --again."
                )
        self.data["machine"] = machine.to_json()

    def done(self, part: str) -> bool:
        """Whether a part needs not be run again."""
        return self.data["parts"].get(part, {}).get("status") in DONE

    def write(self, part: str, result: dict[str, Any]) -> None:
        """Take in what a part found; the file is whole at any time."""
        self.data["parts"][part] = result
        write_atomically(self.path, json.dumps(self.data, indent=2) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Write a file by renaming a finished one into its place."""
    new = path.with_suffix(path.suffix + ".new")
    with open(new, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def commit_of(root: Path) -> str:
    """The commit of the checkout, marked where files differ from it; empty without git."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
