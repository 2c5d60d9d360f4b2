"""Tables of speeds: tfrec's own benchmarks, as ``python -m tfrec.benchmark`` calls them, and three more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpu_parts.session import REHEARSAL, Session
from gpu_parts.work import Work

Run = Callable[[Session, Work], None]
#: What TensorFlow's float32 products reach on tensor cores, which it uses for them by default.
TF32 = "float32 with TF32"


def peaks(session: Session, work: Work) -> None:
    """What the shares in the other tables are shares of."""
    work.raw = work.measure(session.script("peaks"))
    work.rows += work.raw["rows"]
    work.figures |= {"clocks under load": work.raw["clocks"]}


def _own(name: str) -> Run:
    """A measurement that is a script of ``on_device`` and gives rows."""

    def run(session: Session, work: Work) -> None:
        work.raw = work.measure(session.script(name))
        work.rows += work.raw["rows"]
        work.notes += work.raw.get("notes", [])

    return run


def _benchmark(name: str, rows: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> Run:
    """A benchmark of tfrec."""

    def run(session: Session, work: Work) -> None:
        rounds = 1 if session.mode == REHEARSAL else 3
        work.raw = work.measure(session.script("benchmark", name, "--rounds", str(rounds)))
        work.rows += rows(work.raw)
        work.figures["GPU memory at its highest"] = work.raw["gpu_peak_mib"]

    return run


def _row(what: str, spread: dict[str, float], unit: str, tflops: float | None = None) -> dict[str, Any]:
    found = {"what": what, "value": spread["median"], "low": spread["min"], "high": spread["max"], "unit": unit}
    return found if tflops is None else {**found, "tflops": tflops, "peak": TF32}


def _vae_cf(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for shape, one in found.items():
        if isinstance(one, dict) and "sparse_gflops" in one:
            what = f"{shape}, {one['items']:,} items, {found['batch_users']:,} users a step"
            gflops = one["sparse_gflops"]["median"]
            rows.append(_row(f"{what}: sparse", one["sparse_users_per_second"], "users/s", gflops / 1e3))
            rows.append(_row(f"{what}: dense", one["dense_users_per_second"], "users/s"))
            rows.append(_row(f"{what}: sparse / dense", one["speed_ratio"], ""))
    return rows


def _neumf(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    operations = found["operations_per_sample"]
    for key, one in found.items():
        if key.startswith("training_batch_"):
            for way in ("device", "host", "plain"):
                speed = one[f"{way}_samples_per_second"]
                what = f"training, {int(key.rpartition('_')[2]):,} samples a step, {way}"
                rows.append(_row(what, speed, "samples/s", speed["median"] * operations / 1e12))
    scoring = found["scoring_999_negatives"]
    for way, what in (("score", "scoring"), ("evaluate", "scoring, with drawing and ranking")):
        speed = scoring[f"{way}_pairs_per_second"]
        rows.append(_row(what, speed, "pairs/s", speed["median"] * operations / 3 / 1e12))
    return rows


def _tt(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for kind in ("uniform", "zipf", "zipf_by_popularity"):
        for way, one in found[kind].items():
            if isinstance(one, dict) and "microseconds_per_id" in one:
                tflops = one["gflops"]["median"] / 1e3 if "gflops" in one else None
                rows.append(_row(f"{kind}: {way.replace('_', ' ')}", one["microseconds_per_id"], "us per id", tflops))
    return rows


#: Name, what it does, how.
TABLES: tuple[tuple[str, str, Run], ...] = (
    ("vae-cf", "times VAE-CF's training step, sparse and dense (benchmark vae-cf)", _benchmark("vae-cf", _vae_cf)),
    ("neumf", "times NeuMF's training and scoring at ml-20m's shape (benchmark neumf)", _benchmark("neumf", _neumf)),
    ("als", "times ALS's iterations, next to implicit's GPU code where it is installed", _own("als_speed")),
    ("tt", "times tensor trains at FBTT-Embedding's shape (benchmark tt)", _benchmark("tt", _tt)),
    ("int8", "times NeuMF and item vectors in int8 against float32", _own("int8_speed")),
    ("latency", "times single requests to each model", _own("latency")),
)
