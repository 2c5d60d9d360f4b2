"""Events and splits for the tests of tasks."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfrec.data import Interactions
from tfrec.tasks import TASKS, DataConfig, InMemory, Split, read_source


def log(users: int, items: int, events: int, seed: int = 0, **changes: Any) -> Interactions:
    """Different pairs in random order. A user's id is ten times the number, an item's a hundred times."""
    random = np.random.default_rng(seed)
    pairs = random.permutation(users * items)[:events]
    return Interactions(
        **{
            "user_index": (pairs // items).astype(np.int32),
            "item_index": (pairs % items).astype(np.int32),
            "values": np.ones(events, np.float32),
            "user_ids": np.arange(users) * 10,
            "item_ids": np.arange(items) * 100,
            "timestamps": random.permutation(events).astype(np.int64),
            "item_titles": np.array([f"title {i}" for i in range(items)], dtype=object),
            **changes,
        }
    )


def split_of(task: str, *events: Interactions | None, **options: Any) -> Split:
    """The split of a task, of events or of three parts of them."""
    config = DataConfig(name="in-memory", split=task, **options)
    TASKS[task].check(config)
    config = TASKS[task].resolve_data(config)
    return TASKS[task].split(config, read_source(config, InMemory(*events)))


def in_parts(events: Interactions, *shares: float) -> list[Interactions]:
    """Events cut at random into parts of these shares."""
    from dataclasses import replace

    part = np.random.default_rng(7).choice(len(shares), len(events), p=shares)
    return [
        replace(
            events,
            user_index=events.user_index[part == number],
            item_index=events.item_index[part == number],
            values=events.values[part == number],
            timestamps=None if events.timestamps is None else events.timestamps[part == number],
        )
        for number in range(len(shares))
    ]
