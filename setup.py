"""The native library: CMake builds ``tfrec/ops/libtfrec_ops.so``. Everything else is in setup.cfg.

TFREC_BUILD_OPS=auto|1|0   build it if TensorFlow and CMake are there | must | never
TFREC_CUDA=auto|1|0        with its CUDA kernels if nvcc is there | must | never

auto compiles for one architecture, 8.0, whose intermediate code a newer GPU's driver compiles when it first loads it; 1
compiles for 7.5, 8.0 and 9.0, which takes three times as long and starts at once.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

LIBRARY = "libtfrec_ops.so"


def choice(variable: str) -> str:
    value = os.environ.get(variable, "auto")
    if value not in ("auto", "0", "1"):
        raise SystemExit(f"{variable} must be auto, 1 or 0. Received: {value}")
    return value


class BuildOps(build_ext):
    """Runs CMake."""

    def get_ext_filename(self, name: str) -> str:
        return str(Path(*name.split(".")[:-1]) / LIBRARY)

    def build_extension(self, extension: Extension) -> None:
        wish = choice("TFREC_BUILD_OPS")
        missing = [
            what
            for what, there in (
                (
                    "TensorFlow in this environment (install it first, and use pip install --no-build-isolation)",
                    importlib.util.find_spec("tensorflow"),
                ),
                ("cmake", shutil.which("cmake")),
                ("a C++ compiler", shutil.which(os.environ.get("CXX", "g++"))),
            )
            if not there
        ]
        if wish == "0" or (wish == "auto" and missing):
            print(f"tfrec: the native operations are not built ({', '.join(missing) or 'TFREC_BUILD_OPS=0'}).")
            return
        if missing:
            raise SystemExit(f"tfrec: the native operations need {', '.join(missing)}.")
        root = Path(__file__).resolve().parent
        # One folder for all builds of a checkout and a Python, so that what has not changed is not compiled again.
        build = root / "build" / f"ops-{sys.implementation.cache_tag}"
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake",
            "-S",
            str(root / "custom_ops"),
            "-B",
            str(build),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DTFREC_CUDA={choice('TFREC_CUDA')}",
            f"-DCMAKE_CUDA_ARCHITECTURES={'75-real;80-real;90' if choice('TFREC_CUDA') == '1' else '80'}",
        ]
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        subprocess.run(configure, check=True)
        # Each TensorFlow source takes about 1 GB to compile.
        subprocess.run(["cmake", "--build", str(build), "-j", str(min(os.cpu_count() or 1, 8))], check=True)
        target = Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place: a running process keeps the library that it has mapped.
        shutil.copy2(build / LIBRARY, target.with_suffix(".new"))
        os.replace(target.with_suffix(".new"), target)


setup(ext_modules=[Extension("tfrec.ops.libtfrec_ops", sources=[])], cmdclass={"build_ext": BuildOps})
