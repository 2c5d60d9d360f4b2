"""Which process this is, and the collectives on arrays. The only module that imports Horovod.

Without `init`, or started without ``horovodrun``, there is one process: rank 0 of 1. Horovod need not be installed
then.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.errors import InputError

_hvd: Any = None
#: What launchers (horovodrun, mpirun, srun) tell a process about the number of processes.
_SIZE_VARIABLES = ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def init() -> None:
    """Join the other processes and take this one's GPU. Call once, before TensorFlow touches a device.

    Raises:
        InputError: several processes were started but Horovod does not import.
    """
    global _hvd
    if _hvd is None and any(int(os.environ.get(name, "1")) > 1 for name in _SIZE_VARIABLES):
        try:
            import horovod.tensorflow as hvd
        except ImportError as error:
            raise InputError(
                f"Several processes were started, but Horovod does not import: {error}.\n"
                "Run launch/setup, which builds it for this TensorFlow, and use its environment."
            ) from error
        hvd.init()
        _hvd = hvd
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if _hvd is not None and gpus:
        if local_rank() >= len(gpus):
            raise InputError(
                f"Each process needs a GPU of its own.\n"
                f"Received: local rank {local_rank()} (rank {rank()} of {size()}) on a machine with {len(gpus)} GPUs.\n"
                "Start fewer processes per machine."
            )
        tf.config.set_visible_devices(gpus[local_rank()], "GPU")


def horovod() -> Any:
    """``horovod.tensorflow`` when there are several processes, else None."""
    return _hvd


def rank() -> int:
    """Number of this process, from 0."""
    return _hvd.rank() if _hvd is not None else 0


def local_rank() -> int:
    """Number of this process on its machine, from 0."""
    return _hvd.local_rank() if _hvd is not None else 0


def size() -> int:
    """Number of processes."""
    return _hvd.size() if _hvd is not None else 1


def sum_across_ranks(values: np.ndarray) -> np.ndarray:
    """Element-wise float64 sum over all processes, the same on each. Every process must call it."""
    values = np.asarray(values, np.float64)
    if _hvd is None:
        return values
    return _hvd.allreduce(tf.constant(values), op=_hvd.Sum, name="tfrec.sum").numpy()


def gather_across_ranks(values: np.ndarray) -> np.ndarray:
    """``values`` of every process stacked in order of rank, ``[size, ...]``. Every process must call it."""
    values = np.asarray(values)
    if _hvd is None:
        return values[None]
    return _hvd.allgather(tf.constant(values[None]), name="tfrec.gather").numpy()


def broadcast_from_zero(values: np.ndarray) -> np.ndarray:
    """Rank 0's ``values`` on every process; shapes and dtypes must agree. Every process must call it."""
    if _hvd is None:
        return np.asarray(values)
    return _hvd.broadcast(tf.constant(values), root_rank=0, name="tfrec.broadcast").numpy()


def broadcast_json(value: Any) -> Any:
    """Rank 0's JSON value on every process. Every process must call it."""
    if _hvd is None:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8) if rank() == 0 else np.zeros(0, np.uint8)
    length = int(broadcast_from_zero(np.array([len(text)], np.int64))[0])
    if rank() != 0:
        text = np.zeros(length, np.uint8)
    return json.loads(broadcast_from_zero(text).tobytes())


def where() -> str:
    """This process for error messages, such as ``rank 1 of 4``."""
    return f"rank {rank()} of {size()}"
