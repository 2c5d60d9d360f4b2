"""How much memory a training needs, computed from sizes before anything is loaded.

Weights, optimizer state and the matrix that training reads are exact. What TensorFlow holds between operations, and
what reading and splitting the data takes, are estimates from measured runs (docs/guides/ranks.md, "Plan the memory").
"""

from __future__ import annotations

from dataclasses import dataclass

from tfrec.errors import InputError

#: Python, TensorFlow, Horovod and the other libraries, before anything is made.
PROCESS = 700 << 20
#: Bytes that stay of an interaction, by how data is held out, and at most while it is read and divided; of an id.
STAYS, READING, ID = {"latest_item": 100}, 125, 40
_STAYS = 60
#: Graphs and buffers of a training that is small in all else.
WORK = 100 << 20
#: Copies of the model that rank 0 makes while it reads the best epoch's, or saves it.
COPIES = 2.5


@dataclass(frozen=True)
class Sizes:
    """Of data.

    Args:
        users: U.
        items: I.
        interactions: pairs of a user and an item.
        split: how some are held out, see `tfrec.tasks.TASKS`.
    """

    users: int
    items: int
    interactions: int
    split: str = "held_out_users"


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank; of those that differ by a row, the largest.

    Args:
        sizes: of the data.
        tables: the model's weights that it holds.
        model: the model's weights, all of them.
        slots: the optimizer's state.
        matrix: the interactions that training reads from, next to the data itself.
        gradients: of a step, and what their sum over the ranks takes.
        batch: rows, activations and whatever else a step computes.
        whole: copies of the model that rank 0 makes before it saves it, where its tables lie on all ranks.
    """

    sizes: Sizes
    tables: int
    model: int
    slots: int = 0
    matrix: int = 0
    gradients: int = 0
    batch: int = WORK
    whole: int = 0

    @property
    def data(self) -> int:
        """The interactions as they are divided, and kept for evaluation."""
        return STAYS.get(self.sizes.split, _STAYS) * self.sizes.interactions + self._ids

    @property
    def _ids(self) -> int:
        return ID * (self.sizes.users + self.sizes.items)

    @property
    def held(self) -> int:
        """What stays from the first step to the last."""
        return PROCESS + self.data + self.tables + self.slots + self.matrix

    @property
    def peak(self) -> int:
        """The most, on every rank, while it trains or while data is read for it."""
        reading = PROCESS + READING * self.sizes.interactions + self._ids
        return max(reading, self.held + self.gradients + self.batch)

    @property
    def peak_of_first(self) -> int:
        """The most on rank 0, which saves the model in the end.

        TensorFlow has given the optimizer's state and the gradients back to itself by then: tensors use that memory,
        copies in NumPy and HDF5 do not.
        """
        made = max(0, self.whole * self.model - self.slots - self.gradients)
        return self.peak + round(COPIES * self.model) + made


def adam_slots(trainable: int, backward_passes_per_step: int = 1) -> int:
    """Bytes of Adam's two moments, and of the sum over several batches where there are some."""
    return 4 * trainable * (2 + (backward_passes_per_step > 1))


def check_fits(memory: Memory, ranks_here: int) -> None:
    """Raise InputError where tables and optimizer state alone do not fit into this machine's memory.

    Args:
        memory: of a rank.
        ranks_here: ranks on this machine, which hold theirs at the same time.
    """
    # Its room loads TensorFlow, which --help does without.
    from tfrec.layers.memory import free_bytes

    needed, free = ranks_here * (memory.tables + memory.slots), free_bytes()
    if needed > free:
        ranks = "a rank" if ranks_here == 1 else f"{ranks_here} ranks"
        raise InputError(
            f"The tables and the optimizer's state of {ranks} must fit into this machine's memory: "
            f"{needed / 2**30:.1f} GiB.\nReceived: a machine with {free / 2**30:.1f} GiB available.\n"
            "Use more machines with fewer ranks on each, smaller tables, or tables that are sharded over the ranks. "
            "`tfrec train RECIPE --plan N` prints what N ranks need."
        )
