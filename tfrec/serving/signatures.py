"""What an export's signatures take and give, with an example of each, as data: ``signatures.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.serving.served import Served
from tfrec.serving.users import ServedUsers

#: Signatures that a server cannot batch: their inputs share no first dimension.
UNBATCHED = ("serving_default", "vocabulary")

_BATCH = 2


def batched(served: Served) -> list[str]:
    """Names of the signatures that a server can batch."""
    return [name for name in served.signatures if name not in UNBATCHED]


def input_specs(served: Served, name: str) -> dict[str, tf.TensorSpec]:
    """Name -> type of what a signature takes."""
    return {spec.name: spec for spec in served.signatures[name].input_signature}


def example_inputs(served: Served, name: str, batch: int = _BATCH) -> dict[str, np.ndarray]:
    """A request of real ids for a signature."""
    made: dict[str, np.ndarray] = {}
    for at, (argument, spec) in enumerate(input_specs(served, name).items()):
        if argument == "k":
            made[argument] = np.array(served.ks[0], np.int32)
        elif argument == "row_splits":
            made[argument] = np.arange(batch + 1, dtype=np.int64)
        else:
            table = served.users if argument == "user_ids" and isinstance(served, ServedUsers) else served.items
            ids = table.all_ids()[:64].numpy()
            width = spec.shape[1:].rank
            # Filters and candidates are other items than a history's.
            places = (np.arange(batch) + 3 * at) % len(ids)
            row = ids[places]
            if argument == "among_ids":  # no restriction, so that the list is a long one
                row = np.full(batch, served.items.padding, ids.dtype)
            made[argument] = row if not width else row[:, None]
    return made


def describe(served: Served) -> dict[str, Any]:
    """The content of ``signatures.json``: of each signature its inputs and outputs, and a request with its answer.

    Shapes have null for a dimension that a request decides; the first is the batch where ``batched`` is true.
    """
    signatures = {}
    for name, function in served.signatures.items():
        inputs = example_inputs(served, name)
        outputs = function(*(tf.constant(inputs[n], s.dtype) for n, s in input_specs(served, name).items()))
        structure = function.get_concrete_function().structured_outputs
        signatures[name] = {
            "batched": name not in UNBATCHED,
            "inputs": {n: _type(s) for n, s in input_specs(served, name).items()},
            "outputs": {n: _type(s) for n, s in structure.items()},
        }
        if name != "vocabulary":
            signatures[name]["example"] = {
                "inputs": {n: _plain(v) for n, v in inputs.items()},
                "outputs": {n: _plain(v.numpy()) for n, v in outputs.items()},
            }
    return {
        "format": 1,
        "model": type(served.model).__name__,
        "items": served.num_items,
        "padding": served.items.padding,
        "signatures": signatures,
    }


def lines(served: Served) -> str:
    """The signatures in a line each; those that differ in the length of their lists in one."""
    names = [n for n in served.signatures if not n.startswith("top_") and not n.endswith("_filtered")]
    lengths = " and ".join(f"top_{k} and top_{k}_filtered" for k in served.ks)
    return (
        "\n".join(_line(served, name) for name in names)
        + f"\nAs recommend: {lengths}; filtered ones take exclude_ids [B, M] and among_ids [B, N]."
    )


def _line(served: Served, name: str) -> str:
    structure = served.signatures[name].get_concrete_function().structured_outputs
    candidates = "item_ids" if "user_ids" in input_specs(served, name) else "candidate_ids"
    second = dict.fromkeys(structure, "C" if name == "score" else "k") | {"item_ids": "L", candidates: "C"}
    if "row_splits" in input_specs(served, name):
        second["row_splits"] = ""
    if name == "vocabulary":
        return f"Signature vocabulary: nothing -> {', '.join(f'{n} [I]' for n in structure)}."
    takes = ", ".join(f"{n} {_shape(n, s, second)}".rstrip() for n, s in input_specs(served, name).items())
    gives = ", ".join(f"{n} {_shape(n, s, second)}" for n, s in structure.items())
    return f"Signature {name}: {takes} -> {gives}."


def _shape(name: str, spec: Any, second: Mapping[str, str]) -> str:
    if name == "row_splits":
        return "[B + 1]"
    rank = spec.shape.rank or 0
    if rank < 2:
        return ("", "[N]" if "row_splits" in second and name == "item_ids" else "[B]")[rank]
    return f"[B, {spec.shape[1] or second[name]}]"


def _type(spec: Any) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}


def _plain(array: np.ndarray) -> Any:
    """As JSON has it: text as text, numbers in full."""
    if array.dtype == object or array.dtype.kind == "S":
        return np.vectorize(lambda b: b.decode() if isinstance(b, bytes) else b, otypes=[object])(array).tolist()
    return array.tolist()
