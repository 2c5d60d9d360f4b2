"""A picture of the distributions that a quantized NeuMF has to cover."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfrec.quantization import Statistics


def draw_ranges(path: Path, statistics: Statistics) -> None:
    """Draw what the final layer takes and gives, per branch: why one range for both loses so much."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    last = max((n for n in statistics.tensors if n.startswith("hidden_") and not n.endswith("_linear")), default=None)
    rows: list[tuple[str, list[str | None]]] = [
        ("input of the final layer", ["product", last]),
        ("logits", ["gmf_logit", "mlp_logit", "logit"]),
    ]
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, names) in zip(figure.subplots(len(rows), 1), rows, strict=True):
        for name in names:
            if name is None or name not in statistics.tensors:
                continue
            s = statistics[name]
            counts = np.asarray(s.histogram, np.float64)
            if not counts.sum():
                continue
            width = max(s.max - s.min, 1e-30) / len(counts)
            centers = s.min + width * (np.arange(len(counts)) + 0.5)
            axes.plot(centers, counts / counts.sum() / width, label=f"{name}: {s.min:.3g} to {s.max:.3g}")
        axes.set(title=title, ylabel="density", yscale="log")
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=120)
