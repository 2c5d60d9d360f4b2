"""The signatures of a model as TensorFlow Serving's REST API has them: requests in, answers out.

Format: TensorFlow Serving, "RESTful API", predict; rows (``instances``) or columns (``inputs``).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.service.limits import Limits, Refused, shown
from tfrec.serving.served import Served
from tfrec.serving.signatures import UNBATCHED, input_specs

_WHOLE = {tf.int64: range(-(2**63), 2**63), tf.int32: range(-(2**31), 2**31)}
_DTYPES = {
    tf.string: "DT_STRING", tf.int64: "DT_INT64", tf.int32: "DT_INT32", tf.float32: "DT_FLOAT", tf.bool: "DT_BOOL"
}  # fmt: skip


@dataclass(frozen=True)
class Predict:
    """A request for a signature.

    Args:
        signature: its name.
        inputs: name -> ids ``[B]``, or ``[B, L]``, rows filled up to the longest; or a number.
        rows: how many, where the signature is batched; else 1.
        by_row: answer as ``predictions``; False: as ``outputs``.
    """

    signature: str
    inputs: Mapping[str, Any]
    rows: int
    by_row: bool


def read_predict(body: Any, served: Served, limits: Limits) -> Predict:
    """A request from its JSON.

    Raises:
        Refused: 400, with the field.
    """
    if not isinstance(body, dict):
        raise Refused(400, "body", "The body must be a JSON object with `instances` or `inputs`.")
    unknown = sorted(set(body) - {"instances", "inputs", "signature_name"})
    if unknown:
        raise Refused(
            400, unknown[0][:80], f"Unknown field {shown(unknown[0])}: use signature_name and instances or inputs."
        )
    signature = body.get("signature_name", "serving_default")
    names = list(served.functions)
    if not isinstance(signature, str) or signature not in names:
        raise Refused(
            400, "signature_name", f"The model has no signature {shown(signature)}. It has {', '.join(names)}."
        )
    if ("instances" in body) == ("inputs" in body):
        raise Refused(400, "instances", "Give one of `instances` (rows) and `inputs` (columns).")
    specs, by_row = input_specs(served, signature), "instances" in body
    if by_row and signature in UNBATCHED:
        raise Refused(
            400, "instances", f"Signature {signature} takes no rows. Use `inputs`, or another signature_name."
        )
    columns = _columns_of_rows(body["instances"], specs, limits) if by_row else _columns(body["inputs"], specs)
    padding = served.items.padding
    columns = {name: _checked(columns[name], spec, name, padding, limits) for name, spec in specs.items()}
    if signature in UNBATCHED:
        _check_whole(columns, served, limits)
        return Predict(signature, columns, 1, False)
    lengths = {name: len(values) for name, values in columns.items()}
    first = next(iter(lengths))
    for name, length in lengths.items():
        if length != lengths[first]:
            raise Refused(400, name, f"{name} must have as many rows as {first}, {lengths[first]}. Received: {length}.")
    _check_count(lengths[first], "instances" if by_row else first, limits)
    return Predict(signature, columns, lengths[first], by_row)


def answer_predicts(served: Served, requests: Sequence[Predict]) -> list[dict[str, np.ndarray]]:
    """What one signature gives for each of several requests, from one call; for `predicted`."""
    signature = requests[0].signature
    specs = input_specs(served, signature)
    function = served.functions[signature]
    if signature in UNBATCHED:
        return [_call(function, specs, r.inputs) for r in requests]
    merged = {name: _stacked([r.inputs[name] for r in requests], served.items.padding) for name in specs}
    found = _call(function, specs, merged)
    answers, start = [], 0
    for request in requests:
        rows = {name: value[start : start + request.rows] for name, value in found.items()}
        start += request.rows
        if signature == "score":
            # Candidates of the batch are filled up to the longest row.
            width = request.inputs[list(specs)[-1]].shape[1]
            rows = {name: value[:, :width] for name, value in rows.items()}
        answers.append(rows)
    return answers


def predicted(found: Mapping[str, np.ndarray], request: Predict) -> dict[str, Any]:
    """An answer as JSON has it."""
    outputs = {name: _plain(array) for name, array in found.items()}
    one = next(iter(outputs)) if len(outputs) == 1 else None
    if not request.by_row:
        return {"outputs": outputs if one is None else outputs[one]}
    if one is not None:
        return {"predictions": outputs[one]}
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]}


def metadata(name: str, version: int, served: Served) -> dict[str, Any]:
    """The answer to GET .../metadata."""
    signatures = {
        signature: {
            "inputs": {n: _tensor(n, s) for n, s in input_specs(served, signature).items()},
            "outputs": {n: _tensor(n, s) for n, s in function.get_concrete_function().structured_outputs.items()},
            "method_name": "tensorflow/serving/predict",
        }
        for signature, function in served.functions.items()
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def status(version: int) -> dict[str, Any]:
    """The answer to GET /v1/models/NAME."""
    state = {"version": str(version), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    return {"model_version_status": [state]}


def _tensor(name: str, spec: Any) -> dict[str, Any]:
    dims = [{"size": str(-1 if d is None else d), "name": ""} for d in spec.shape.as_list()]
    return {"dtype": _DTYPES[spec.dtype], "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": name}


def _columns_of_rows(instances: Any, specs: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    if not isinstance(instances, list) or not instances:
        raise Refused(400, "instances", "instances must be a list of at least one row.")
    _check_count(len(instances), "instances", limits)
    # With one input, a row may be its value.
    rows = [
        row if isinstance(row, dict) and set(row) != {"b64"} else {next(iter(specs)): row} if len(specs) == 1 else row
        for row in instances
    ]
    for at, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != set(specs):
            raise Refused(400, f"instances[{at}]", f"Each row must be an object with {', '.join(specs)}, and no more.")
    return {name: [row[name] for row in rows] for name in specs}


def _columns(inputs: Any, specs: Mapping[str, Any]) -> dict[str, Any]:
    if not specs and inputs in ({}, []):
        return {}
    if len(specs) == 1 and not (isinstance(inputs, dict) and set(inputs) != {"b64"}):
        return {next(iter(specs)): inputs}
    if not isinstance(inputs, dict) or set(inputs) != set(specs):
        wanted = ", ".join(specs) or "nothing"
        raise Refused(400, "inputs", f"inputs must be an object with {wanted}, and no more.")
    return inputs


def _checked(value: Any, spec: Any, name: str, padding: str | int, limits: Limits) -> Any:
    """``value`` in the rank and type of an input: a number, or an array."""
    rank = spec.shape.rank
    if rank == 0:
        return _value(value, spec.dtype, name)
    if not isinstance(value, list):
        raise Refused(400, name, f"{name} must be a list. Received: {shown(value)}.")
    dtype = spec.dtype.as_numpy_dtype
    if rank == 1:
        return np.array(_values(value, spec.dtype, name), dtype)
    rows = []
    for row in value:
        if not isinstance(row, list):
            raise Refused(400, name, f"{name} must hold a list for each row. Received: {shown(row)}.")
        if len(row) > limits.ids:
            raise Refused(400, name, f"{name} may hold {limits.ids} ids in a row. Received: {len(row)}.")
        rows.append(_values(row, spec.dtype, name))
    return _padded(rows, dtype, padding)


def _values(row: list[Any], dtype: Any, name: str) -> list[Any]:
    """`_value` of each; of a row of one type, as rows are, at a few nanoseconds an entry."""
    kinds, whole = set(map(type, row)), _WHOLE.get(dtype)
    if kinds == {int} and whole is not None and min(row) in whole and max(row) in whole:
        return row
    if kinds == {str} and whole is None:
        with contextlib.suppress(UnicodeEncodeError):
            return list(map(str.encode, row))
    return [_value(v, dtype, name) for v in row]


def _value(value: Any, dtype: Any, name: str) -> Any:
    if dtype == tf.string:
        if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
            try:
                return base64.b64decode(value["b64"], validate=True)
            except (binascii.Error, ValueError) as error:
                raise Refused(400, name, f"{name} has a b64 that is not base64.") from error
        if isinstance(value, str):
            try:
                return value.encode()
            except UnicodeEncodeError as error:
                raise Refused(400, name, f"{name} must be Unicode text. Received: {shown(value)}.") from error
        raise Refused(400, name, f"{name} must hold text. Received: {shown(value)}.")
    # True is an int in Python.
    if not isinstance(value, int) or isinstance(value, bool) or value not in _WHOLE[dtype]:
        raise Refused(400, name, f"{name} must hold whole numbers of {dtype.size * 8} bits. Received: {shown(value)}.")
    return value


def _check_count(rows: int, field: str, limits: Limits) -> None:
    if rows < 1:
        raise Refused(400, field, f"{field} must have at least one row.")
    if rows > limits.instances:
        raise Refused(400, field, f"A request may have {limits.instances} rows. Received: {rows}.")


def _check_whole(columns: Mapping[str, Any], served: Served, limits: Limits) -> None:
    """Check the inputs of ``serving_default``, whose graph would fail at them."""
    if "k" not in columns:
        return
    most = min(limits.k, served.num_items)
    if not 1 <= columns["k"] <= most:
        raise Refused(400, "k", f"k must lie in [1, {most}]. Received: {columns['k']}.")
    splits = columns.get("row_splits")
    if splits is None:
        _check_count(len(columns["user_ids"]), "user_ids", limits)
        return
    lengths = np.diff(splits) if len(splits) else np.array([-1])
    if (lengths < 0).any() or splits[0] != 0 or splits[-1] != len(columns["item_ids"]):
        raise Refused(
            400, "row_splits", "row_splits must start with 0, never fall, and end with the number of item_ids."
        )
    _check_count(len(lengths), "row_splits", limits)
    if lengths.max() > limits.ids:
        raise Refused(400, "item_ids", f"A history may have {limits.ids} ids. Received: {lengths.max()}.")


def _call(function: Any, specs: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    tensors = [tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()]
    return {name: tensor.numpy() for name, tensor in function(*tensors).items()}


def _padded(rows: Sequence[Sequence[Any]], dtype: Any, padding: str | int) -> np.ndarray:
    """Rows of any length as an array ``[B, L]``."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    array = np.full((len(rows), lengths.max(initial=0)), _fill(padding), dtype)
    flat = itertools.chain.from_iterable(rows)
    # From the start of each row on, in the order of the rows.
    array[np.arange(array.shape[1]) < lengths[:, None]] = np.fromiter(flat, array.dtype, lengths.sum())
    return array


def _stacked(arrays: Sequence[np.ndarray], padding: str | int) -> np.ndarray:
    """One array after another, those of two dimensions filled up to the widest."""
    if len(arrays) == 1 or arrays[0].ndim == 1:
        return np.concatenate(arrays)
    stacked = np.full((sum(map(len, arrays)), max(a.shape[1] for a in arrays)), _fill(padding), arrays[0].dtype)
    start = 0
    for array in arrays:
        stacked[start : start + len(array), : array.shape[1]] = array
        start += len(array)
    return stacked


def _fill(padding: str | int) -> bytes | int:
    return padding.encode() if isinstance(padding, str) else padding


def _plain(array: np.ndarray) -> Any:
    if array.dtype == object:
        return _decoded(array.tolist())
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return np.where(np.isfinite(array), array.astype(object), np.array(None)).tolist()
    return array.tolist()


def _decoded(value: Any) -> Any:
    return [_decoded(v) for v in value] if isinstance(value, list) else value.decode("utf-8", "replace")
