"""How much memory a training would need on a number of ranks: ``tfrec train RECIPE --plan N``."""

from __future__ import annotations

from tfrec.errors import InputError
from tfrec.families import Memory, RunConfig, Sizes, family_of
from tfrec.fitting import resolved
from tfrec.layers.memory import free_bytes
from tfrec.tasks import read_source, sizes_without_reading


def print_plan(recipe: str, config: RunConfig) -> None:
    """Print it.

    Raises:
        InputError: settings or sizes out of range, or data that cannot be read.
    """
    ranks = config.plan
    assert ranks is not None
    if ranks < 1:
        raise InputError(f"`plan` must be a number of ranks from 1.\nReceived: --plan {ranks}.")
    config = resolved(config)
    sizes = sizes_of(config)
    memory = family_of(config).memory(config, sizes, ranks)
    print(
        f"{recipe}: {sizes.users:,} users, {sizes.items:,} items, {sizes.interactions:,} interactions; "
        f"{ranks} rank{'s' * (ranks > 1)}."
    )
    print(described(memory, ranks))
    free = free_bytes()
    if free < float("inf"):
        training = ranks * memory.peak
        saving = training + memory.peak_of_first - memory.peak
        verdict = "They fit." if training <= free else "They do not fit: use more machines, or fewer ranks on each."
        print(f"All ranks on this machine: {_gib(training)} GiB. It has {_gib(free)} GiB available. {verdict}")
        if training <= free < saving:
            print(f"To save the model in the end takes up to {_gib(saving)} GiB; with less it goes by way of a file.")
        print("On a GPU tables, optimizer state, gradients, batch and matrix lie in its memory.")


def sizes_of(config: RunConfig) -> Sizes:
    """Of a run's data, as told with `--plan-sizes`, or known; else it is read."""
    split = config.data.split
    if config.plan_sizes is not None:
        if min(config.plan_sizes) < 1:
            raise InputError(
                "`plan_sizes` must be three numbers from 1: users, items and interactions.\n"
                f"Received: --plan-sizes {' '.join(map(str, config.plan_sizes))}."
            )
        return Sizes(*config.plan_sizes, split)
    known = sizes_without_reading(config.data)
    if known is not None:
        return Sizes(*known, split)
    print("Reading the data for its sizes; --plan-sizes USERS ITEMS INTERACTIONS saves that.", flush=True)
    events = read_source(config.data).events
    return Sizes(events.num_users, events.num_items, len(events), split)


def described(memory: Memory, ranks: int) -> str:
    """A line for each part."""
    rows = {
        "tables (weights)": memory.tables,
        "optimizer state": memory.slots,
        "gradients": memory.gradients,
        "batch": memory.batch,
        "training matrix": memory.matrix,
        "data": memory.data,
        "Python and TensorFlow": memory.held - memory.data - memory.tables - memory.slots - memory.matrix,
        "peak of a rank": memory.peak,
    }
    if memory.peak_of_first > memory.peak:
        rows["peak of rank 0, saving"] = memory.peak_of_first
    width = max(map(len, rows))
    lines = [f"{'bytes of each rank':{width}}  {'GiB':>9}"]
    return "\n".join([*lines, *(f"{name:{width}}  {value / 2**30:9.3f}" for name, value in rows.items())])


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f}"
