"""Writing and locking files so that a kill at any moment leaves nothing broken."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tfrec.errors import InputError

#: What reading a damaged npz, zip, gzip or JSON file may raise.
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/tfrec``, by default ``~/.cache/tfrec``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfrec"


def make_folder(folder: Path, purpose: str) -> Path:
    """Create ``folder`` and check that files can be written there.

    Raises:
        InputError: it cannot be made or written; ``purpose`` says what it was for.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}), and it is needed for {purpose}.\n"
            "Name a folder you may write to."
        ) from error
    return folder


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, with its suffix, to write to; renamed to ``path`` at the end.

    Readers see the old file or the whole new one. On an error, a full disk among them, the temporary file is
    removed and the old file stays.

    Raises:
        InputError: the disk is full.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"No space left for {path}. What was there before is untouched.\n"
                "Free some space, or name another folder."
            ) from error
        raise


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Open a file that becomes ``path`` when it is closed without an error, see `atomic_path`."""
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with atomic_path(path) as temporary, temporary.open(mode, **text) as stream:
        yield stream


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to write into; renamed to ``path``, which must not be there, at the end.

    On an error, a full disk among them, the temporary folder is removed.

    Raises:
        InputError: ``path`` cannot be written.
    """
    parent = path.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{path.name}.", suffix=".part"))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.\nName another folder.") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} could not be written: {error}.\nFree some space, or name another folder.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` + ``.lock``. The system drops it when the holder dies.

    Several ranks that start at once so do a thing once, and the others wait.
    """
    with open(f"{path}.lock", "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of writing ``path``. Only for the holder of its lock."""
    for part in path.parent.glob(f".{path.stem}.*.part*"):
        part.unlink(missing_ok=True)


def combined_checksum(files: Sequence[Path]) -> str:
    """SHA-256 of a file; of several, over their SHA-256 in order."""
    if len(files) == 1:
        return checksum(files[0])
    return hashlib.sha256(" ".join(checksum(f) for f in files).encode()).hexdigest()


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of the file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
