"""A tensor-train table whose most frequent rows are kept dense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec import ops
from tfrec.errors import InputError
from tfrec.layers.tt_embedding import TTEmbedding

#: In the place of an id in an empty slot; no id is as large.
_EMPTY = np.iinfo(np.int64).max


@keras.saving.register_keras_serializable(package="tfrec")
class CachedTTEmbedding(TTEmbedding):
    """A `TTEmbedding` that keeps C rows dense: those that training asked for most often.

    A lookup finds an id among the C by binary search; a hit is a row of a dense table, a miss is computed from the
    cores. The dense rows train as weights of their own. `cache_populate` chooses the rows again, as `CacheRefresh` does
    during ``fit``; rows that stay keep what they have learned.

    Which rows: the C highest counts (the least frequently used leave), equal ones by lower id. A lookup in training
    adds 1 to the count of each of its ids; each `cache_populate` multiplies all counts by ``cache_decay``.

    Write-back: what a row has learned is not lost when it leaves. A row is linear in the last core: with L_n the
    product of the other cores for id n, the slices of the last core become

        argmin over X of  sum over leaving n of |L_n X[i_T(n)] - row_n|^2  +  lambda |X - G_T|^2,

    lambda = 1e-3 times the mean of the diagonal of the slice's normal matrix. Other rows of that slice move with it.

    On several ranks all have one cache: what each has counted since they last agreed is added up, before each
    `cache_populate` and at the end of each epoch, and rank 0's choice and write-back go to all. Every rank must call
    `cache_populate` and `cache_flush` then. `tfrec.distributed.distribute` sets this up.

    An optimizer with moments (Adam) keeps those of a slot when its row changes; they fade at the optimizer's own rate.

    Args:
        *args: as in `TTEmbedding`.
        cache_size: C, 1 to N.
        cache_decay: in ``[0, 1]``.
        **kwargs: as in `TTEmbedding`; one table, no ``fused_optimizer``.

    Memory: C D + N float32 numbers besides the cores: the rows, and a count for each id.
    """

    def __init__(self, *args: Any, cache_size: int, cache_decay: float = 0.9, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not 1 <= cache_size <= self.num_embeddings:
            raise InputError(
                f"`cache_size` must lie in 1 to `num_embeddings`, {self.num_embeddings}: more would be a dense table.\n"
                f"Received: cache_size={cache_size}."
            )
        if not 0 <= cache_decay <= 1:
            raise InputError(f"`cache_decay` must lie in [0, 1].\nReceived: cache_decay={cache_decay}.")
        if self.num_tables != 1 or self.fused_optimizer is not None:
            raise InputError(
                "A cache is of one table, whose rows the model's optimizer updates.\nLeave out `num_tables` and "
                "`fused_optimizer`."
            )
        self.cache_size, self.cache_decay = cache_size, cache_decay
        # Its lookup has outputs of sizes that depend on the ids.
        self.supports_jit = False
        self._sum: Callable[[np.ndarray], np.ndarray] | None = None
        self._broadcast: Callable[[np.ndarray], np.ndarray] | None = None
        #: The counters as all ranks last knew them.
        self._agreed: tuple[np.ndarray, ...] | None = None

    def build(self, input_shape: Any = None) -> None:
        """Create the cores, and an empty cache."""
        super().build(input_shape)
        if hasattr(self, "cache_rows"):
            return
        options: dict[str, Any] = {"trainable": False, "autocast": False}
        self.cache_rows = self.add_weight(
            name="cache_rows", shape=(self.cache_size, self.embedding_dim), initializer="zeros", autocast=False
        )
        empty = keras.initializers.Constant(_EMPTY)
        # Ascending, so that a lookup is a binary search.
        self.cache_ids = self.add_weight(
            name="cache_ids", shape=(self.cache_size,), dtype="int64", initializer=empty, **options
        )
        self.counts = self.add_weight(
            name="counts", shape=(self.num_embeddings,), dtype="float32", initializer="zeros", **options
        )
        #: Lookups in training since the last `cache_populate`: of all ids, and of cached ones.
        self.lookups, self.hits = (
            self.add_weight(name=name, shape=(), dtype="int64", initializer="zeros", **options)
            for name in ("lookups", "hits")
        )

    def call(self, ids: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Rows of the table; in training they are counted."""
        if isinstance(ids, tf.RaggedTensor):
            return ids.with_flat_values(self._rows(ids.flat_values, training))
        return self._rows(self._dense(ids), training)

    def _rows(self, ids: tf.Tensor, training: bool | None) -> tf.Tensor:
        ids = tf.cast(ids, tf.int64)
        flat = tf.reshape(ids, [-1])
        cached = tf.convert_to_tensor(self.cache_ids)
        slot = tf.minimum(tf.searchsorted(cached, flat), self.cache_size - 1)
        # An empty slot matches no id, not even one as large as its mark.
        hit = tf.equal(tf.gather(cached, slot), flat) & (flat < self.num_embeddings)
        hits, misses = tf.where(hit)[:, 0], tf.where(~hit)[:, 0]
        dense = tf.gather(self.cache_rows.value, tf.gather(slot, hits))
        computed = self._lookup(tf.gather(flat, misses))
        places = [tf.cast(x, tf.int32) for x in (hits, misses)]
        rows = tf.dynamic_stitch(places, [tf.cast(dense, self.compute_dtype), computed])
        if training:
            # Behind the lookup, which has found that the ids are in range.
            with tf.control_dependencies([computed]):
                self.counts.value.scatter_add(tf.IndexedSlices(tf.ones_like(flat, tf.float32), flat))
                self.lookups.value.assign_add(tf.size(flat, tf.int64))
                self.hits.value.assign_add(tf.size(hits, tf.int64))
        found = tf.reshape(rows, tf.concat([tf.shape(ids), [self.embedding_dim]], axis=0))
        return tf.ensure_shape(found, [*ids.shape, self.embedding_dim])

    def exchange_with(
        self, sum_over_ranks: Callable[[np.ndarray], np.ndarray], broadcast: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        """Have one cache on several ranks.

        Args:
            sum_over_ranks: an array -> its float64 sum over the ranks, the same on each.
            broadcast: an array -> rank 0's.
        """
        self._sum, self._broadcast = sum_over_ranks, broadcast

    def synchronize(self) -> None:
        """Add up what the ranks have counted since they last agreed. Every rank must call it."""
        if self._sum is None:
            return
        self.build()
        counters = (self.counts, self.lookups, self.hits)
        agreed = self._agreed or tuple(np.zeros(c.shape) for c in counters)
        for counter, start in zip(counters, agreed, strict=True):
            counter.assign((start + self._sum(counter.numpy() - start)).astype(counter.dtype))
        self.agreed()

    def agreed(self) -> None:
        """Say that all ranks have the same counters now."""
        if self._sum is not None and hasattr(self, "counts"):
            self._agreed = tuple(c.numpy().astype(np.float64) for c in (self.counts, self.lookups, self.hits))

    def _from_rank_zero(self) -> None:
        """Rank 0's choice: its arithmetic may differ from another machine's in the last bit."""
        if self._broadcast is None:
            return
        for variable in (self.cores[-1], self.cache_rows, self.cache_ids):
            variable.assign(self._broadcast(variable.numpy()))

    @property
    def hit_rate(self) -> float:
        """Share of the ids that training found in the cache since the last `cache_populate`; NaN before any."""
        lookups = int(self.lookups.numpy())
        return int(self.hits.numpy()) / lookups if lookups else float("nan")

    def cache_populate(self) -> None:
        """Choose the rows by their counts, write back those that leave, and let the counts decay."""
        self.build()
        self.synchronize()
        counts = self.counts.numpy()
        seen = np.flatnonzero(counts > 0)
        if len(seen) > self.cache_size:
            # Above the C-th highest count all; of those at it the lowest ids.
            least = np.partition(counts[seen], -self.cache_size)[-self.cache_size]
            above = seen[counts[seen] > least]
            seen = np.concatenate([above, seen[counts[seen] == least][: self.cache_size - len(above)]])
        self._cache(np.sort(seen))
        self.counts.assign(self.counts * self.cache_decay)
        self.lookups.assign(0)
        self.hits.assign(0)
        self.agreed()

    def cache_flush(self) -> None:
        """Write all rows back and leave the cache empty; the counts stay."""
        self.build()
        self._cache(np.zeros(0, np.int64))

    def _cache(self, chosen: np.ndarray) -> None:
        """Hold the rows of the ids ``chosen``, ascending, each once."""
        old = self.cache_ids.numpy()
        rows = self.cache_rows.numpy()
        stays = np.isin(old, chosen)
        leaves = ~stays & (old != _EMPTY)
        if leaves.any():
            self._write_back(old[leaves], rows[leaves])
        ids = np.full(self.cache_size, _EMPTY)
        ids[: len(chosen)] = chosen
        table = np.zeros_like(rows)
        new = ~np.isin(chosen, old)
        if len(chosen):
            cores = [tf.cast(core.value, tf.float32) for core in self.cores]
            table[: len(chosen)][new] = ops.tt_lookup(tf.constant(chosen[new]), cores, self.shape).numpy()
            table[np.searchsorted(chosen, old[stays])] = rows[stays]
        self.cache_ids.assign(ids)
        self.cache_rows.assign(table)
        self._from_rank_zero()

    def _write_back(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """The rule of the class."""
        p, q, rank = self.shape.row_factors[-1], self.shape.column_factors[-1], self.shape.ranks[-1]
        cores = [core.numpy().astype(np.float64) for core in self.cores]
        normal, right = np.zeros((p, rank, rank)), np.zeros((p, rank, q))
        step = max(1, (1 << 22) // (self.embedding_dim // q * rank))
        for first in range(0, len(ids), step):
            part = slice(first, first + step)
            digits = np.unravel_index(ids[part], self.shape.row_factors)
            product = np.ones((len(ids[part]), 1, 1))
            for core, digit in zip(cores[:-1], digits[:-1], strict=True):
                product = np.einsum("nar,nrqs->naqs", product, core[digit])
                product = product.reshape(len(product), -1, core.shape[3])
            missing = rows[part].reshape(len(product), -1, q) - product @ cores[-1][digits[-1], :, :, 0]
            np.add.at(normal, digits[-1], np.swapaxes(product, 1, 2) @ product)
            np.add.at(right, digits[-1], np.swapaxes(product, 1, 2) @ missing)
        ridge = 1e-3 * np.trace(normal, axis1=1, axis2=2) / rank
        used = ridge > 0
        change = np.linalg.solve(normal[used] + ridge[used, None, None] * np.eye(rank), right[used])
        cores[-1][used, :, :, 0] += change
        self.cores[-1].assign(cores[-1])

    def full_table(self) -> np.ndarray:
        """As it is looked up: with the cached rows in their places."""
        table = super().full_table()
        ids = self.cache_ids.numpy()
        table[ids[ids != _EMPTY]] = self.cache_rows.numpy()[ids != _EMPTY]
        return table

    def row_norms(self) -> np.ndarray:
        """As it is looked up, float32 ``[N]``."""
        norms = super().row_norms()
        ids = self.cache_ids.numpy()
        norms[ids[ids != _EMPTY]] = np.linalg.norm(self.cache_rows.numpy()[ids != _EMPTY], axis=1)
        return norms

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        config = {**super().get_config(), "cache_size": self.cache_size, "cache_decay": self.cache_decay}
        del config["num_tables"], config["fused_optimizer"], config["fused_learning_rate"]
        return config


class CacheRefresh(keras.callbacks.Callback):
    """Chooses the cached rows of a `CachedTTEmbedding` again every so many steps of ``fit``.

    Args:
        layer: whose cache.
        steps: between two `cache_populate`, from 1. With ``steps_per_execution`` it looks after each execution.

    ``hit_rates`` has the hit rate before each.
    """

    def __init__(self, layer: CachedTTEmbedding, steps: int = 1_000) -> None:
        super().__init__()
        if steps < 1:
            raise InputError(f"`steps` must be at least 1.\nReceived: steps={steps}.")
        self.layer, self.steps = layer, steps
        self.hit_rates: list[float] = []
        self._last = 0
        self._step = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count, and refresh."""
        self._step = int(self.model.optimizer.iterations.numpy())
        if self._step - self._last >= self.steps:
            self._last = self._step
            self.hit_rates.append(self.layer.hit_rate)
            self.layer.cache_populate()
