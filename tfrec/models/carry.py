"""A model's weights from those of an earlier one, in which users and items may have had other numbers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tfrec.errors import InputError
from tfrec.models.questions import row_numbers

Side = Literal["user", "item"]


def carry_weights(new: Any, old: Any, users: Any, items: Any) -> None:
    """What `Recommends.carry_over` does.

    Raises:
        InputError: a model of another class or form, or numbers that it does not have. Nothing has changed then.
    """
    if type(old) is not type(new):
        raise other_class(new, old)
    numbers = {"item": numbers_in_old(items, "items", new.num_items, old.num_items)}
    if new.num_users is not None:
        numbers["user"] = numbers_in_old(users, "users", new.num_users, old.num_users)
    axes = {id(weight): (side, axis) for weight, side, axis in new.row_axes()}
    if len(new.weights) != len(old.weights):
        raise other_form(len(new.weights), len(old.weights), "weights")
    values = []
    for weight, source in zip(new.weights, old.weights, strict=True):
        side, axis = axes.get(id(weight), ("item", None))
        expected, found = list(weight.shape), list(source.shape)
        if axis is not None and len(expected) == len(found):
            # The axis may be longer or shorter; how long it is was checked with the numbers.
            expected[axis] = found[axis] = -1
        if expected != found:
            raise other_form(tuple(weight.shape), tuple(source.shape), f"a {weight.name} of shape")
        value = source.numpy()
        values.append(value if axis is None else _rows(weight.numpy(), value, numbers[side], axis))
    for weight, value in zip(new.weights, values, strict=True):
        weight.assign(value)


def numbers_in_old(given: Any, name: str, count: int, old_count: int | None) -> np.ndarray:
    """int64 ``[count]``, each -1 or a number below ``old_count``.

    Raises:
        InputError: something else.
    """
    array = np.asarray(given)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise InputError(
            f"`{name}` must be {count} whole numbers: for each of this model's {name} its number in `old`, or -1.\n"
            f"Received: {array.dtype} of shape {array.shape}."
        )
    array = array.astype(np.int64)
    if (array < -1).any():
        raise InputError(f"`{name}` must be -1 for what is new, else at least 0.\nReceived: {array.min()}.")
    row_numbers(array[array >= 0], name, old_count)
    return array


def _rows(new: np.ndarray, old: np.ndarray, numbers: np.ndarray, axis: int) -> np.ndarray:
    known = np.flatnonzero(numbers >= 0)
    value = np.moveaxis(new.copy(), axis, 0)
    value[known] = np.moveaxis(old, axis, 0)[numbers[known]]
    return np.moveaxis(value, 0, axis)


def other_class(new: Any, old: Any) -> InputError:
    """The error of an ``old`` of another class."""
    return InputError(
        f"`old` must be a {type(new).__name__}, as this model.\nReceived: {type(old).__name__}.\n"
        "Load the model of an earlier run of the same kind."
    )


def other_form(expected: Any, found: Any, what: str) -> InputError:
    """The error of an ``old`` of the same class and another form."""
    return InputError(
        f"`old` must have the form of this model; expected {what} {expected}.\nReceived: {found}.\n"
        "Make the new model with the options of the old one; only the numbers of users and items may differ."
    )
