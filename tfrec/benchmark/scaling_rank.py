"""A rank of `tfrec benchmark scaling`: trains NeuMF as it is told, and reports how long steps took.

Standard input has a JSON line for each measurement, the same on all ranks: a `Workload`, and ``steps``, how many to
time. Standard output gets a line for each: ``seconds`` of each step, and ``bytes``, what the host sent meanwhile.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from tfrec import distributed
from tfrec.benchmark.timing import seconds_of
from tfrec.models import NeuMF
from tfrec.optimizers import Adam

#: Items of a user in a step: one positive, four negatives.
PER_USER = 5
#: Half of a row is for each of NeuMF's branches; the network is small, as the tables are what travels.
MF_DIM, LAYER_DIMS = 32, (64, 32)
WIDTH = MF_DIM + LAYER_DIMS[0] // 2
_SENT = Path("/sys/class/net/eth0/statistics/tx_bytes")
_WARM_UP_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Workload:
    """What ranks train.

    Args:
        users: rows of the user table.
        items: rows of the item table.
        batch: samples of one rank in a step.
        tables: ``replicated``, whole on every rank; ``sharded``, their rows divided among the ranks.
        wire: type of the gradients on the wire.
    """

    users: int
    items: int
    batch: int
    tables: Literal["replicated", "sharded"]
    wire: Literal["float32", "float16"]

    @property
    def sharded(self) -> bool:
        """Whether rows are divided among the ranks."""
        return self.tables == "sharded"

    @property
    def users_per_step(self) -> int:
        """Users that a rank draws in a step."""
        return self.batch // PER_USER


def make_model(work: Workload, seed: int) -> NeuMF:
    """The model on uniformly drawn pairs, with which a batch has the most different rows."""
    keras.utils.set_random_seed(seed)
    users_per_step = work.users_per_step

    def sample(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        draw, rank = tf.random.stateless_uniform, distributed.rank()
        number = tf.cast(step, tf.int32)
        users = draw([users_per_step], [number, 2 * rank], 0, work.users, tf.int32)
        return users, draw([users_per_step, PER_USER], [number, 2 * rank + 1], 0, work.items, tf.int32)

    kind: Any = "sharded" if work.sharded else "dense"
    model = NeuMF(work.users, work.items, MF_DIM, LAYER_DIMS, user_embedding=kind, item_embedding=kind)
    # A step of sharded tables has gradients of rows, and Adam need not touch the others.
    model.compile(Adam(1e-3, lazy=work.sharded), sampler=sample)
    distributed.distribute(model, compression="none" if work.wire == "float32" else work.wire)
    return model


class Trainer:
    """A model between its steps."""

    def __init__(self, work: Workload, seed: int) -> None:
        self.model = make_model(work, seed)
        self._batches: Iterator[Any] = iter(tf.data.Dataset.range(1 << 40))
        # Makes the training function, and sends rank 0's weights.
        steps = tf.data.Dataset.range(_WARM_UP_STEPS)
        self.model.fit(steps, shuffle=False, verbose=0, callbacks=distributed.callbacks())
        self.seconds(1)  # traces once more, for batches that do not end

    def seconds(self, steps: int) -> list[float]:
        """How long each of so many steps takes; the first begins when all ranks are here."""
        distributed.sum_across_ranks(tf.zeros([1]).numpy())
        return [seconds_of(lambda: self.model.train_function(self._batches)) for _ in range(steps)]


def main() -> None:
    """Measure until standard input ends."""
    distributed.init()
    trainers: dict[Workload, Trainer] = {}
    for line in sys.stdin:
        task = json.loads(line)
        work = Workload(**task["workload"])
        if work not in trainers:
            trainers[work] = Trainer(work, task["seed"])
        before = int(_SENT.read_text())
        seconds = trainers[work].seconds(task["steps"])
        sent = int(_SENT.read_text()) - before
        print(json.dumps({"seconds": seconds, "bytes": sent}), flush=True)
