"""Is one model better than another, or is it the users that happened to be drawn? NumPy only.

Two models were measured on the same U users, which gives one difference of a metric per user, d_1 ... d_U. The users
are taken for a sample of all users there could be. Nothing is assumed of how the differences are distributed: those of
NDCG or hit rate are far from normal, most of them being 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfrec.errors import InputError

#: Numbers of a block of samples: 4 MB of float64, which stays in the cache, and memory stays bounded.
_BLOCK_NUMBERS = 1 << 19


@dataclass(frozen=True)
class Differences:
    """What is known of the means of N columns of differences.

    Args:
        mean: float64 ``[N]``.
        low: float64 ``[N]``, the interval's lower end.
        high: float64 ``[N]``, its upper end.
        p_value: float64 ``[N]``, two-sided, not corrected.
        users: U.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray
    users: int


def paired_differences(
    differences: np.ndarray, *, samples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Differences:
    """The mean of each column of differences, its bootstrap interval, and the p-value of its being 0.

    All columns share the samples, see `bootstrap_interval` and `sign_flip_p_values`. The interval and the p-value come
    from different ideas, so that near ``1 - level`` one may say yes and the other no.

    Args:
        differences: float64 ``[U, N]``, a column for each pair of models and metric.
        samples: resamples, and sign flips, from 1.
        level: of the interval, between 0 and 1.
        seed: of both.

    Raises:
        InputError: no users, values that are not finite, or arguments out of range.
    """
    low, high = bootstrap_interval(differences, samples=samples, level=level, seed=seed)
    p_value = sign_flip_p_values(differences, samples=samples, seed=seed)
    return Differences(np.mean(differences, axis=0), low, high, p_value, len(differences))


def bootstrap_interval(
    values: np.ndarray, *, samples: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval of each column's mean.

    U users are drawn from the U with replacement, ``samples`` times; of the means of these resamples the quantiles
    ``(1 - level) / 2`` and ``(1 + level) / 2`` are the ends. (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 13.3.) With few users it is a little too narrow: by a factor of about ``sqrt(1 - 1 / U)``.

    Args:
        values: float64 ``[U, N]``, finite.
        samples: number of resamples B. Time grows with ``B U N``, memory does not grow with B.
        level: between 0 and 1.
        seed: of the resamples.

    Returns:
        low, high: float64 ``[N]``.

    Raises:
        InputError: as `paired_differences`.
    """
    values = _checked(values, samples)
    if not 0 < level < 1:
        raise InputError(f"`level` must lie between 0 and 1.\nReceived: {level}.")
    num_users = len(values)
    random = np.random.default_rng([seed, 0])
    means = np.empty((samples, values.shape[1]))
    for block in _blocks(samples, num_users):
        size = block.stop - block.start
        drawn = random.integers(num_users, size=(size, num_users), dtype=np.int64)
        drawn += np.arange(size)[:, None] * num_users
        times = np.bincount(drawn.ravel(), minlength=size * num_users).reshape(size, num_users)
        means[block] = times.astype(np.float64) @ values / num_users
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def sign_flip_p_values(values: np.ndarray, *, samples: int = 10_000, seed: int = 0) -> np.ndarray:
    """The paired randomization test, two-sided: were these means to be expected if it did not matter which model?

    Then each user's difference could as well have had the other sign. With B random choices of signs
    s_b in {-1, 1}^U, where T = |sum_u d_u| and T_b = |sum_u s_bu d_u|,

        p = (1 + #{b: T_b >= T}) / (1 + B),

    the 1 being the signs that came, so that p is never 0 and the test is exact (Phipson and Smyth, 2010, equation 2).
    Where the users with a difference allow no more than B choices, all of them are gone through: p is the share with
    T_b >= T. (Fisher, The Design of Experiments, 1935, section 21; for rankings: Smucker, Allan and Carterette, A
    Comparison of Statistical Significance Tests for Information Retrieval Evaluation, CIKM 2007.)

    Args:
        values: float64 ``[U, N]``, finite.
        samples: number of choices of signs B. Time grows with ``B U N``, memory does not grow with B.
        seed: of the signs.

    Returns:
        float64 ``[N]``, above 0, at most 1; 1 where no user has a difference.

    Raises:
        InputError: as `paired_differences`.
    """
    values = _checked(values, samples)
    values = values[(values != 0).any(axis=1)]
    num_users = len(values)
    if num_users == 0:
        return np.ones(values.shape[1])
    found = np.abs(values.sum(axis=0))
    # Sums of the same numbers in another order are the same sum, whatever rounding says.
    found -= 1e-12 * np.abs(values).sum(axis=0)
    exact = num_users < 63 and 2**num_users <= samples
    number = 2**num_users if exact else samples
    random = np.random.default_rng([seed, 1])
    reached = np.zeros(values.shape[1], np.int64)
    for block in _blocks(number, num_users):
        size = block.stop - block.start
        if exact:
            signs = 1.0 - 2.0 * (np.arange(block.start, block.stop)[:, None] >> np.arange(num_users) & 1)
        else:
            words = random.integers(2**64, size=(size, -(-num_users // 64)), dtype=np.uint64).astype("<u8")
            signs = 1.0 - 2.0 * np.unpackbits(words.view(np.uint8), axis=1, count=num_users)
        reached += (np.abs(signs @ values) >= found).sum(axis=0)
    return reached / number if exact else (1 + reached) / (1 + number)


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values of M tests corrected for there being M, so that any false alarm at all has at most the probability p.

    With p_(1) <= ... <= p_(M): ``max over j <= i of min(1, (M - j + 1) p_(j))`` for the i-th. (Holm, A Simple
    Sequentially Rejective Multiple Test Procedure, 1979.) The tests may depend on each other in any way.

    Args:
        p_values: float64 ``[M]`` or ``[M, N]``, corrected along the first axis.

    Example:
        >>> holm(np.array([0.03, 0.01, 0.04])).round(3).tolist()
        [0.06, 0.03, 0.06]
    """
    p_values = np.asarray(p_values, np.float64)
    order = np.argsort(p_values, axis=0, kind="stable")
    factors = np.arange(len(p_values), 0, -1).reshape(-1, *[1] * (p_values.ndim - 1))
    scaled = np.minimum(1.0, np.take_along_axis(p_values, order, axis=0) * factors)
    corrected = np.empty_like(p_values)
    np.put_along_axis(corrected, order, np.maximum.accumulate(scaled, axis=0), axis=0)
    return corrected


def _checked(values: np.ndarray, samples: int) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not len(values):
        raise InputError(
            f"Differences must be a matrix with a row for each user, at least one.\nReceived: {values.shape}."
        )
    if not np.isfinite(values).all():
        raise InputError("Differences must be finite.\nReceived: NaN or infinite ones. Leave such users out.")
    if samples < 1:
        raise InputError(f"`samples` must be at least 1.\nReceived: {samples}.")
    return values


def _blocks(samples: int, num_users: int) -> Iterator[slice]:
    """Stretches of the samples that fit into memory."""
    size = max(1, _BLOCK_NUMBERS // num_users)
    return (slice(first, min(samples, first + size)) for first in range(0, samples, size))
