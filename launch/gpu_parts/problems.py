"""What prevents a run on this machine, a sentence each, found before anything is launched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cuda_fits import DRIVER_OF_TENSORFLOW, OLDEST_DRIVER, OLDEST_GPU
from cuda_fits import TENSORFLOW as CUDA_OF_TENSORFLOW

from gpu_parts.fatbin import code_in

if TYPE_CHECKING:
    from gpu_parts.machine import GPU, Machine

#: What the parts take at most, an estimate: the tables of benchmark neumf with Adam's moments, and their batches.
NEEDED_MIB = 6_144


class Unusable(Exception):
    """Nothing can be run here; the message says why, and what to do."""


@dataclass(frozen=True)
class Problem:
    """Something that keeps some parts from running, and not all."""

    need: str  # the need that is not met: nvcc or tensorflow
    text: str


def check(machine: Machine, ranks: int | None) -> list[Problem]:
    """What some parts must do without.

    Raises:
        Unusable: no part could run as it should.
    """
    for gpu in machine.gpus:
        _check_gpu(gpu)
    if ranks is not None and ranks > len(machine.gpus) > 0:
        raise Unusable(
            f"Each rank needs a GPU of its own: NCCL does not take two ranks on one GPU.\n"
            f"Received: --ranks {ranks} on a machine with {len(machine.gpus)} GPU{'s' * (len(machine.gpus) > 1)}.\n"
            "Give --ranks the number of GPUs, or leave it out."
        )
    found = []
    tensorflow = machine.tensorflow
    if machine.nvcc is None:
        found.append(
            Problem(
                "nvcc",
                "There is no nvcc, so no kernel can be compiled. Install a CUDA toolkit (12 or 13), or name the one "
                "there is: CUDA_HOME=/path/to/cuda launch/gpu",
            )
        )
    if tensorflow is None:
        found.append(
            Problem(
                "tensorflow",
                "This Python finds no TensorFlow, so only the kernels can be checked. Run launch/setup --cuda, or put "
                "a TensorFlow 2.21 on PYTHONPATH.",
            )
        )
    elif not tensorflow.cuda:
        found.append(
            Problem(
                "tensorflow",
                f"TensorFlow {tensorflow.version} was built without CUDA (tensorflow-cpu?), so it sees no GPU. Install "
                "tensorflow==2.21.*: launch/setup --cuda",
            )
        )
    elif not tensorflow.version.startswith("2.21."):
        found.append(
            Problem(
                "tensorflow",
                f"TensorFlow is {tensorflow.version}, and tfrec's native library fits 2.21 only. Install "
                "tensorflow==2.21.*: launch/setup --cuda",
            )
        )
    if machine.gpus:
        _check_drivers(machine)
    return found


def _check_gpu(gpu: GPU) -> None:
    if gpu.arch < 10 * OLDEST_GPU[0] + OLDEST_GPU[1]:
        raise Unusable(
            f"{gpu.name} is too old: it has compute capability {gpu.told['capability']}, and tfrec's kernels need 7.5 "
            "(Turing: T4, RTX 20) or newer.\nUse a newer GPU; CUDA_VISIBLE_DEVICES chooses among several."
        )
    if gpu.free_mib is not None and gpu.free_mib < NEEDED_MIB:
        users = "; ".join(gpu.users) or "no process that nvidia-smi shows (one of another container, or a remnant)"
        raise Unusable(
            f"GPU {gpu.told['index']} ({gpu.name}) is full: {gpu.free_mib:,} of "
            f"{gpu.memory_mib or 0:,} MiB are free, and about {NEEDED_MIB:,} are needed.\nIt is used by: {users}.\n"
            "End what uses it, or choose another GPU with CUDA_VISIBLE_DEVICES."
        )


def _check_drivers(machine: Machine) -> None:
    """The driver against the toolkit and TensorFlow, and the toolkit against the GPU."""
    driver = machine.gpus[0].driver
    tensorflow = machine.tensorflow
    for what, version, fix in (
        ("TensorFlow", tensorflow.cuda if tensorflow else "", "Update the driver."),
        (
            "nvcc",
            machine.toolkit,
            "Update the driver, or compile with a CUDA 12 toolkit, for which 525 is enough: "
            "CUDA_HOME=/path/to/cuda-12 launch/gpu",
        ),
    ):
        if not version:
            continue
        major = int(version.split(".")[0])
        if major < min(OLDEST_DRIVER):
            raise Unusable(
                f"{what} is of CUDA {version}, which is too old: TensorFlow 2.21 is of CUDA 12, and the kernels need a "
                "toolkit of CUDA 12 (driver 525 or newer) or 13 (580 or newer).\nInstall one of these."
            )
        needed = OLDEST_DRIVER.get(major)
        if needed is not None and _major(driver) < needed and machine.reaches < (major,):
            other = ""
            if what == "nvcc" and tensorflow and tensorflow.cuda and int(tensorflow.cuda.split(".")[0]) != major:
                other = f" TensorFlow, of CUDA {tensorflow.cuda}, would run; the kernels that nvcc compiles would not."
            raise Unusable(
                f"The driver {driver} is too old: {what} is of CUDA {version}, which needs {needed} or newer.{other}\n"
                f"{fix}"
            )
    new = [gpu.name for gpu in machine.gpus if gpu.arch >= 90]
    old = _major(driver) < DRIVER_OF_TENSORFLOW and machine.reaches < CUDA_OF_TENSORFLOW
    if new and old and tensorflow and tensorflow.cuda:
        raise Unusable(
            f"The driver {driver} is too old: TensorFlow's own kernels for {new[0]} are intermediate code of CUDA "
            f"{tensorflow.cuda}, which needs {DRIVER_OF_TENSORFLOW} or newer.\nUpdate the driver."
        )
    if machine.nvcc_archs:
        for arch in machine.archs:
            if arch not in machine.nvcc_archs:
                raise Unusable(
                    f"nvcc {machine.toolkit} cannot compile for this GPU (sm_{arch}); it supports up to "
                    f"sm_{max(machine.nvcc_archs)}.\nInstall a newer CUDA toolkit, within 12 or 13."
                )


def _major(version: str) -> int:
    first = version.split(".")[0]
    return int(first) if first.isdigit() else 0


def notes(machine: Machine) -> list[str]:
    """What is worth knowing and prevents nothing."""
    tensorflow = machine.tensorflow
    if not (machine.toolkit and tensorflow and tensorflow.cuda):
        return []
    toolkit, built = (version.split(".")[0] for version in (machine.toolkit, tensorflow.cuda))
    if toolkit == built:
        return []
    needed = OLDEST_DRIVER.get(int(toolkit))
    return [
        f"nvcc is of CUDA {machine.toolkit}, TensorFlow of CUDA {tensorflow.cuda}: they run side by side in one "
        f"process where the driver is {f'{needed} or newer' if needed else 'new enough for both'}"
        + (f"; here it is {machine.gpus[0].driver}." if machine.gpus else ".")
    ]


def wrong_library(path: Path, archs: list[int], named: bool) -> str:
    """Why a native library cannot be used on these GPUs; empty where it can.

    Args:
        path: the library.
        archs: of the GPUs, such as 90.
        named: whether TFREC_OPS_LIBRARY names it.
    """
    if not path.is_file():
        return f"TFREC_OPS_LIBRARY names {path}, which is no file.\nUnset it, or name a library."
    code = code_in(path)
    for arch in archs:
        if not code.runs_on(arch):
            fix = "Unset TFREC_OPS_LIBRARY, so that one is built here, or build" if named else "Build"
            return (
                f"The native library {path} was built for another GPU: it has {code}, and this GPU is sm_{arch}.\n"
                f"{fix} it for this one: cmake -S custom_ops -B build/ops -DTFREC_CUDA=1 "
                f"-DCMAKE_CUDA_ARCHITECTURES={arch}-real && cmake --build build/ops -j"
            )
    return ""
