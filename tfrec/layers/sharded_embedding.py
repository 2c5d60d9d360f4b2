"""An embedding table whose rows lie on all ranks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec.distributed import ranks
from tfrec.distributed.row_exchange import check_ids, fetch_rows, unique_name
from tfrec.distributed.sharding import Shard, gather_rows, mark
from tfrec.errors import InputError
from tfrec.layers.row_values import CHUNK, RowValues

#: A smaller table stays whole on every rank: 4 MiB in float32, 12 MiB with Adam's slots.
REPLICATE_BELOW = 1 << 20
#: Tells a process's tables apart; ranks make the same tables in the same order.
_numbers = itertools.count()


@keras.saving.register_keras_serializable(package="tfrec")
class ShardedEmbedding(keras.layers.Layer):
    """A table of N rows of D numbers, of which each of R ranks holds N / R rows, with their optimizer state.

    In the place of `keras.layers.Embedding`: the same arguments, input and output. Row n lies on rank ``n % R``. A
    lookup fetches the rows that a rank's batch needs, each once, from the ranks that hold them; gradients go back the
    same way in `tfrec.distributed.DistributedOptimizer`, which the model must be trained with on several ranks. There a
    row's gradient is that of the union of all ranks' batches, as every other weight's is. On one process it is an
    ordinary table, as it is with fewer numbers than ``replicate_below``.

    Every rank calls the layer equally often, in training, validation and prediction, if need be with an empty batch.
    Ranks make the same layers in the same order. XLA cannot compile the exchange, so Keras leaves it out
    (``jit_compile``).

    Rows start as a function of (seed, row), so R ranks begin with the numbers of one where the seed is the same: give
    the initializer one, or call `keras.utils.set_random_seed` with one number on all ranks.

    With `tfrec.optimizers.Adam(lazy=True)`, or Keras's SGD without momentum, a step touches the rows of the batch only.
    Other optimizers read and write all rows of a rank in each step, and need as much memory again while they do.

    A bag (rows of a sample summed) needs no layer of its own: `keras.layers.GlobalAveragePooling1D` with ``mask_zero``,
    or a sum after the lookup. Summing at the owners would save traffic only if most rows of a sample had one owner,
    while a row that many samples share would travel once for each of them.

    Args:
        input_dim: N, from 1.
        output_dim: D, from 1.
        embeddings_initializer: see `tfrec.layers.row_values.RowValues`.
        mask_zero: id 0 is padding, which a mask tells the layers that follow.
        replicate_below: with fewer than so many numbers (N D) every rank holds the whole table.
        **kwargs: of `keras.layers.Layer`. ``embeddings_regularizer`` and ``embeddings_constraint`` are refused: they
            need the whole table in each step.

    Input shape: int ``[...]``, ids in ``[0, N)``, or a `tf.RaggedTensor`. Whole numbers of a float type are accepted.
    Output shape: ``[..., D]`` in the compute dtype, which is also what travels. An id out of range raises.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> layer = ShardedEmbedding(1_000, 16)
        >>> layer(tf.constant([[0, 999]])).shape
        TensorShape([1, 2, 16])
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        replicate_below: int = REPLICATE_BELOW,
        **kwargs: Any,
    ) -> None:
        for name, value in (("input_dim", input_dim), ("output_dim", output_dim)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise InputError(f"`{name}` must be a whole number from 1.\nReceived: {name}={value!r}.")
        if replicate_below < 0:
            raise InputError(f"`replicate_below` must be at least 0.\nReceived: {replicate_below}.")
        for name, value in (
            ("embeddings_regularizer", embeddings_regularizer),
            ("embeddings_constraint", embeddings_constraint),
        ):
            if value is not None:
                raise InputError(
                    f"`{name}` must be None: it would read the whole table in each step.\nReceived: {value!r}.\n"
                    "Use `activity_regularizer`, which sees the rows of the batch."
                )
        super().__init__(**kwargs)
        self.input_dim, self.output_dim = int(input_dim), int(output_dim)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.mask_zero, self.replicate_below = mask_zero, replicate_below
        self._values = RowValues(self.embeddings_initializer, self.input_dim, self.output_dim)
        self.supports_masking = mask_zero
        # Keras would cast ids of a float type to the compute dtype, and float16 holds no odd number above 2,048.
        self.autocast = False
        self.supports_jit = False
        #: This rank's part of the table; None where every rank holds all of it.
        self.shard: Shard | None = None
        #: The name of this table's exchanges, the same on all ranks.
        self.exchange_name = f"table.{next(_numbers)}"
        #: Gives what the exchanges of a step wait for; set by `tfrec.distributed.distribute`.
        self.begun: Callable[[], tf.Tensor | None] | None = None
        self._eager_fetch: dict[tf.DType, Any] = {}

    def build(self, input_shape: Any = None) -> None:
        """Create this rank's rows."""
        if hasattr(self, "_embeddings"):
            return
        whole = self.input_dim * self.output_dim < self.replicate_below
        shard = Shard(self.input_dim, 0, 1) if whole else Shard.mine(self.input_dim)
        self._embeddings = self.add_weight(
            name="embeddings",
            shape=(shard.local_rows, self.output_dim),
            initializer="zeros",
            autocast=False,  # rows are cast after they are fetched, not the table before
        )
        if not whole:
            self.shard = shard
            mark(self._embeddings, shard)
        with tf.init_scope():
            for places, ids in self._chunks(shard):
                self._put(places, self._values(ids))
        self.built = True

    @property
    def embeddings(self) -> keras.Variable:
        """This rank's rows, ``[local_rows, D]``."""
        return self._embeddings

    def call(self, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
        """Rows of the table."""
        if isinstance(ids, tf.RaggedTensor):
            return ids.with_flat_values(self.call(ids.flat_values))
        ids = tf.convert_to_tensor(ids)
        different, place = tf.unique(tf.reshape(tf.cast(ids, tf.int64), [-1]), out_idx=tf.int64)
        rows = tf.gather(self.rows(different, self.compute_dtype), place)
        return tf.reshape(rows, tf.concat([tf.shape(ids), [self.output_dim]], axis=0))

    def rows(self, ids: tf.Tensor, dtype: str | None = None) -> tf.Tensor:
        """Rows by their ids, each of which occurs once. Every rank must call it.

        Their gradient is a `tf.IndexedSlices` whose indices are ids of the whole table, for
        `tfrec.distributed.DistributedOptimizer`.

        Args:
            ids: int64 ``[n]``, in ``[0, N)``, each once.
            dtype: of the result, and of what travels; default: as the table's.

        Returns:
            ``[n, D]``.
        """
        self.build()
        table, kind = self._embeddings.value, tf.as_dtype(dtype or self.variable_dtype)
        if self.shard is None or self.shard.size == 1:
            with tf.control_dependencies([check_ids(ids, self.input_dim)]):
                return tf.cast(tf.gather(table, ids), kind)
        shape = tf.constant([self.input_dim, self.output_dim], tf.int64)

        @tf.custom_gradient
        def fetched(ids: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
            def backward(upstream: tf.Tensor, variables: Any = None) -> tuple[None, list[tf.IndexedSlices]]:
                return None, [tf.IndexedSlices(tf.cast(upstream, table.dtype), ids, shape)]

            return self._fetch(ids, kind), backward

        return tf.ensure_shape(fetched(ids), [None, self.output_dim])

    def _fetch(self, ids: tf.Tensor, kind: tf.DType) -> tf.Tensor:
        """Rows from all ranks."""
        shard, table = self.shard, self._embeddings.value
        assert shard is not None
        if not tf.executing_eagerly():
            begun = None if self.begun is None else self.begun()
            return fetch_rows(table, ids, shard, kind, unique_name(self.exchange_name), begun)
        ranks.meet_at(f"looking up rows of {self.name}")
        if kind not in self._eager_fetch:
            # A function, since operations outside of graphs have no names.
            self._eager_fetch[kind] = tf.function(
                lambda ids: fetch_rows(table, ids, shard, kind, self.exchange_name),
                input_signature=[tf.TensorSpec([None], tf.int64)],
                autograph=False,
            )
        with ranks.watched():
            return self._eager_fetch[kind](ids)

    def compute_mask(self, ids: Any, mask: Any = None) -> Any:
        """As `keras.layers.Embedding`: False where the id is 0."""
        if not self.mask_zero:
            return None
        if isinstance(ids, tf.RaggedTensor):
            return ids.with_flat_values(tf.not_equal(ids.flat_values, 0))
        return keras.ops.not_equal(ids, 0)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """``[..., D]``."""
        return (*input_shape, self.output_dim)

    def compute_output_spec(self, ids: Any, training: bool | None = None) -> keras.KerasTensor:
        """As `keras.layers.Embedding`: ragged for ragged ids."""
        shape = self.compute_output_shape(ids.shape)
        return keras.KerasTensor(shape, dtype=self.compute_dtype, ragged=getattr(ids, "ragged", False))

    # ---- the table

    def assign_rows(self, read: Callable[[np.ndarray], np.ndarray]) -> None:
        """Give this rank's rows other values, some at a time. Not a collective.

        Args:
            read: gives rows ``[n, D]`` of the whole table by their ids, int64 ``[n]``, ascending.
        """
        self.build()
        for places, ids in self._chunks(self.shard or Shard(self.input_dim, 0, 1)):
            self._put(places, read(ids))

    def read_rows(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The whole table, some rows at a time, see `tfrec.distributed.gather_rows`. Every rank must call it, and go
        through all of it.

        Yields:
            ids, int64 ``[n]``, ascending; and their rows, ``[n, D]``. Without a row on all ranks but 0.
        """
        self.build()
        return gather_rows(self._embeddings)

    def _chunks(self, shard: Shard) -> Iterator[tuple[slice, np.ndarray]]:
        """Places in a part, and the table's rows there."""
        step = max(1, CHUNK // self.output_dim)
        for first in range(0, shard.local_rows, step):
            places = np.arange(first, min(first + step, shard.local_rows), dtype=np.int64)
            yield slice(first, int(places[-1]) + 1), places * shard.size + shard.rank

    def _put(self, places: slice, values: np.ndarray) -> None:
        # In place: an assignment to a slice would make a second copy of the table.
        table = self._embeddings.value
        rows = tf.range(places.start, places.stop, dtype=tf.int64)
        table.scatter_update(tf.IndexedSlices(tf.cast(values, table.dtype), rows))

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Keras saves the whole table.

        Raises:
            InputError: this process holds a part of it.
        """
        if self.shard is not None and self.shard.size > 1:
            raise InputError(
                f"`{self.name}` must be whole to be saved with Keras, and this process holds {self.shard.local_rows} "
                f"of its {self.input_dim} rows.\nReceived: {self.shard.size} ranks.\n"
                "Save the rows of each rank (layer.embeddings), and load them with `assign_rows`."
            )
        super().save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Read this rank's rows of a table that was saved whole, some at a time."""
        saved = store["0"]
        if tuple(saved.shape) != (self.input_dim, self.output_dim):
            raise InputError(
                f"The saved table must have the shape ({self.input_dim}, {self.output_dim}).\n"
                f"Received: {tuple(saved.shape)}.\nMake the layer with the saved one's input_dim and output_dim."
            )
        self.assign_rows(lambda ids: saved[ids[0] : ids[-1] + 1 : ids[1] - ids[0] if len(ids) > 1 else 1])

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "mask_zero": self.mask_zero,
            "replicate_below": self.replicate_below,
        }
