"""Rows of a table that lies on all ranks: fetched from their owners, and gradients sent back to them.

Both are two of Horovod's alltoall: places, then rows. A row that a rank needs several times travels once. The owner
adds up what the ranks sent for one row, in the order of the ranks, so that a sum has the same bits in every run.

Every rank takes part in each exchange, also with nothing to ask for.
"""

from __future__ import annotations

import tensorflow as tf

from tfrec.distributed import ranks
from tfrec.distributed.sharding import Shard
from tfrec.distributed.sparse_sum import sum_in_rank_order

#: Added to what goes over the wire: 0, which TensorFlow does not know. It would compute an operation with a constant
#: input once, while it makes the graph, and the ranks would then wait for each other.
_zero: tf.Variable | None = None


def fetch_rows(
    table: tf.Variable, ids: tf.Tensor, shard: Shard, wire: tf.DType, name: str, begun: tf.Tensor | None = None
) -> tf.Tensor:
    """Rows of a table by their ids. Every process must call it.

    Args:
        table: this rank's part of the table, ``[shard.local_rows, D]``.
        ids: int64 ``[n]``, each once; n is a rank's own, and may be 0.
        shard: which part it is.
        wire: what the rows are cast to before they travel.
        name: of the exchange, the same on all ranks, and of one exchange at a time.
        begun: do not begin before this is computed.

    Returns:
        ``wire [n, D]``.

    Raises:
        tf.errors.InvalidArgumentError: an id outside of the table.
    """
    with tf.control_dependencies([check_ids(ids, shard.rows), *([] if begun is None else [begun])]):
        order, splits, places = _by_owner(ids, shard)
    asked, counts = _alltoall(places, splits, f"{name}.ids")
    found = tf.cast(tf.gather(table, asked), wire)
    rows, _ = _alltoall(found, counts, f"{name}.rows")
    rows = tf.ensure_shape(rows, [None, table.shape[1]])
    return tf.gather(rows, tf.math.invert_permutation(order))


def send_to_owners(gradient: tf.IndexedSlices, shard: Shard, wire: tf.DType, name: str) -> tf.IndexedSlices:
    """The sum over the ranks of a gradient, each row at its owner. Every process must call it.

    Args:
        gradient: its indices are ids of the whole table, each once.
        shard: this rank's part of the table.
        wire: what the values are cast to before they travel; they are added up in their own type.
        name: of the exchange.

    Returns:
        The rows of this rank's part, each once, by their places in it.
    """
    order, splits, places = _by_owner(gradient.indices, shard)
    values = tf.gather(tf.cast(gradient.values, wire), order)
    received, counts = _alltoall(places, splits, f"{name}.ids")
    values, _ = _alltoall(values, splits, f"{name}.rows")
    width = gradient.values.shape[1]
    values = tf.cast(tf.ensure_shape(values, [None, width]), gradient.values.dtype)
    with tf.device("CPU:0"):
        counts = tf.cast(counts, tf.int64)
    rows, total = sum_in_rank_order(tf.cast(received, tf.int64), values, counts, shard.size)
    return tf.IndexedSlices(total, rows, tf.constant([shard.local_rows, width], tf.int64))


def check_ids(ids: tf.Tensor, rows: int) -> tf.Operation | None:
    """An error, in a graph too, unless all ``ids`` lie in ``[0, rows)``."""
    wrong = tf.boolean_mask(ids, (ids < 0) | (ids >= rows))
    return tf.debugging.Assert(
        tf.equal(tf.size(wrong), 0), [f"ids must lie in [0, {rows}), the rows of the table. Received:", wrong[:3]]
    )


def _by_owner(ids: tf.Tensor, shard: Shard) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Places in ``ids`` in the order of the owners, int32 ``[n]``; how many each owner has, int32 ``[size]``; and the
    ids' places at their owners, in that order."""
    ids = ids + tf.cast(_nothing(), ids.dtype)
    owners = tf.dynamic_partition(tf.range(tf.size(ids)), tf.cast(ids % shard.size, tf.int32), shard.size)
    order = tf.concat(owners, axis=0)
    splits = tf.stack([tf.size(places) for places in owners])
    kind = tf.int32 if shard.rows < 2**31 else tf.int64
    return order, splits, tf.cast(tf.gather(ids, order) // shard.size, kind)


def _alltoall(values: tf.Tensor, splits: tf.Tensor, name: str) -> tuple[tf.Tensor, tf.Tensor]:
    """``splits[r]`` of the values to each rank r; what came, and how many from each rank."""
    hvd = ranks.horovod()
    if hvd is None:
        return values, splits
    # Horovod has no bfloat16, but nothing is computed on the way: its bits travel.
    kind, bits = values.dtype, values.dtype == tf.bfloat16
    sent = tf.bitcast(values, tf.uint16) if bits else values
    received, counts = hvd.alltoall(sent, splits, name=f"tfrec.{name}", ignore_name_scope=True)
    received = tf.ensure_shape(received, [None, *values.shape[1:]])
    return (tf.bitcast(received, kind) if bits else received), counts


def _nothing() -> tf.Tensor:
    global _zero
    if _zero is None:
        with tf.init_scope():
            _zero = tf.Variable(0.0, trainable=False, name="tfrec_nothing")
    return _zero.read_value()


def unique_name(name: str) -> str:
    """``name``, numbered where the graph under way has it already: exchanges of one graph may run at the same time.

    The names that TensorFlow makes unique by itself are so within a scope; Horovod pairs by the last part.
    """
    if tf.executing_eagerly():
        return name
    names = tf.compat.v1.get_default_graph().get_collection_ref("tfrec_exchanges")
    names.append(name)
    count = names.count(name)
    return name if count == 1 else f"{name}.{count}"
