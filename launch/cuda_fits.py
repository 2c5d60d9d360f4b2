"""Whether this machine's CUDA toolkit, driver and GPUs fit TensorFlow: python launch/cuda_fits.py [CUDA_HOME]

Says what does not fit, before anything is built, and ends with 1. Without a driver (a machine to build on) it says
which one the build will need. The same as a table is in docs/guides/installing.md.
"""

import re
import subprocess
import sys
from pathlib import Path

Version = tuple[int, ...]

# The CUDA version of TensorFlow 2.21's wheels.
TENSORFLOW = (12, 5)
# The oldest driver for each toolkit that is taken: NVIDIA's table of minor version compatibility.
OLDEST_DRIVER = {12: 525, 13: 580}
# TensorFlow's wheels reach GPUs of 9.0 and newer as intermediate code of CUDA 12.5, which older drivers cannot read.
DRIVER_OF_TENSORFLOW = 555
# What the CUDA kernels here are written for, and the oldest that CUDA 13 compiles for.
OLDEST_GPU = (7, 5)


def version(text: str) -> Version:
    """``"12.5"`` as ``(12, 5)``."""
    return tuple(int(part) for part in text.split("."))


def dotted(numbers: Version) -> str:
    """``(12, 5)`` as ``"12.5"``."""
    return ".".join(map(str, numbers))


def problems(
    toolkit: Version, driver: Version | None, reaches: Version | None, gpus: list[tuple[str, Version]]
) -> tuple[list[str], list[str]]:
    """What does not fit.

    Args:
        toolkit: version of the CUDA toolkit.
        driver: version of NVIDIA's driver, or None where there is none.
        reaches: the CUDA version up to which the driver goes, as nvidia-smi states it; None where it does not. It is
            above the driver's own where NVIDIA's forward compatibility package is installed.
        gpus: name and compute capability of each GPU.

    Returns:
        errors and warnings.
    """
    errors, warnings = [], []
    if toolkit[0] not in OLDEST_DRIVER:
        return [
            f"the CUDA toolkit is {dotted(toolkit)}, TensorFlow 2.21 is of CUDA {dotted(TENSORFLOW)}. Install CUDA 12 "
            "(12.5 or newer is best), or CUDA 13 with a driver >= 580, and name it: CUDA_HOME=/usr/local/cuda-12.5"
        ], []
    needed = OLDEST_DRIVER[toolkit[0]]
    if driver is None:
        warnings.append(
            f"there is no NVIDIA driver here, so this is a build for another machine. With CUDA {dotted(toolkit)} its "
            f"driver must be >= {needed}"
        )
    elif driver[0] < needed and (reaches is None or reaches[0] < toolkit[0]):
        older = f", or build with a CUDA 12 toolkit, for which a driver >= {OLDEST_DRIVER[12]} will do"
        errors.append(
            f"the NVIDIA driver is {dotted(driver)}, but what CUDA {dotted(toolkit)} builds needs a driver >= {needed}."
            f" Install a newer driver{older if toolkit[0] > 12 and driver[0] >= OLDEST_DRIVER[12] else ''}"
        )
    old = [f"{name} ({dotted(capability)})" for name, capability in gpus if capability < OLDEST_GPU]
    if old and len(old) == len(gpus):
        errors.append(
            f"every GPU here is older than compute capability {dotted(OLDEST_GPU)}: {', '.join(old)}. The CUDA kernels "
            "do not run on it; without --cuda everything runs on the processor"
        )
    elif old:
        warnings.append(
            f"{', '.join(old)} is older than compute capability {dotted(OLDEST_GPU)}, and the CUDA kernels do not run "
            "on it: choose the other GPUs with CUDA_VISIBLE_DEVICES"
        )
    new = [f"{name} ({dotted(capability)})" for name, capability in gpus if capability >= (9, 0)]
    if new and driver is not None and driver[0] < DRIVER_OF_TENSORFLOW and (reaches is None or reaches < TENSORFLOW):
        warnings.append(
            f"TensorFlow's own kernels for {', '.join(new)} are intermediate code of CUDA {dotted(TENSORFLOW)}, for "
            f"which a driver >= {DRIVER_OF_TENSORFLOW} is needed; the driver here is {dotted(driver)}"
        )
    return errors, warnings


def toolkit_version(cuda_home: str) -> Version | str:
    """The toolkit's version, or what is wrong with it."""
    nvcc = Path(cuda_home, "bin", "nvcc")
    if not nvcc.is_file():
        return f"--cuda needs nvcc, and {nvcc} is not there. Install a CUDA toolkit, or set CUDA_HOME"
    said = _output(str(nvcc), "--version")
    found = re.search(r"release (\d+\.\d+)", said)
    return version(found[1]) if found else f"{nvcc} --version does not state a version: {said.strip() or 'it failed'}"


def driver_versions() -> tuple[Version | None, Version | None]:
    """The driver's version, and the CUDA version up to which it goes."""
    driver = re.match(r"\s*(\d+[\d.]*)", _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"))
    reaches = re.search(r"CUDA (?:UMD )?Version: *(\d+\.\d+)", _output("nvidia-smi"))
    if not driver:
        kernel = Path("/proc/driver/nvidia/version")
        driver = re.search(r"Module .*?(\d+\.[\d.]+)", kernel.read_text()) if kernel.is_file() else None
    return version(driver[1]) if driver else None, version(reaches[1]) if reaches else None


def gpus() -> list[tuple[str, Version]]:
    """Name and compute capability of each GPU; none where nvidia-smi cannot say."""
    said = _output("nvidia-smi", "--query-gpu=compute_cap,name", "--format=csv,noheader")
    return [(m[2].strip(), version(m[1])) for m in re.finditer(r"^(\d+\.\d+), *(.*)$", said, re.MULTILINE)]


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def main(cuda_home: str = "/usr/local/cuda") -> int:
    """Print what does not fit. Returns the status to end with."""
    toolkit = toolkit_version(cuda_home)
    errors: list[str] = [toolkit] if isinstance(toolkit, str) else []
    warnings: list[str] = []
    if not isinstance(toolkit, str):
        errors, warnings = problems(toolkit, *driver_versions(), gpus())
    for text in warnings:
        print(f"launch/setup: note: {text}.", file=sys.stderr)
    for text in errors:
        print(f"launch/setup: {text}.", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
