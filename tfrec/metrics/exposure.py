"""What users were shown, as a whole: the input of metrics of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Exposure:
    """How often each item is among users' first K, equal scores by lower number first.

    Whole numbers, so that those of several processes add up exactly. Every user counts, with targets or without.

    Args:
        shown: int64 ``[I]``, in how many users' first K the item is.
        popularity: int64 ``[I]``, how many training users have the item; None: not known.
        num_users: how many training users there are.
    """

    shown: np.ndarray
    popularity: np.ndarray | None = None
    num_users: int = 0
