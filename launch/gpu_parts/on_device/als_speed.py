"""Seconds of an ALS iteration, with both solvers and both storages, beside implicit's GPU code where it is installed.

The matrix is that of ``python -m tfrec.benchmark als``, generated: 10 million plays weighted by BM25, 128 factors. An
iteration is the difference of a long and a short fit, so that loading the matrix does not count. Operations and bytes
are those that an iteration cannot do without: each entry's factors read once from memory for each half of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from script import parser, row, seconds, take_device, write

arguments = parser(__doc__).parse_args()
tf = take_device(arguments.rehearse)

from tfrec.benchmark.als import generate  # noqa: E402
from tfrec.data import confidence  # noqa: E402
from tfrec.models import ALS  # noqa: E402

FACTORS = 128
STEPS = 3
short, long = (1, 2) if arguments.rehearse else (1, 6)
plays = generate(50_000, 1_000, 500) if arguments.rehearse else generate(10_000_000)
matrix = confidence.bm25(plays, 100.0, 0.8)
rows_of_both, entries = sum(matrix.shape), matrix.nnz


def iteration(fit: Any) -> np.ndarray:
    """Seconds of one iteration."""
    rounds = 1 if arguments.rehearse else 3
    few = seconds(lambda: fit(short), rounds, warm_up=1)
    return (seconds(lambda: fit(long), rounds, warm_up=0) - np.median(few)) / (long - short)


def ours(solver: str, dtype: str) -> Any:
    """A fit of tfrec's, from the start."""

    def fit(iterations: int) -> None:
        model = ALS(FACTORS, 0.01, iterations=iterations, solver=solver, factor_dtype=dtype, cg_steps=STEPS)
        model.fit(matrix, verbose=0)

    return fit


rows, notes = [], []
for solver in ("cg", "cholesky"):
    for dtype in ("float32", "float16"):
        times = iteration(ours(solver, dtype))
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

        def theirs(iterations: int) -> None:
            """A fit of implicit's (conjugate gradients, three steps)."""
            model = AlternatingLeastSquares(factors=FACTORS, regularization=0.01, iterations=iterations)
            model.fit(matrix, show_progress=False)
            model.user_factors.to_numpy()

        rows.append(row("implicit's GPU code, cg, float32", iteration(theirs) * 1e3, "ms an iteration"))
except ImportError as error:
    notes.append(f"implicit's GPU code was not measured: {error}")
except Exception as error:  # its code for this card may be missing, which must not cost ours
    notes.append(f"implicit's GPU code does not run here: {type(error).__name__}: {error}")
notes.append(
    f"{matrix.shape[0]:,} users, {matrix.shape[1]:,} items, {entries:,} entries, {FACTORS} factors, {STEPS} steps of cg"
)
write(arguments.json, {"rows": rows, "notes": notes})
