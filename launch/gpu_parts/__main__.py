"""The command: which parts, in what order, and how it ends."""

from __future__ import annotations

import argparse
import fcntl
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from gpu_parts import markdown, problems
from gpu_parts.machine import look
from gpu_parts.parts import Part, parts
from gpu_parts.problems import Problem, Unusable
from gpu_parts.record import Record, commit_of, write_atomically
from gpu_parts.session import NO_GPU, ON_GPU, REHEARSAL, ROOT, Session
from gpu_parts.work import Failed, RanOver, Skipped, Work

#: Exit statuses; 130 and 143 when stopped.
EXIT_FAILED, EXIT_UNUSABLE, EXIT_NO_GPU = 1, 2, 77
#: Statuses of a part that say that something is wrong. The others: passed, skipped, built, no GPU.
WRONG = ("failed", "ran over", "blocked")


class Stopped(BaseException):
    """Ctrl-C or SIGTERM."""


def main() -> int:
    """Run the parts that are asked for; returns the exit status."""
    arguments = _parse()
    everything = parts()
    if arguments.list:
        for part in everything:
            print(f"{part.name:18} {part.what}")
        return 0
    chosen = _choose(everything, arguments.part)
    machine = look()
    mode = REHEARSAL if arguments.rehearse else ON_GPU if machine.gpus else NO_GPU
    if mode == REHEARSAL:
        machine.gpus = []
    output = (
        arguments.output or ROOT / "runs" / {ON_GPU: "gpu", REHEARSAL: "gpu-rehearsal"}.get(mode, "no-gpu")
    ).absolute()
    session = Session(machine, mode, output, arguments.arch, arguments.ranks)
    session.problems = problems.check(machine, arguments.ranks)
    _check_library(session)
    output.mkdir(parents=True, exist_ok=True)
    with open(output / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Unusable(
                f"Another launch/gpu is at work in {output}. Wait for it, or name another: --output FOLDER"
            ) from None
        record = Record(output, mode, machine, fresh=arguments.again and not arguments.part)
        for problem in session.problems:
            _say(f"launch/gpu: {problem.text}")
        for note in problems.notes(machine):
            _say(f"note: {note}")
        _say(f"{mode}: {', '.join(g.name for g in machine.gpus) or 'none here'}; report: {output / 'report.md'}")
        return _run(session, record, everything, chosen, arguments.again)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launch/gpu",
        description="Prove the GPU path on this machine, part by part. Goes on where an earlier start was stopped: "
        "parts that passed are not run again. Writes FOLDER/report.json and FOLDER/report.md after every part.",
        epilog="Exit status: 0 all parts passed or were skipped for a reason, 1 a part failed, ran over its time or "
        "lacks something, 2 the machine or the arguments do not fit, 77 no GPU (what can be built was built), 130 and "
        "143 stopped.",
    )
    parser.add_argument(
        "--part", action="append", metavar="NAME", help="this part only, or all whose names begin so; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="name the parts")
    parser.add_argument("--again", action="store_true", help="also run parts that have passed")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where the report goes; default runs/gpu")
    parser.add_argument("--ranks", type=int, metavar="N", help="ranks of the part nccl; default: the number of GPUs")
    parser.add_argument("--arch", type=int, default=90, help="without a GPU: what to compile for; default 90, an H100")
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="run the parts that train and measure on the CPU with tiny sizes, to see that they work; no figure counts",
    )
    arguments = parser.parse_args()
    if arguments.ranks is not None and arguments.ranks < 1:
        parser.error(f"--ranks takes a number from 1. Received: {arguments.ranks}")
    return arguments


def _choose(everything: list[Part], names: list[str] | None) -> list[Part]:
    if names is None:
        return everything
    chosen = []
    for name in names:
        found = [p for p in everything if p.name == name] or [p for p in everything if p.name.startswith(f"{name}-")]
        if not found:
            raise Unusable(f"There is no part {name!r}. The parts: {', '.join(p.name for p in everything)}")
        chosen += [p for p in found if p not in chosen]
    return [p for p in everything if p in chosen]


def _check_library(session: Session) -> None:
    if session.mode == REHEARSAL:
        return
    named = session.named_library
    installed = ROOT / "tfrec/ops/libtfrec_ops.so"
    if named is not None:
        if wrong := problems.wrong_library(named, session.machine.archs, named=True):
            raise Unusable(wrong)
    elif session.library is None and installed.is_file() and (why := session.cannot_build()):
        wrong = problems.wrong_library(installed, session.machine.archs, named=False)
        if wrong:
            session.problems.append(Problem("library", f"{wrong}\nIt cannot be compiled here: {why}"))


def _run(session: Session, record: Record, everything: list[Part], chosen: list[Part], again: bool) -> int:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    report = session.output / "report.md"
    try:
        for part in chosen:
            if record.done(part.name) and not (again or part.always):
                _say(f"{part.name}: passed before")
                continue
            _say(f"{part.name}: {part.what} ...")
            result = _one(session, part)
            record.write(part.name, result)
            write_atomically(report, markdown.render(record.data, everything))
            _say(f"{part.name}: {result['status']} after {result['seconds']:.0f} s{_indented(result['reason'])}")
    except Stopped as stopped:
        _say(f"stopped. The same command goes on from here; so far: {report}")
        return 128 + int(stopped.args[0])
    statuses = {part.name: record.data["parts"][part.name]["status"] for part in chosen}
    allowed = [part.name for part in chosen if part.may_run_over and statuses[part.name] == "ran over"]
    wrong = [name for name, status in statuses.items() if status in WRONG and name not in allowed]
    counts = ", ".join(f"{list(statuses.values()).count(s)} {s}" for s in dict.fromkeys(statuses.values()))
    _say(f"{counts}. Report: {report}")
    if wrong:
        _say(f"Not as it should be: {', '.join(wrong)}")
        return EXIT_FAILED
    if session.mode == NO_GPU:
        _say("no GPU: nothing was run; what can be built was built")
        return EXIT_NO_GPU
    return 0


def _one(session: Session, part: Part) -> dict[str, Any]:
    """Run one part, whatever it does; returns what the record keeps."""
    started, begin = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.monotonic()
    # Where no GPU waits a compiler may take its time.
    limit_s = part.limit_s * (10 if session.mode == NO_GPU else 1)
    work = Work(ROOT, session.output / "logs" / f"{part.name}.log", limit_s, session.environment())
    if "library" in part.needs and (stale := session.stale_library()):
        work.notes.append(stale)
    status, reason = _attempt(session, part, work)
    return {
        "status": status,
        "reason": reason,
        "seconds": round(time.monotonic() - begin, 1),
        "limit_s": limit_s,
        "started": started,
        "commit": commit_of(ROOT),
        "commands": work.commands,
        "log": str(work.log.relative_to(session.output)),
        "figures": work.figures,
        "rows": work.rows,
        "notes": work.notes,
        "raw": work.raw,
    }


def _attempt(session: Session, part: Part, work: Work) -> tuple[str, str]:
    run, passed = part.run, "passed"
    reason = ""
    if session.mode == NO_GPU:
        would = f"no GPU: with one it {part.what}"
        if part.without_gpu is None:
            return "no GPU", would
        run, what = part.without_gpu
        passed, reason = "built", f"{would}; here it {what}"
    elif session.mode == REHEARSAL and not part.rehearsed:
        return "skipped", "not part of a rehearsal on the CPU"
    # Without a GPU what cannot be built is no fault of anybody's.
    for need in part.needs:
        if why := session.missing(need):
            return ("no GPU", f"{reason}: not done, {why}") if session.mode == NO_GPU else ("blocked", why)
    try:
        run(session, work)
    except Skipped as skipped:
        return "skipped", str(skipped)
    except RanOver:
        return "ran over", f"not done within its {work.limit_s:.0f} s; ended"
    except Failed as failed:
        return "failed", str(failed)
    except Exception as error:  # a mistake in the part itself must not keep the others from running
        return "failed", f"{type(error).__name__}: {error}"
    return passed, reason


def _indented(reason: str) -> str:
    return "".join(f"\n    {line}" for line in reason.splitlines())


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unusable as error:
        print(f"launch/gpu: {error}", file=sys.stderr)
        sys.exit(EXIT_UNUSABLE)
