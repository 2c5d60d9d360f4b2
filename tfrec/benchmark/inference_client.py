"""Asks an export, in a process with TensorFlow alone: python inference_client.py SAVEDMODEL REQUESTS SECONDS

Prints a line of JSON: cold start, memory, and the times of single calls at each batch size. It imports nothing of
tfrec, so that what is measured is what a server would load.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

_BEGIN = time.perf_counter()


def resident(field: str) -> int:
    """A line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> None:
    """Load, ask, print."""
    import numpy as np
    import tensorflow as tf

    imported, before = time.perf_counter(), resident("VmRSS")
    serve = tf.saved_model.load(sys.argv[1]).signatures["recommend"]
    argument = next(iter(serve.structured_input_signature[1]))
    requests = np.load(sys.argv[2])
    seconds = float(sys.argv[3])

    def ask(ids: np.ndarray) -> float:
        given = tf.constant(ids.tolist() if ids.dtype.kind == "U" else ids)
        start = time.perf_counter()
        answer = serve(**{argument: given})
        answer["ids"].numpy(), answer["scores"].numpy()
        return time.perf_counter() - start

    ask(requests["1"][0])
    first = time.perf_counter()
    times = {}
    for name in requests.files:
        batches = requests[name]
        for ids in batches[:3]:
            ask(ids)
        found: list[float] = []
        end = time.perf_counter() + seconds
        while len(found) < 20 or time.perf_counter() < end:
            found.append(ask(batches[len(found) % len(batches)]))
        times[name] = found
    print(
        json.dumps(
            {
                "import_seconds": imported - _BEGIN,
                "first_answer_seconds": first - imported,
                "loaded_bytes": resident("VmRSS") - before,
                "peak_bytes": resident("VmHWM"),
                "times": times,
            }
        )
    )


if __name__ == "__main__":
    main()
