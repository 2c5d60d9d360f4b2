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

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tfrec.configs import Run, differences, identity
from tfrec.data.files import atomic_write, make_folder
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

    def claim(self, recipe: str, config: Run) -> bool:
        """Make the folder ready for this run.

        Returns:
            Whether the run is complete already.

        Raises:
            InputError: it cannot be written, has a run with another config, or has something else.
        """
        wanted = identity(recipe, config)
        make_folder(self.path, "the run (--output-dir)")
        if not config.resume:
            self._clear()
        if self.config.is_file():
            saved = self.read_config()
            changed = differences(saved, wanted)
            if changed:
                raise InputError(
                    f"{self.path} has a run with another config:\n  " + "\n  ".join(changed) + "\n"
                    "Name another --output-dir, or replace that run with --no-resume."
                )
            return self.metrics.is_file()
        others = [p.name for p in self.path.iterdir() if not p.name.startswith(".")]
        if others:
            raise InputError(
                f"{self.path} is not empty and not a run ({', '.join(sorted(others)[:3])}).\nName another --output-dir."
            )
        with atomic_write(self.config, "w") as stream:
            json.dump(wanted, stream, indent=2)
        self.last.parent.mkdir(exist_ok=True)
        return False

    def read_config(self) -> dict[str, Any]:
        """The saved config.

        Raises:
            InputError: it is damaged.
        """
        try:
            return json.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.config} cannot be read: {error}.") from error

    def _clear(self) -> None:
        """Remove what a run has written, and nothing else."""
        for file in (
            self.metrics, self.config, self.history, self.curve, self.model, self.vocabulary
        ):  # fmt: skip
            file.unlink(missing_ok=True)
        for folder in (self.logs, self.last.parent):
            shutil.rmtree(folder, ignore_errors=True)
