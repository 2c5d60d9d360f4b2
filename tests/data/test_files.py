import errno
import multiprocessing
import os

import numpy as np
import pytest

from tfrec.data import load
from tfrec.data.cache import cached
from tfrec.data.files import atomic_write, locked, make_folder
from tfrec.errors import InputError


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
    context = multiprocessing.get_context("fork")
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
    path = next(tmp_path.glob("*.npz"))
    path.write_bytes(path.read_bytes()[:-500])
    assert len(cached({"a": 1}, lambda: made, tmp_path)) == len(made)


def test_lock_is_free_after_its_holder_died(tmp_path):
    def hold_and_die():
        with locked(tmp_path / "x"):
            os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=hold_and_die)
    process.start()
    process.join()
    with locked(tmp_path / "x"):
        pass
