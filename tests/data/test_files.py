import errno
import io
import multiprocessing
import os
import resource
import signal
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tfrec.data import files, load
from tfrec.data.cache import cached
from tfrec.data.files import (
    DAMAGE,
    atomic_folder,
    atomic_path,
    atomic_write,
    check_file,
    check_new_folder,
    locked,
    make_folder,
    read_json,
    read_npz,
    remove_leftovers,
)
from tfrec.errors import InputError

FORK = multiprocessing.get_context("fork")


def in_another_process(do):
    """Call ``do`` in a process that then waits; the process, once ``do`` has returned."""
    ready = FORK.Event()

    def work():
        do()
        ready.set()
        signal.pause()

    process = FORK.Process(target=work)
    process.start()
    assert ready.wait(30)
    return process


def kill(process):
    process.kill()
    process.join()


def test_atomic_write_keeps_the_old_file_on_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path, "w") as stream:
        stream.write("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_full_disk(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(InputError, match="No space left"), atomic_write(path, "w"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="(?s)cannot be written.*a reason"):
        make_folder(tmp_path / "file" / "folder", "a reason")


def _prepare(folder, log):
    def prepare():
        with open(log, "a") as stream:
            stream.write("prepared\n")
        return load("synthetic", num_users=30, num_items=20)

    cached({"test": 1}, prepare, folder)


def test_several_processes_prepare_once(tmp_path):
    context = FORK
    log = tmp_path / "log"
    processes = [context.Process(target=_prepare, args=(tmp_path / "cache", log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert log.read_text() == "prepared\n"


def test_cache_round_trip_and_damage(tmp_path):
    made = load("synthetic", num_users=30, num_items=20)
    cached({"a": 1}, lambda: made, tmp_path)
    again = cached({"a": 1}, lambda: pytest.fail("not from the cache"), tmp_path)
    for name in ("user_index", "item_index", "values", "user_ids", "item_ids", "timestamps", "item_titles"):
        np.testing.assert_array_equal(getattr(made, name), getattr(again, name))
    assert made.summary() == again.summary()
    for name in ("events", "users", "items"):
        path = next(tmp_path.glob(f"*/{name}.arrow"))
        path.write_bytes(path.read_bytes()[:-500])
        remade = []
        assert len(cached({"a": 1}, lambda remade=remade: remade.append(1) or made, tmp_path)) == len(made)
        assert remade == [1]


def test_lock_is_free_after_its_holder_died(tmp_path):
    def hold_and_die():
        with locked(tmp_path / "x"):
            os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=hold_and_die)
    process.start()
    process.join()
    with locked(tmp_path / "x"):
        pass


NAMES = ["out", "out.v2", "[x]*?", "ü 🎬 blank", "n" * 250, "ü" * 120, "-dash", "x." + "e" * 100]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_killed_process_leaves_is_removed(tmp_path, name):
    """Folders and files of every name; never those of a process that lives."""

    def begin():
        folder = atomic_folder(tmp_path / name)
        (folder.__enter__() / "half").write_text("")
        # Kept from the garbage collector, which would end it.
        held.append(folder)
        file = atomic_path(tmp_path / f"{name[:200]}.tsv")
        file.__enter__()
        held.append(file)

    held = []
    process = in_another_process(begin)
    parts = sorted(os.listdir(tmp_path))
    assert len(parts) == 2
    remove_leftovers(tmp_path / f"{name[:200]}.tsv")
    with pytest.raises(InputError, match="Another process is writing"), atomic_folder(tmp_path / name):
        pass
    assert sorted(os.listdir(tmp_path)) == parts
    kill(process)
    assert sorted(os.listdir(tmp_path)) == parts
    with atomic_folder(tmp_path / name) as temporary:
        (temporary / "whole").write_text("")
    check_file(tmp_path / f"{name[:200]}.tsv")
    assert os.listdir(tmp_path) == [name]
    assert os.listdir(tmp_path / name) == ["whole"]


def test_leftovers_of_others_stay(tmp_path):
    for name in (".other.abcd1234.part", ".out.notes", "out.part", ".out.a-b.part"):
        (tmp_path / name).mkdir()
    (tmp_path / ".out.abcd1234.part").mkdir()
    check_new_folder(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == [".other.abcd1234.part", ".out.a-b.part", ".out.notes", "out.part"]


def test_two_processes_and_one_folder(tmp_path):
    """Who comes second, where no locks are to be had, finds the other's and leaves it."""
    with pytest.raises(InputError, match="made by another process at the same time"), atomic_folder(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("")
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == ["theirs"]


@pytest.mark.parametrize("there", ["folder", "file", "link", "link to nothing"])
def test_a_folder_that_is_there(tmp_path, there):
    path = tmp_path / "out"
    if there == "folder":
        path.mkdir()
    elif there == "file":
        path.write_text("mine")
    else:
        path.symlink_to(tmp_path if there == "link" else tmp_path / "nowhere")
    with pytest.raises(InputError, match="exists already"), atomic_folder(path):
        pytest.fail("entered")
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("path", ["n" * 300, "file/x", "/proc/x", "nul\0byte"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for check in (check_file, check_new_folder):
        with pytest.raises(InputError, match="cannot be written"):
            check(Path(path))
    with pytest.raises(InputError, match="cannot be written"), atomic_folder(Path(path)):
        pytest.fail("entered")
    with pytest.raises(InputError, match="cannot be written"), atomic_path(Path(path)):
        pytest.fail("entered")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_file_size_limit(tmp_path, what):
    """ulimit -f: what was there stays, nothing is left over, and it is a message."""
    path = tmp_path / "out"
    if what == "file":
        path.write_text("old")

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
        with pytest.raises(InputError, match="(?s)out.* cannot be written: File too large.*limit") as caught:
            if what == "file":
                with atomic_write(path, "w") as stream:
                    stream.write("new" * 10_000)
            else:
                with atomic_folder(path) as folder, atomic_write(folder / "x") as stream:
                    stream.write(b"new" * 10_000)
        assert ".part" not in str(caught.value)

    process = FORK.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert os.listdir(tmp_path) == (["out"] if what == "file" else [])
    assert what == "folder" or path.read_text() == "old"


def test_devices_are_written_to_and_not_replaced():
    for name, message in (("/dev/full", "No space left"), ("/dev/null", None)):
        check_file(Path(name))
        if message:
            with pytest.raises(InputError, match=message), atomic_write(Path(name), "w") as stream:
                stream.write("x" * 100_000)
        else:
            with atomic_write(Path(name), "w") as stream:
                stream.write("x")
        assert stat.S_ISCHR(os.stat(name).st_mode)
        assert not [n for n in os.listdir("/dev") if n.endswith(".part")]


def test_links_are_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "real").write_text("old")
    for link, target in (("link", "disk/real"), ("new", "disk/absent")):
        (tmp_path / link).symlink_to(tmp_path / target)
        with atomic_write(tmp_path / link, "w") as stream:
            stream.write("new")
        assert (tmp_path / link).is_symlink()
        assert (tmp_path / target).read_text() == "new"
    assert sorted(os.listdir(tmp_path / "disk")) == ["absent", "real"]


def test_an_archive_that_would_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LARGEST_UNPACKED", 1 << 20)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(1 << 20))
    with pytest.raises(ValueError, match="would unpack to 8,388,7"):
        read_npz(path)
    np.savez(path, a=np.zeros(1 << 20))  # as large, but not by surprise
    assert len(read_npz(path)["a"]) == 1 << 20
    path.write_bytes(b"PK\x05\x06" + bytes(18))  # an empty archive
    assert read_npz(path) == {}


def test_an_array_that_says_it_is_huge(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(80))
    with pytest.raises(DAMAGE):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 10_000, None, "fifo"])
def test_damaged_json(tmp_path, content):
    path = tmp_path / "x.json"
    if content == "fifo":
        os.mkfifo(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DAMAGE):
        read_json(path)
