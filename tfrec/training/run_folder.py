"""A run's folder: what is in it, and whether a start may use it.

    config.json          the resolved config
    history.csv          a line per epoch
    learning_curve.png
    logs/                TensorBoard
    checkpoint/last.npz  weights, optimizer and progress, to resume from
    checkpoint/best.npz  weights of the best validation
    model.keras          the best model, for keras.models.load_model
    vocabulary.npz       raw ids and titles of the model's items, and their popularity
    metrics.json         the report; written last, so a folder with it is complete

Every file is written beside its place and renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from tfrec.configs import Run, differences, from_json, identity
from tfrec.data.files import DAMAGE, atomic_write, make_folder, remove_leftovers
from tfrec.errors import InputError


class RunFolder:
    """Paths of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.history = path / "history.csv"
        self.curve = path / "learning_curve.png"
        self.logs = path / "logs"
        self.last = path / "checkpoint" / "last.npz"
        self.best = path / "checkpoint" / "best.npz"
        self.model = path / "model.keras"
        self.vocabulary = path / "vocabulary.npz"
        self.metrics = path / "metrics.json"

    @classmethod
    def of(cls, recipe: str, config: Run) -> RunFolder:
        """The folder that ``config`` names, by default one of its own per configuration."""
        if config.output_dir is not None:
            return cls(config.output_dir)
        text = json.dumps(identity(recipe, config), sort_keys=True)
        return cls(Path("runs") / f"{recipe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}")

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The folder of a finished run.

        Raises:
            InputError: there is none at ``path``.
        """
        folder = cls(path)
        missing = [p.name for p in (folder.config, folder.model, folder.vocabulary) if not p.is_file()]
        if missing:
            raise InputError(
                f"{path} is not the folder of a finished run: {', '.join(missing)} not found.\n"
                "Give the folder that `python -m tfrec.train` named in its last line; an interrupted run is finished "
                "by the same command again."
            )
        return folder

    def look(self, recipe: str, config: Run) -> bool:
        """Check that this run may use the folder, and touch nothing.

        Returns:
            Whether the folder has the complete run already.

        Raises:
            InputError: it cannot be written, has a run with another config, or has something else.
        """
        nearest = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise InputError(f"{self.path} cannot be written, because of {nearest}.\nName another --output-dir.")
        if not self.path.exists():
            return False
        if not self._is_run():
            others = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
            if others:
                raise InputError(
                    f"{self.path} is not empty and not the folder of a run ({', '.join(others[:3])}).\n"
                    "Name another --output-dir."
                )
            return False
        if not config.resume:
            return False
        changed = differences(self._identity(config), identity(recipe, config))
        if changed:
            raise InputError(
                f"{self.path} has a run with another config:\n  " + "\n  ".join(changed) + "\n"
                "Name another --output-dir, or replace that run with --no-resume."
            )
        return self.metrics.is_file()

    def claim(self, recipe: str, config: Run, data_sha256: str | None) -> None:
        """Make the folder this run's, after everything that can be wrong with the run was checked.

        Holds a lock on it until the process ends.

        Raises:
            InputError: as `look`, or another process trains into it, or the data changed since an earlier start.
        """
        make_folder(self.path, "the run (--output-dir)")
        self._lock = (self.path / ".lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"Another process is writing into {self.path}.\nWait for it, or name another --output-dir."
            ) from error
        self.look(recipe, config)
        if self._is_run() and not config.resume:
            self._clear()
        for path in (self.config, self.history, self.curve, self.model, self.vocabulary, self.metrics):
            remove_leftovers(path)
        self.last.parent.mkdir(exist_ok=True)
        for path in (self.last, self.best):
            remove_leftovers(path)
        if self._is_run():
            self.check_data(data_sha256)
            return
        with atomic_write(self.config, "w") as stream:
            json.dump({**identity(recipe, config), "data_sha256": data_sha256}, stream, indent=2)

    def check_data(self, data_sha256: str | None) -> None:
        """Raise InputError unless the data is what the run was started on."""
        saved = self.read_config().get("data_sha256")
        if saved != data_sha256:
            raise InputError(
                f"The data is not what the run in {self.path} was started on: the file has changed.\n"
                f"Expected SHA-256 {saved}.\nReceived: {data_sha256}.\n"
                "Bring the old file back, or train again: another --output-dir, or --no-resume."
            )

    def read_metrics(self) -> dict[str, Any]:
        """The report of a complete run.

        Raises:
            InputError: it is damaged.
        """
        try:
            found = json.loads(self.metrics.read_text(encoding="utf-8"))
            found["test"]["model"]["users"], found["config"]["evaluation"]["metrics"]
        except DAMAGE as error:
            raise InputError(f"{self.metrics} is damaged: {error}.\nTrain again with --no-resume.") from error
        return found

    def _identity(self, like: Run) -> dict[str, Any]:
        """What the folder's run is, with settings that are younger than it as `from_json` takes them."""
        saved = self.read_config()
        try:
            return identity(saved["recipe"], from_json(like, saved))
        except (KeyError, TypeError, AttributeError):  # of another kind, or of a later version: as it is written
            return {k: v for k, v in saved.items() if k != "data_sha256"}

    def _is_run(self) -> bool:
        """Whether the folder's config.json is one of ours; other people's files are never touched."""
        if not self.config.is_file():
            return False
        try:
            saved = json.loads(self.config.read_text(encoding="utf-8"))
        except DAMAGE:
            return False
        return isinstance(saved, dict) and {"recipe", "data", "evaluation", "data_sha256"} <= set(saved)

    def read_config(self) -> dict[str, Any]:
        """The saved config.

        Raises:
            InputError: it is damaged.
        """
        if not self._is_run():
            raise InputError(
                f"{self.config} is damaged or was not written by tfrec.\nTrain again into another --output-dir."
            )
        return json.loads(self.config.read_text(encoding="utf-8"))

    def _clear(self) -> None:
        """Remove what a run has written, and nothing else."""
        for file in (
            self.metrics, self.config, self.history, self.curve, self.model, self.vocabulary
        ):  # fmt: skip
            file.unlink(missing_ok=True)
        for folder in (self.logs, self.last.parent):
            if folder.exists():
                shutil.rmtree(folder)
