"""One small training of each model, on the GPU, in 16 bits on the GPU, and on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_parts.session import REHEARSAL, Session
from gpu_parts.work import Failed, Work

#: Model -> the metric that is compared, and by how much it may differ: what seeds 1 to 3 differed by on a CPU (.0097,
#: .0160, .0030), rounded up. Popularity's counts are exact.
MODELS: dict[str, tuple[str, float]] = {
    "popularity": ("ndcg@100", 1e-6),
    "vae-cf": ("ndcg@100", 0.01),
    "neumf": ("hit_rate@10", 0.02),
    "als": ("ndcg@100", 0.005),
}
#: What is compared with the first: name -> its arguments, and whether it runs on the CPU.
_RUNS = {
    "CPU, float32": (["--precision", "float32"], True),
    "GPU, float32": (["--precision", "float32"], False),
    "GPU, 16 bits": (["--precision", "mixed_float16"], False),
}


def compare(model: str) -> Callable[[Session, Work], None]:
    """The part of one model."""
    metric, tolerance = MODELS[model]

    def run(session: Session, work: Work) -> None:
        found: dict[str, Any] = {}
        for name, (arguments, on_cpu) in _RUNS.items():
            if model == "popularity" and "16 bits" in name:
                continue  # it has hardly any arithmetic
            device = "cpu" if on_cpu or session.mode == REHEARSAL else "gpu"
            environment = {"CUDA_VISIBLE_DEVICES": "-1"} if device == "cpu" else {}
            script = [session.python, str(Path(__file__).parent / "on_device" / "train.py")]
            short = ["--epochs", "2"] if session.mode == REHEARSAL else []
            found[name] = one = work.measure([*script, model, *arguments, *short, "--device", device], **environment)
            work.figures[name if device in name.lower() else f"{name} (here: the CPU)"] = (
                f"{metric} {one['test'][metric]:.4f} (popularity {one['popularity'][metric]:.4f}), weights "
                f"{'finite' if one['finite'] else 'NOT FINITE'}, {one['seconds']:.1f} s on "
                f"{', '.join(one['gpus']) or 'the CPU'}"
            )
        wrong = [f"{name}: weights are not finite" for name, one in found.items() if not one["finite"]]
        base = found["CPU, float32"]["test"][metric]
        for name, one in found.items():
            value = one["test"][metric]
            if not abs(value - base) <= tolerance:
                wrong.append(f"{name}: {metric} is {value:.4f} and {base:.4f} on the CPU; at most {tolerance} apart")
            if model != "popularity" and not value > one["popularity"][metric]:
                wrong.append(f"{name}: {metric} is {value:.4f}, not above popularity's {one['popularity'][metric]:.4f}")
        work.raw = found
        if wrong:
            raise Failed("\n".join(wrong))

    return run
