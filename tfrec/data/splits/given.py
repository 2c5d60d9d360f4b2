"""A split made elsewhere, read from a file each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse

from tfrec.data.interactions import Interactions
from tfrec.data.report import Report
from tfrec.data.splits.numbering import UNKNOWN_ITEM, UNKNOWN_USER, Numbering
from tfrec.data.user_lists import read_user_lists
from tfrec.data.value_kinds import threshold
from tfrec.errors import InputError

IN_TRAINING = "also in training"
IN_TEST = "also in test"
#: Interactions, or a file in the format of LightGCN.
Source = Interactions | str | Path


@dataclass(frozen=True)
class Given:
    """A split as it was given. Matrices are float32 ``[U, I]`` and disjoint.

    Args:
        train: values of the training pairs.
        validation: values of the positive validation pairs.
        test: values of the positive test pairs.
        interactions: the training events, whose rows and columns ``users`` and ``items`` name.
        users: ``[U]``, the row of each user in ``interactions``; all of them have training pairs.
        items: ``[I]``, the column of each item in ``interactions``; the same.
        validation_rule: where the validation pairs came from, in words.
        report: what became of the rows of all files; kept are the pairs of the three matrices.
    """

    train: scipy.sparse.csr_matrix
    validation: scipy.sparse.csr_matrix
    test: scipy.sparse.csr_matrix
    interactions: Interactions
    users: np.ndarray
    items: np.ndarray
    validation_rule: str
    report: Report = field(default_factory=lambda: Report(0, 0))


def given(
    train: Source,
    validation: Source | None,
    test: Source,
    *,
    validation_share: float = 0.1,
    seed: int = 0,
    min_rating: float | Literal["auto"] | None = "auto",
    dislikes: bool = False,
) -> Given:
    """Training, validation and test pairs from a source each, matched by raw ids.

    Training decides which users and items there are. Pairs of others, and pairs that are in training too, are left out
    of validation and test, and counted; so are validation pairs that are in the test set.

    Args:
        train: the training events, or a file that `tfrec.data.user_lists.read_user_lists` reads; for a table see
            `Interactions.from_table`.
        validation: the same for validation; None: a random share of the training pairs is taken.
        test: the same for test.
        validation_share: of the training pairs where no validation is given, in [0, 1); 0: no validation set. Each
            pair has one draw of PCG64's raw output. A pair that would leave its user or its item without any training
            pair stays in training.
        seed: of these draws, from 0.
        min_rating: pairs with a value above it are positive, see `tfrec.data.value_kinds.threshold`; auto and the kind
            of values are those of training.
        dislikes: of votes, keep the negative ones in training.

    Raises:
        InputError: a file that cannot be read, ids that are numbers in one source and text in another, values of
            different kinds, a share out of range, or a set without pairs.
    """
    if not 0 <= validation_share < 1:
        raise InputError(f"`validation_share` must lie in [0, 1).\nReceived: {validation_share}.")
    if not 0 <= seed < 2**63:
        raise InputError(f"`seed` must lie in [0, 2^63).\nReceived: {seed}.")
    sources = {"training": train, "test": test}
    if validation is not None:
        sources["validation"] = validation
    events = _read(sources)
    _check_alike(events)
    above = threshold(events["training"], min_rating)
    pairs = events["training"].positives(above, dislikes=dislikes)
    if len(pairs) == 0:
        raise InputError(f"No positive pair is left for training above {above:g}.\n{pairs.report}")
    numbering = Numbering.of(pairs)
    test_pairs = _targets(events["test"], events["training"], numbering, above)
    test_pairs = _without(test_pairs, pairs, IN_TRAINING)
    if validation is not None:
        rule = "given"
        validation_pairs = _targets(events["validation"], events["training"], numbering, above)
        validation_pairs = _without(_without(validation_pairs, pairs, IN_TRAINING), test_pairs, IN_TEST)
        reports = {"training": pairs.report, "validation": validation_pairs.report, "test": test_pairs.report}
        train_pairs = pairs
    else:
        drawn = _draw(pairs, validation_share, seed)
        rule = f"{validation_share:g} of the training pairs at random, seed {seed}" if validation_share else "none"
        validation_pairs, train_pairs = pairs.where(drawn, "elsewhere"), pairs.where(~drawn, "elsewhere")
        reports = {"training": pairs.report, "test": test_pairs.report}
    for name, left in (("test", test_pairs), ("validation", validation_pairs)):
        if len(left) == 0 and (name == "test" or validation is not None or validation_share > 0):
            told = f"Received: {reports[name]}." if name in reports else f"Received: {rule}, of {len(pairs):,} pairs."
            raise InputError(
                f"No {name} pair is left.\n{told}\nDo the sources belong together, with the same ids for "
                "the same users and items?"
            )
    return Given(
        train=numbering.matrix(train_pairs),
        validation=numbering.matrix(validation_pairs),
        test=numbering.matrix(test_pairs),
        interactions=events["training"],
        users=numbering.users,
        items=numbering.items,
        validation_rule=rule,
        report=_sum(reports),
    )


def _read(sources: Mapping[str, Source]) -> dict[str, Interactions]:
    """The events of each source. Ids of files are numbers only where they are in every one of them."""
    read = {name: s if isinstance(s, Interactions) else read_user_lists(s) for name, s in sources.items()}
    for which in ("user_ids", "item_ids"):
        if len({getattr(events, which).dtype == object for events in read.values()}) > 1:
            return {
                name: events if isinstance(source, Interactions) else read_user_lists(source, text_ids=True)
                for (name, source), events in zip(sources.items(), read.values(), strict=True)
            }
    return read


def _check_alike(events: Mapping[str, Interactions]) -> None:
    for role in ("user", "item"):
        kinds = {
            name: "text" if getattr(part, f"{role}_ids").dtype == object else "whole numbers"
            for name, part in events.items()
        }
        if len(set(kinds.values())) > 1:
            raise InputError(
                f"The {role} ids must be of one kind in all sources.\nReceived: {kinds}.\nRead all of them as text: "
                "text_ids=True."
            )
    if len({part.kind for part in events.values()}) > 1:
        raise InputError(
            "The values must mean the same in all sources.\n"
            f"Received: { ({name: part.kind for name, part in events.items()}) }.\nName what they are: value_kind=..."
        )


def _targets(events: Interactions, train: Interactions, numbering: Numbering, above: float) -> Interactions:
    """The positive pairs whose user and item training has, by the rows and columns of training."""
    pairs = events.positives(above)
    user, item = _places(events.user_ids, train.user_ids), _places(events.item_ids, train.item_ids)
    user_known = (user >= 0) & (numbering.user_number[user] >= 0)
    pairs = pairs.where(user_known[pairs.user_index], UNKNOWN_USER)
    item_known = (item >= 0) & (numbering.item_number[item] >= 0)
    pairs = pairs.where(item_known[pairs.item_index], UNKNOWN_ITEM)
    return replace(
        pairs,
        user_index=user[pairs.user_index],
        item_index=item[pairs.item_index],
        user_ids=train.user_ids,
        item_ids=train.item_ids,
        item_titles=None,
    )


def _places(ids: np.ndarray, among: np.ndarray) -> np.ndarray:
    """int32 ``[N]``: where each of ``ids`` is in ``among``, both ascending; -1: nowhere."""
    place = np.minimum(np.searchsorted(among, ids), len(among) - 1)
    return np.where(among[place] == ids, place, -1).astype(np.int32)


def _without(pairs: Interactions, others: Interactions, reason: str) -> Interactions:
    """The pairs that ``others``, with the same rows and columns, does not have."""
    return pairs.where(~np.isin(pairs.pair_numbers(), others.pair_numbers()), reason)


def _draw(pairs: Interactions, share: float, seed: int) -> np.ndarray:
    """bool ``[N]``: the positive pairs drawn for validation."""
    raw = np.asarray(np.random.PCG64(seed).random_raw(len(pairs)), np.uint64)
    drawn = (raw < np.uint64(share * 2.0**64)) & (pairs.values > 0)
    for index in (pairs.user_index, pairs.item_index):
        left = np.bincount(index[~drawn], minlength=int(index.max()) + 1)
        drawn &= left[index] > 0
    return drawn


def _sum(reports: Mapping[str, Report]) -> Report:
    """One account of all sources; reasons say whose rows they are."""
    return Report(
        rows=sum(report.rows for report in reports.values()),
        kept=sum(report.kept for report in reports.values()),
        merged=sum(report.merged for report in reports.values()),
        dropped={f"{why} ({name})": n for name, report in reports.items() for why, n in report.dropped.items()},
    )
