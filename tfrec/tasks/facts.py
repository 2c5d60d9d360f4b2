"""What a page about a run shows, gathered from its split and from what the test kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.data import Interactions
from tfrec.evaluation import Report
from tfrec.reporting import DataFacts, Example, RunFacts
from tfrec.tasks.measure import Measure, Rows
from tfrec.tasks.split import Split, TrainingSet
from tfrec.tasks.task import Task

#: Example users, and how much of each is shown.
_USERS, _LATEST, _RECOMMENDED = 10, 5, 10
#: Scores of examples, at most: of ten users over a million items.
_MOST_SCORES = 10_000_000
#: Stretches of time.
_BINS = 40


def run_facts(
    metrics: Mapping[str, Any],
    folder: Path,
    task: Task,
    split: Split,
    measure: Measure,
    model: Any,
    rows: Rows,
    fitted: TrainingSet,
    test: Mapping[str, Report],
    history: Sequence[Mapping[str, Any]],
) -> RunFacts:
    """The facts of a run. No collective, so one rank can do it alone.

    Args:
        metrics: the content of metrics.json.
        folder: the run's.
        task: how it held out.
        split: its data.
        measure: of the split.
        model: that was tested.
        rows: makes of users' histories what the model accepts.
        fitted: what it was fitted to.
        test: ``model``, ``popularity`` and maybe ``oracle`` -> what the test found, with details.
        history: a row per epoch or iteration.
    """
    return RunFacts(
        metrics=metrics,
        place=str(folder),
        held_out=task.about,
        history=[{name: value for name, value in row.items() if isinstance(value, int | float)} for row in history],
        test=test,
        history_lengths=np.diff(split.test.seen.indptr).astype(np.int64),
        popularity=fitted.popularity.astype(np.int64),
        data=_data_facts(split.pairs),
        examples=_examples(split, measure, model, rows),
        no_examples=f"No test user has a target, or all {split.train.matrix.shape[1]:,} items are too many to rank.",
        latest_by="the order of the file" if split.pairs.timestamps is None else "time",
    )


def _data_facts(pairs: Interactions) -> DataFacts:
    liked = pairs.values > 0
    counts = [np.bincount(index[liked]) for index in (pairs.user_index, pairs.item_index)]
    users, items = (count[count > 0].astype(np.int64) for count in counts)
    times = None if pairs.timestamps is None else pairs.timestamps[liked]
    if times is None or len(times) == 0 or times.min() == times.max():
        return DataFacts(users, items)
    numbers, edges = np.histogram(times, _BINS)
    return DataFacts(users, items, edges.astype(np.float64), numbers.astype(np.int64))


def _examples(split: Split, measure: Measure, model: Any, rows: Rows) -> list[Example]:
    part = split.test
    with_targets = np.flatnonzero(np.diff(part.targets.indptr))
    # The same users for every model of a split, as many as can be ranked in a moment.
    most = min(_USERS, _MOST_SCORES // split.train.matrix.shape[1])
    chosen = np.sort(np.random.default_rng(0).permutation(with_targets)[:most])
    if len(chosen) == 0:
        return []
    column = np.full(split.events.num_items, -1)
    column[split.train.items] = np.arange(len(split.train.items))
    titles, ids = split.train.item_titles, split.train.item_ids

    def label(item: int) -> str:
        return str(ids[item] if titles is None else titles[item])

    best = measure.best(model, "test", rows, chosen, _RECOMMENDED)
    found = []
    for row, items in zip(chosen, best, strict=True):
        user = int(part.event_users[row])
        seen = part.seen.indices[part.seen.indptr[row] : part.seen.indptr[row + 1]]
        targets = set(part.targets.indices[part.targets.indptr[row] : part.targets.indptr[row + 1]].tolist())
        found.append(
            Example(
                user=str(split.events.user_ids[user]),
                num_items=len(seen),
                latest=[label(item) for item in _latest(split, user, seen, column)],
                recommended=[(label(item), int(item) in targets) for item in items if item >= 0],
                num_targets=len(targets),
            )
        )
    return found


def _latest(split: Split, user: int, seen: np.ndarray, column: np.ndarray) -> list[int]:
    """The items of ``seen`` that the user chose last, the latest first; ``column`` has each item's, or -1."""
    pairs = split.pairs
    place = np.flatnonzero(pairs.user_index == user)
    if pairs.timestamps is not None:
        place = place[np.argsort(pairs.timestamps[place], kind="stable")]
    known = set(seen.tolist())
    ordered = [item for item in column[pairs.item_index[place]].tolist() if item in known]
    return (ordered or seen.tolist())[::-1][:_LATEST]
