"""As many ranks as there are GPUs: N ranks are one on the union of their data; and the speed of an allreduce."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from gpu_parts.session import REHEARSAL, ROOT, Session
from gpu_parts.work import EXACT, Failed, Skipped, Work


def run(session: Session, work: Work) -> None:
    """Skipped where there is one GPU only, or no Horovod."""
    rehearsal = session.mode == REHEARSAL
    ranks = session.ranks or (2 if rehearsal else len(session.machine.gpus))
    if why := session.missing("horovod"):
        raise Skipped(f"{why}; launch/setup --cuda builds it")
    horovodrun = Path(session.python).with_name("horovodrun")
    launcher = str(horovodrun) if horovodrun.exists() else shutil.which("horovodrun")
    if launcher is None:
        raise Skipped("there is no horovodrun")
    if ranks < 2:
        raise Skipped("one GPU only; NCCL needs two")
    _, built = work.run([launcher, "--check-build"])
    if not rehearsal and "[X] NCCL" not in built:
        raise Failed("This Horovod was built without NCCL (horovodrun --check-build). Run launch/setup --cuda --force.")
    start = [session.python, launcher, "-np", str(ranks)]
    with tempfile.TemporaryDirectory() as folder:
        one, many = Path(folder, "one.npz"), Path(folder, "many.npz")
        program = [session.python, str(ROOT / "tests/distributed/two_ranks.py"), "equal"]
        work.run([*program, str(one)], **EXACT)
        work.run([*start, *program, str(many)], **EXACT)
        difference = work.measure(session.script("same_arrays", str(one), str(many)))
    work.figures |= {"ranks": ranks, "largest difference of a weight between N ranks and one": difference["largest"]}
    found = work.measure([*start, *session.script("allreduce")])
    for row in found["rows"]:
        work.rows.append(row)
    if difference["apart"]:
        raise Failed(f"{ranks} ranks do not end where one does: {difference['apart']}")
