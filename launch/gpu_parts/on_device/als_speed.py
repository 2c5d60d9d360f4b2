"""Seconds of an ALS iteration, with both solvers and both storages, next to implicit's GPU code where it is installed.

The matrix is that of ``python -m tfrec.benchmark als``, generated: 10 million plays weighted by BM25, 128 factors.
Operations and bytes are those that an iteration cannot do without: each entry's factors read once from memory for each
half of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from script import parser, row, take_device, write

arguments = parser(__doc__).parse_args()
tf = take_device(arguments.rehearse)

from tfrec.benchmark.als import generate  # noqa: E402
from tfrec.data import confidence  # noqa: E402
from tfrec.models import ALS  # noqa: E402

FACTORS = 128
STEPS = 3
ITERATIONS = 4 if arguments.rehearse else 10
plays = generate(50_000, 1_000, 500) if arguments.rehearse else generate(10_000_000)
matrix = confidence.bm25(plays, 100.0, 0.8)
rows_of_both, entries = sum(matrix.shape), matrix.nnz


def iterations(fit: Callable[[Callable[..., None]], Any]) -> np.ndarray:
    """Seconds of each iteration after the first two; ``fit(callback)`` calls back after each."""
    ends: list[float] = []

    def note(*_: Any) -> None:
        if tf.config.list_logical_devices("GPU"):
            tf.test.experimental.sync_devices()
        ends.append(time.perf_counter())

    fit(note)
    return np.diff(ends)[1:]


def ours(solver: Any, dtype: str) -> Callable[[Callable[..., None]], Any]:
    """A fit of tfrec's, from the start."""
    model = ALS(FACTORS, 0.01, iterations=ITERATIONS, solver=solver, factor_dtype=dtype, cg_steps=STEPS)
    return lambda callback: model.fit(matrix, callback, verbose=0)


rows, notes = [], []
for solver in ("cg", "cholesky"):
    for dtype in ("float32", "float16"):
        times = iterations(ours(solver, dtype))
        bytes_of = 2 if dtype == "float16" else 4
        if solver == "cg":
            operations = (STEPS + 1) * (4.0 * 2 * entries * FACTORS + 2.0 * rows_of_both * FACTORS**2)
        else:
            operations = 2.0 * entries * FACTORS**2 + rows_of_both * FACTORS**3 / 3
        moved = 2.0 * entries * (FACTORS * bytes_of + 8) + 2.0 * rows_of_both * FACTORS * bytes_of
        middle = float(np.median(times))
        rows.append(
            row(
                f"{solver}, factors in {dtype}",
                times * 1e3,
                "ms an iteration",
                tflops=operations / middle / 1e12,
                peak="float32 with TF32",
                gbs=moved / middle / 1e9,
            )
        )
try:
    import implicit
    import implicit.gpu

    if not implicit.gpu.HAS_CUDA or arguments.rehearse:
        notes.append(f"implicit {implicit.__version__} is installed without its GPU code, or this is a rehearsal")
    else:
        from implicit.gpu.als import AlternatingLeastSquares

        theirs = AlternatingLeastSquares(factors=FACTORS, regularization=0.01, iterations=ITERATIONS)
        times = iterations(lambda callback: theirs.fit(matrix, show_progress=False, callback=callback))
        rows.append(row("implicit's GPU code, cg, float32", times * 1e3, "ms an iteration"))
except ImportError as error:
    notes.append(f"implicit's GPU code was not measured: {error}")
except Exception as error:  # its code for this card may be missing, which must not cost ours
    notes.append(f"implicit's GPU code does not run here: {type(error).__name__}: {error}")
notes.append(
    f"{matrix.shape[0]:,} users, {matrix.shape[1]:,} items, {entries:,} entries, {FACTORS} factors, {STEPS} steps of cg"
)
write(arguments.json, {"rows": rows, "notes": notes})
