"""Build a wheel of Horovod from its source package, patched as `patches` says, for the Python that runs this."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import astuple
from pathlib import Path

import patches

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
OPTIONS = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_WITHOUT_MPI": "1",
}
CUDA_OPTIONS = {"HOROVOD_GPU": "CUDA", "HOROVOD_GPU_OPERATIONS": "NCCL", "HOROVOD_NCCL_LINK": "SHARED"}
# Horovod's few kernels take seconds to compile. What is newer than the last of these gets its intermediate code.
ARCHITECTURES = "75,80,90"
# How wheels were built when their names did not say how. Those that are kept are still good.
UNNAMED_RECIPE = "c38426a4"


class BuildError(Exception):
    """Horovod's wheel could not be made; the message says why."""


def key(cuda_home: str | None) -> str:
    """Name of what a wheel is bound to: Python, TensorFlow, compiler, processor, toolkit, and how it is built."""
    try:
        tensorflow = importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:
        tensorflow = importlib.metadata.version("tensorflow-cpu")
    compiler = subprocess.run(["g++", "-dumpfullversion"], capture_output=True, text=True).stdout.strip()
    # Horovod is compiled for this processor's instruction set, so a shared cache must tell processors apart.
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line + "\n" for line in lines if line.startswith(("flags", "Features"))), "")
    kind = "cpu"
    recipe = [str(OPTIONS), *(str(astuple(patch)) for patch in patches.PATCHES if cuda_home or not patch.cuda)]
    if cuda_home:
        nvcc = subprocess.run([f"{cuda_home}/bin/nvcc", "--version"], capture_output=True, text=True).stdout
        kind = "cuda"
        recipe += [str(CUDA_OPTIONS), architectures(), nvcc]
    parts = [
        f"horovod{patches.VERSION}",
        f"tensorflow{tensorflow}",
        f"cp{sys.version_info[0]}{sys.version_info[1]}",
        platform.machine(),
        _digest(flags),
        kind,
        f"gcc{compiler}",
    ]
    if _digest(*recipe) != UNNAMED_RECIPE:
        parts.append(f"recipe{_digest(*recipe)}")
    return "-".join(parts)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]


def architectures() -> str:
    """The compute capabilities of Horovod's own kernels."""
    return os.environ.get("HOROVOD_BUILD_CUDA_CC_LIST", ARCHITECTURES)


def download(into: Path) -> Path:
    """Horovod's source package, unpacked into ``into``. Returns its folder."""
    command = (*PIP, "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation")
    name = f"horovod-{patches.VERSION}"
    done = subprocess.run([*command, "-d", str(into), f"horovod=={patches.VERSION}"], capture_output=True, text=True)
    if done.returncode:
        raise BuildError(
            f"could not download the Horovod {patches.VERSION} source package:\n{_tail(done.stdout + done.stderr)}"
        )
    shutil.unpack_archive(into / f"{name}.tar.gz", into)
    return into / name


def nccl_folder() -> Path:
    """Where tensorflow[and-cuda] has put NCCL."""
    found = importlib.util.find_spec("nvidia.nccl") if importlib.util.find_spec("nvidia") else None
    folder = Path(next(iter(found.submodule_search_locations or ()), "")) if found else Path()
    if not (folder / "lib" / "libnccl.so.2").is_file():
        raise BuildError(f"the NCCL package that tensorflow[and-cuda] brings is missing from {sys.prefix}")
    return folder


def build(wheels: Path, cuda_home: str | None) -> Path:
    """Build the wheel into a folder of ``wheels``, which takes minutes. Returns its path.

    Raises:
        BuildError: with the last lines of what the build printed; all of it is in ``wheels``/horovod-build.log.
    """
    # A tree that is unpacked afresh each time: a second build in a used one fails.
    with tempfile.TemporaryDirectory(prefix="build.", dir=wheels) as temporary:
        work = Path(temporary)
        source = download(work)
        try:
            patches.apply(source, cuda=cuda_home is not None)
        except patches.SourceChanged as error:
            raise BuildError(str(error)) from None
        environment = {**os.environ, **OPTIONS, "PATH": f"{sys.prefix}/bin:{os.environ.get('PATH', '')}"}
        environment["MAKEFLAGS"] = f"-j{os.cpu_count() or 1}"
        if cuda_home:
            environment |= CUDA_OPTIONS
            environment["HOROVOD_CUDA_HOME"] = cuda_home
            environment["HOROVOD_NCCL_HOME"] = str(_nccl_to_link(work))
            environment["HOROVOD_BUILD_CUDA_CC_LIST"] = architectures()
        log = work / "build.log"
        command = (*PIP, "wheel", "--verbose", "--no-build-isolation", "--no-deps", "-w", str(work / "wheel"))
        with log.open("w") as output:
            done = subprocess.run([*command, str(source)], stdout=output, stderr=subprocess.STDOUT, env=environment)
        if done.returncode:
            kept = wheels / "horovod-build.log"
            shutil.copy(log, kept)
            raise BuildError(f"{_cause(log.read_text(errors='replace'))}\nHorovod did not build. The whole log: {kept}")
        built = next((work / "wheel").glob("horovod-*.whl"))
        folder = wheels / key(cuda_home)
        folder.mkdir(exist_ok=True)
        # A rename within one file system: another start sees the whole wheel or none.
        return built.rename(folder / built.name)


def _nccl_to_link(work: Path) -> Path:
    # The package has no libnccl.so, the name that a linker looks for.
    found, folder = nccl_folder(), work / "nccl"
    (folder / "lib").mkdir(parents=True)
    (folder / "include").symlink_to(found / "include")
    (folder / "lib" / "libnccl.so.2").symlink_to(found / "lib" / "libnccl.so.2")
    (folder / "lib" / "libnccl.so").symlink_to("libnccl.so.2")
    return folder


def _cause(text: str) -> str:
    # Jobs that run next to a failing one continue printing, so what failed is seldom at the end.
    errors = [line for line in text.splitlines() if re.search(r"\berror\b.*:|undefined reference|CMake Error", line)]
    return "\n".join([*errors[:8], "..."] if errors else []) + "\n" + _tail(text)


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-20:])
