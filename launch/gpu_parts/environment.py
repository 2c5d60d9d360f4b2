"""Card, driver, clocks, versions; and that TensorFlow finds the GPU."""

from __future__ import annotations

from gpu_parts import problems
from gpu_parts.session import ON_GPU, Session
from gpu_parts.work import Failed, Work, tail


def run(session: Session, work: Work) -> None:
    """Everything; fails where TensorFlow finds no GPU."""
    without_gpu(session, work)
    for gpu in session.machine.gpus:
        told = gpu.told
        work.figures[f"GPU {told['index']}"] = {
            gpu.name: f"compute capability {told['capability']}",
            "driver": gpu.driver,
            "memory": f"{told['memory_mib']} MiB ({told['free_mib']} free)",
            "clocks now": f"{told['sm_mhz']} / {told['memory_mhz']} MHz",
            "at most": f"{told['max_sm_mhz']} / {told['max_memory_mhz']} MHz",
            "power limit": f"{told['power_limit_w']} W",
            "compute mode": told["compute_mode"],
        }
    if why := session.missing("tensorflow"):
        work.notes.append(f"TensorFlow was not asked: {why}")
        return
    found = work.measure(session.script("versions"))
    work.figures |= found
    seen, there = len(found["GPUs of TensorFlow"]), len(session.machine.gpus)
    if session.mode == ON_GPU and seen != there:
        problem = f"nvidia-smi lists {there} GPUs and TensorFlow finds {seen}"
        # Other parts are not tried in vain, or worse, on the CPU.
        session.problems.append(problems.Problem("tensorflow", problem))
        raise Failed(f"{problem}: a CUDA library is missing, most likely. Its own words:\n{tail(work.said())}")


def without_gpu(session: Session, work: Work) -> None:
    """What can be told without a GPU."""
    told = session.machine.to_json()
    del told["gpus"]
    work.figures |= told
    work.notes += problems.notes(session.machine)
