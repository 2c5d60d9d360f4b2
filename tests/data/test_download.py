"""Downloads from a server on this machine, and archives that mean harm."""

import functools
import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from typing import ClassVar

import pytest

from tfrec.data.download import fetch, unpack
from tfrec.errors import InputError

CONTENT = os.urandom(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; cuts the first answer short when told to."""

    requests: ClassVar[list] = []
    cut = False

    def do_GET(self):
        start = 0
        wanted = self.headers.get("Range")
        Handler.requests.append(wanted)
        if wanted:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
        else:
            self.send_response(200)
        body = CONTENT[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if Handler.cut:
            Handler.cut = False
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.requests, Handler.cut = [], False
    yield f"http://127.0.0.1:{server.server_port}/data.zip"
    server.shutdown()
    server.server_close()


def test_downloads_once(tmp_path, url):
    path = tmp_path / "data.zip"
    assert fetch(url, path, MD5).read_bytes() == CONTENT
    fetch(url, path, MD5)
    assert Handler.requests == [None]
    assert not path.with_name("data.zip.part").exists()


def test_goes_on_after_a_broken_connection(tmp_path, url):
    path = tmp_path / "data.zip"
    Handler.cut = True
    with pytest.raises(InputError, match="closed after"):
        fetch(url, path, MD5)
    assert not path.exists()
    assert fetch(url, path, MD5).read_bytes() == CONTENT
    assert Handler.requests == [None, "bytes=150000-"]


def test_wrong_content_is_never_kept(tmp_path, url):
    path = tmp_path / "data.zip"
    with pytest.raises(InputError, match="(?s)Expected MD5.*Received"):
        fetch(url, path, "0" * 32)
    assert [p.name for p in tmp_path.iterdir()] == ["data.zip.lock"]
    path.write_bytes(CONTENT[:1000])
    with pytest.raises(InputError, match="cut off"):
        fetch(url, path, MD5)


def test_several_at_once_download_once(tmp_path, url):
    path = tmp_path / "data.zip"
    threads = [threading.Thread(target=functools.partial(fetch, url, path, MD5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == CONTENT
    assert Handler.requests == [None]


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path, infos):
    with tarfile.open(path, "w:gz") as archive:
        for info, content in infos:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_a_zip_that_leads_outside(tmp_path, name):
    archive = make_zip(tmp_path / "a.zip", {"x/ratings.csv": b"1", name: b"2"})
    with pytest.raises(InputError, match="leads outside"):
        unpack(archive, tmp_path / "out", ["ratings.csv"])
    assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "out.lock"]


def test_a_zip_with_a_link(tmp_path):
    info = zipfile.ZipInfo("x/ratings.csv")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="is a link"):
        unpack(tmp_path / "b.zip", tmp_path / "out", ["ratings.csv"])


@pytest.mark.parametrize(
    ("kind", "target", "match"),
    [
        (tarfile.SYMTYPE, "/etc/passwd", "is a link"),
        (tarfile.SYMTYPE, "../../passwd", "is a link"),
        (tarfile.LNKTYPE, "/etc/passwd", "is a link"),
        (tarfile.LNKTYPE, "../../passwd", "is a link"),
        (tarfile.CHRTYPE, "", "is a device"),
        (tarfile.FIFOTYPE, "", "is a device"),
        (tarfile.SYMTYPE, "other.csv", r"does not hold ratings\.csv"),
    ],
)
def test_members_of_a_tar_that_are_no_files(tmp_path, kind, target, match):
    info = tarfile.TarInfo("x/ratings.csv")
    info.type, info.linkname = kind, target
    with pytest.raises(InputError, match=match):
        unpack(make_tar(tmp_path / "a.tar.gz", [(info, b"")]), tmp_path / "out", ["ratings.csv"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../ratings.csv", "x/../../ratings.csv"])
def test_a_tar_that_leads_outside(tmp_path, name):
    wanted, harm = tarfile.TarInfo("x/ratings.csv"), tarfile.TarInfo(name)
    archive = make_tar(tmp_path / "a.tar.gz", [(wanted, b"1"), (harm, b"2")])
    with pytest.raises(InputError, match="leads outside"):
        unpack(archive, tmp_path / "out", ["ratings.csv"])
    assert not (tmp_path / "out").exists()


def test_a_tar_is_unpacked(tmp_path):
    wanted, other = tarfile.TarInfo("/x/Ratings.csv"), tarfile.TarInfo("x/links.csv")
    wanted.mode = 0o4777
    folder = unpack(make_tar(tmp_path / "a.tar.gz", [(wanted, b"1"), (other, b"2")]), tmp_path / "out", ["ratings.csv"])
    (file,) = folder.iterdir()
    assert (file.name, file.read_bytes()) == ("ratings.csv", b"1")
    assert file.stat().st_mode & 0o7022 == 0


def test_only_wanted_files_and_all_of_them(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"x/ratings.csv": b"1", "x/links.csv": b"2"})
    folder = unpack(archive, tmp_path / "out", ["ratings.csv"])
    assert [p.name for p in folder.iterdir()] == ["ratings.csv"]
    with pytest.raises(InputError, match=r"does not hold movies\.csv"):
        unpack(archive, tmp_path / "out2", ["ratings.csv", "movies.csv"])
    assert not (tmp_path / "out2").exists()


def test_optional_files_and_upper_case(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"X/RATINGS.CSV": b"1", "x/__MACOSX/._ratings.csv": b"2"})
    folder = unpack(archive, tmp_path / "out", ["ratings.csv"], ["movies.csv"])
    assert [p.name for p in folder.iterdir()] == ["ratings.csv"]
    archive = make_zip(tmp_path / "b.zip", {"x\\ratings.csv": b"1", "x\\movies.csv": b"2"})
    folder = unpack(archive, tmp_path / "out2", ["ratings.csv"], ["movies.csv"])
    assert sorted(p.name for p in folder.iterdir()) == ["movies.csv", "ratings.csv"]
    archive = make_zip(tmp_path / "c.zip", {"x/ratings.csv": b"1", "y/Ratings.csv": b"2"})
    with pytest.raises(InputError, match="more than once"):
        unpack(archive, tmp_path / "out3", ["ratings.csv"])


def test_a_tar_of_absurd_size_is_told_by_its_first_header(tmp_path):
    """Its bytes are not looked for: there are none."""
    info = tarfile.TarInfo("x/ratings.csv")
    info.size = 17 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(10_240))
    with pytest.raises(InputError, match="would unpack to"):
        unpack(tmp_path / "a.tar", tmp_path / "out", ["ratings.csv"])


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>", b"PK\x03\x04" + bytes(100), os.urandom(5_000)])
def test_what_is_no_archive(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match="neither a zip nor a tar archive"):
        unpack(tmp_path / "a.zip", tmp_path / "out", ["ratings.csv"])
    assert not (tmp_path / "out").exists()


def test_cut_off_archives(tmp_path):
    whole = make_zip(tmp_path / "a.zip", {"x/ratings.csv": os.urandom(5000)}).read_bytes()
    (tmp_path / "b.zip").write_bytes(whole[:-1000])
    with pytest.raises(InputError, match="cut off"):
        unpack(tmp_path / "b.zip", tmp_path / "out", ["ratings.csv"])
    info = tarfile.TarInfo("x/ratings.csv")
    whole = make_tar(tmp_path / "a.tar.gz", [(info, os.urandom(50_000))]).read_bytes()
    (tmp_path / "b.tar.gz").write_bytes(whole[:-20_000])
    with pytest.raises(InputError, match="cut off"):
        unpack(tmp_path / "b.tar.gz", tmp_path / "out", ["ratings.csv"])
    assert not (tmp_path / "out").exists()
