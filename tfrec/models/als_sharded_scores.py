"""Scores of `tfrec.models.als_sharded.ShardedALS`: rows are fetched from the ranks that have them, in a graph too.

Every rank takes part in each exchange, also for nobody. No rank ever holds a whole table.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfrec import ops
from tfrec.models.als_fit import range_hint
from tfrec.models.als_rows import Rows
from tfrec.ops.als import reference_solve
from tfrec.ranks import Ranks


def rows_of(table: tf.Variable, ids: tf.Tensor, ranks: Ranks, begun: tf.Tensor | None = None) -> tf.Tensor:
    """Rows of a table that is spread over the ranks. Every rank must call it.

    Args:
        table: this rank's part.
        ids: int64 ``[...]``; a row that occurs several times travels once.
        ranks: who takes part.
        begun: the exchange starts after this is computed.

    Returns:
        ``[..., F]``.
    """
    with tf.control_dependencies([] if begun is None else [begun]):
        different, place = tf.unique(tf.reshape(tf.cast(ids, tf.int64), [-1]))
    owner = tf.cast(different % ranks.size, tf.int32)
    of_owners = tf.dynamic_partition(tf.range(tf.size(different)), owner, ranks.size)
    order, counts = tf.concat(of_owners, axis=0), tf.stack([tf.size(places) for places in of_owners])
    asked, asked_counts = ranks.exchange(tf.cast(tf.gather(different, order) // ranks.size, tf.int32), counts)
    rows, _ = ranks.exchange(tf.gather(table, asked), asked_counts)
    rows = tf.gather(tf.ensure_shape(rows, [None, table.shape[1]]), tf.math.invert_permutation(order))
    return tf.reshape(tf.gather(rows, place), [*tf.unstack(tf.shape(ids)), table.shape[1]])


def all_scores(x: tf.Tensor, table: tf.Variable, num_rows: int, ranks: Ranks, block_rows: int) -> tf.Tensor:
    """Inner products with all rows of a table that is spread over the ranks, of which a block at a time is gathered.

    Every rank must call it.

    Args:
        x: float32 ``[B, F]``; B is a rank's own, and may be 0.
        table: this rank's part.
        num_rows: I, of the whole table.
        ranks: who takes part.
        block_rows: rows that are gathered at once.

    Returns:
        float32 ``[B, I]``.
    """
    size, local, factors = ranks.size, int(table.shape[0]), int(table.shape[1])
    of_rank = -(-num_rows // size)
    step = min(max(1, block_rows // size), of_rank)
    steps = -(-of_rank // step)

    def add(number: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        first = tf.minimum(number * step, local)
        mine = tf.gather(table, tf.range(first, tf.minimum(first + step, local)))
        # All ranks send as many rows, so that row r of the table is at place r.
        mine = tf.pad(mine, [[0, step - tf.shape(mine)[0]], [0, 0]])
        rows = tf.reshape(ranks.gather_rows(mine), [size, step, factors])
        rows = tf.cast(tf.reshape(tf.transpose(rows, [1, 0, 2]), [step * size, factors]), tf.float32)
        return number + 1, found.write(number, tf.matmul(x, rows, transpose_b=True))

    _, found = tf.while_loop(
        lambda number, _: number < steps,
        add,
        (tf.constant(0), tf.TensorArray(tf.float32, steps, element_shape=[None, step * size])),
        parallel_iterations=1,
    )
    scores = tf.reshape(tf.transpose(found.stack(), [1, 0, 2]), [tf.shape(x)[0], steps * step * size])
    return scores[:, :num_rows]


def solve(rows: Rows, table: tf.Variable, num_rows: int, ranks: Ranks, sweep: ops.Sweep) -> tf.Tensor:
    """The exact factors of histories, as `tfrec.models.als_rows.solve_rows`. Every rank must call it.

    Args:
        rows: the histories.
        table: this rank's part of the items.
        num_rows: I, of the whole table.
        ranks: who takes part.
        sweep: the objective.

    Returns:
        float32 ``[B, F]``.
    """
    gram = ranks.sum(ops.gramian(tf.convert_to_tensor(table)))
    needed, columns = tf.unique(rows.columns, out_idx=tf.int64)
    fixed = rows_of(table, needed, ranks, begun=gram)
    # One more than there is, so that gathering works where no history has an item.
    fixed = tf.concat([fixed, tf.zeros([1, table.shape[1]], table.dtype)], axis=0)
    exact = dataclasses.replace(sweep, solver="cholesky")
    x = reference_solve(rows.starts, rows.lengths, columns, rows.values, fixed, gram, None, exact, num_fixed=num_rows)
    x = tf.cast(x, tf.float32)
    return tf.debugging.check_numerics(x, f"A row's factors are not finite{range_hint(table.dtype.name)}")
