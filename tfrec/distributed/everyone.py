"""The processes of a launcher as one argument, for evaluation, samplers, pipelines and `tfrec.models.ALS.fit`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec.distributed.ranks import horovod, rank, size, sum_across_ranks
from tfrec.ranks import Ranks


class _Everyone(Ranks):
    """All processes, over Horovod."""

    def sum(self, values: Any) -> Any:
        """As `Ranks.sum`."""
        hvd = horovod()
        if not tf.is_tensor(values):
            return sum_across_ranks(values)
        return values if hvd is None else hvd.allreduce(values, op=hvd.Sum, name="tfrec.row_sum")

    def gather_rows(self, rows: tf.Tensor) -> tf.Tensor:
        """As `Ranks.gather_rows`, in the type that the rows have."""
        hvd = horovod()
        return rows if hvd is None else hvd.allgather(rows, name="tfrec.rows")

    def exchange(self, rows: tf.Tensor, counts: Any) -> tuple[Any, Any]:
        """As `Ranks.exchange`, in the type that the rows have."""
        hvd = horovod()
        return (rows, counts) if hvd is None else hvd.alltoall(rows, splits=counts, name="tfrec.exchange_rows")


def everyone() -> Ranks:
    """This process among all of its launcher's; alone where there is none."""
    return _Everyone(rank(), size())
