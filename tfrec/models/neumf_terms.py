"""What a pair needs of its user and of its item, computed once for each: taken by pairs, and summed from them."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

#: ("user" or "item", "gmf" or "hidden") -> a row per user or item.
Terms: TypeAlias = dict[tuple[str, str], Any]


class RowSums:
    """Gradients of terms, summed over the chunks that use them. Not a Keras or TensorFlow object, so never saved.

    Variables, since only they are added to in place: adding to rows of a tensor copies all of it, or takes three times
    as long.
    """

    def __init__(self, widths: dict[tuple[str, str], int]) -> None:
        self._sums = {n: tf.Variable(tf.zeros([0, w]), shape=[None, w], trainable=False) for n, w in widths.items()}

    def reset(self, like: Terms) -> None:
        """Zeros in the shapes of ``like``."""
        for name, total in self._sums.items():
            total.assign(tf.zeros(tf.shape(like[name])))

    def add(self, gradients: Terms, user_index: tf.Tensor, item_index: tf.Tensor) -> None:
        """Add gradients to the rows that the indices name."""
        for name, total in self._sums.items():
            index = tf.reshape(user_index if name[0] == "user" else item_index, [-1])
            flat = tf.cast(tf.reshape(gradients[name], [-1, total.shape[1]]), tf.float32)
            total.scatter_add(tf.IndexedSlices(flat, index))

    def read(self) -> Terms:
        """The sums, float32."""
        return {name: total.read_value() for name, total in self._sums.items()}


def take(terms: Terms, user_index: tf.Tensor, item_index: tf.Tensor | None) -> Terms:
    """The rows of users ``[p, D]`` and items ``[p, C, D]``; all items, ``[1, I, D]``, without an index."""
    indices = {"user": user_index, "item": item_index}
    return {
        name: term[None] if indices[name[0]] is None else tf.gather(term, indices[name[0]])
        for name, term in terms.items()
    }


def occurrences(index: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """How often each of ``0 ... count - 1`` occurs in ``index``, float32."""
    flat = tf.reshape(index, [-1])
    return tf.math.unsorted_segment_sum(tf.ones_like(flat, tf.float32), flat, count)
