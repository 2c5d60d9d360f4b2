"""The wheel and the source archive that launch/wheel writes, installed into empty environments as a user does.

TensorFlow and all that tfrec requires come from the registry that pip uses: about 600 MB the first time.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def run(*command, cwd, codes=(0,), **environment):
    """What a command prints; it must end with one of ``codes``. Nothing of this checkout is importable there."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=inherited | environment, capture_output=True, text=True
    )
    assert done.returncode in codes, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """What launch/wheel writes from a copy of this checkout, with this environment."""
    copy = tmp_path_factory.mktemp("checkout") / "tfrec"
    tracked = run("git", "ls-files", "-z", cwd=ROOT).split("\0")[:-1]
    for name in tracked:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    folder = tmp_path_factory.mktemp("dist")
    run(
        sys.executable, "launch/wheel_parts/make.py", "--to", folder, cwd=copy,
        SOURCE_DATE_EPOCH="1700000000", TFREC_BUILD_OPS="1", TFREC_CUDA="0",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Makes an empty environment with an archive in it; returns its programs' folder."""

    def make(archive, **variables):
        venv = tmp_path_factory.mktemp("environment") / "venv"
        run(sys.executable, "-m", "venv", venv, cwd="/")
        run(venv / "bin" / "pip", "install", "--quiet", archive, cwd="/", **variables)
        return venv / "bin"

    return make


def trained(bin_, folder):
    """Train and recommend there; returns what the doctor found."""
    shutil.copy2(ROOT / "examples" / "plays.csv", folder)
    columns = ("--data.user", "listener", "--data.item", "track", "--data.title", "name", "--data.value", "plays")
    run(bin_ / "tfrec", "train", "als", "--data.path", "plays.csv", *columns, "--output-dir", "run", cwd=folder)
    assert (folder / "run" / "report.html").is_file()
    assert "ada1 has 24 items" in run(bin_ / "tfrec", "recommend", "run", "--user", "ada1", "-k", "2", cwd=folder)
    code = "import tfrec; print(tfrec.Recommender.load('run').recommend(['ada1'], k=2).num_rows)"
    assert run(bin_ / "python", "-c", code, cwd=folder).split() == ["2"]
    # 1: the doctor found an error, which the caller looks at.
    return json.loads(run(bin_ / "tfrec", "doctor", "--json", cwd=folder, codes=(0, 1)))


def test_the_wheel(dist, environment, tmp_path):
    (wheel,) = dist.glob("tfrec-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"tfrec/ops/libtfrec_ops.so", "tfrec/py.typed"} <= names
    assert any(name.endswith("/LICENSE") for name in names)
    assert not [name for name in names if name.split("/")[0] in ("tests", "launch", "docs", "custom_ops", "build")]
    found = trained(environment(wheel), tmp_path)
    assert found["errors"] == []
    assert found["Native library"]["loads"] == "yes"


def test_the_source_archive_without_a_compiler(dist, environment, tmp_path):
    (source,) = dist.glob("tfrec-*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"LICENSE", "custom_ops/CMakeLists.txt", "launch/setup", "launch/wheel", "launch/horovod/build.py"} <= names
    found = trained(environment(source, TFREC_BUILD_OPS="0"), tmp_path)
    assert [error for error in found["errors"] if "not built" in error]
    assert "missing" in found["Native library"]["file"]


def test_the_source_archive_builds_the_library(dist, environment, tmp_path):
    (source,) = dist.glob("tfrec-*.tar.gz")
    found = trained(environment(source, TFREC_BUILD_OPS="1", TFREC_CUDA="0"), tmp_path)
    assert found["Native library"]["loads"] == "yes"
