"""NeuMF on ranks of several hosts; started by test_namespaces.py.

Arguments: the file for rank 0's weights, and seconds to wait after each step. Prints a line after each step.
"""

import sys
import time

from tfrec import commands

if __name__ == "__main__":
    commands.quiet_tensorflow()

import keras
import numpy as np

from tfrec import distributed
from tfrec.data import load
from tfrec.data.pointwise import PointwiseSampler
from tfrec.distributed.sharding import shard_of
from tfrec.models import NeuMF
from tfrec.optimizers import Adam

USERS, ITEMS, EPOCHS = 301, 120, 2


class Steps(keras.callbacks.Callback):
    """Says how far training is."""

    def __init__(self, pause):
        super().__init__()
        self.pause, self.done = pause, 0

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        print(f"step {self.done}", flush=True)
        time.sleep(self.pause)


def train(callbacks=()):
    """Weights after two epochs with one table divided among the ranks and one on all of them."""
    keras.utils.set_random_seed(5)
    matrix = load("synthetic", num_users=USERS, num_items=ITEMS, seed=3).to_csr()
    sampler = PointwiseSampler(matrix, 3_001, 4, ranks=distributed.everyone())
    model = NeuMF(USERS, ITEMS, 8, (16, 8), dropout=0.0, user_embedding="sharded")
    model.compile(Adam(1e-2), sampler=sampler.batch)
    distributed.distribute(model)
    model.fit(
        sampler.steps(), epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[*distributed.callbacks(), *callbacks]
    )
    return {f"weight.{i}": whole(variable) for i, variable in enumerate(model.weights)}


def whole(variable):
    """The table of which a variable is this rank's part."""
    if shard_of(variable) is None:
        return np.asarray(variable)
    return np.concatenate([rows for _, rows in distributed.gather_rows(variable)])


def main():
    distributed.init()
    found = train([Steps(float(sys.argv[2]))])
    if distributed.rank() == 0:
        np.savez(sys.argv[1], **found)


if __name__ == "__main__":
    commands.run(main)
