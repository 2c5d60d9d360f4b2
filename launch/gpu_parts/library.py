"""The native library, compiled for the machine's GPUs and loaded."""

from __future__ import annotations

import os
from pathlib import Path

from gpu_parts.fatbin import code_in
from gpu_parts.session import NO_GPU, ON_GPU, ROOT, Session
from gpu_parts.work import Failed, Skipped, Work


def run(session: Session, work: Work) -> None:
    """Build it, then have TensorFlow load it and compare a small call on the GPU with NumPy."""
    build(session, work)
    library = session.library
    assert library is not None
    work.figures |= work.measure(session.script("library"), TFREC_OPS_LIBRARY=str(library))


def build(session: Session, work: Work) -> None:
    """Compile it, unless TFREC_OPS_LIBRARY names one, or it cannot be compiled here and there is one that fits."""
    why = session.cannot_build()
    if session.named_library is None and not why:
        _compile(session, work)
    library = session.library
    if library is None:
        kind = Skipped if session.mode == NO_GPU else Failed
        arch = session.archs[0]
        raise kind(
            f"The native library cannot be compiled here, and there is none for this GPU: {why}.\nCompile it on "
            f"another machine that has TensorFlow 2.21 (launch/gpu --part library --arch {arch}; it needs no GPU) and "
            "name it here with TFREC_OPS_LIBRARY."
        )
    code = code_in(library)
    work.figures["library"] = str(library).replace(f"{ROOT}/", "")
    work.figures["code"] = str(code)
    if session.named_library is None and why:
        work.notes.append(
            f"The library was brought along; whether it is of these sources is not known. Not compiled here: {why}"
        )
    if any(code.runs_on(arch) != "machine" for arch in session.archs):
        loaded = "sm_" + ", sm_".join(map(str, session.archs))
        what = (
            "the driver compiles it at first use" if all(map(code.runs_on, session.archs)) else "it does not run there"
        )
        work.notes.append(f"The library has no machine code for {loaded}: {what}.")


def _compile(session: Session, work: Work) -> None:
    # A folder of its own per GPU: what exists already is not compiled again, also after a start that ran over.
    folder = session.build
    folder.mkdir(parents=True, exist_ok=True)
    archs = ";".join(f"{arch}-real" for arch in session.archs)
    work.run(
        [
            "cmake",
            "-S",
            str(ROOT / "custom_ops"),
            "-B",
            str(folder),
            f"-DPython_EXECUTABLE={session.python}",
            "-DTFREC_CUDA=1",
            f"-DCMAKE_CUDA_COMPILER={session.machine.nvcc}",
            f"-DCMAKE_CUDA_ARCHITECTURES={archs}",
        ]
    )
    # Each TensorFlow source takes about 1 GB to compile.
    jobs = min(len(os.sched_getaffinity(0)), 16)
    work.run(["cmake", "--build", str(folder), "-j", str(jobs)])
    if session.mode == ON_GPU and not _fits(folder / "libtfrec_ops.so", session.archs):
        raise Failed(f"{folder} was compiled, but has {code_in(folder / 'libtfrec_ops.so')}.")


def _fits(path: Path, archs: list[int]) -> bool:
    return all(code_in(path).runs_on(arch) == "machine" for arch in archs)
