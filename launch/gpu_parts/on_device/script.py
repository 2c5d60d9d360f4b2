"""What the scripts of this folder share: their arguments, taking the device, and writing what they found.

Each runs in a process of its own, started by a part of launch/gpu, and is the only code of it that loads TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def parser(description: str | None) -> argparse.ArgumentParser:
    """With the arguments of all scripts."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", type=Path, required=True, help="where the result goes")
    made.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU")
    return made


def take_device(rehearse: bool) -> Any:
    """TensorFlow, after a look that it computes where it should; nothing may be measured on the CPU by mistake."""
    import tensorflow as tf

    if not rehearse and not tf.config.list_physical_devices("GPU"):
        raise SystemExit("TensorFlow finds no GPU in this process; what it says about that stands above.")
    return tf


def write(path: Path, found: dict[str, Any]) -> None:
    """Hand the result to the part."""
    path.write_text(json.dumps(found))


def seconds(call: Callable[[], Any], rounds: int, warm_up: int = 2, answers: bool = False) -> np.ndarray:
    """Seconds of each of some calls, until the device has done all of it.

    Args:
        call: what is timed.
        rounds: how often.
        warm_up: calls before, which are not timed.
        answers: the call ends with its answer in host memory, and nothing else is to be waited for.
    """
    import tensorflow as tf

    waits = not answers and bool(tf.config.list_logical_devices("GPU"))
    found = []
    for number in range(warm_up + rounds):
        start = time.perf_counter()
        call()
        if waits:
            tf.test.experimental.sync_devices()
        if number >= warm_up:
            found.append(time.perf_counter() - start)
    return np.array(found)


def row(what: str, values: np.ndarray, unit: str, **more: Any) -> dict[str, Any]:
    """A row of a table: median, lowest and highest of ``values``."""
    found = {"what": what, "value": float(np.median(values)), "unit": unit}
    if len(values) > 1:
        found |= {"low": float(values.min()), "high": float(values.max())}
    return found | more
