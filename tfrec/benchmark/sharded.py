"""A table whose rows are divided among two ranks: memory of each, and bytes sent and seconds per step, against a table
that every rank holds.

This process starts the ranks, of which each runs this module.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrec.benchmark.memory import resident_bytes
from tfrec.benchmark.ranks import started
from tfrec.errors import InputError

#: Samples of a step over all ranks, each with two ids.
BATCH, IDS = 32_768, 2
WIDTH = 64
_STEPS = 20
#: Rows at which a table fits on every rank too.
_COMPARED_ROWS = 1_000_000
_KINDS = ("sharded, lazy Adam", "on every rank, lazy Adam", "on every rank, Adam")


def benchmark_sharded(rows: int, ranks: int = 2, rounds: int = 3) -> dict[str, Any]:
    """Train a table of ``rows`` x 64 in parts, then a million rows in parts and on every rank.

    Ids are uniform, so that hardly any row is asked for twice: the most that can travel. ``sent`` is what the loopback
    interface carried (Horovod's headers and coordination included), per step and rank.

    Raises:
        InputError: an argument out of range.
    """
    if rows < 1 or ranks < 2 or rounds < 1:
        raise InputError(
            f"`rows` and `rounds` must be at least 1, and `ranks` at least 2.\n"
            f"Received: rows={rows}, ranks={ranks}, rounds={rounds}."
        )
    return {
        "ranks": ranks,
        "batch": BATCH,
        "large": started(ranks, __name__, ["large", str(rows)]),
        "compared": started(ranks, __name__, ["compared", str(_COMPARED_ROWS), str(rounds)]),
    }


@dataclass
class _Way:
    """One way of holding the table, trained on this rank."""

    model: Any
    seconds: list[float]
    sent: list[float]

    def train(self, steps: int) -> None:
        """One step, and then ``steps`` of which is noted what one took and sent. What `fit` sends before and after its
        steps, such as the weights of rank 0, is not counted."""
        import keras
        import numpy as np
        import tensorflow as tf

        from tfrec import distributed

        random = np.random.default_rng(len(self.seconds) + 100 * distributed.rank())
        mine = BATCH // distributed.size()
        rows = self.model.layers[1].input_dim
        ids = random.integers(rows, size=((steps + 1) * mine, IDS))
        labels = random.integers(2, size=(steps + 1) * mine).astype(np.float32)
        data = tf.data.Dataset.from_tensor_slices((ids, labels)).batch(mine)
        before: list[float] = []

        def note(batch: int, logs: Any = None) -> None:
            if batch == 0:
                before[:] = [_carried(), time.perf_counter()]
            elif batch == steps:
                self.seconds.append((time.perf_counter() - before[1]) / steps)
                self.sent.append((_carried() - before[0]) / steps / distributed.size())

        self.model.fit(
            data, verbose=0, shuffle=False, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note)]
        )


def _way(kind: str, rows: int) -> _Way:
    import keras

    from tfrec import distributed
    from tfrec.layers import ShardedEmbedding
    from tfrec.optimizers import Adam

    keras.utils.set_random_seed(1)
    layer = ShardedEmbedding if kind.startswith("sharded") else keras.layers.Embedding
    ids = keras.Input((IDS,), dtype="int64")
    pair = layer(rows, WIDTH)(ids)
    logit = keras.ops.sum(pair[:, 0] * pair[:, 1], axis=-1)
    model = keras.Model(ids, logit)
    model.compile(Adam(1e-3, lazy="lazy" in kind), keras.losses.BinaryCrossentropy(from_logits=True))
    distributed.distribute(model)
    model.optimizer.build(model.trainable_variables)
    return _Way(model, [], [])


def _carried() -> float:
    """Bytes that the loopback interface has sent since the machine started."""
    return float(Path("/sys/class/net/lo/statistics/tx_bytes").read_text())


def _per_rank(value: float) -> list[float]:
    """A number of each rank."""
    import numpy as np

    from tfrec import distributed

    return [float(x) for x in distributed.gather_across_ranks(np.array(value))]


def _large(rows: int) -> dict[str, Any]:
    """Memory: before the table, and at the highest while it was trained."""
    import numpy as np
    import tensorflow as tf

    from tfrec import distributed

    distributed.gather_across_ranks(np.zeros(()))
    tf.function(lambda: tf.zeros([1]))()
    before = resident_bytes("VmRSS")
    start = time.perf_counter()
    way = _way(_KINDS[0], rows)
    ready = time.perf_counter() - start
    way.train(_STEPS)
    way.train(_STEPS)
    model = way.model
    held = sum(4 * int(np.prod(v.shape)) for v in model.weights)
    held += sum(4 * int(np.prod(v.shape)) for v in model.optimizer.variables if len(v.shape) == 2)
    return {
        "rows": rows,
        "table_and_slots_bytes": 3 * 4 * rows * WIDTH,
        "held_by_each_rank_bytes": _per_rank(held),
        "before_bytes": _per_rank(before),
        "peak_bytes": _per_rank(resident_bytes("VmHWM")),
        "seconds_to_first_step": round(ready, 1),
        "seconds_per_step": round(way.seconds[1], 4),
        "sent_per_step_and_rank_bytes": round(way.sent[1]),
    }


def _compared(rows: int, rounds: int) -> dict[str, Any]:
    from tfrec.benchmark.timing import spread

    ways = {kind: _way(kind, rows) for kind in _KINDS}
    for way in ways.values():
        way.train(1)
        way.seconds.clear()
        way.sent.clear()
    for _ in range(rounds):
        for way in ways.values():
            way.train(_STEPS // 2)
    return {
        "rows": rows,
        **{
            kind: {
                "milliseconds_per_step": spread([1e3 * s for s in way.seconds]),
                "sent_per_step_and_rank_mib": spread([s / 2**20 for s in way.sent]),
            }
            for kind, way in ways.items()
        },
    }


def _run(written: Path, part: str, *numbers: str) -> None:
    """One rank."""
    from tfrec import commands, distributed
    from tfrec.runs.report import write_json

    commands.quiet_tensorflow()
    distributed.init()
    result = _large(int(numbers[0])) if part == "large" else _compared(int(numbers[0]), int(numbers[1]))
    if distributed.rank() == 0:
        write_json(written, result)


if __name__ == "__main__":
    _run(Path(sys.argv[1]), *sys.argv[2:])
