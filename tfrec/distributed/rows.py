"""Rows of tables that the ranks solve for in parts, as `tfrec.models.ALS.fit` exchanges them."""

from __future__ import annotations

import tensorflow as tf

from tfrec.distributed.ranks import horovod, rank, size


class RowExchange:
    """The collectives of a fit that the ranks share; every rank calls each equally often."""

    def __init__(self) -> None:
        self.rank, self.size = rank(), size()

    def gather_rows(self, rows: tf.Tensor) -> tf.Tensor:
        """The ranks' rows one after another, in the type they have; ranks may have different numbers of rows."""
        hvd = horovod()
        return rows if hvd is None else hvd.allgather(rows, name="tfrec.rows")

    def sum(self, values: tf.Tensor) -> tf.Tensor:
        """The sum over the ranks, the same on each."""
        hvd = horovod()
        return values if hvd is None else hvd.allreduce(values, op=hvd.Sum, name="tfrec.row_sum")
