"""Horovod's source is patched only where it is the known one, and what is built from it has all that it needs.

Nothing here uses a wheel that was kept: the source package is downloaded and compiled anew.
"""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "launch" / "horovod"
CUDA_HOME = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))


@pytest.fixture(scope="module")
def scripts():
    """The modules of launch/horovod."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield {name: import_module(name) for name in ("patches", "check", "build", "install")}
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def tensorflow(scripts):
    return scripts["check"].find("tensorflow")


@pytest.fixture
def known(scripts, tmp_path):
    """A source with the texts that the patches replace, and nothing else."""
    for patch in scripts["patches"].PATCHES:
        file = tmp_path / patch.file
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as output:
            output.write("before\n" + patch.old + "after\n")
    return tmp_path


def test_the_known_source_is_patched(scripts, known):
    patches = scripts["patches"]
    patches.apply(known, cuda=True)
    for patch in patches.PATCHES:
        text = (known / patch.file).read_text()
        assert patch.old not in text
        assert patch.new in text
    with pytest.raises(patches.SourceChanged, match="was found 0 times"):
        patches.apply(known, cuda=True)


def test_a_build_for_cpus_leaves_the_gpu_code_alone(scripts, known):
    patches = scripts["patches"]
    patches.apply(known, cuda=False)
    for patch in patches.PATCHES:
        assert (patch.old in (known / patch.file).read_text()) == patch.cuda


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda old: old.replace("TF", "Tf").replace("Gpu", "GPU"), "was found 0 times, not once"),
        (lambda old: old + old, "was found 2 times, not once"),
    ],
)
def test_a_changed_source_is_noticed(scripts, known, number, change, expected):
    patches = scripts["patches"]
    assert len(patches.PATCHES) == 3
    patch = patches.PATCHES[number]
    file = known / patch.file
    file.write_text(file.read_text().replace(patch.old, change(patch.old)))
    before = {path: path.read_text() for path in known.rglob("*") if path.is_file()}
    with pytest.raises(patches.SourceChanged) as raised:
        patches.apply(known, cuda=True)
    assert f"the patch '{patch.name}' does not fit {patch.file}: the text that it" in str(raised.value)
    assert expected in str(raised.value)
    assert before == {path: path.read_text() for path in known.rglob("*") if path.is_file()}


def test_a_source_without_the_file_is_noticed(scripts, known):
    (known / "horovod" / "tensorflow" / "mpi_ops.cc").unlink()
    with pytest.raises(scripts["patches"].SourceChanged, match="does not fit .*/mpi_ops.cc: the file is not there"):
        scripts["patches"].apply(known, cuda=True)


def test_a_wheel_is_kept_under_all_that_it_is_built_from(scripts, tmp_path, monkeypatch):
    build, patches = scripts["build"], scripts["patches"]
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin" / "nvcc"

    def toolkit(release):
        nvcc.write_text(f"#!/bin/sh\necho 'release {release}'\n")
        nvcc.chmod(0o755)

    toolkit("13.0")
    # Wheels that were kept before the recipe was in the name are taken; only those for CPUs are sound.
    assert "recipe" not in build.key(None)
    keys = {build.key(None), build.key(str(tmp_path))}
    toolkit("12.5")
    keys.add(build.key(str(tmp_path)))
    monkeypatch.setenv("HOROVOD_BUILD_CUDA_CC_LIST", "90")
    keys.add(build.key(str(tmp_path)))
    monkeypatch.setattr(patches, "PATCHES", patches.PATCHES[:2])
    keys.add(build.key(str(tmp_path)))
    monkeypatch.setattr(patches, "PATCHES", ())
    keys.add(build.key(None))
    assert len(keys) == 6


@pytest.mark.parametrize(
    ("kept", "found", "status", "built"),
    [
        (False, [[]], 0, 1),
        (True, [[]], 0, 0),
        (True, [["lacks a symbol"], []], 0, 1),
        (True, [["lacks a symbol"], ["lacks it still"]], 1, 1),
        (False, [["lacks a symbol"]], 1, 1),
    ],
)
def test_a_kept_wheel_is_checked_and_built_again(scripts, tmp_path, monkeypatch, capsys, kept, found, status, built):
    build, install = scripts["build"], scripts["install"]
    wheel = tmp_path / build.key(None) / "horovod-0-py3.whl"
    wheel.parent.mkdir()
    if kept:
        wheel.touch()
    builds = []
    monkeypatch.setattr(build, "PIP", ("true",))
    monkeypatch.setattr(build, "build", lambda *arguments: builds.append(arguments) or wheel)
    checks = iter(found)
    monkeypatch.setattr(scripts["check"], "all_problems", lambda cuda: next(checks))
    monkeypatch.setattr(sys, "argv", ["install.py", "--wheels", str(tmp_path)])
    monkeypatch.setattr(install.signal, "signal", lambda *_: None)
    assert install.main() == status
    assert builds == [(tmp_path, None)] * built
    assert list(checks) == []
    said = capsys.readouterr().err
    assert status == 0 or f"Horovod {found[-1][0]}" in said.splitlines()[-1]


def library(folder, source, *options):
    """A shared library of one C++ source, where Horovod's would be: site-packages/horovod/tensorflow."""
    folder = folder / "horovod" / "tensorflow"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mpi_lib.cc").write_text(source)
    command = ["g++", "-shared", "-fPIC", "-o", "mpi_lib.so", "mpi_lib.cc", *options]
    subprocess.run(command, check=True, cwd=folder)
    return folder / "mpi_lib.so"


ONE = "int one() { return 1; }"
# What TensorFlow's namespace does not have, and what its libraries export although it is CUDA's.
NOTHING = "namespace tensorflow { struct Nothing { Nothing(); }; } tensorflow::Nothing nothing;"
FREE = 'extern "C" int cudaFree(void*); int free() { return cudaFree(0); }'
REGISTER = 'extern "C" void** __cudaRegisterFatBinary(void*); auto b = __cudaRegisterFatBinary(0);'


@pytest.mark.parametrize(
    ("source", "with_tensorflow", "run_path", "expected"),
    [
        (ONE, False, None, None),
        (NOTHING, True, None, "libraries it names (libtensorflow_framework.so.2) do not have: tensorflow::Nothing"),
        (NOTHING, False, None, "libraries it names (none of TensorFlow's libraries) do not have: tensorflow::Nothing"),
        (FREE, True, None, "takes the CUDA runtime from other libraries, not from itself: cudaFree"),
        (REGISTER, False, None, "takes the CUDA runtime from other libraries, not from itself: __cudaRegister"),
        (ONE, False, "/tmp/build.x/nccl/lib", "has a run path that does not move with the environment: /tmp/build.x/"),
        (ONE, False, "$ORIGIN/../../nvidia/nccl/lib", None),
    ],
)
def test_what_is_wrong_with_a_library_is_found(
    scripts, tensorflow, tmp_path, source, with_tensorflow, run_path, expected
):
    options = [f"-Wl,-rpath,{run_path}"] if run_path else []
    if with_tensorflow:
        options += [f"-L{tensorflow}", "-Wl,--no-as-needed", "-l:libtensorflow_framework.so.2"]
    said = scripts["check"].problems(library(tmp_path, source, *options), tensorflow)
    assert len(said) == (expected is not None)
    assert expected is None or expected in said[0]


def test_what_tensorflow_has_is_not_missing(scripts, tensorflow, tmp_path):
    framework = tensorflow / "libtensorflow_framework.so.2"
    name = next(name for name in scripts["check"].exported([framework]) if "tensorflow" in name)
    source = f'extern "C" void {name}(); void start() {{ {name}(); }}'
    built = library(tmp_path, source, f"-L{tensorflow}", "-l:libtensorflow_framework.so.2")
    assert name in scripts["check"].undefined(built)
    assert scripts["check"].problems(built, tensorflow) == []


def test_a_build_for_gpus_finds_nccl_beside_it(scripts, tensorflow, tmp_path):
    packaged = tmp_path / "nvidia" / "nccl" / "lib"
    packaged.mkdir(parents=True)
    subprocess.run(["g++", "-shared", "-fPIC", "-o", "libnccl.so.2", "-x", "c", "-"], input=b"int f;", cwd=packaged)
    link = ["-Wl,--no-as-needed", f"-L{packaged}", "-l:libnccl.so.2"]
    problems = scripts["check"].problems
    assert problems(library(tmp_path, ""), tensorflow, cuda=True) == ["does not name NCCL"]
    assert problems(library(tmp_path, "", *link), tensorflow, cuda=True) == ["does not find NCCL"]
    built = library(tmp_path, "", *link, "-Wl,-rpath,$ORIGIN/../../nvidia/nccl/lib")
    assert problems(built, tensorflow, cuda=True) == []


def test_the_installed_horovod_is_sound(scripts):
    assert scripts["check"].all_problems(cuda=False) == []


def test_why_it_does_not_import_is_said(scripts, tmp_path, monkeypatch):
    broken = tmp_path / "horovod"
    (broken / "tensorflow").mkdir(parents=True)
    (broken / "__init__.py").touch()
    (broken / "tensorflow" / "__init__.py").write_text("raise ImportError('libnccl.so.2: cannot open shared object')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = scripts["check"].does_not_import()
    assert said.startswith("does not import:")
    assert "libnccl.so.2: cannot open shared object" in said


OF_TENSORFLOW = re.compile(r"10tensorflow|3tsl|4absl|15stream_executor|3xla")


@pytest.mark.slow
def test_the_gpu_code_that_uses_tensorflow_compiles_and_lacks_nothing(scripts, tensorflow, tmp_path):
    """Horovod's own CMake is configured for GPUs; what meets TensorFlow, and the CUDA kernels, are built and linked.

    NCCL is a download of hundreds of MB that neither includes: an empty library and a header with its version will do.
    """
    check, build = scripts["check"], scripts["build"]
    for needed in (CUDA_HOME / "bin" / "nvcc", CUDA_HOME / "include" / "cuda_runtime.h"):
        if not needed.exists():
            pytest.skip(f"needs a CUDA toolkit: {needed} is not there")
    try:
        source = build.download(tmp_path)
    except build.BuildError as error:
        pytest.skip(f"needs Horovod's source package: {error}")
    scripts["patches"].apply(source, cuda=True)
    nccl = tmp_path / "nccl"
    (nccl / "include").mkdir(parents=True)
    (nccl / "include" / "nccl.h").write_text("#define NCCL_MAJOR 2\n#define NCCL_VERSION_CODE 22000\n")
    (nccl / "lib").mkdir()
    stub = ["g++", "-shared", "-Wl,-soname,libnccl.so.2", "-o", str(nccl / "lib" / "libnccl.so"), "-x", "c", "-"]
    subprocess.run(stub, input=b"", check=True)

    environment = {**os.environ, **build.OPTIONS, **build.CUDA_OPTIONS, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"HOROVOD_CUDA_HOME": str(CUDA_HOME), "HOROVOD_NCCL_HOME": str(nccl)}
    environment["HOROVOD_BUILD_CUDA_CC_LIST"] = "80"
    made = tmp_path / "made"
    unit = made / "horovod" / "tensorflow"
    configure = ["cmake", "-S", source, "-B", made, f"-DPYTHON_EXECUTABLE={sys.executable}", "-G", "Unix Makefiles"]
    # Without optimization: half the time, and more symbols are left to others, not fewer.
    configure += ["-DCMAKE_BUILD_TYPE=None", f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={tmp_path / 'out'}"]
    for command, folder in (
        (configure, made),
        (["make", "horovod_cuda_kernels"], made),
        (["make", "mpi_ops.cc.o"], unit),
    ):
        folder.mkdir(exist_ok=True)
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    wanted = {name for name in check.undefined(*unit.rglob("mpi_ops.cc.o")) if OF_TENSORFLOW.search(name)}
    wanted = {name for name in wanted if "7horovod" not in name}
    assert wanted
    exports = check.exported([tensorflow / "libtensorflow_framework.so.2", tensorflow / "libtensorflow_cc.so.2"])
    assert check.demangled(wanted - exports) == []

    # The link line that CMake made, with these two alone.
    line = (unit / "CMakeFiles" / "tensorflow.dir" / "link.txt").read_text().split()
    kept = [word for word in line if not (word.endswith(".o") and "mpi_ops" not in word) and "gloo" not in word]
    output = tmp_path / "mpi_lib.so"
    kept[kept.index("-o") + 1] = str(output)
    done = subprocess.run(" ".join(kept), shell=True, cwd=unit, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    # The check of a whole library, but for what the units that are left out would have.
    left_out = {name for name in check.undefined(output) if "7horovod" in name or name.startswith("horovod_")}
    found, _ = check.needed(output, tensorflow)
    assert check.demangled(check.undefined(output) - left_out - check.exported(found)) == []
    assert [text for text in check.problems(output, tensorflow) if not text.startswith("needs what")] == []
    assert check.run_paths(output) == ["$ORIGIN/../../nvidia/nccl/lib"]
