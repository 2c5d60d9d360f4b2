"""An epoch's sums so far: what the mean loss of an epoch that another number of ranks ends is made of.

Keras keeps for each mean a total and a count of this process. Added up over the ranks they are those of all batches so
far; one rank of those that go on takes them, so that the weighted mean over the ranks at the end of the epoch counts
each batch once.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfrec.distributed.optimizer import is_distributed

_STEPS, _SAMPLES = "steps", "samples"


def epoch_sums(model: keras.Model) -> dict[str, list[float]]:
    """This rank's sums by name: total and count of each mean, samples, and steps."""
    found = {name: [float(np.asarray(v.value)) for v in mean.variables] for name, mean in _means(model).items()}
    if is_distributed(model.optimizer):
        found[_SAMPLES] = [float(model.optimizer._epoch_samples.numpy())]
        found[_STEPS] = [float(model.optimizer._epoch_steps.numpy())]
    return found


def add_sums(everyone: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The ranks' sums as one; all have made as many steps."""
    total: dict[str, list[float]] = {}
    for one in everyone:
        for name, values in one.items():
            so_far = total.setdefault(name, [0.0] * len(values))
            total[name] = values if name == _STEPS else [a + b for a, b in zip(so_far, values, strict=True)]
    return total


def set_epoch_sums(model: keras.Model, sums: dict[str, list[float]], whole: bool) -> None:
    """Go on from ``sums``: one rank with all of them (``whole``), the others with 0; steps are every rank's."""
    for name, mean in _means(model).items():
        for variable, value in zip(mean.variables, sums.get(name, ()), strict=False):
            variable.assign(value if whole else 0.0)
    if is_distributed(model.optimizer) and _STEPS in sums:
        model.optimizer._epoch_samples.assign(int(sums[_SAMPLES][0]) if whole else 0)
        model.optimizer._epoch_steps.assign(int(sums[_STEPS][0]))


def _means(model: keras.Model) -> dict[str, Any]:
    """The metrics that are a total over a count, those of ``compile(metrics=...)`` among them once they are made."""
    found: dict[str, Any] = {}
    for metric in model.metrics:
        for one in getattr(metric, "metrics", None) or [metric]:
            if isinstance(one, keras.metrics.Mean):
                found[f"mean {len(found)}: {one.name}"] = one
    return found
