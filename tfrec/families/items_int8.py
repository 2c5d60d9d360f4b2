"""Item vectors in int8, a scale per row: for every family whose scores are inner products."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.errors import InputError
from tfrec.families.derivation import Derivation, Finished, Made, QuantizeSettings

#: Of the timed lists.
_K, _QUERIES = 100, 2_000


class ItemsInt8(Derivation):
    """Rounds the item vectors; nothing is calibrated.

    Args:
        settings: how; only the defaults.
        kind: the name of the float model's class.
        side: makes of a model what makes its queries, see `tfrec.quantization.QuantizedItems`.

    Raises:
        InputError: settings that are NeuMF's.
    """

    name = "quantization"

    def __init__(self, settings: QuantizeSettings, kind: str, side: Callable[[Any], Any]) -> None:
        if replace(settings, seed=QuantizeSettings.seed) != QuantizeSettings():
            raise InputError(
                f"Of {kind} the item vectors are quantized, to 8 bits with a scale per row, uncalibrated.\n"
                "Received: options of NeuMF.\nLeave them out."
            )
        self._kind, self._side = kind, side

    def check_model(self, model: Any, run: Path) -> None:
        """Raise InputError for integers."""
        if type(model).__name__ != self._kind:
            raise InputError(f"The model of {run} is quantized already.\nQuantize the run it was made from.")

    def make(self, run: Finished) -> Made:
        """Round, and time lists."""
        from tfrec.quantization import QuantizedItems

        made = QuantizedItems.of(run.model, self._side(run.model))
        table, bias = run.model.item_vectors()
        size = {
            "float": sum(int(np.prod(x.shape)) * x.dtype.size for x in (table, bias) if x is not None),
            "int8": made.rows.nbytes,
        }
        queries = self._queries(run)
        fast = _time(run.model, made, queries)
        report = {"bits": 8, "items_bytes": size, "top_k": {"queries": queries.shape[0], **fast}}
        line = (
            f"Item vectors: {size['float'] / 2**20:.2f} MiB in {table.dtype.name}, {size['int8'] / 2**20:.2f} MiB in "
            f"int8. Top {fast['k']} of {queries.shape[0]:,} users {fast['int8_over_float']:.2f} times as fast."
        )
        return Made(made, report, lines=(line,))

    def _queries(self, run: Finished) -> Any:
        """Some users of the test, as the model may be asked about them."""
        part = run.split.test
        if part.users is not None and run.model.num_users is not None:
            return part.users[:_QUERIES]
        return part.seen[:_QUERIES]


def _time(model: Any, made: Any, queries: Any) -> dict[str, Any]:
    """Seconds of recommending, queries included, with the float model and with int8, alternating: medians of five."""
    k = min(_K, model.num_items)
    ways = {"float": model, "int8": made}
    seconds: dict[str, list[float]] = {n: [] for n in ways}
    for turn in range(6):
        for name, way in ways.items():
            start = time.perf_counter()
            way.recommend(queries, k=k, filter_seen=False)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {
        "k": k,
        **{f"{n}_seconds": round(float(np.median(s)), 5) for n, s in seconds.items()},
        "int8_over_float": round(float(np.median(np.array(seconds["float"]) / seconds["int8"])), 3),
    }
