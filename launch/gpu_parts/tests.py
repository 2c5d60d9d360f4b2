"""The tests of ``tests/`` that a GPU makes meaningful."""

from __future__ import annotations

import importlib.util
import re

from gpu_parts.session import ROOT, Session
from gpu_parts.work import EXACT, Failed, Work, tail

_PYTEST = ("-q", "-p", "no:cacheprovider", "--durations=5", "--continue-on-collection-errors")


def needing_a_gpu(session: Session, work: Work) -> None:
    """Those marked ``gpu``, which are skipped elsewhere: none may be skipped here."""
    # Only the files that have some: others may import packages that this machine lacks.
    files = [
        str(f.relative_to(ROOT)) for f in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in f.read_text()
    ]
    found = _run(session, work, "-m", "gpu", *files)
    if found.get("skipped") or not found.get("passed"):
        raise Failed(f"Tests that need a GPU were skipped or not found: {found}. The reasons are in {work.log.name}.")


def on_device(session: Session, work: Work) -> None:
    """Those of the rooms that compute: TensorFlow places their operations on the GPU by itself."""
    workers = ["--numprocesses", "4"] if importlib.util.find_spec("xdist") else []
    _run(
        session, work, *workers, *(f"tests/{room}" for room in ("ops", "layers", "models", "evaluation", "optimizers"))
    )


def _run(session: Session, work: Work, *arguments: str) -> dict[str, int]:
    status, output = work.run([session.python, "-m", "pytest", *_PYTEST, *arguments], ok=(0, 1, 5), **EXACT)
    last = next((line for line in reversed(output.splitlines()) if re.search(r" in [\d.]+s", line)), "")
    found = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)}
    work.figures |= found
    if status:
        wrong = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        raise Failed("\n".join(wrong[:20]) or tail(output))
    return found
