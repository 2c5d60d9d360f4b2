"""The kernels alone: custom_ops/*/check_gpu.sh against a float64 oracle, under compute-sanitizer, and timed.

Needs nvcc and no TensorFlow. Relies on this: the script compiles below $TMPDIR for $NVCC_FLAGS, takes ``quick`` and
the largest number of factors to check, prints ``N checks, M failed`` and lines ``FAIL...``, and exits with 77 without
a GPU.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from gpu_parts.session import ROOT, Session
from gpu_parts.work import Failed, RanOver, Skipped, Work, tail

#: Short name -> folder in custom_ops.
FOLDERS = {"als": "als_half_sweep", "tt": "tt_embedding"}
#: The largest number of factors under the sanitizers, which take tens of times as long.
_SANITIZED_FACTORS = "64"
_SUMMARY = re.compile(r"^(\d+) checks, (\d+) failed", re.MULTILINE)
_TIME = re.compile(r"^(?P<what>\S.*?)\s+(?P<value>[\d.]+) (?P<unit>ms|us)\b(?P<rest>.*GFLOPS.*)$", re.MULTILINE)
#: What a program that is stopped had printed would be lost in its buffer.
_LINE_BY_LINE = ["stdbuf", "-oL"] if shutil.which("stdbuf") else []

Run = Callable[[Session, Work], None]


def check(kernel: str) -> Run:
    """Compile the checks, and run those of all sizes but the slowest combinations."""

    def run(session: Session, work: Work) -> None:
        status, output = _script(session, work, kernel, "quick", ok=(0, 1, 77))
        _count(work, output)
        if status == 77:
            raise Failed("The checks were compiled and found no GPU.")
        _judge(work, status, output)

    return run


def compile_only(kernel: str) -> Run:
    """Compile the checks for the target; without a GPU they say so and end with 77."""

    def run(session: Session, work: Work) -> None:
        _, output = _script(session, work, kernel, "quick", ok=(77,))
        work.notes.append(tail(output, 1))

    return run


def times(kernel: str) -> Run:
    """All checks up to 128 factors, and the time of each kernel by itself."""

    def run(session: Session, work: Work) -> None:
        try:
            # Another word than quick: today all checks and the times, and only these should it be made a word for them.
            status, output = work.run([*_LINE_BY_LINE, _program(session, kernel), "times", "128"], ok=(0, 1))
        except RanOver:
            # What it had printed is worth having.
            _count(work, work.said())
            _read_times(work, work.said())
            raise
        _count(work, output)
        _read_times(work, output)
        _judge(work, status, output)
        if not work.rows:
            raise Failed(f"No times were printed. Its last lines:\n{tail(output)}")

    return run


def sanitize(kernel: str, tool: str) -> Run:
    """The checks of small sizes under one of compute-sanitizer's tools."""

    def run(session: Session, work: Work) -> None:
        sanitizer = session.machine.sanitizer
        if sanitizer is None:
            raise Skipped("compute-sanitizer is not there (it comes with a full CUDA toolkit)")
        command = [sanitizer, "--tool", tool, "--error-exitcode", "9", _program(session, kernel)]
        status, output = work.run([*_LINE_BY_LINE, *command, "quick", _SANITIZED_FACTORS], ok=(0, 1, 9, 255))
        if re.search(r"device not supported|error 999", output, re.IGNORECASE):
            raise Skipped(f"compute-sanitizer does not work on this machine: {tail(output, 3)}")
        errors = re.search(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (.*)", output)
        work.figures[tool] = errors.group(1) if errors else "no summary"
        _count(work, output)
        if status or not errors or not re.match(r"0 (errors|hazards)", errors.group(1)):
            raise Failed(f"{tool} ended with status {status}: {tail(output)}")

    return run


def _program(session: Session, kernel: str) -> str:
    """The compiled checks, from the part that compiles them."""
    programs = sorted(_folder(session, kernel).rglob("check_gpu"))
    if not programs:
        raise Failed(f"There is no compiled check: run the part kernels-{kernel} first.")
    sources = [*(ROOT / "custom_ops" / FOLDERS[kernel]).iterdir(), *(ROOT / "custom_ops" / "common").iterdir()]
    if programs[0].stat().st_mtime < max(source.stat().st_mtime for source in sources):
        raise Failed(f"The compiled check is older than its sources: run the part kernels-{kernel} with --again.")
    return str(programs[0])


def _folder(session: Session, kernel: str) -> Path:
    folder = session.output / "build" / kernel
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _script(session: Session, work: Work, kernel: str, *arguments: str, ok: tuple[int, ...]) -> tuple[int, str]:
    flags = " ".join(f"-gencode arch=compute_{arch},code=sm_{arch}" for arch in session.archs)
    script = ROOT / "custom_ops" / FOLDERS[kernel] / "check_gpu.sh"
    return work.run(
        [*_LINE_BY_LINE, "sh", str(script), *arguments],
        ok=ok,
        TMPDIR=str(_folder(session, kernel)),
        NVCC_FLAGS=flags,
    )


def _count(work: Work, output: str) -> None:
    found = _SUMMARY.search(output)
    if found:
        work.figures["checks"] = int(found.group(1))
        work.figures["failed"] = int(found.group(2))


def _judge(work: Work, status: int, output: str) -> None:
    wrong = [line for line in output.splitlines() if line.startswith("FAIL") or " FAIL" in line]
    if status or wrong or work.figures.get("failed"):
        raise Failed(f"Ended with status {status}.\n" + ("\n".join(wrong[:12]) if wrong else tail(output)))
    if not work.figures.get("checks"):
        raise Failed(f"It ended well but said of no check that it was made. Its last lines:\n{tail(output)}")


def _read_times(work: Work, output: str) -> None:
    for line in _TIME.finditer(output):
        rest = line["rest"]
        flops, moved = re.search(r"([\d.]+) GFLOPS", rest), re.search(r"([\d.]+) GB/s", rest)
        row = {"what": " ".join(line["what"].split()), "value": float(line["value"]), "unit": line["unit"]}
        if flops:
            row |= {"tflops": float(flops.group(1)) / 1e3, "peak": "float32 with TF32"}
        if moved:
            row["gbs"] = float(moved.group(1))
        work.rows.append(row)
