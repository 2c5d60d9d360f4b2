"""ALS against the implicit package: the same matrix, start, iterations and threads, alternating, in one process.

Both take implicit's first factors (positive, uniform), and where "own start" is named tfrec uses its own (normal around
zero), as it does for a user. Every loss is computed here, from the factors, in float64. implicit runs as it asks to:
one BLAS thread (OPENBLAS_NUM_THREADS=1), its own threads for the rest.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from tfrec.benchmark.memory import resident_bytes
from tfrec.benchmark.timing import seconds_of, spread
from tfrec.data import Interactions, confidence, load
from tfrec.errors import InputError
from tfrec.models import ALS
from tfrec.ops import Sweep

_FACTORS = (64, 128, 256)
_K = 10
_REGULARIZATION = 0.01


def matrices(data_dir: Path | None) -> dict[str, scipy.sparse.csr_matrix]:
    """The benchmark's matrices, weighted by BM25 as in implicit's own."""
    root = data_dir or os.environ.get("TFREC_DATA")
    stars = load("ml-1m", root)
    liked = stars.values >= 4
    movies = Interactions(
        stars.user_index[liked], stars.item_index[liked], stars.values[liked], stars.user_ids, stars.item_ids
    ).to_csr()
    plays = load("lastfm-2k", root).to_csr()
    generated = generate(10_000_000)
    return {
        "ml-1m": confidence.bm25(movies, 100.0, 0.9) * np.float32(5),
        "lastfm-2k": confidence.bm25(plays, 100.0, 0.8),
        "generated-10m": confidence.bm25(generated, 100.0, 0.8),
    }


def generate(entries: int, users: int = 100_000, items: int = 20_000, seed: int = 0) -> scipy.sparse.csr_matrix:
    """A matrix of play counts with long-tailed users and items, of about ``entries`` different pairs."""
    random = np.random.default_rng(seed)
    activity = random.lognormal(0.0, 1.0, users)
    popularity = 1.0 / np.arange(20, items + 20)
    # Repeated pairs become one, so more are drawn.
    lengths = random.poisson(activity * (1.25 * entries / activity.sum()))
    user = np.repeat(np.arange(users), lengths)
    item = np.searchsorted(np.cumsum(popularity / popularity.sum()), random.random(len(user)))
    plays = scipy.sparse.coo_matrix(
        (np.ones(len(user), np.float32), (user, np.minimum(item, items - 1))), (users, items)
    ).tocsr()
    plays.sort_indices()
    return plays


def float64_loss(matrix: scipy.sparse.csr_matrix, users: np.ndarray, items: np.ndarray) -> float:
    """The objective as implicit normalises it, alpha 1, unobserved weight 1, in float64."""
    x, y = users.astype(np.float64), items.astype(np.float64)
    total = float(np.sum((x.T @ x) * (y.T @ y)))
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    for k in range(0, matrix.nnz, 1 << 17):
        part = slice(k, k + (1 << 17))
        score = np.einsum("ij,ij->i", x[row[part]], y[matrix.indices[part]])
        c = matrix.data[part].astype(np.float64)
        total += float(np.sum((c - 1.0) * score**2 - 2.0 * c * score + c))
    total += _REGULARIZATION * float((x**2).sum() + (y**2).sum())
    return total / (float(matrix.data.sum(dtype=np.float64)) + matrix.shape[0] * matrix.shape[1] - matrix.nnz)


class Contest:
    """Both packages on one matrix with one width."""

    def __init__(self, matrix: scipy.sparse.csr_matrix, factors: int, threads: int) -> None:
        self.matrix, self.factors, self.threads = matrix, factors, threads
        random = np.random.default_rng(1)
        users, items = matrix.shape
        # implicit's own start.
        self.start = (
            random.random((users, factors), np.float32) * np.float32(0.01),
            random.random((items, factors), np.float32) * np.float32(0.01),
        )

    def implicit(self, solver: str, iterations: int) -> Any:
        """implicit's model before its fit."""
        from implicit.cpu.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(
            factors=self.factors,
            regularization=_REGULARIZATION,
            alpha=1.0,
            use_cg=solver == "cg",
            iterations=iterations,
            num_threads=self.threads,
        )
        model.user_factors, model.item_factors = (f.copy() for f in self.start)
        return model

    def ours(self, iterations: int, factor_dtype: str = "float32", own_start: bool = False, **options: Any) -> ALS:
        """tfrec's."""
        model = ALS(self.factors, _REGULARIZATION, iterations=iterations, factor_dtype=factor_dtype, **options)
        model.prepare(*self.matrix.shape)
        if not own_start:
            model.users.table.assign(self.start[0])
            model.items.table.assign(self.start[1])
        return model

    def loss(self, model: Any) -> float:
        """The loss of either's factors."""
        return float64_loss(self.matrix, model.user_factors, model.item_factors)

    def fit(self, solver: str, iterations: int, rounds: int) -> dict[str, Any]:
        """Seconds and losses of the same solver."""
        makers = {
            "implicit": lambda: self.implicit(solver, iterations),
            "float32": lambda: self.ours(iterations, solver=solver),
            "float16": lambda: self.ours(iterations, "float16", solver=solver),
        }
        seconds: dict[str, list[float]] = {name: [] for name in makers}
        losses: dict[str, float] = {}
        for _ in range(rounds):
            for name, make in makers.items():
                model = make()
                options = {"show_progress": False} if name == "implicit" else {"verbose": 0}
                seconds[name].append(seconds_of(functools.partial(model.fit, self.matrix, **options)))
                losses[name] = self.loss(model)
        model = self.ours(iterations, own_start=True, solver=solver)
        model.fit(self.matrix, verbose=0)
        losses["float32, own start"] = self.loss(model)
        times = {name: np.array(s) for name, s in seconds.items()}
        return {
            "iterations": iterations,
            "implicit_seconds": spread(times["implicit"]),
            "float32_times_faster": spread(times["implicit"] / times["float32"]),
            "float16_times_faster": spread(times["implicit"] / times["float16"]),
            "loss": {name: round(value, 8) for name, value in losses.items()},
        }

    def time_to_loss(self, target: float, seconds: float, most: int) -> dict[str, Any]:
        """How much sooner each of our solvers is at implicit-CG's last loss, with the iterations that takes."""
        found: dict[str, Any] = {}
        for name, options in (
            ("cg float32", {"solver": "cg"}),
            ("cg float16", {"solver": "cg", "factor_dtype": "float16"}),
            ("cg float32, 4 steps", {"solver": "cg", "cg_steps": 4}),
            ("cg float32, own start", {"solver": "cg", "own_start": True}),
            ("cg float16, own start", {"solver": "cg", "own_start": True, "factor_dtype": "float16"}),
            ("block", {"solver": "block"}),
        ):
            if name == "block" and self.matrix.nnz > 5_000_000:
                continue
            history = self.ours(most, **options).fit(self.matrix, verbose=0, calculate_training_loss=True).history
            reached = np.flatnonzero(np.array(history["loss"]) <= target)
            if len(reached) == 0:
                found[name] = f"not in {most} iterations"
                continue
            needed = int(reached[0]) + 1
            model = self.ours(needed, **options)
            found[name] = {
                "iterations": needed,
                "times_faster": round(seconds / seconds_of(functools.partial(model.fit, self.matrix, verbose=0)), 2),
            }
        return found

    def questions(self, rounds: int) -> dict[str, Any]:
        """Recommending to all users and finding similar items of all, from the same factors."""
        theirs, ours, half = self.implicit("cg", 2), self.ours(1), self.ours(1, "float16")
        theirs.fit(self.matrix, show_progress=False)
        for model in (ours, half):
            model.users.table.assign(theirs.user_factors)
            model.items.table.assign(theirs.item_factors)
        users, items = (np.arange(n) for n in self.matrix.shape)
        asked: dict[str, dict[str, Any]] = {
            "recommend_all_users": {
                "implicit": lambda: theirs.recommend(users, self.matrix, N=_K),
                "float32": lambda: ours.recommend(users, self.matrix, k=_K),
                "float16": lambda: half.recommend(users, self.matrix, k=_K),
            },
            "similar_to_all_items": {
                "implicit": lambda: theirs.similar_items(items, N=_K),
                "float32": lambda: ours.similar_items(items, k=_K),
                "float16": lambda: half.similar_items(items, k=_K),
            },
        }
        found: dict[str, Any] = {}
        for question, ways in asked.items():
            answers = {name: way()[0] for name, way in ways.items()}
            seconds = {name: np.array([seconds_of(way) for _ in range(1)]) for name, way in ways.items()}
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(max(rounds, 3) if seconds["implicit"][0] < 5 else 1):
                for name, way in ways.items():
                    time.sleep(0.2)  # the other package's threads may still be spinning, and these questions are short
                    times[name].append(seconds_of(way))
            theirs_time = np.array(times["implicit"])
            found[question] = {
                "implicit_seconds": spread(theirs_time),
                "float32_times_faster": spread(theirs_time / np.array(times["float32"])),
                "float16_times_faster": spread(theirs_time / np.array(times["float16"])),
                "same_items_float32": round(float((answers["implicit"] == answers["float32"]).mean()), 4),
            }
        return found


PARTS = ("ml-1m", "lastfm-2k", "generated-10m", "memory", "balance")


def benchmark_als(rounds: int, data_dir: Path | None = None, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """Training, time to a loss and questions on each matrix; memory; balance: those of ``parts``.

    Raises:
        InputError: an unknown part, or the implicit package is not installed.
    """
    if unknown := set(parts) - set(PARTS):
        raise InputError(
            f"--parts must be some of those below.\nReceived: {', '.join(sorted(unknown))}.\nKnown: {', '.join(PARTS)}."
        )
    try:
        import implicit
        import threadpoolctl
    except ImportError as error:
        raise InputError(
            f"The benchmark compares with the implicit package: {error}.\nInstall it: pip install -e '.[benchmark]'."
        ) from error
    threads = os.cpu_count() or 1
    found: dict[str, Any] = {"benchmark": "als", "implicit": implicit.__version__, "threads": threads, "rounds": rounds}
    with threadpoolctl.threadpool_limits(1, "blas"):
        for name, matrix in matrices(data_dir).items() if set(parts) - {"memory", "balance"} else ():
            if name not in parts:
                continue
            large = matrix.nnz > 5_000_000
            found[name] = {"users": matrix.shape[0], "items": matrix.shape[1], "entries": int(matrix.nnz)}
            for factors in _FACTORS:
                contest = Contest(matrix, factors, threads)
                contest.ours(1).fit(matrix, verbose=0)  # what a process does once
                result: dict[str, Any] = {"cg": contest.fit("cg", 15, 1 if large else rounds)}
                result["cholesky"] = contest.fit("cholesky", 1 if large else 3, 1)
                cg = result["cg"]
                result["time_to_implicit_cg_loss"] = contest.time_to_loss(
                    cg["loss"]["implicit"], cg["implicit_seconds"]["median"], 18
                )
                result |= contest.questions(rounds)
                found[name][f"factors_{factors}"] = result
                print(f"{name}, {factors} factors: {json.dumps(result)}", file=sys.stderr, flush=True)
    if "memory" in parts:
        found["memory_generated_10m"] = {
            f"factors_{factors}": {who: _memory(who, factors) for who in ("implicit", "float32", "float16")}
            for factors in _FACTORS
        }
    if "balance" in parts:
        found["balance"] = balance()
    return found


def balance() -> dict[str, Any]:
    """1,000 x 1,000, one row of 1,000 and the others of one: the slowest thread's time over the mean."""
    rows = np.concatenate([np.zeros(1_000, int), np.arange(1, 1_000)])
    columns = np.concatenate([np.arange(1_000), np.arange(1, 1_000)])
    matrix = scipy.sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (1_000, 1_000))
    found = {}
    for solver in ("cg", "cholesky", "block"):
        ratios = []
        for _ in range(5):
            model = ALS(128, iterations=3, solver=solver)
            model.fit(matrix, verbose=0)
            seconds = model.thread_seconds[0]
            ratios.append(seconds.max() / seconds.mean())
        found[solver] = spread(np.array(ratios))
    return {"slowest_thread_over_mean": found, "settings": asdict(Sweep())}


def _memory(who: str, factors: int) -> dict[str, float]:
    """Peak of a fit in a process of its own: above what was there before it, and in all."""
    done = subprocess.run(
        [sys.executable, "-m", "tfrec.benchmark.als", who, str(factors)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def _measure_memory(who: str, factors: int) -> dict[str, float]:
    matrix = confidence.bm25(generate(10_000_000), 100.0, 0.8)
    small = matrix[:100]
    contest = Contest(matrix, factors, os.cpu_count() or 1)
    contest.start = (contest.start[0][:1], contest.start[1][:1])  # not part of either
    warm: Any
    model: Any
    if who == "implicit":
        from implicit.cpu.als import AlternatingLeastSquares

        warm = AlternatingLeastSquares(factors=factors, iterations=1)
        warm.fit(small, show_progress=False)
        model, options = (
            AlternatingLeastSquares(factors=factors, iterations=2, random_state=1),
            {"show_progress": False},
        )
    else:
        warm = ALS(factors, iterations=1, factor_dtype=who)
        warm.fit(small, verbose=0)
        model, options = ALS(factors, iterations=2, factor_dtype=who), {"verbose": False}
    del warm
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    model.fit(matrix, **options)
    peak = resident_bytes("VmHWM")
    return {"fit_mib": round((peak - before) / 2**20, 1), "process_mib": round(peak / 2**20, 1)}


if __name__ == "__main__":
    print(json.dumps(_measure_memory(sys.argv[1], int(sys.argv[2]))))
