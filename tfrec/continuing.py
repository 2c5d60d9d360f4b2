"""Start a training from a finished run, on data that may have more users and items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tfrec.errors import InputError
from tfrec.families import Family
from tfrec.printing import printable
from tfrec.tasks import TrainingSet


def carry_over(run: Path, family: Family[Any], model: Any, data: TrainingSet) -> None:
    """Copy what an earlier run's model learned of users and items into ``model``.

    Args:
        run: the earlier run's folder.
        family: of the new run.
        model: with its first weights.
        data: what the new run is trained on.

    Raises:
        InputError: a run of another family or version, or of ids of another type, or items of the earlier run that the
            data does not have any more.
    """
    from tfrec import distributed
    from tfrec.runs.folder import RunFolder
    from tfrec.runs.loading import load_run_model, load_vocabulary

    folder = RunFolder.existing(run)
    saved = folder.read_config()
    if saved["family"] != family.name:
        raise InputError(
            f"A run can be continued by its own family only.\nReceived: --continue {printable(run)}, which is of "
            f"{printable(saved['family'])}, for {family.name}."
        )
    vocabulary = load_vocabulary(folder)
    for what, before, now in (
        ("user", vocabulary.user_ids, data.user_ids),
        ("item", vocabulary.item_ids, data.item_ids),
    ):
        if (before.dtype == object) != (now.dtype == object):
            kinds = ["text" if ids.dtype == object else "numbers" for ids in (before, now)]
            raise InputError(
                f"The {what} ids of the run are {kinds[0]}, those of the data {kinds[1]}.\nReceived: --continue "
                f"{printable(run)}.\nRead the data as the run's was: --data.{what}, --data.text-ids."
            )
    gone = np.setdiff1d(vocabulary.item_ids, data.item_ids)
    if len(gone):
        raise InputError(
            f"The data must have all items of the run that it continues.\nReceived: {len(gone):,} of "
            f"{len(vocabulary.item_ids):,} are missing, such as {', '.join(printable(i) for i in gone[:3])}.\n"
            "Give all data, not the new part alone, with the same --data.split; or train without --continue."
        )
    old = load_run_model(folder, family.models, vocabulary)
    known = getattr(old, "num_users", None) or 0
    users = _places(vocabulary.user_ids[:known], data.user_ids)
    items = _places(vocabulary.item_ids, data.item_ids)
    model.carry_over(old, users, items)
    if distributed.rank() != 0:
        return
    print(
        f"Continuing {printable(run)}: {int((users >= 0).sum()):,} of {len(users):,} users and "
        f"{int((items >= 0).sum()):,} of {len(items):,} items carry over.",
        flush=True,
    )


def _places(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """int64 ``[N]``: where each of ``now`` was ``before``, -1 for new ones."""
    place = {raw: number for number, raw in enumerate(before.tolist())}
    return np.array([place.get(raw, -1) for raw in now.tolist()], np.int64)
