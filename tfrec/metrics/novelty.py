"""Novelty: how far from what is popular."""

from __future__ import annotations

import numpy as np

from tfrec.errors import InputError
from tfrec.metrics.exposure import Exposure
from tfrec.metrics.registry import catalogue_metric


@catalogue_metric("novelty", needs_popularity=True)
def novelty(exposure: Exposure) -> float:
    """Mean self-information, in bits, of what is shown: ``sum over i of shown(i) log2(U / pop(i)) / sum of shown(i)``.

    U is the number of training users and pop(i) how many of them have item i (Zhou et al., "Solving the apparent
    diversity-accuracy dilemma of recommender systems", 2010). An item without users counts as if one user had it.
    The denominator is all places that were filled, so lists shorter than K weigh less. Ties: equal scores by lower
    number first. 0 where nothing is shown.

    Raises:
        InputError: the popularity is not known.

    Example:
        Item 0 is had by 4 of 8 users, 1 bit, and shown twice; item 1 by 1 of 8, 3 bits, and shown once.

        >>> round(novelty(Exposure(np.array([2, 1]), np.array([4, 1]), 8)), 4)  # (2 * 1 + 1 * 3) / 3
        1.6667
    """
    if exposure.popularity is None or exposure.num_users < 1:
        raise InputError("Novelty needs each item's number of training users.\nReceived: nothing.")
    bits = np.log2(exposure.num_users / np.maximum(exposure.popularity, 1))
    return float(exposure.shown @ bits / max(1, exposure.shown.sum()))
