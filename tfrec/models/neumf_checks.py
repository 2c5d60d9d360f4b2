"""What `tfrec.models.NeuMF` may be made with and trained on, checked before work starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.models.base import FLOAT_MAX, bind, check_within
from tfrec.models.pairs import columns

#: Least and greatest of what goes into the cross entropy.
_LIMITS = {"labels": (0.0, 1.0), "sample_weight": (0.0, FLOAT_MAX)}
_MUST = {
    "labels": "lie in [0, 1]: 1 for an item that was taken, 0 for one that was not",
    "sample_weight": "be finite and at least 0",
}


def checked(method: Any, model: Any, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of one of Keras's methods, with NumPy numbers checked before work starts."""
    given = bind(method, model, args, kwargs)
    validation = given.get("validation_data")
    parts = keras.utils.unpack_x_y_sample_weight(validation) if isinstance(validation, tuple | list) else (None,) * 3
    for name, values, what in (
        ("y", given.get("y"), "labels"),
        ("sample_weight", given.get("sample_weight"), "sample_weight"),
        ("validation_data[1]", parts[1], "labels"),
        ("validation_data[2]", parts[2], "sample_weight"),
    ):
        if values is None:
            continue
        low, high = _LIMITS[what]
        numbers = np.asarray(values)
        wrong = ~((numbers >= low) & (numbers <= high))  # NaN compares as neither
        if wrong.any():
            raise InputError(
                f"`{name}` must {_MUST[what]}.\nReceived: {numbers[wrong][0]}; {int(wrong.sum())} such numbers."
            )
    y = given.get("y")
    if given.get("class_weight") is not None and (y is None or np.prod(np.shape(y)[1:]) != 1):
        raise InputError(
            "`class_weight` goes with one item and one label to a row, given as arrays.\n"
            f"Received: y of shape {None if y is None else np.shape(y)}.\n"
            "Give `sample_weight`, in the shape of the items."
        )
    return given


def like(items: tf.Tensor, values: Any, name: str) -> tf.Tensor:
    """Labels or weights, one per pair or one per user, as float32 ``[B, C]``."""
    if values is None:
        raise InputError(f"NeuMF needs `{name}` besides users and items.\nReceived: none.")
    values = columns(tf.cast(values, tf.float32))
    if values.shape.rank != 2 or any(
        v not in (1, i) for v, i in zip(values.shape, items.shape, strict=True) if v is not None and i is not None
    ):
        raise InputError(f"`{name}` must have the shape of items, {items.shape}.\nReceived: {values.shape}.")
    check = check_within(values, *_LIMITS[name], f"`{name}` must {_MUST[name]}.")
    values = tf.broadcast_to(values, tf.shape(items))
    with tf.control_dependencies([check]):
        return tf.identity(values)


def check_arguments(
    num_users: int,
    num_items: int,
    mf_dim: int,
    layer_dims: Sequence[int],
    dropout: float,
    embedding_l2: float,
    mlp_embedding_l2: float | None,
    gmf_weights: str,
    branch: str,
    split_final: bool,
    chunk_pairs: int | None,
) -> None:
    """Raise InputError for an argument of `tfrec.models.NeuMF` that is out of range."""
    if gmf_weights not in ("learned", "ones"):
        raise InputError(f"`gmf_weights` must be 'learned' or 'ones'.\nReceived: {gmf_weights!r}.")
    if branch not in ("neumf", "gmf", "mlp"):
        raise InputError(f"`branch` must be 'neumf', 'gmf' or 'mlp'.\nReceived: {branch!r}.")
    wholes = [("num_users", num_users), ("num_items", num_items)]
    wholes += [("mf_dim", mf_dim)] if branch != "mlp" else []
    wholes += [(f"layer_dims[{i}]", d) for i, d in enumerate(layer_dims)] if branch != "gmf" else []
    wholes += [("chunk_pairs", chunk_pairs)] if chunk_pairs is not None else []
    for name, value in wholes:
        if value < 1:
            raise InputError(f"`{name}` must be at least 1.\nReceived: {name}={value}.")
    if branch != "gmf" and (len(layer_dims) < 2 or layer_dims[0] % 2):
        raise InputError(
            "`layer_dims` needs at least two widths, the first even: half of it for the user and half for the item.\n"
            f"Received: {tuple(layer_dims)}."
        )
    if not 0 <= dropout < 1 - 1 / 512:
        raise InputError(f"`dropout` must lie in [0, 1).\nReceived: dropout={dropout}.")
    for name, strength in (("embedding_l2", embedding_l2), ("mlp_embedding_l2", mlp_embedding_l2)):
        if strength is not None and not 0 <= strength < float("inf"):
            raise InputError(f"`{name}` must be at least 0, and finite.\nReceived: {strength}.")
    if split_final and branch != "neumf":
        raise InputError(f"Only NeuMF's output layer has two branches to split.\nReceived: branch={branch!r}.")
