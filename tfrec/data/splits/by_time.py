"""Hold out the latest pairs on one time line for all users."""

from __future__ import annotations

import contextlib
import datetime
import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal

import numpy as np
import scipy.sparse

from tfrec.data.interactions import Interactions
from tfrec.data.report import Report
from tfrec.data.splits.numbering import DISLIKED, Numbering
from tfrec.data.value_kinds import threshold
from tfrec.errors import InputError

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
#: Ticks per second, by how large the largest time is: seconds from 1973 to 5138, and the same span in finer units.
_UNITS = ((10**8, 10**11, 1), (10**11, 10**14, 10**3), (10**14, 10**17, 10**6), (10**17, 2**63, 10**9))


@dataclass(frozen=True)
class ByTime:
    """The past for training, what came after it as targets. Matrices are float32 ``[U, I]`` and disjoint.

    Args:
        train: values of the pairs before ``validation_from``.
        validation: values of the positive pairs from then on and before ``test_from``.
        test: values of the positive pairs from ``test_from`` on.
        users: ``[U]``, the row of each user in the `Interactions`; all of them have training pairs.
        items: ``[I]``, the column of each item in the `Interactions`; the same.
        validation_from: the first time of validation, in the unit of the source; ``test_from`` without validation.
        test_from: the first time of test.
        report: what became of the source's rows; kept are the pairs of all three.
    """

    train: scipy.sparse.csr_matrix
    validation: scipy.sparse.csr_matrix
    test: scipy.sparse.csr_matrix
    users: np.ndarray
    items: np.ndarray
    validation_from: int
    test_from: int
    report: Report = field(default_factory=lambda: Report(0, 0))


def by_time(
    interactions: Interactions,
    *,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    validation_from: str | int | float | None = None,
    test_from: str | int | float | None = None,
    min_rating: float | Literal["auto"] | None = "auto",
    dislikes: bool = False,
) -> ByTime:
    """Split at two moments that are the same for everybody, as a service that is trained today and used tomorrow.

    Unlike a split of each user's own events this one lets nothing of the future into training (Meng et al., "Exploring
    Data Splitting Strategies for the Evaluation of Recommendation Models", 2020, "temporal global").

    A pair counts where its *first* event is. Its value is what `tfrec.data.Interactions.merge` makes of those of its
    events that lie in the same part; later ones are no new targets, tell training nothing, and count as merged.

    The two moments are dates, or come from shares of the positive pairs in the order of their first events. Equal
    times are never torn apart: where a share ends within them, all of them go to the *later* part, which is then larger
    than asked.

    Args:
        interactions: the events, with times.
        validation_share: of the positive pairs, the latest before test, in [0, 1); 0: no validation set.
        test_share: of the positive pairs, the latest, in (0, 1).
        validation_from: instead of the share, the first moment of validation: a number in the unit of the source, or a
            date in ISO 8601 (UTC where no zone is written). For dates the times must count from 1970; their unit
            (seconds to nanoseconds) follows from the largest.
        test_from: instead of the share, the first moment of test, the same.
        min_rating: pairs with a value above it are positive, see `tfrec.data.value_kinds.threshold`.
        dislikes: of votes, keep the negative ones in training. Held out they are no targets, and counted.

    Raises:
        InputError: no times, shares out of range, moments in the wrong order or outside the data's times, or a part
            without pairs.
    """
    _check_shares(validation_share, test_share)
    times = interactions.timestamps
    if times is None:
        raise InputError(
            f"A split by time needs times, and {interactions.name} has none.\n"
            "Name their column: time='COLUMN', --data.time COLUMN; or hold out in another way."
        )
    above = threshold(interactions, min_rating)
    first_time = _FirstTimes(interactions, times)
    all_pairs = interactions.positives(above)
    if len(all_pairs) == 0:
        raise InputError(f"No positive pair is left above {above:g}.\n{all_pairs.report}\nLower `min_rating`.")
    in_order = np.sort(first_time(all_pairs))
    moments = _Moments(in_order)
    if test_from is None:
        test_at = int(in_order[-_rounded(test_share, len(in_order))])
    else:
        test_at = moments.read("test_from", test_from)
    before = int(np.searchsorted(in_order, test_at, side="left"))
    if validation_from is not None:
        validation_at = moments.read("validation_from", validation_from)
        if validation_at >= test_at:
            raise InputError(
                f"Validation must begin before test.\nReceived: validation from {moments.shown(validation_at)}, test "
                f"from {moments.shown(test_at)}."
            )
    elif validation_share == 0 or before == 0:
        validation_at = test_at
    else:
        validation_at = int(in_order[max(0, before - _rounded(validation_share, len(in_order)))])

    edges = np.array([validation_at, test_at])
    in_its_part = _part(edges, times) == _part(edges, first_time(interactions))
    pairs = _subset(interactions, in_its_part).positives(above, dislikes=dislikes)
    part = _part(edges, first_time(pairs))
    is_target = (part == 0) | (pairs.values > 0)
    pairs, part = pairs.where(is_target, DISLIKED), part[is_target]
    cuts = (
        f"Received: validation from {moments.shown(validation_at)}, test from {moments.shown(test_at)}; first times of "
        f"positive pairs from {moments.shown(moments.low)} to {moments.shown(moments.high)}."
    )
    if not (part == 0).any():
        raise InputError(f"No pair is left for training.\n{cuts}\nHold out less, or later pairs only.")
    numbering = Numbering.of(pairs.where(part == 0, "held out"))
    known = numbering.knows(pairs)
    pairs, part = numbering.known(pairs), part[known]
    for number, name in ((1, "validation"), (2, "test")):
        if not (part == number).any() and (number == 2 or validation_at < test_at):
            raise InputError(
                f"No pair of users and items that training has is left for {name}.\n{cuts}\n{pairs.report}\n"
                "Hold out more, or from another moment on."
            )
    train, validation, test = (numbering.matrix(pairs.where(part == number, "elsewhere")) for number in range(3))
    return ByTime(
        train=train,
        validation=validation,
        test=test,
        users=numbering.users,
        items=numbering.items,
        validation_from=validation_at,
        test_from=test_at,
        report=pairs.report,
    )


def _check_shares(validation_share: float, test_share: float) -> None:
    if not 0 < test_share < 1:
        raise InputError(f"`test_share` must lie between 0 and 1.\nReceived: {test_share}.")
    if not (validation_share >= 0 and validation_share + test_share < 1):
        raise InputError(
            "`validation_share` must be from 0, and leave some for training besides `test_share`.\n"
            f"Received: validation_share={validation_share}, test_share={test_share}.\nTheir sum must be below 1."
        )


def _rounded(share: float, count: int) -> int:
    """The share of ``count`` as a whole number, at least 1; a half is rounded up."""
    return max(1, int(share * count + 0.5))


def _part(edges: np.ndarray, times: np.ndarray) -> np.ndarray:
    """0 for times before the first edge, 1 before the second, else 2."""
    return np.searchsorted(edges, times, side="right")


class _FirstTimes:
    """The time of the first event of each pair, whichever row of it a merge keeps."""

    def __init__(self, interactions: Interactions, times: np.ndarray) -> None:
        self._numbers = self._times = None
        if interactions.num_pairs < len(interactions):
            number = interactions.pair_numbers()
            order = np.lexsort((times, number))
            number = number[order]
            first = np.flatnonzero(np.diff(number, prepend=-1))
            self._numbers, self._times = number[first], times[order[first]]

    def __call__(self, events: Interactions) -> np.ndarray:
        """int64 ``[N]`` for events or pairs of the same users and items."""
        assert events.timestamps is not None
        if self._numbers is None or self._times is None:
            return events.timestamps
        number = events.pair_numbers()
        order = np.argsort(number)  # looked up in order, they are near each other in memory
        found = np.empty(len(number), np.int64)
        found[order] = self._times[np.searchsorted(self._numbers, number[order])]
        return found


def _subset(interactions: Interactions, kept: np.ndarray) -> Interactions:
    """The events for which ``kept`` is True. Every pair keeps one, so the account of the rows stays as it is."""
    assert interactions.timestamps is not None
    return replace(
        interactions,
        user_index=interactions.user_index[kept],
        item_index=interactions.item_index[kept],
        values=interactions.values[kept],
        timestamps=interactions.timestamps[kept],
        account=interactions.report,
    )


class _Moments:
    """Reads and shows moments of the data's time line.

    Args:
        times: int64, ascending, not empty.
    """

    def __init__(self, times: np.ndarray) -> None:
        self.low, self.high = int(times[0]), int(times[-1])
        self._per_second = next((ticks for least, end, ticks in _UNITS if least <= self.high < end), None)

    def read(self, name: str, moment: str | int | float) -> int:
        """The moment in the unit of the data.

        Raises:
            InputError: no moment, or none between the first and the last of the data.
        """
        number = self._of_text(name, moment) if isinstance(moment, str) else moment
        if not -math.inf < number < math.inf:
            raise InputError(f"`{name}` must be a finite number or a date.\nReceived: {moment!r}.")
        at = math.ceil(number)
        if not self.low < at <= self.high:
            raise InputError(
                f"`{name}` must lie after the first and not after the last time, {self.shown(self.low)} to "
                f"{self.shown(self.high)}.\nReceived: {moment!r}"
                + (f", which is {self.shown(at)}" if isinstance(moment, str) else "")
                + "."
            )
        return at

    def _of_text(self, name: str, text: str) -> int | Fraction:
        with contextlib.suppress(ValueError):
            return int(text)
        try:
            date = datetime.datetime.fromisoformat(text.strip())
        except ValueError as error:
            raise InputError(
                f"`{name}` must be a number in the unit of the data's times, or a date such as 2024-12-31 or "
                f"2024-12-31 23:59:59.\nReceived: {text!r}."
            ) from error
        if self._per_second is None:
            raise InputError(
                f"`{name}` is a date, and the data's times, {self.low} to {self.high}, do not count from 1970.\n"
                f"Received: {text!r}.\nGive a number in their unit."
            )
        since = (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)) - _EPOCH
        return Fraction(since // datetime.timedelta(microseconds=1) * self._per_second, 10**6)

    def shown(self, at: int) -> str:
        """The number, and the date that it stands for where that is known."""
        if self._per_second is None:
            return f"{at}"
        with contextlib.suppress(OverflowError, ValueError):
            date = _EPOCH + datetime.timedelta(seconds=at // self._per_second)
            return f"{at} ({date:%Y-%m-%d %H:%M:%S} UTC)"
        return f"{at}"
