"""What any Keras optimizer does otherwise when a variable holds one rank's rows of a table (`shard_of`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec.distributed import ranks
from tfrec.distributed.sharding import mark, shard_of
from tfrec.optimizers.distinct_rows import with_distinct_rows


class ShardSteps:
    """In front of an optimizer class: slots lie where their rows lie, and norms are those of the whole table.

    The dense gradients are the same on all ranks by now; those of a shard are the rank's own.
    """

    #: Whether each of the gradients of the update under way belongs to a shard.
    _of_shards: tuple[bool, ...] = ()

    def add_variable_from_reference(self, reference_variable: Any, *args: Any, **kwargs: Any) -> Any:
        """As Keras; a slot of a shard is marked as one."""
        slot = super().add_variable_from_reference(reference_variable, *args, **kwargs)  # type: ignore[misc]
        shard = shard_of(reference_variable)
        if shard is not None:
            mark(slot, shard)
        return slot

    def _backend_apply_gradients(self, grads: Sequence[Any], trainable_variables: Sequence[Any]) -> None:
        self._of_shards = tuple(shard_of(v) is not None for v in trainable_variables)
        # Keras squares the occurrences of a row one by one; the exchange has added them up, where there was one.
        grads = [
            with_distinct_rows(g) if of_shard and isinstance(g, tf.IndexedSlices) and ranks.size() == 1 else g
            for g, of_shard in zip(grads, self._of_shards, strict=True)
        ]
        super()._backend_apply_gradients(grads, trainable_variables)  # type: ignore[misc]

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        own, together = self.clipnorm, self.global_clipnorm  # type: ignore[attr-defined]
        if not any(self._of_shards) or not (own or together):
            return super()._clip_gradients(grads)  # type: ignore[misc]
        # Of slices the values alone: Keras's way would make a gradient of the size of the table.
        squares = [tf.reduce_sum(tf.square(tf.cast(_values(g), tf.float32))) for g in grads]
        places = [i for i, of_shard in enumerate(self._of_shards) if of_shard]
        for i, whole in zip(places, tf.unstack(_sum(tf.stack([squares[i] for i in places]), "squares")), strict=True):
            squares[i] = whole
        norms = [tf.sqrt(s) for s in squares] if own else [tf.sqrt(tf.add_n(squares))] * len(grads)
        limit = own or together
        # NaN where the norm is infinite, as in Keras.
        scales = [limit / tf.maximum(norm, limit) + (norm - norm) for norm in norms]
        return [_scaled(g, scale) for g, scale in zip(grads, scales, strict=True)]


def all_finite(grads: Sequence[Any], variables: Sequence[Any]) -> tf.Tensor:
    """Whether all gradients are finite, on all ranks where some are of shards; the same on each."""
    wrong = [tf.logical_not(tf.reduce_all(tf.math.is_finite(_values(g)))) for g in grads if g is not None]
    found = tf.reduce_sum(tf.cast(tf.stack(wrong), tf.float32))
    if any(shard_of(v) is not None for v in variables):
        found = _sum(found, "finite")
    return tf.equal(found, 0.0)


def _sum(values: tf.Tensor, name: str) -> tf.Tensor:
    hvd = ranks.horovod()
    return values if hvd is None else hvd.allreduce(values, op=hvd.Sum, name=f"tfrec.{name}")


def _values(gradient: Any) -> tf.Tensor:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _scaled(gradient: Any, scale: tf.Tensor) -> Any:
    scaled = _values(gradient) * tf.cast(scale, gradient.dtype)
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(scaled, gradient.indices, gradient.dense_shape)
    return scaled
