"""The doctor names what is wrong and how to fix it, whatever is broken, without a traceback."""

import importlib.metadata
import json
import sys

import pytest

from tests import starting
from tfrec import doctor
from tfrec.ops import native


@pytest.fixture(scope="module")
def sound():
    """What is found in this environment."""
    return doctor.diagnose()


def test_every_section_is_there(sound):
    assert list(sound.sections) == ["tfrec", "Native library", "Machine", "GPUs", "Horovod", "Data"]
    assert sound.sections["tfrec"]["tensorflow"] == importlib.metadata.version("tensorflow")
    assert sound.sections["Machine"]["cores"]
    assert "failed" not in {name for rows in sound.sections.values() for name in rows}


def test_lines_and_json(tmp_path, sound):
    out, _ = starting.run("doctor", cwd=tmp_path, code=1 if sound.errors else 0)
    assert "Native library\n  file" in out
    out, _ = starting.run("doctor", "--json", cwd=tmp_path, code=1 if sound.errors else 0)
    assert json.loads(out)["tfrec"]["keras"] == importlib.metadata.version("keras")


def test_a_package_that_is_missing_or_of_another_version(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "pyarrow":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3" if name == "keras" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = doctor.Findings()
    assert doctor.packages(found)["pyarrow"] == "missing"
    assert any(text.startswith("pyarrow is missing.\nInstall it: pip install 'pyarrow") for text in found.errors)
    assert any(text.startswith("keras must be ") and "Received: 1.2.3." in text for text in found.errors)


def test_a_library_that_is_missing_or_of_another_tensorflow(monkeypatch, tmp_path):
    library = tmp_path / "libtfrec_ops.so"
    monkeypatch.setattr(native, "library_path", lambda: library)
    native.library.cache_clear()
    found = doctor.Findings()
    assert doctor.native_library(found)["file"].endswith(", missing")
    assert "not built" in found.errors[0]
    library.write_bytes(b"tfrec_built_for" + b"\ntensorflow=2.7.1\ncompiler=gcc 12\nprocessor=x86_64\n\0")
    found = doctor.Findings()
    rows = doctor.native_library(found)
    native.library.cache_clear()
    assert rows["loads"] == "no"
    assert "must be built for TensorFlow" in found.errors[0]
    assert "pip install 'tensorflow==2.7.*'" in found.errors[0]


def test_horovod_is_missing_or_broken(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    found = doctor.Findings()
    assert doctor.horovod(found)["version"] == "missing"
    assert not found.errors
    assert "launch/setup" in found.warnings[0]


def test_a_data_folder_that_does_not_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("TFREC_DATA", str(tmp_path / "none"))
    found = doctor.Findings()
    doctor.data_folders(found)
    assert "TFREC_DATA must be a folder" in found.errors[0]
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv("TFREC_DATA", str(tmp_path))
    assert doctor.data_folders(doctor.Findings())["data sets"] == "ml-1m"


def test_whatever_is_raised_is_a_problem(monkeypatch, capsys):
    def broken(found):
        raise OSError("line one\nline two")

    monkeypatch.setattr(doctor, "machine", broken)
    found = doctor.diagnose()
    assert "Machine could not be examined: OSError: line one" in found.errors
    assert any(line.startswith("  error: Machine") for line in found.lines())
    assert "Traceback" not in capsys.readouterr().err


def test_titles_of_packages_cannot_write_to_the_terminal():
    found = doctor.Findings({"A": {"b": "\x1b[31mred"}}, ["\x1b]0;title"])
    assert "\x1b" not in "\n".join(found.lines())


def test_a_pipe_that_closes_ends_the_help(tmp_path):
    import subprocess

    done = subprocess.run(
        f"{sys.executable} -m tfrec train als --help | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stderr == ""
