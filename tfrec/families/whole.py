"""Whether a model whose tables lie on all ranks fits into one machine, where it is saved."""

from __future__ import annotations

from tfrec import distributed
from tfrec.errors import InputError
from tfrec.layers.memory import free_bytes
from tfrec.runs.claim import on_rank_zero


def check_memory(model_bytes: int) -> None:
    """Raise InputError on every rank when rank 0's machine has less memory left than that. Every rank calls it."""

    def check() -> None:
        left = free_bytes()
        if model_bytes > left:
            raise InputError(
                f"The tables of the model together must fit into the memory of rank 0's machine, which saves them: "
                f"{model_bytes / 2**30:.1f} GiB.\nReceived: {distributed.host()} with {left / 2**30:.1f} GiB left.\n"
                "Training is complete, and its checkpoint is in the run's folder. Start the same command again with "
                "fewer ranks on that machine, or with rank 0 on a machine with more memory: it only tests and saves."
            )

    on_rank_zero(check)
