"""The native library: CMake builds ``tfrec/ops/libtfrec_ops.so``. Everything else is in setup.cfg.

TFREC_BUILD_OPS=auto|1|0   build it if a C++ compiler is installed | must | never
TFREC_CUDA=auto|1|0        with its CUDA kernels if nvcc is installed | must | never

pip builds a source archive in an environment of its own. TensorFlow, and CMake where the machine has none, are asked
for there (`build_requirements`) only when the library is built, so that ``TFREC_BUILD_OPS=0`` downloads nothing. With
``--no-build-isolation``, as launch/setup installs, they must be in the environment.

The library has no Python in it, and TensorFlow's C++ interface is the same in its wheels for each Python. So one wheel
is for all of them: ``py3-none-linux_x86_64`` (launch/wheel finds out for which glibc), or ``py3-none-any`` without it.

auto compiles the CUDA kernels for the GPUs of this machine. Where it has none, for one architecture, 8.0, whose
intermediate code a newer GPU's driver compiles when it is first used: half a minute and more. 1 compiles for 7.5, 8.0,
9.0 and the GPUs of this machine, which takes three times as long and starts at once.

What a driver has compiled it keeps in ~/.nv/ComputeCache, TensorFlow's own kernels too, and drops the oldest when that
is full: set CUDA_CACHE_MAXSIZE=4294967296 (4 GiB, the most) where GPUs run what was not compiled for them.
"""

import configparser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

LIBRARY = "libtfrec_ops.so"
ROOT = Path(__file__).resolve().parent
WITHOUT = "TFREC_BUILD_OPS=0 installs tfrec without them: pure-TensorFlow ones, which are slower, are used then."


def choice(variable: str) -> str:
    value = os.environ.get(variable, "auto")
    if value not in ("auto", "0", "1"):
        raise SystemExit(f"{variable} must be auto, 1 or 0. Received: {value}")
    return value


def installed_architectures() -> list[int]:
    """The compute capabilities of the GPUs at hand, 90 for 9.0; none where no driver is."""
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if found.returncode != 0:
        return []
    capabilities = re.findall(r"^(\d+)\.(\d)\s*$", found.stdout, re.MULTILINE)
    return sorted({int(major) * 10 + int(minor) for major, minor in capabilities})


def compiled_architectures() -> set[int]:
    """What nvcc can compile for; empty where it does not say."""
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    try:
        listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True)
    except OSError:
        return set()
    return {int(number) for number in re.findall(r"compute_(\d+)", listed.stdout)}


def cuda_architectures(wish: str) -> str:
    """CMake's list: machine code for each, and for the newest intermediate code too."""
    here, known = installed_architectures(), compiled_architectures()
    fit = [number for number in here if not known or number in known]
    if len(fit) < len(here):
        print(f"tfrec: of the GPUs here, {here}, nvcc compiles for {fit}; others are left to their driver, if at all.")
    numbers = sorted({75, 80, 90, *fit}) if wish == "1" else fit
    if not numbers:
        numbers = [80]
        if known:
            print(
                "tfrec: no GPU here to compile for, so CUDA kernels are compiled for 8.0 alone. A newer GPU's driver "
                "compiles them again when first used. TFREC_CUDA=1 compiles for 9.0 too; with "
                "CUDA_CACHE_MAXSIZE=4294967296 a driver keeps more of what it has compiled."
            )
    return ";".join([f"{number}-real" for number in numbers[:-1]] + [str(numbers[-1])])


def compiler() -> str | None:
    """The C++ compiler, or None."""
    return shutil.which(os.environ.get("CXX", "g++"))


def builds_ops() -> bool:
    """Whether the native library is built here.

    Raises:
        SystemExit: it must be, and there is no compiler.
    """
    wish = choice("TFREC_BUILD_OPS")
    if wish == "0":
        return False
    if compiler():
        return True
    problem = "no C++ compiler was found. Install one, e.g. apt-get install g++, or name it in CXX"
    if wish == "1":
        raise SystemExit(f"tfrec: the native operations must be built (TFREC_BUILD_OPS=1), but {problem}.")
    print(f"tfrec: the native operations are not built: {problem}.")
    return False


def build_requirements() -> list[str]:
    """What an isolated build of the library needs: setup.cfg's TensorFlow, and CMake where the machine has none."""
    # Parsed, since setuptools writes the setup.cfg of a source archive anew, with tabs.
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    required = settings["options"]["install_requires"].splitlines()
    (tensorflow,) = [line.strip() for line in required if re.match(r"\s*tensorflow\b", line)]
    return [tensorflow] + ([] if shutil.which("cmake") else ["cmake >=3.25"])


class BuildOps(build_ext):
    """Runs CMake."""

    def get_ext_filename(self, name: str) -> str:
        return str(Path(*name.split(".")[:-1]) / LIBRARY)

    def build_extension(self, extension: Extension) -> None:
        needed = {
            "TensorFlow": importlib.util.find_spec("tensorflow"),
            "cmake": shutil.which("cmake"),
        }
        missing = [what for what, found in needed.items() if not found]
        if missing:
            raise SystemExit(
                f"tfrec: the native operations need {' and '.join(missing)} in this environment. Install them "
                f"first, or let pip bring them: leave out --no-build-isolation. {WITHOUT}"
            )
        # One folder for all builds of a checkout and a Python, so that what has not changed is not compiled again.
        build = ROOT / "build" / f"ops-{sys.implementation.cache_tag}"
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake",
            "-S",
            str(ROOT / "custom_ops"),
            "-B",
            str(build),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DTFREC_CUDA={choice('TFREC_CUDA')}",
        ]
        if choice("TFREC_CUDA") != "0":
            configure.append(f"-DCMAKE_CUDA_ARCHITECTURES={cuda_architectures(choice('TFREC_CUDA'))}")
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        # Each TensorFlow source takes about 1 GB to compile.
        compile_them = ["cmake", "--build", str(build), "-j", str(min(os.cpu_count() or 1, 8))]
        for command in (configure, compile_them):
            if subprocess.run(command).returncode:
                raise SystemExit(f"tfrec: the native operations did not build; why is printed above. {WITHOUT}")
        target = Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place: a running process keeps the library that it has mapped.
        shutil.copy2(build / LIBRARY, target.with_suffix(".new"))
        os.replace(target.with_suffix(".new"), target)


class Wheel(bdist_wheel):
    """A wheel for every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


if builds_ops():
    setup(
        ext_modules=[Extension("tfrec.ops.libtfrec_ops", sources=[])],
        cmdclass={"build_ext": BuildOps, "bdist_wheel": Wheel},
        # Not in pyproject.toml: there, every build would download 600 MB, also one without the library.
        setup_requires=build_requirements(),
    )
else:
    setup(cmdclass={"bdist_wheel": Wheel})
