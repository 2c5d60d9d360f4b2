"""From a pandas frame to ten recommendations, as a whole process: tfrec, implicit, and what importing TensorFlow takes.

The three alternate. The scripts below are what a user writes; blank lines and comments do not count as lines of code.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tfrec.benchmark.timing import spread
from tfrec.errors import InputError

#: Name -> script. {csv}, {user} and {out} are filled in.
SCRIPTS = {
    "import tensorflow": """
import tensorflow
""",
    "tfrec: fit, measured and saved": """
import pandas as pd
import tfrec

frame = pd.read_csv({csv!r})
data = tfrec.Interactions.from_frame(frame, user="user_id", item="item_id")
run = tfrec.fit("als", data, factors=64, output_dir={out!r})
print(run.recommender.recommend([{user}], k=10)["item"].to_pylist())
""",
    "tfrec: the model alone": """
import pandas as pd
import tfrec

frame = pd.read_csv({csv!r})
data = tfrec.Interactions.from_frame(frame, user="user_id", item="item_id")
model = tfrec.ALS(factors=64)
model.fit(data.to_csr(), verbose=0)
print(tfrec.Recommender(model, data).recommend([{user}], k=10)["item"].to_pylist())
""",
    "implicit": """
import numpy as np
import pandas as pd
import scipy.sparse
from implicit.als import AlternatingLeastSquares

frame = pd.read_csv({csv!r})
users, user_ids = pd.factorize(frame["user_id"])
items, item_ids = pd.factorize(frame["item_id"])
matrix = scipy.sparse.csr_matrix((np.ones(len(frame), np.float32), (users, items)))
model = AlternatingLeastSquares(factors=64)
model.fit(matrix, show_progress=False)
user = user_ids.get_loc({user})
ids, scores = model.recommend(user, matrix[user], N=10)
print(item_ids[ids].tolist())
""",
}


def benchmark_first_list(rounds: int) -> dict[str, Any]:
    """Seconds of whole processes, alternating, and lines of code.

    Args:
        rounds: how often each is started, after one start that is not counted.

    Raises:
        InputError: pandas is missing, or a script fails.
    """
    import pyarrow.csv

    from tfrec.data import load

    if importlib.util.find_spec("pandas") is None:
        raise InputError("first-list reads its file with pandas, which is missing.\nInstall it: pip install pandas.")
    events = load("synthetic", num_users=943, num_items=1_682)
    names = [name for name in SCRIPTS if name != "implicit" or importlib.util.find_spec("implicit")]
    with tempfile.TemporaryDirectory(prefix="tfrec-benchmark-") as folder:
        csv = Path(folder) / "plays.csv"
        pyarrow.csv.write_csv(events.to_frame().select(["user_id", "item_id"]), csv)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(1 + rounds):
            for name in names:
                code = SCRIPTS[name].format(csv=str(csv), user=7, out=str(Path(folder) / f"run-{number}"))
                taken = _start(name, code)
                if number:
                    seconds[name].append(taken)
            print(f"round {number}/{rounds}", file=sys.stderr, flush=True)
    base = seconds["import tensorflow"]
    return {
        "benchmark": "first-list",
        "rows": len(events),
        "lines_of_code": {name: sum(bool(line.strip()) for line in SCRIPTS[name].splitlines()) for name in names},
        "seconds": {name: spread(found) for name, found in seconds.items()},
        "times_import_tensorflow": {
            name: spread([mine / theirs for mine, theirs in zip(found, base, strict=True)])
            for name, found in seconds.items()
        },
        "implicit": "measured" if "implicit" in names else "missing: pip install implicit",
    }


def _start(name: str, code: str) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    )
    if done.returncode:
        raise InputError(f"The script of {name!r} failed.\n{done.stderr}")
    return time.perf_counter() - started
