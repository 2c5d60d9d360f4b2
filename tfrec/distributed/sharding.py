"""Which rows of a table are on which rank, and the mark of a variable that holds one rank's part.

Row r of a table lies on rank ``r % size``, there at place ``r // size``. So ids that are sorted by popularity spread
evenly, every rank's part differs by at most one row, and the rule needs no table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec.distributed import ranks

_MARK = "_tfrec_shard"
#: Numbers that `gather_rows` collects at once: 16 MiB in float32.
CHUNK = 1 << 22


@dataclass(frozen=True)
class Shard:
    """One rank's part of a table's rows.

    Args:
        rows: of the whole table, from 1.
        rank: whose part.
        size: number of ranks.
    """

    rows: int
    rank: int
    size: int

    @classmethod
    def mine(cls, rows: int) -> Shard:
        """This rank's part of a table of ``rows`` rows."""
        return cls(rows, ranks.rank(), ranks.size())

    @property
    def local_rows(self) -> int:
        """Rows of the part; 0 where there are fewer rows than ranks."""
        return len(range(self.rank, self.rows, self.size))

    def ids(self) -> np.ndarray:
        """The table's rows in the order of the part, int64 ``[local_rows]``."""
        return np.arange(self.rank, self.rows, self.size, dtype=np.int64)


def mark(variable: Any, shard: Shard) -> None:
    """Say that ``variable`` holds the rows ``shard`` of a table: its first axis is the part's rows.

    A marked variable is not summed over the ranks, not sent from rank 0 and not compared between ranks; checkpoints
    hold it in a file per rank.
    """
    setattr(variable, _MARK, shard)


def shard_of(variable: Any) -> Shard | None:
    """The part of a table that a variable holds, or None where every rank holds all of it."""
    return getattr(variable, _MARK, None)


def gather_rows(variable: Any, to: int | None = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The table of which a variable is a part, some rows at a time. Every rank must call it and go through all of it.

    No rank holds more than a few chunks besides its own part.

    Args:
        variable: a weight or a slot of one, `shard_of` or not.
        to: the rank that gets the rows, or None for all. The others get chunks without a row, as many.

    Yields:
        ids, int64 ``[n]``, ascending and going on from chunk to chunk; and their rows, ``[n, ...]``.
    """
    shard = shard_of(variable) or Shard(int(variable.shape[0]), 0, 1)
    table = variable.value if isinstance(variable, keras.Variable) else variable
    receives = to is None or shard.size == 1 or to == ranks.rank()
    width = max(1, int(np.prod(variable.shape[1:])))
    step = max(1, CHUNK // (width * shard.size))
    if shard.size > 1:
        ranks.meet_at("gathering the rows of a table")
    for first in range(0, -(-shard.rows // shard.size), step):
        places = np.arange(first, min(first + step, shard.local_rows), dtype=np.int64)
        # By gather: a slice would copy a variable that rows were scattered into.
        rows = tf.gather(table, tf.constant(places, tf.int64))
        ids = np.arange(first * shard.size, min((first + step) * shard.size, shard.rows), dtype=np.int64)
        if shard.size > 1:
            parts = _send(rows, to, shard.size)
            if not receives:
                yield ids[:0], rows[:0].numpy()
                continue
            found = np.empty((len(ids), *variable.shape[1:]), rows.dtype.as_numpy_dtype)
            for r, part in enumerate(parts):
                found[r :: shard.size] = part
            yield ids, found
        else:
            yield ids, rows.numpy()


def _send(rows: tf.Tensor, to: int | None, size: int) -> list[np.ndarray]:
    """The ranks' rows, in order of rank, on rank ``to`` or on all."""
    hvd = ranks.horovod()
    count = int(rows.shape[0])
    if to is None:
        sent, splits = tf.tile(rows, [size, *[1] * (len(rows.shape) - 1)]), [count] * size
    else:
        sent, splits = rows, [count if r == to else 0 for r in range(size)]
    with ranks.watched():
        received, counts = hvd.alltoall(sent, tf.constant(splits, tf.int32), name="tfrec.gather_rows")
    return np.split(received.numpy(), np.cumsum(counts.numpy())[:-1])
