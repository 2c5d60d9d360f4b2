"""Carrying over a NeuMF whose tables are not all dense; see `tfrec.models.Recommends.carry_over`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.models.carry import numbers_in_old, other_class, other_form


def check_trains(new: Any, old: Any, users: Any, items: Any) -> None:
    """Raise InputError for a tensor train whose rows are not those of ``old``, in the same order."""
    sides = (("user", users, new.num_users, old.num_users), ("item", items, new.num_items, old.num_items))
    for side, given, count, old_count in sides:
        kinds = new.embedding_kinds[side], old.embedding_kinds[side]
        same_rows = count == old_count and np.array_equal(given, np.arange(count))
        if "tt" in kinds and not (kinds == ("tt", "tt") and same_rows):
            raise InputError(
                f"A tensor train has no rows that could be carried over one by one: the {side} tables must be "
                f"dense in both models, or tensor trains of the same {side}s in the same order.\n"
                f"Received: {kinds[0]!r} with {count} {side}s here, {kinds[1]!r} with {old_count} in `old`.\n"
                "Make this model with dense tables, carry over from old.with_dense_embeddings(), and compress "
                "it with with_tt_embeddings after training."
            )


def carry_to_parts(new: Any, old: Any, users: Any, items: Any) -> None:
    """`Recommends.carry_over` for a model with sharded tables: each rank reads the rows of ``old`` that it holds.

    Raises:
        InputError: as there; or sharded tables in ``old``, which are whole in no process.
    """
    if type(old) is not type(new):
        raise other_class(new, old)
    numbers = {
        "user": numbers_in_old(users, "users", new.num_users, old.num_users),
        "item": numbers_in_old(items, "items", new.num_items, old.num_items),
    }
    if "sharded" in old.embedding_kinds.values():
        raise InputError(
            f"`old` must have whole tables.\nReceived: {old.embedding_kinds}.\n"
            "Use old.with_dense_embeddings(), on every rank; a finished run's model has dense tables already."
        )
    tables = {side: getattr(new, f"{side}_embedding") for side in numbers}
    of_tables = {id(v) for side, table in tables.items() for v in _variables(table)}
    sources = {v.name: v for v in old.weights}
    plain = [v for v in new.weights if id(v) not in of_tables]
    for weight in plain:
        source = sources.get(weight.name)
        if source is None or source.shape != weight.shape:
            found = None if source is None else tuple(source.shape)
            raise other_form(tuple(weight.shape), found, f"a {weight.name} of shape")
    olds = {side: getattr(old, f"{side}_embedding") for side in numbers}
    for side, table in tables.items():
        width = _variables(table)[0].shape[1]
        if new.embedding_kinds[side] != "tt" and olds[side].shape[1] != width:
            raise other_form(width, olds[side].shape[1], f"a {side} table of width")
    for weight in plain:
        weight.assign(sources[weight.name])
    for side, table in tables.items():
        if new.embedding_kinds[side] == "tt":
            for core, source in zip(table.cores, olds[side].cores, strict=True):
                core.assign(source)
        elif new.embedding_kinds[side] == "dense":
            table.assign(_rows(np.arange(len(numbers[side])), numbers[side], table, olds[side], 1))
        else:
            table.assign_rows(
                lambda ids, side=side, table=table: _rows(
                    ids, numbers[side], table.embeddings, olds[side], table.shard.size
                )
            )


def _variables(table: Any) -> list[Any]:
    """The variables of a table, which is one or a layer."""
    return table.weights if hasattr(table, "weights") else [table]


def _rows(ids: np.ndarray, numbers: np.ndarray, new: Any, old: Any, size: int) -> np.ndarray:
    """The rows ``ids`` of a table: those of ``old``, where it has them, else as they are."""
    found = tf.gather(new.value, ids // size).numpy()
    known = numbers[ids] >= 0
    found[known] = tf.gather(old.value, numbers[ids[known]]).numpy()
    return found
