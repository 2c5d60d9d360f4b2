"""What `tfrec.models.VAECF` may be trained on and asked with, checked before work starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.models.base import FLOAT_MAX, bind, check_within
from tfrec.models.rows import check_weights, checked_rows


def checked(
    model: Any, method: Any, args: Any, kwargs: dict[str, Any], counts: bool = True, batch: bool = False
) -> dict[str, Any]:
    """The arguments of one of Keras's methods, with arrays checked before work starts.

    Args:
        model: a `tfrec.models.VAECF`.
        method: whose.
        args: positional ones.
        kwargs: others.
        counts: whether numbers must be finite and from 0.
        batch: whether Keras hands them to the step as they are, which takes tensors only.
    """
    given = bind(method, model, args, kwargs)
    if given.get("class_weight") is not None:
        raise InputError(
            "VAECF has no classes to weight.\nReceived: class_weight.\nGive `sample_weight`, a number for each user."
        )
    names = ("x", "y", "sample_weight")
    found = _checked_data(model, [given.get(name) for name in names], names, counts, batch)
    given |= {name: source for name, source in zip(names, found, strict=True) if source is not None}
    if given.get("sample_weight") is not None and given.get("y") is None:
        given["y"] = _itself(given["x"])
    data = given.get("validation_data")
    if isinstance(data, tuple | list):
        parts = list(keras.utils.unpack_x_y_sample_weight(data))
        parts = _checked_data(model, parts, [f"validation_data[{i}]" for i in range(3)], counts, batch)
        if parts[2] is not None and parts[1] is None:
            parts[1] = _itself(parts[0])
        given["validation_data"] = tuple(parts)
    elif data is not None:
        given["validation_data"] = _checked_data(model, [data], ["validation_data"], counts, batch)[0]
    return given


def _checked_data(model: Any, data: Sequence[Any], names: Sequence[str], counts: bool, batch: bool) -> list[Any]:
    """Rows, their targets and their weights, as far as they are given."""
    found = []
    for place, (source, name) in enumerate(zip(data, names, strict=True)):
        if source is not None and place == 2:
            check_weights(source, name)
        elif source is not None and not (place == 0 and model.gather is not None and are_users(source)):
            source = checked_rows(source, name, model.num_items, counts)
            source = _tensor(source) if batch else source
        found.append(source)
    return found


def are_users(x: Any) -> bool:
    """Whether these are numbers of users ``[B]``, not rows."""
    return not isinstance(x, tf.SparseTensor) and len(getattr(x, "shape", ())) == 1


def _itself(x: Any) -> np.ndarray:
    """The target for rows that predict themselves: Keras passes weights on only where there are targets. Of a type
    that counts never have, so that no trace of a step stands for both."""
    return np.zeros((x.shape[0], 1), np.complex64)


def _tensor(rows: Any) -> Any:
    """A SciPy matrix in canonical form as a SparseTensor."""
    if not scipy.sparse.issparse(rows):
        return rows
    matrix: Any = rows
    entries = matrix.tocoo()
    return tf.SparseTensor(np.stack([entries.row, entries.col], axis=1).astype(np.int64), entries.data, entries.shape)


def checked_counts(rows: tf.SparseTensor, name: str) -> tf.SparseTensor:
    """The same rows, behind the checks that a likelihood needs."""
    row = rows.indices[:, 0]
    checks = [
        check_within(rows.values, 0.0, FLOAT_MAX, f"`{name}` must be counts: finite and at least 0."),
        tf.debugging.Assert(
            tf.reduce_all(row[1:] >= row[:-1]),
            [f"`{name}` must have its entries in order of row. Give tf.sparse.reorder of it."],
        ),
    ]
    with tf.control_dependencies(checks):
        return rows.with_values(tf.identity(rows.values))
