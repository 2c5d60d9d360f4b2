"""Fetch a published archive, check it, unpack it safely."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from tfrec.data.files import DAMAGE, checksum, locked, make_folder
from tfrec.errors import InputError

#: No published archive unpacks to more; a larger one is not what it says it is.
_MAX_UNPACKED_BYTES = 16 << 30
_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 30


def fetch(url: str, path: Path, md5: str | None) -> Path:
    """Download ``url`` to ``path``, or return at once when it exists.

    The bytes go to ``path`` + ``.part``, which a later call continues, and become ``path`` only when complete
    and checked. Of several processes, one downloads and the others wait.

    Args:
        url: the publisher's address.
        path: where the archive belongs.
        md5: the publisher's checksum; None where the publisher changes the file from time to time.

    Raises:
        InputError: no network (the message names the file and its place), or a wrong checksum.
    """
    make_folder(path.parent, f"the download of {path.name}")
    with locked(path):
        if path.exists():
            verify(path, md5)
            return path
        part = path.with_name(path.name + ".part")
        try:
            _download(url, part)
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise InputError(
                f"{url} could not be downloaded: {reason}.\n"
                f"Download it where there is a network and put it here, as it is: {path}\n"
                f"Or name the folder that has it: --data.dir FOLDER, or TFREC_DATA=FOLDER."
            ) from error
        try:
            verify(part, md5)
        except InputError:
            part.unlink()
            raise
        os.replace(part, path)
        return path


def verify(path: Path, md5: str | None) -> None:
    """Raise InputError unless the file has the publisher's checksum."""
    if md5 is None:
        return
    came = checksum(path, "md5")
    if came != md5:
        raise InputError(
            f"{path} is not the file that its publisher offers: it is damaged, cut off or of another version.\n"
            f"Expected MD5 {md5}.\nReceived {came} ({path.stat().st_size:,} bytes).\n"
            "Remove it and run again to download it, or put the right file there."
        )


def _download(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is already as long as the file: the checksum decides
            return
        raise
    with response:
        resumed = have > 0 and response.status == 206
        length = response.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length else None
        with (
            part.open("ab" if resumed else "wb") as stream,
            tqdm(
                total=total,
                initial=have if resumed else 0,
                unit="B",
                unit_scale=True,
                desc=part.name.removesuffix(".part"),
            ) as bar,
        ):
            while block := response.read(_BLOCK_BYTES):
                stream.write(block)
                bar.update(len(block))
        if total is not None and part.stat().st_size < total:
            raise OSError(f"the connection closed after {part.stat().st_size:,} of {total:,} bytes")


def unpack(archive: Path, folder: Path, members: list[str], optional: Sequence[str] = ()) -> Path:
    """Unpack the files named in ``members`` and ``optional`` from a zip or tar archive.

    The whole archive is checked before anything is written: a name or a link that leads outside the folder, a device
    or an absurd size rejects it; for tar by the standard library's ``data`` filter. Files appear in ``folder`` all at
    once, and never under another name than a wanted one.

    Args:
        archive: ``.zip``, ``.tar``, ``.tar.gz`` or ``.tgz``.
        folder: created; when it exists already it is taken as it is.
        members: wanted files, by the last part of their name, in upper or lower case.
        optional: more of these, which may be missing from the archive.

    Returns:
        ``folder``, with the wanted files directly in it.

    Raises:
        InputError: a dangerous or damaged archive, or one without a wanted file.
    """
    make_folder(folder.parent, f"unpacking {archive.name}")
    with locked(folder):
        if folder.is_dir():
            if all((folder / m).is_file() for m in members):
                return folder
            shutil.rmtree(folder)  # a file was taken out of it: unpack again
        for left in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(left, ignore_errors=True)  # of a killed process
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            if zipfile.is_zipfile(archive):
                _unpack_zip(archive, temporary, [*members, *optional])
            elif tarfile.is_tarfile(archive):
                _unpack_tar(archive, temporary, [*members, *optional])
            else:
                raise InputError(
                    f"{archive} is neither a zip nor a tar archive, or it is cut off.\n"
                    "Remove it and run again to download it."
                )
            missing = [m for m in members if not (temporary / m).exists()]
            if missing:
                raise InputError(f"{archive} does not hold {', '.join(missing)}.\nIs it the right archive?")
            os.replace(temporary, folder)
        except (*DAMAGE, tarfile.TarError) as error:
            if isinstance(error, InputError):
                raise
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(f"No space left to unpack {archive} into {folder.parent}.\nFree some.") from error
            raise InputError(
                f"{archive} cannot be unpacked: {error}.\nIt may be cut off: remove it and run again."
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder


def _reject(archive: Path, name: str, why: str) -> InputError:
    return InputError(
        f"{archive} is not safe to unpack: its member {name!r} {why}. Nothing was unpacked.\n"
        "Get the archive from its publisher."
    )


def _check_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]:
        raise _reject(archive, name, "leads outside the folder")


def _check_size(archive: Path, total: int) -> None:
    if total > _MAX_UNPACKED_BYTES:
        raise _reject(archive, "(all)", f"would unpack to {total:,} bytes")


def _wanted(name: str, members: list[str]) -> str | None:
    """Which of ``members`` a name in an archive stands for."""
    base = PurePosixPath(name.replace("\\", "/")).name.lower()
    return next((member for member in members if member.lower() == base), None)


def _check_once(archive: Path, names: list[str], members: list[str]) -> None:
    for member in members:
        found = [n for n in names if _wanted(n, [member])]
        if len(found) > 1:
            raise InputError(f"{archive} holds {member} more than once: {', '.join(found)}.\nIs it the right archive?")


def _unpack_zip(archive: Path, folder: Path, members: list[str]) -> None:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        for info in infos:
            _check_name(archive, info.filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _reject(archive, info.filename, "is a link")
        _check_size(archive, sum(info.file_size for info in infos))
        _check_once(archive, [i.filename for i in infos if not i.is_dir()], members)
        for info in infos:
            base = _wanted(info.filename, members)
            if base and not info.is_dir():
                with opened.open(info) as source, (folder / base).open("wb") as target:
                    shutil.copyfileobj(source, target, _BLOCK_BYTES)


def _unpack_tar(archive: Path, folder: Path, members: list[str]) -> None:
    with tarfile.open(archive) as opened:
        infos = []
        total = 0
        for info in opened:
            try:
                tarfile.data_filter(info, str(folder))
            except tarfile.FilterError as error:
                raise _reject(archive, info.name, _harm(error)) from error
            total += info.size
            _check_size(archive, total)  # before its bytes, which must be read to get to the next header
            infos.append(info)
        _check_once(archive, [i.name for i in infos if i.isfile()], members)
        for info in infos:
            base = _wanted(info.name, members)
            if base and info.isfile():
                opened.extract(info.replace(name=base, deep=False), folder, filter="data")


def _harm(error: tarfile.FilterError) -> str:
    if isinstance(error, tarfile.AbsoluteLinkError | tarfile.LinkOutsideDestinationError):
        return "is a link that leads outside the folder"
    if isinstance(error, tarfile.SpecialFileError):
        return "is a device"
    return "leads outside the folder"
