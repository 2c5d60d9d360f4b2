"""A run's folder: what is in it, and whether a start may use it.

    config.json          the resolved config
    history.csv          a line per epoch
    logs/                TensorBoard
    checkpoint/last.npz  weights, optimizer and progress, to resume from
    checkpoint/best.npz  weights of the best validation
    model.keras          the model that is shipped, for keras.models.load_model
    items.arrow          raw ids, titles and popularity of the model's items
    users.arrow          raw ids of users, and their histories
    test_users.arrow     the test metrics of each user
    report.html          the run on one page
    index.faiss          an index of the items' vectors, where `tfrec index` built one
    index.json           what it is
    metrics.json         the report; written last, so a folder with it is complete

Every file is written next to its place and renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tfrec.data.files import DAMAGE, atomic_write, make_folder, read_json, reason, remove_leftovers
from tfrec.errors import InputError
from tfrec.settings import differences

#: Files of an index; without the last there is none.
INDEX_FILES = ("index.faiss", "index.json")
#: Changes whenever a folder of an earlier version cannot be read any more.
FORMAT = 2


class RunFolder:
    """Paths of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.history = path / "history.csv"
        self.page = path / "report.html"
        self.logs = path / "logs"
        self.last = path / "checkpoint" / "last.npz"
        self.best = path / "checkpoint" / "best.npz"
        self.model = path / "model.keras"
        self.items = path / "items.arrow"
        self.users = path / "users.arrow"
        self.test_users = path / "test_users.arrow"
        self.index = tuple(path / name for name in INDEX_FILES)
        self.metrics = path / "metrics.json"
        self.token = path / ".rank0"
        self._lock: IO | None = None

    @classmethod
    def of(cls, identity: dict[str, Any], output_dir: Path | None) -> RunFolder:
        """The folder ``output_dir``, by default one of its own per configuration.

        Args:
            identity: what makes two runs the same, JSON values; ``recipe`` among them.
            output_dir: or None.
        """
        if output_dir is not None:
            return cls(output_dir)
        text = json.dumps(identity, sort_keys=True)
        return cls(Path("runs") / f"{identity['recipe']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}")

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The folder of a finished run.

        Raises:
            InputError: there is none at ``path``.
        """
        folder = cls(path)
        try:
            needed = (folder.config, folder.model, folder.items, folder.users)
            missing = [p.name for p in needed if not p.exists()]
            wrong = [p.name for p in needed if p.exists() and not p.is_file()]
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.\nGive the folder of a finished run.") from error
        if wrong:
            raise InputError(f"{path / wrong[0]} is damaged: it is not a file.\n{folder.remedy()}")
        if missing and folder.config.is_file():
            folder.read_config()
        if missing:
            raise InputError(
                f"{path} is not the folder of a finished run: {', '.join(missing)} not found.\n"
                "Give the folder that `tfrec train` named in its last line; an interrupted run is finished "
                "by the same command again."
            )
        return folder

    def look(self, identity: dict[str, Any], resume: bool) -> bool:
        """Check that this run may use the folder, and touch nothing.

        Args:
            identity: of the run.
            resume: whether to continue with what the folder has; else that is replaced.

        Returns:
            Whether the folder has the complete run already.

        Raises:
            InputError: it cannot be written, has a run with another config, or has something else.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                os.lstat(self.path)  # a name that is too long
            nearest = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} cannot be written: {error}.\nName another --output-dir.") from error
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise InputError(f"{self.path} cannot be written, because of {nearest}.\nName another --output-dir.")
        if not self.path.exists():
            return False
        if not self._is_run():
            others = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
            if self.last.exists() or self.items.exists():
                # It has what a run has, so it was one.
                raise InputError(
                    f"{self.config} is {'damaged' if self.config.exists() else 'missing'}, so it is unknown which run "
                    f"{self.path} has. Nothing there has been touched.\n"
                    "Bring the file back from a copy, or name another --output-dir."
                )
            if others:
                raise InputError(
                    f"{self.path} is not empty and not the folder of a run ({', '.join(others[:3])}).\n"
                    "Name another --output-dir."
                )
            return False
        self._check_places()
        if not resume:
            return False
        changed = differences(self._identity(), identity)
        if changed:
            raise InputError(
                f"{self.path} has a run with another config:\n  " + "\n  ".join(changed) + "\n"
                "Name another --output-dir, or replace that run with --no-resume."
            )
        return all(p.is_file() for p in (self.metrics, self.model, self.items, self.users))

    def claim(self, identity: dict[str, Any], data_sha256: str | None, resume: bool) -> None:
        """Make the folder this run's, after everything that can be wrong with the run was checked.

        Holds a lock on it until the process ends, or `release`.

        Raises:
            InputError: as `look`, or another process trains into it, or the data changed since an earlier start.
        """
        make_folder(self.path, "the run (--output-dir)")
        self._take("name another --output-dir")
        self.look(identity, resume)
        if self._is_run() and not resume:
            self._clear()
        for path in self._files():
            remove_leftovers(path)
        self.last.parent.mkdir(exist_ok=True)
        for path in (self.last, self.best):
            remove_leftovers(path)
        if self._is_run():
            self.check_data(data_sha256)
            return
        with atomic_write(self.config, "w") as stream:
            json.dump({**identity, "data_sha256": data_sha256, "format": FORMAT}, stream, indent=2)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing into a finished run.

        Raises:
            InputError: another process is writing into it, or it cannot be written.
        """
        self._take("build it in a copy of the run")
        try:
            yield
        finally:
            self.release()

    def _take(self, instead: str) -> None:
        try:
            self._lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error}.\n{instead.capitalize()}.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"Another process is writing into {self.path}.\nWait for it, or {instead}.") from error

    def release(self) -> None:
        """Let others write into the folder again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

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
            found = read_json(self.metrics)
            # All that is looked at later.
            report, evaluation = found["test"]["model"], found["evaluation"]
            shown = [*evaluation["metrics"], evaluation["monitor"]]
            [float(model[name] or 0) for model in found["test"].values() for name in shown]
            int(report["users"]), int(report["users_without_targets"]), str(report["ties"])
        except DAMAGE as error:
            raise InputError(f"{self.metrics} is damaged: {reason(error)}.\n{self.remedy()}") from error
        return found

    def remedy(self) -> str:
        """What to do when a file that the end of a run writes is damaged, so that no training is lost."""
        if self.last.is_file():
            return (
                f"What was trained is in {self.last.parent}: remove {self.metrics} and give the training command "
                "again. It trains nothing again and writes the files of the end again."
            )
        for report, command in (("quantization.json", "quantize"), ("compression.json", "compress")):
            if (self.path / report).exists():
                return f"Make it again from the run that it was made from: python -m tfrec.{command} RUN OUT."
        return "Bring it back from a copy, or make the run again (train: with --no-resume)."

    def check_not_inside(self, path: Path) -> None:
        """Raise InputError where ``path``, that is going to be written, is one of the run's own files."""
        own = [*self._files(), *self.index, self.last, self.best]
        own += [self.path / name for name in ("statistics.yaml", "quantization.json", "compression.json", "ranges.png")]
        if os.path.realpath(path) in {os.path.realpath(p) for p in own}:
            raise InputError(f"{path} is a file of the run.\nName another file.")

    def _check_places(self) -> None:
        """Raise InputError where something else stands in the place of a file or a folder."""
        files = (*self._files(), self.last, self.best)
        for path in (*files, self.logs, self.last.parent):
            if path.exists() and not (path.is_file() if path in files else path.is_dir()):
                expected = "file" if path in files else "folder"
                came = "folder" if path.is_dir() else "file" if path.is_file() else "pipe or a device"
                raise InputError(f"{path} must be a {expected}.\nReceived: a {came}.\nMove it away.")

    def _identity(self) -> dict[str, Any]:
        """What the folder's run is."""
        return {k: v for k, v in self.read_config().items() if k not in ("data_sha256", "format")}

    def _files(self) -> tuple[Path, ...]:
        """What a run writes, but for its folders."""
        return (
            self.config, self.history, self.page, self.model, self.items, self.users, self.test_users, self.metrics
        )  # fmt: skip

    def _is_run(self) -> bool:
        """Whether the folder's config.json is one of ours; other people's files are never touched."""
        if not self.config.is_file():
            return False
        try:
            saved = read_json(self.config)
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
                f"{self.config} is damaged or was not written by tfrec.\n"
                "Bring it back from a copy, or train again into another --output-dir."
            )
        found = read_json(self.config)
        if found.get("format") != FORMAT:
            raise InputError(
                f"{self.path} is a run of {'an earlier' if 'format' not in found else 'another'} version of tfrec, "
                "which this one does not read.\nTrain it again into another --output-dir."
            )
        return found

    def remove_index(self) -> bool:
        """Remove the index; False where there is none."""
        found = [path for path in reversed(self.index) if path.exists()]
        for path in found:
            path.unlink()
        return bool(found)

    def _clear(self) -> None:
        """Remove what a run has written, and nothing else."""
        for file in reversed(self._files()):
            file.unlink(missing_ok=True)
        self.remove_index()
        for folder in (self.logs, self.last.parent):
            if folder.is_symlink():  # to a larger disk: the link stays
                for path in folder.glob("*.npz" if folder == self.last.parent else "events.*"):
                    path.unlink()
            elif folder.exists():
                shutil.rmtree(folder)
