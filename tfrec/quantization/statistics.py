"""What is known of a model's activations, as a YAML file that people can read and edit."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
import yaml

from tfrec.data.files import DAMAGE, atomic_write, reason
from tfrec.errors import InputError

#: Percentiles that are kept.
PERCENTILES = (0.01, 0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9, 99.99)
BINS = 2_048


@dataclass(frozen=True)
class TensorStatistics:
    """One activation over the calibration data.

    Args:
        shape: of a batch, with the batch left out.
        min: least value.
        max: greatest value.
        avg_min: mean over the samples of a sample's least value.
        avg_max: the same of the greatest.
        mean: of all values.
        std: of all values.
        deviation: mean distance from the mean (the b of a Laplace distribution).
        percentiles: percent -> value, from the histogram (so to within a bin).
        histogram: counts of equal bins from min to max.
    """

    shape: list[int]
    min: float
    max: float
    avg_min: float
    avg_max: float
    mean: float
    std: float
    deviation: float
    percentiles: dict[float, float] = field(default_factory=dict)
    histogram: list[int] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        """Value below which ``percent`` of the values lie, linear inside a bin."""
        counts = np.asarray(self.histogram, np.float64)
        below = np.concatenate([[0.0], np.cumsum(counts)]) / max(counts.sum(), 1.0)
        edges = np.linspace(self.min, self.max, len(counts) + 1)
        return float(np.interp(percent / 100.0, below, edges))


class Collector:
    """Gathers the statistics of one tensor in two passes over the same batches: moments, then the histogram."""

    def __init__(self) -> None:
        self.shape: list[int] = []
        self._low, self._high = math.inf, -math.inf
        self._sums = np.zeros(4)  # of a sample's least and greatest value, of values, of squares
        self._samples = self._values = 0
        self._counts = np.zeros(BINS, np.int64)
        self._deviation = 0.0

    def moments(self, values: np.ndarray) -> None:
        """First pass. ``values`` is ``[samples, ...]``."""
        flat = values.reshape(len(values), -1).astype(np.float64)
        self.shape = list(values.shape[1:])
        self._low, self._high = min(self._low, flat.min()), max(self._high, flat.max())
        self._sums += [flat.min(1).sum(), flat.max(1).sum(), flat.sum(), np.square(flat).sum()]
        self._samples += len(flat)
        self._values += flat.size

    def distribution(self, values: np.ndarray) -> None:
        """Second pass."""
        self._counts += np.histogram(values, BINS, (self._low, max(self._high, self._low + 1e-30)))[0]
        self._deviation += float(np.abs(values.astype(np.float64) - self._sums[2] / self._values).sum())

    def statistics(self) -> TensorStatistics:
        """What was found."""
        mean = self._sums[2] / self._values
        found = TensorStatistics(
            shape=self.shape,
            min=float(self._low),
            max=float(self._high),
            avg_min=float(self._sums[0] / self._samples),
            avg_max=float(self._sums[1] / self._samples),
            mean=float(mean),
            std=float(math.sqrt(max(self._sums[3] / self._values - mean**2, 0.0))),
            deviation=self._deviation / self._values,
            histogram=self._counts.tolist(),
        )
        return TensorStatistics(**{**vars(found), "percentiles": {p: found.percentile(p) for p in PERCENTILES}})


@dataclass(frozen=True)
class Statistics:
    """Statistics of a model.

    Args:
        model: checksum of the weights they belong to, see `fingerprint`.
        samples: number of pairs that were read.
        tensors: by the activation's name.
    """

    model: str
    samples: int
    tensors: dict[str, TensorStatistics]

    def __getitem__(self, name: str) -> TensorStatistics:
        if name not in self.tensors:
            raise InputError(
                f"There are no statistics for {name}.\nReceived: those of {', '.join(self.tensors) or 'nothing'}.\n"
                "Calibrate this model again."
            )
        return self.tensors[name]

    def save(self, path: Path) -> None:
        """Write YAML, whole or not at all."""
        content = {
            "model": self.model,
            "samples": self.samples,
            "tensors": {n: asdict(t) for n, t in self.tensors.items()},
        }
        with atomic_write(path, "w") as stream:
            yaml.safe_dump(content, stream, sort_keys=False, default_flow_style=None, width=120)

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read what `save` wrote, perhaps edited since.

        Raises:
            InputError: the file is not such a file, or its numbers make no sense.
        """
        try:
            content = _read(Path(path))
            tensors = {str(name): _tensor(str(name), values) for name, values in content["tensors"].items()}
            return cls(str(content["model"]), _whole(content["samples"]), tensors)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (*DAMAGE, yaml.YAMLError) as error:
            raise InputError(
                f"{path} is not a file of statistics: {_reason(error)}.\nMake one with calibrate."
            ) from error


#: A file of a hundred activations has a third of these bytes, and about as many values.
_MOST_BYTES = 8 << 20
_MOST_VALUES = 100 * (BINS + 64)
#: model, tensors, an activation, its list.
_MOST_LEVELS = 8


class _PlainLoader(yaml.SafeLoader):
    """YAML without what no file of statistics has, and what can make a small file endless: names for parts (``&a``,
    ``*a``), deep nesting, millions of values, a key that comes twice."""

    levels = values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not taken", problem_mark=event.start_mark)
        self.levels += 1
        self.values += 1
        if self.levels > _MOST_LEVELS or self.values > _MOST_VALUES:
            problem = "nested too deep" if self.levels > _MOST_LEVELS else f"more than {_MOST_VALUES:,} values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            raise yaml.MarkedYAMLError(problem="a key comes twice", problem_mark=node.start_mark)
        return found


def _read(path: Path) -> Any:
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"it has {path.stat().st_size:,} bytes")
    return yaml.load(path.read_text("utf-8"), _PlainLoader)


def _reason(error: BaseException) -> str:
    """As `reason`, with the place in the file."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return reason(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', error)}"


def _tensor(name: str, values: dict[str, Any]) -> TensorStatistics:
    known = {f.name for f in fields(TensorStatistics)}
    if set(values) - known or {"min", "max"} - set(values):
        came = ", ".join(map(str, list(values)[:20]))
        raise InputError(f"The statistics of {name} need {', '.join(sorted(known))}.\nReceived: {came:.500}.")
    low, high = float(values["min"]), float(values["max"])
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise InputError(f"The statistics of {name} need finite min <= max.\nReceived: {low}, {high}.")
    numbers = {k: float(v) for k, v in values.items() if k not in ("shape", "percentiles", "histogram")}
    found = TensorStatistics(
        shape=[_whole(n) for n in values.get("shape", [])],
        percentiles={float(k): float(v) for k, v in values.get("percentiles", {}).items()},
        histogram=[_whole(n) for n in values.get("histogram", [])],
        **numbers,
    )
    for what, value in (*numbers.items(), *((f"percentiles {k:g}", v) for k, v in found.percentiles.items())):
        if not math.isfinite(value):
            raise InputError(f"The statistics of {name} must be finite.\nReceived: {what} {value}.")
    return found


def _whole(value: Any) -> int:
    """A count: a whole number from 0."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError(f"{value!r:.80} is not a count")
    return value


def fingerprint(model: keras.Model) -> str:
    """A checksum of the trained weights: statistics of another training are no use, even of the same shapes.

    The final layer is taken as one, so a split model has the fingerprint of the model it came from.
    """
    digest = hashlib.sha256()
    weights = {v.path.split("/")[-1]: v.numpy() for v in model.trainable_variables}
    if "gmf_kernel" in weights and "mlp_kernel" in weights:
        weights["final_kernel"] = np.concatenate([weights.pop("gmf_kernel"), weights.pop("mlp_kernel")])
        weights["final_bias"] = weights.pop("gmf_bias") + weights.pop("mlp_bias")
    for name in sorted(weights):
        digest.update(f"{name}{weights[name].shape}".encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()[:16]
