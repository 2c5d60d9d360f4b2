"""Interactions drawn from a known preference model, so that the best possible ranking is known too.

User u draws its items one after another without replacement, item i with probability proportional to
``exp(b_i + s / sqrt(R) * <theta_u, phi_i>)`` (Plackett-Luce; drawn all at once with the Gumbel trick). ``b`` gives
the long tail of popularity, ``theta`` and ``phi`` are a planted preference of rank R. The number of draws per
user follows MovieLens-20M's activity: at least 20, median 68, mean 144.

Ranking the items that a user has not seen by the planted score is optimal, so this is the oracle that reports
show next to a model.

All of it is integer arithmetic on the raw 64-bit outputs of PCG64: factors in 1/32, scores and Gumbel noise in
1/1024. Dot products of such integers are exact in float32 in any order of summation, so the same seed gives the
same events on every machine and with every BLAS.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.special

from tfrec.data.interactions import Interactions
from tfrec.data.registry import Loaded, data_set
from tfrec.errors import InputError

_FACTOR_UNIT = 32  # factors are multiples of 1/32
_SCORE_UNIT = 1024  # scores are multiples of 1/1024
_BLOCK_CELLS = 1 << 22  # users are drawn in blocks of about this many user-item cells
_EPOCH = 1_577_836_800  # 2020-01-01, the time of the first event


@dataclass(frozen=True)
class Synthetic:
    """A planted preference model and the interactions drawn from it.

    Args:
        num_users: U, from 1.
        num_items: I, from 1 to 2^20.
        rank: R, the rank of the preference, from 1 to 64.
        strength: standard deviation of the preference term in nats; 0 leaves popularity alone.
        popularity: standard deviation of the popularity term in nats.
        seed: of everything.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> data = Synthetic(num_users=30, num_items=50, seed=3)
        >>> events = data.interactions()
        >>> events.num_items, data.scores(events.user_ids[:2]).shape
        (50, (2, 50))
    """

    num_users: int = 6_000
    num_items: int = 2_000
    rank: int = 8
    strength: float = 1.5
    popularity: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("num_users", 1, 2**31 - 1),
            ("num_items", 1, 2**20),
            ("rank", 1, 64),
            ("strength", 0, 4),
            ("popularity", 0, 4),
            ("seed", 0, 2**31 - 1),
        ):
            value = getattr(self, name)
            number: Any = (int, float) if name in ("strength", "popularity") else int
            if isinstance(value, bool) or not isinstance(value, number):
                kind = "a whole number" if number is int else "a number"
                raise InputError(f"`{name}` must be {kind}.\nReceived: {name}={value!r}.")
            if not low <= value <= high:
                raise InputError(f"`{name}` must lie in [{low}, {high}].\nReceived: {name}={value!r}.")

    @cached_property
    def _item_factors(self) -> np.ndarray:
        """float32 ``[I, R]`` of whole numbers, in units of 1/32."""
        return self._normal("items", (self.num_items, self.rank), _FACTOR_UNIT).astype(np.float32)

    @cached_property
    def _user_factors(self) -> np.ndarray:
        """float32 ``[U, R]`` of whole numbers, in units of 1/32."""
        return self._normal("users", (self.num_users, self.rank), _FACTOR_UNIT).astype(np.float32)

    @cached_property
    def _popularity(self) -> np.ndarray:
        """int32 ``[I]``, in units of 1/1024."""
        return np.rint(self._normal("popularity", (self.num_items,), _SCORE_UNIT) * self.popularity).astype(np.int32)

    def _stream(self, what: str) -> np.random.PCG64:
        # One stream per purpose: more users must not change the items.
        purpose = ("items", "users", "popularity", "activity", "draws").index(what)
        return np.random.PCG64(np.random.SeedSequence([self.seed, purpose]))

    def _normal(self, what: str, shape: tuple[int, ...], unit: int) -> np.ndarray:
        """Normal variates rounded to whole multiples of 1/unit, as whole numbers."""
        uniform = _sixteen_bits(self._stream(what), int(np.prod(shape)))
        quantiles = scipy.special.ndtri((np.arange(1 << 16) + 0.5) / (1 << 16))
        return np.rint(quantiles * unit)[uniform].reshape(shape)

    def activity(self) -> np.ndarray:
        """int64 ``[U]``: how many items each user draws; at most half of the items."""
        uniform = _sixteen_bits(self._stream("activity"), self.num_users)
        quantiles = scipy.special.ndtri((np.arange(1 << 16) + 0.5) / (1 << 16))
        draws = 20 + np.rint(np.exp(np.log(48.0) + 1.378 * quantiles))
        most = max(1, self.num_items // 2)
        return np.minimum(draws[uniform], most).astype(np.int64)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        """int32 ``[B, I]``, the planted scores in units of 1/1024."""
        products = self._user_factors[users] @ self._item_factors.T
        scale = _SCORE_UNIT * self.strength / (np.sqrt(self.rank) * _FACTOR_UNIT**2)
        return np.rint(products * np.float32(scale)).astype(np.int32) + self._popularity

    def scores(self, users: np.ndarray, items: np.ndarray | None = None) -> np.ndarray:
        """The planted scores: the oracle's ranking.

        Args:
            users: int ``[B]``.
            items: int ``[B, C]``; None: all.

        Returns:
            float32 ``[B, C]``, in nats.
        """
        users = np.asarray(users, np.int64)
        if len(users) and not (users.min() >= 0 and users.max() < self.num_users):
            raise InputError(f"Users must lie in [0, {self.num_users}).\nReceived: {users.min()} to {users.max()}.")
        scores = self._scores(users).astype(np.float32) / np.float32(_SCORE_UNIT)
        return scores if items is None else np.take_along_axis(scores, items, axis=1)

    def interactions(self) -> Interactions:
        """Draw every user's items. Events are ordered by user, then by draw; times follow the draws."""
        uniform = (np.arange(1 << 16) + 0.5) / (1 << 16)
        gumbel = np.rint(-np.log(-np.log(uniform)) * _SCORE_UNIT).astype(np.int32)
        activity = self.activity()
        draws = self._stream("draws")
        # The item's number in the low bits makes every key unique, so that a partition has one right answer.
        bits = max(1, int(self.num_items - 1).bit_length())
        low = (1 << bits) - 1
        numbers = np.arange(self.num_items, dtype=np.int64)
        rows = max(1, _BLOCK_CELLS // self.num_items)
        drawn = []
        for start in range(0, self.num_users, rows):
            users = np.arange(start, min(start + rows, self.num_users))
            noise = gumbel[_sixteen_bits(draws, len(users) * self.num_items)]
            keys = (self._scores(users) + noise.reshape(len(users), -1)).astype(np.int64)
            keys <<= bits
            keys |= low - numbers  # of equal scores the first item wins
            for key, count in zip(keys, activity[users], strict=True):
                best = np.partition(key, self.num_items - count)[self.num_items - count :]
                best.sort()
                drawn.append((low - (best[::-1] & low)).astype(np.int32))
        item_index = np.concatenate(drawn)
        user_index = np.repeat(np.arange(self.num_users, dtype=np.int32), activity)
        first = np.cumsum(activity) - activity
        order = np.arange(len(item_index)) - np.repeat(first, activity)
        titles = np.array([f"Item {i:05d}" for i in range(self.num_items)], dtype=object)
        return Interactions(
            user_index=user_index,
            item_index=item_index,
            values=np.ones(len(item_index), np.float32),
            user_ids=np.arange(self.num_users, dtype=np.int64),
            item_ids=np.arange(self.num_items, dtype=np.int64),
            timestamps=_EPOCH + order * 86_400,
            item_titles=titles,
            kind="events",
            name="synthetic",
            source={"generator": "tfrec.data.Synthetic", **asdict(self)},
        )


def _sixteen_bits(stream: np.random.PCG64, count: int) -> np.ndarray:
    """uint16 ``[count]`` from the raw outputs of ``stream``, whose values NumPy guarantees."""
    raw = stream.random_raw((count + 3) // 4)
    return np.asarray(raw, dtype="<u8").view("<u2")[:count]


@data_set("synthetic", settings=Synthetic)
def _read(data_dir: object, **settings: Any) -> Loaded:
    planted = Synthetic(**settings)
    return Loaded(planted.interactions(), oracle=planted)
