"""Pairs of users and items: how they are given, computed some at a time, and served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfrec.errors import InputError
from tfrec.models.base import Model


def in_chunks(
    num_users: tf.Tensor, step: tf.Tensor, width: tf.Tensor, chunk: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Scores ``[num_users, width]`` from ``chunk(first, last)`` of ``step`` users at a time."""
    count = (num_users + step - 1) // step
    parts = tf.TensorArray(tf.float32, count, infer_shape=False, element_shape=tf.TensorShape([None, None]))
    _, parts = tf.while_loop(
        lambda i, _: i < count,
        lambda i, parts: (i + 1, parts.write(i, chunk(i * step, tf.minimum((i + 1) * step, num_users)))),
        (tf.constant(0), parts),
        parallel_iterations=1,
    )
    return tf.cond(count > 0, parts.concat, lambda: tf.zeros([0, width]))


def pairs(inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Users ``[B]`` and items ``[B, C]`` from what Keras hands on."""
    users, items = (inputs["user"], inputs["item"]) if isinstance(inputs, dict) else inputs
    users, items = tf.convert_to_tensor(users), tf.convert_to_tensor(items)
    for name, ids in (("users", users), ("items", items)):
        if not ids.dtype.is_integer:
            raise InputError(f"NeuMF expects whole numbers as {name}.\nReceived: {ids.dtype.name}.")
    if users.shape.rank is None or (users.shape.rank == 2 and users.shape[1] == 1):
        users = tf.reshape(users, [-1])
    items = columns(items)
    same = users.shape.rank == 1 and items.shape.rank == 2 and users.shape.is_compatible_with(items.shape[:1])
    if not same:
        raise InputError(
            f"NeuMF expects users [B] and items [B] or [B, C].\nReceived: users {users.shape}, items {items.shape}."
        )
    return users, items


def columns(x: tf.Tensor) -> tf.Tensor:
    """``[B]`` as ``[B, 1]``; also where the rank is not known, as in a trace that has served both."""
    if x.shape.rank == 1:
        return x[:, None]
    if x.shape.rank is None:
        return tf.ensure_shape(tf.reshape(x, tf.concat([tf.shape(x), [1]], axis=0)[:2]), [None, None])
    return x


def serve_pairs(model: Model) -> tuple[Callable[[Any], tf.Tensor], list[Any]]:
    """What an export of a model of users and items answers: every form of input that the model takes, the signature
    being that of ``user`` int64 ``[B]`` and ``item`` int64 ``[B, C]``."""

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, None], tf.int64)], autograph=False
    )
    def score(users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return model((users, items), training=False)

    def serve(inputs: Any) -> tf.Tensor:
        users, items = pairs(inputs)
        found = score(tf.cast(users, tf.int64), tf.cast(items, tf.int64))
        return tf.ensure_shape(found, [None, items.shape[1]])

    specs: list[Any] = []
    for shape in ([None, None], [None]):
        for dtype in (tf.int64, tf.int32):
            user, item = tf.TensorSpec([None], dtype, name="user"), tf.TensorSpec(shape, dtype, name="item")
            specs += [{"user": user, "item": item}, (user, item)]
    return serve, specs
