"""Archives, rewritten: another tag, another version, the same bytes from the same files."""

import base64
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

Files = dict[str, bytes]


def rewritten(wheel: Path, name: str, change: Callable[[Files], Files]) -> Path:
    """Write ``wheel`` anew as ``name`` in the same folder, its files changed, and remove the old one.

    Args:
        wheel: the wheel.
        name: of the new one.
        change: from names and contents, without RECORD, to new ones.
    """
    with zipfile.ZipFile(wheel) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        files = {name: archive.read(name) for name in infos if not name.endswith(".dist-info/RECORD")}
    some = next(iter(infos.values()))
    mode = {name: info.external_attr for name, info in infos.items()}
    files = change(files)
    info_folder = next(name.split("/")[0] for name in files if name.endswith(".dist-info/METADATA"))
    record = f"{info_folder}/RECORD"
    rows = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[record] = ("\n".join([*rows, f"{record},,"]) + "\n").encode()
    new = wheel.with_name(f".{name}")
    with zipfile.ZipFile(new, "w", compression=zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file, content in files.items():
            info = zipfile.ZipInfo(file, date_time=some.date_time)
            info.external_attr = mode.get(file, 0o100644 << 16)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    wheel.unlink()
    return new.replace(wheel.with_name(name))


def retagged(wheel: Path, tag: str) -> Path:
    """``wheel`` with another tag: in its name, and in its file WHEEL."""
    name, version = wheel.name.split("-")[:2]

    def change(files: Files) -> Files:
        about = f"{name}-{version}.dist-info/WHEEL"
        lines = [line for line in files[about].decode().splitlines() if line and not line.startswith("Tag:")]
        return {**files, about: "\n".join([*lines, f"Tag: {tag}", ""]).encode()}

    return rewritten(wheel, f"{name}-{version}-{tag}.whl", change)


def relabelled(wheel: Path, version: str) -> Path:
    """``wheel`` with another version: in its name, its METADATA, and the name of its folder of metadata."""
    name, old, *tags = wheel.name.split("-")

    def change(files: Files) -> Files:
        about = f"{name}-{old}.dist-info"
        changed = {path.replace(about, f"{name}-{version}.dist-info", 1): text for path, text in files.items()}
        metadata = f"{name}-{version}.dist-info/METADATA"
        text = changed[metadata].decode()
        changed[metadata] = text.replace(f"\nVersion: {old}\n", f"\nVersion: {version}\n", 1).encode()
        return changed

    return rewritten(wheel, "-".join([name, version, *tags]), change)


def reproducible(source: Path, epoch: int) -> Path:
    """The source archive ``source``, its members in order, without an owner, at the time ``epoch``."""
    made = io.BytesIO()
    with (
        tarfile.open(source) as old,
        gzip.GzipFile(fileobj=made, mode="wb", filename="", mtime=epoch, compresslevel=9) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda m: m.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    source.write_bytes(made.getvalue())
    return source


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
