"""A generated catalogue of millions of items in categories, too large for a dense table, with its true model.

Items are numbered as a shop would: category by category, and in a category the popular ones first. A user picks a
category by taste, and in it an item by popularity alone:

    P(i | u) = softmax_c(strength * <theta_u, phi_c> / sqrt(R) + b_c)[c(i)] * (1 + j(i))^-s / Z

with c(i) the category of item i and j(i) its place there; theta, phi and b are normal. What a user has seen tells of a
category's whole stretch of ids, most of which no user has: a model must share between neighbouring ids.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tfrec.data.interactions import Interactions
from tfrec.data.registry import Loaded, data_set
from tfrec.errors import InputError

#: Users whose categories are drawn at once.
_BLOCK = 1_024


@dataclass(frozen=True)
class SyntheticCatalog:
    """A planted preference for categories and the interactions drawn from it.

    Drawn with NumPy's `Generator`, whose stream is the same for one version of NumPy; the category of a draw on the
    edge of rounding may differ between processors.

    Args:
        num_users: U, from 1.
        num_items: I, from 1.
        category_size: items of a category, from 1; the last one has what is left. The default, 216 x 216, is what ids
            with one first digit have in the factors that `tfrec.layers.suggest_factors` gives for the default I.
        events_per_user: draws of each user, from 1; an item drawn twice counts once.
        rank: R, from 1.
        strength: standard deviation of the taste for a category, in nats; from 0.
        decay: s, how fast popularity falls in a category; from 0.
        seed: from 0.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> data = SyntheticCatalog(num_users=20, num_items=1_000, category_size=100, seed=1)
        >>> data.interactions().num_items
        1000
        >>> data.scores(np.array([3, 4]), np.array([[0, 5, 999], [1, 2, 3]])).shape
        (2, 3)
    """

    num_users: int = 20_000
    num_items: int = 10_000_000
    category_size: int = 46_656
    events_per_user: int = 50
    rank: int = 8
    strength: float = 2.0
    decay: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (
            ("num_users", 1),
            ("num_items", 1),
            ("category_size", 1),
            ("events_per_user", 1),
            ("rank", 1),
            ("strength", 0),
            ("decay", 0),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if not low <= value < 2**31:
                raise InputError(f"`{name}` must lie in [{low}, 2^31).\nReceived: {name}={value!r}.")

    def _stream(self, what: str) -> np.random.Generator:
        # One stream per purpose: more users must not change the categories.
        purpose = ("categories", "users", "draws").index(what)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, purpose])))

    @property
    def num_categories(self) -> int:
        """C."""
        return -(-self.num_items // self.category_size)

    @cached_property
    def _categories(self) -> tuple[np.ndarray, np.ndarray]:
        """phi ``[C, R]`` and b ``[C]``."""
        random = self._stream("categories")
        return random.standard_normal((self.num_categories, self.rank)), random.standard_normal(self.num_categories)

    @cached_property
    def _users(self) -> np.ndarray:
        """theta ``[U, R]``."""
        return self._stream("users").standard_normal((self.num_users, self.rank))

    @cached_property
    def _popularity(self) -> np.ndarray:
        """log (1 + j)^-s, float64 ``[category_size]``."""
        return -self.decay * np.log1p(np.arange(self.category_size))

    def _taste(self, users: np.ndarray) -> np.ndarray:
        """Logits of the categories, float64 ``[B, C]``."""
        factors, bias = self._categories
        return self.strength / np.sqrt(self.rank) * (self._users[users] @ factors.T) + bias

    def scores(self, users: np.ndarray, items: np.ndarray | None = None) -> np.ndarray:
        """``log P(i | u)`` up to a constant of each user: the oracle's ranking.

        Args:
            users: int ``[B]``.
            items: int ``[B, C]``; None: all.

        Returns:
            float32 ``[B, C]``, in nats.
        """
        if items is None:
            items = np.broadcast_to(np.arange(self.num_items), (len(users), self.num_items))
        category, place = np.divmod(items, self.category_size)
        taste = np.take_along_axis(self._taste(users), category, axis=1)
        return (taste + self._popularity[place]).astype(np.float32)

    def interactions(self) -> Interactions:
        """Draw every user's items. Events are ordered by user, then by draw. Memory: 8 I bytes for the ids."""
        random = self._stream("draws")
        cumulative = np.cumsum(np.exp(self._popularity))
        drawn = np.empty((self.num_users, self.events_per_user), np.int32)
        for first in range(0, self.num_users, _BLOCK):
            users = np.arange(first, min(first + _BLOCK, self.num_users))
            weights = np.exp(self._taste(users))
            weights = np.cumsum(weights, axis=1)
            goal = random.random((len(users), self.events_per_user)) * weights[:, -1:]
            for row, (edges, wanted) in enumerate(zip(weights, goal, strict=True)):
                drawn[first + row] = np.searchsorted(edges, wanted, side="right")
        place = np.searchsorted(cumulative, random.random(drawn.shape) * cumulative[-1], side="right")
        # The last category may be short of items.
        item = np.minimum(drawn.astype(np.int64) * self.category_size + place, self.num_items - 1).astype(np.int32)
        return Interactions(
            user_index=np.repeat(np.arange(self.num_users, dtype=np.int32), self.events_per_user),
            item_index=item.reshape(-1),
            values=np.ones(item.size, np.float32),
            user_ids=np.arange(self.num_users, dtype=np.int64),
            item_ids=np.arange(self.num_items, dtype=np.int64),
            kind="events",
            name="synthetic-catalog",
            source={"generator": "tfrec.data.SyntheticCatalog", **asdict(self)},
        )


@data_set("synthetic-catalog", settings=SyntheticCatalog)
def _read(data_dir: object, **settings: Any) -> Loaded:
    planted = SyntheticCatalog(**settings)
    return Loaded(planted.interactions(), oracle=planted)
