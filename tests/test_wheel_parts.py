"""What launch/wheel writes: the platform tag that a library needs, and archives that are sound and reproducible."""

import io
import platform
import stat
import sys
import tarfile
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from packaging.utils import parse_wheel_filename

from tfrec import ops

SCRIPTS = Path(__file__).parent.parent / "launch" / "wheel_parts"
NAME = "thing-1.0-py3-none-linux_x86_64.whl"
METADATA = "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n\nAs its page says:\nVersion: 1.0\n"


@pytest.fixture(scope="module")
def archives():
    return _module("archives")


@pytest.fixture(scope="module")
def tags():
    return _module("platform_tag")


def _module(name):
    sys.path.insert(0, str(SCRIPTS))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture
def wheel(tmp_path):
    """A wheel with a module and a program."""
    with zipfile.ZipFile(tmp_path / NAME, "w") as archive:
        archive.writestr("thing/__init__.py", "x = 1\n")
        program = zipfile.ZipInfo("thing/program", date_time=(2026, 1, 2, 3, 4, 6))
        program.external_attr = (stat.S_IFREG | 0o755) << 16
        archive.writestr(program, "#!/bin/sh\n")
        archive.writestr("thing-1.0.dist-info/METADATA", METADATA)
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\n")
        archive.writestr("thing-1.0.dist-info/RECORD", "stale\n")
    return tmp_path / NAME


def read(path):
    """The files of a wheel, by a reader that checks each against RECORD."""
    reader = pytest.importorskip("wheel.wheelfile")
    with reader.WheelFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


class TestWheels:
    def test_another_tag(self, archives, wheel):
        new = archives.retagged(wheel, "py3-none-manylinux_2_34_x86_64")
        assert new.name == "thing-1.0-py3-none-manylinux_2_34_x86_64.whl"
        assert list(new.parent.iterdir()) == [new]
        files = read(new)
        assert files["thing-1.0.dist-info/WHEEL"] == "Wheel-Version: 1.0\nTag: py3-none-manylinux_2_34_x86_64\n"
        assert files["thing/__init__.py"] == "x = 1\n"

    def test_another_version(self, archives, wheel):
        new = archives.relabelled(wheel, "1.0+tfrec")
        assert str(parse_wheel_filename(new.name)[1]) == "1.0+tfrec"
        files = read(new)
        assert files["thing-1.0+tfrec.dist-info/METADATA"] == METADATA.replace(
            "Version: 1.0\n\n", "Version: 1.0+tfrec\n\n"
        )
        assert not any(name.startswith("thing-1.0.dist-info") for name in files)

    def test_a_program_stays_one(self, archives, wheel):
        with zipfile.ZipFile(archives.retagged(wheel, "py3-none-any")) as archive:
            assert archive.getinfo("thing/program").external_attr >> 16 & 0o777 == 0o755

    def test_a_file_that_was_changed_is_found(self, archives, wheel, tmp_path):
        new = archives.retagged(wheel, "py3-none-any")
        spoilt = tmp_path / "spoilt" / new.name
        spoilt.parent.mkdir()
        with zipfile.ZipFile(new) as old, zipfile.ZipFile(spoilt, "w") as archive:
            for name in old.namelist():
                archive.writestr(name, old.read(name).replace(b"x = 1", b"x = 2"))
        with pytest.raises(Exception, match="[Hh]ash"):
            read(spoilt)


def source(path, mtime, uid, names):
    """A source archive, as another moment, user and order of files make it."""
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(f"thing-1.0/{name}")
            member.mtime, member.uid, member.uname = mtime, uid, f"user{uid}"
            member.mode, member.size = (0o775 if name == "setup" else 0o664), len(name.encode())
            archive.addfile(member, io.BytesIO(name.encode()))
    return path


def test_a_source_archive_does_not_depend_on_who_made_it_when(archives, tmp_path):
    one = archives.reproducible(source(tmp_path / "one.tar.gz", 1, 5, ["setup", "b.py", "ä.py"]), 1_700_000_000)
    two = archives.reproducible(source(tmp_path / "two.tar.gz", 2.5, 6, ["ä.py", "b.py", "setup"]), 1_700_000_000)
    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as archive:
        members = {member.name: member for member in archive.getmembers()}
        assert archive.extractfile("thing-1.0/ä.py").read() == "ä.py".encode()
    assert {member.mtime for member in members.values()} == {1_700_000_000}
    assert (members["thing-1.0/setup"].mode, members["thing-1.0/b.py"].mode) == (0o755, 0o644)


class TestPlatformTag:
    @pytest.fixture
    def library(self, tags, monkeypatch):
        """A library that needs what a test says, as readelf and objdump list it."""

        def needing(libraries, symbols):
            listed = "".join(f" 0x1 (NEEDED)  Shared library: [{name}]\n" for name in libraries)
            found = "".join(f"0000 DF *UND* 0000 ({symbol}) name\n" for symbol in symbols)
            monkeypatch.setattr(tags, "_run", lambda tool, *_: listed if tool == "readelf" else found)
            return Path("libthing.so")

        return needing

    @pytest.mark.parametrize(
        ("symbols", "tag"),
        [
            ([], "manylinux_2_17_x86_64"),
            (["GLIBC_2.2.5", "GLIBC_2.28"], "manylinux_2_28_x86_64"),
            # Of libstdc++ as of GCC 11 and 12, which came to systems with glibc 2.34 and 2.35.
            (["GLIBC_2.14", "GLIBCXX_3.4.29"], "manylinux_2_34_x86_64"),
            (["GLIBC_2.14", "GLIBCXX_3.4.30", "GLIBCXX_3.4"], "manylinux_2_35_x86_64"),
            (["GLIBC_2.38", "GLIBCXX_3.4.21"], "manylinux_2_38_x86_64"),
        ],
    )
    def test_the_oldest_linux_that_has_the_symbols(self, tags, library, symbols, tag):
        path = library(["libc.so.6", "libstdc++.so.6", "libtensorflow_framework.so.2"], symbols)
        assert tags.platform_tag(path, "x86_64") == tag

    def test_a_library_that_a_linux_may_not_have(self, tags, library, capsys):
        path = library(["libc.so.6", "libcudart.so.12"], ["GLIBC_2.17"])
        assert tags.platform_tag(path, "x86_64") == "linux_x86_64"
        assert "needs libcudart.so.12" in capsys.readouterr().err

    def test_symbols_newer_than_what_is_known(self, tags, library):
        with pytest.raises(ValueError, match=r"needs GLIBCXX_3\.4\.99"):
            tags.glibc(library(["libstdc++.so.6"], ["GLIBCXX_3.4.99"]))

    @pytest.mark.skipif(ops.library() is None, reason="needs the native library, which launch/setup builds")
    def test_the_native_library_runs_where_it_was_built(self, tags):
        tag = tags.platform_tag(ops.library_path(), platform.machine())
        here = int(platform.libc_ver()[1].split(".")[1])
        assert tag.startswith("manylinux_2_")
        assert 17 <= int(tag.split("_")[2]) <= here
