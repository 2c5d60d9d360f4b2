"""Writing and locking files so that a kill at any moment leaves nothing broken.

What is written appears whole or not at all: it is made under a temporary name, ``.NAME.TOKEN.part``, and renamed. A
process that is killed leaves that behind; the next one that writes the same NAME removes it. While a process lives it
holds a lock on what it makes, so that no other process mistakes it for a leftover.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import lzma
import os
import re
import secrets
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

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
    IndexError,
    ArithmeticError,
    MemoryError,
    struct.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
)


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/tfrec``, by default ``~/.cache/tfrec``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfrec"


def make_folder(folder: Path, purpose: str) -> Path:
    """Create ``folder`` and check that files can be written there.

    Raises:
        InputError: it cannot be made or written; ``purpose`` is what it is for.
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
    """A temporary path next to ``path``, with its suffix, to write to; renamed to ``path`` at the end.

    Readers see the old file or the whole new one. On an error, a full disk among them, the temporary file is
    removed and the old file stays. A link is followed: the file that it names is replaced. What is no file, a device
    or a pipe, is written to as it is.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        special = _is_special(path)
        target = path if special else Path(os.path.realpath(path))
        temporary, held = (path, None) if special else _begin(target, folder=False)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    try:
        yield temporary
        if not special:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, target)
    except BaseException as error:
        if not special:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise _unwritable(path, error, "" if special else " What was there before is untouched.") from error
        raise
    finally:
        if held is not None:
            os.close(held)


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Open a file that becomes ``path`` when it is closed without an error, see `atomic_path`."""
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with atomic_path(path) as temporary, temporary.open(mode, **text) as stream:
        yield stream


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder next to ``path`` to write into; renamed to ``path``, which must not be there, at the end.

    It can be entered before the work that fills it: then whatever keeps ``path`` from being written is reported first,
    and a second process that wants to write the same stops. On an error the temporary folder is removed.

    Raises:
        InputError: ``path`` exists already, is being written by another process, or cannot be written.
    """
    path = Path(os.path.abspath(path))
    try:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(path)
            raise InputError(f"{path} exists already.\nName a new folder, or remove it.")
        path.parent.mkdir(parents=True, exist_ok=True)
        if _remove_leftovers(path, folder=True):
            raise InputError(f"Another process is writing {path}.\nWait for it, or name another folder.")
        temporary, held = _begin(path, folder=True)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    try:
        yield temporary
        os.replace(temporary, path)
    except InputError as error:
        if str(temporary) in str(error):  # of a file in it
            raise InputError(str(error).replace(str(temporary), str(path))) from error
        raise
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and os.path.lexists(path):
            raise InputError(
                f"{path} was made by another process at the same time; it is left as it is.\nName another folder."
            ) from error
        inside = isinstance(error.filename, str) and error.filename.startswith(str(temporary))
        if error.errno in _FULL or inside:
            raise _unwritable(path, error) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(held)


def check_new_folder(path: Path) -> None:
    """Raise InputError unless `atomic_folder` can make ``path``. For before the work that it is to hold."""
    with contextlib.suppress(_Checked), atomic_folder(path):
        raise _Checked


class _Checked(Exception):
    """Leaves a folder that is not to be made."""


def check_file(path: Path) -> None:
    """Raise InputError unless a file can be written at ``path``. For before the work that it is to hold.

    Nothing is written. What killed processes left of writing it is removed.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if _is_special(path):
            return
        target = Path(os.path.realpath(path))
        with contextlib.suppress(FileNotFoundError):
            os.lstat(target)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
        remove_leftovers(target)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of writing the file ``path``; what a living one is writing stays."""
    _remove_leftovers(path, folder=False)


#: The disk is full, or the system's or the user's limit is reached, or the place has become read-only.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_LONGEST_NAME = 255


def _unwritable(path: Path, error: Exception, more: str = "") -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return InputError(
        f"{path} cannot be written: {reason}.{more}\n"
        + ("Free some space or raise the limit" if full else "Name a place that exists and that you may write to")
        + (", or name another place." if full else ".")
    )


def _is_special(path: Path) -> bool:
    """Whether there is something that is neither file nor folder: a device, a pipe."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _part_name(path: Path, folder: bool) -> tuple[str, str]:
    """What comes before and after the token in the temporary name, short enough for a file system."""
    suffix = "" if folder or len(path.suffix) > 16 else path.suffix
    head = path.name.removesuffix(suffix) if suffix else path.name
    room = _LONGEST_NAME - len(os.fsencode(suffix)) - 24
    return f".{os.fsencode(head)[:room].decode(errors='ignore')}.", f".part{suffix}"


def _begin(path: Path, folder: bool) -> tuple[Path, int]:
    """A new temporary file or folder next to ``path``, and a descriptor that holds its lock until it is closed."""
    with contextlib.suppress(FileNotFoundError):
        os.lstat(path)  # a name that is too long shows here, not when everything is written
    _remove_leftovers(path, folder)
    before, after = _part_name(path, folder)
    while True:
        temporary = path.with_name(f"{before}{secrets.token_hex(4)}{after}")
        try:
            if folder:
                temporary.mkdir()
            else:
                temporary.touch(exist_ok=False)
        except FileExistsError:
            continue
        try:
            held = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another process took it for left over, before it was locked
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(temporary), os.fstat(held)):
                return temporary, held
        except (BlockingIOError, FileNotFoundError):
            pass  # the same
        except OSError:
            return temporary, held  # no locks on this file system, so nothing is removed either
        os.close(held)


def _remove_leftovers(path: Path, folder: bool) -> bool:
    """Remove what killed processes left of writing ``path``; returns whether a living process is writing it."""
    before, after = _part_name(path, folder)
    pattern = re.compile(f"{re.escape(before)}[A-Za-z0-9_]+{re.escape(after)}")
    living = False
    try:
        names = [name for name in os.listdir(path.parent) if pattern.fullmatch(name)]
    except OSError:
        return False
    for name in names:
        part = path.with_name(name)
        try:
            held = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink()
        except BlockingIOError:
            living = True
        except OSError:
            continue
        finally:
            os.close(held)
    return living


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` + ``.lock``. The system drops it when the holder dies.

    Several ranks that start at once so do a thing once, and the others wait.
    """
    with open(f"{path}.lock", "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def combined_checksum(files: Sequence[Path]) -> str:
    """SHA-256 of a file; of several, over their SHA-256 in order."""
    if len(files) == 1:
        return checksum(files[0])
    return hashlib.sha256(" ".join(checksum(f) for f in files).encode()).hexdigest()


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of the file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def read_npz(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an npz file, or those of ``names`` that it has. All are read, so that their checksums are checked.

    Raises:
        DAMAGE: whatever reading a damaged file may raise.
    """
    check_archive(path)
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files if names is None or name in names}


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DAMAGE: whatever reading a damaged file may raise.
    """
    check_is_file(path)
    if path.stat().st_size > _LARGEST_JSON:
        raise ValueError(f"it has {path.stat().st_size:,} bytes")
    return json.loads(path.read_text(encoding="utf-8"))


_LARGEST_JSON = 256 << 20
#: An archive may unpack to this, or to a hundred times its own bytes: ten times what ids, titles and counts do.
_LARGEST_UNPACKED = 1 << 30


def reason(error: BaseException) -> str:
    """Why a file could not be read, in one short line."""
    lines = str(error).strip().splitlines()
    return f"{lines[0][:200].rstrip('.')} ({type(error).__name__})" if lines else type(error).__name__


def check_archive(path: Path) -> None:
    """Raise one of `DAMAGE` for what is no zip archive, or one that would fill the memory when it is read."""
    check_is_file(path)
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > max(_LARGEST_UNPACKED, 100 * size):
        raise ValueError(f"its {size:,} bytes would unpack to {unpacked:,}")


def check_is_file(path: Path) -> None:
    """Raise one of `DAMAGE` where there is something that is no file."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
