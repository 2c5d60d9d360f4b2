"""Sizes and first values of tensor-train tables, and the decomposition of dense ones."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from tfrec.errors import InputError, TfrecWarning
from tfrec.ops import TTShape


def suggest_factors(size: int, num_cores: int = 3) -> tuple[int, ...]:
    """Factors of about equal size, ascending, whose product is at least ``size``, and exceeds it by little.

    Args:
        size: from 1.
        num_cores: how many, from 1.

    Example:
        >>> suggest_factors(11_000_000)
        (222, 223, 223)
        >>> suggest_factors(26_744, 2)
        (164, 164)
    """
    if size < 1 or num_cores < 1:
        raise InputError(f"`size` and `num_cores` must be at least 1.\nReceived: size={size}, num_cores={num_cores}.")
    factors, left = [], size
    for k in range(num_cores, 0, -1):
        factors.append(max(1, round(left ** (1.0 / k))) if k > 1 else left)
        left = -(-left // factors[-1])
    return tuple(sorted(factors))


def suggest_column_factors(width: int, num_cores: int = 3) -> tuple[int, ...]:
    """``num_cores`` factors of exactly ``width``, as equal as its prime factors allow, ascending.

    Example:
        >>> suggest_column_factors(128)
        (4, 4, 8)
    """
    if width < 1:
        raise InputError(f"`embedding_dim` must be at least 1.\nReceived: embedding_dim={width}.")
    primes, left, prime = [], width, 2
    while left > 1:
        while left % prime == 0:
            primes.append(prime)
            left //= prime
        prime += 1
    factors = [1] * num_cores
    for prime in reversed(primes):
        smallest = factors.index(min(factors))
        factors[smallest] *= prime
    return tuple(sorted(factors))


def clip_ranks(
    ranks: int | Sequence[int], row_factors: Sequence[int], column_factors: Sequence[int]
) -> tuple[int, ...]:
    """Ranks no larger than any table needs: rank k of min(p_1 q_1 ... p_k q_k, p_{k+1} q_{k+1} ... p_T q_T) is exact.

    Warns once per call where it clips.
    """
    sizes = [p * q for p, q in zip(row_factors, column_factors, strict=True)]
    bounds = [min(math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(1, len(sizes))]
    asked = (ranks,) * len(bounds) if isinstance(ranks, int | np.integer) else tuple(ranks)
    if len(asked) != len(bounds):
        raise InputError(f"`ranks` must be one number or {len(bounds)}, one less than cores.\nReceived: ranks={asked}.")
    if not all(isinstance(r, int | np.integer) and r >= 1 for r in asked):
        raise InputError(f"`ranks` must be whole numbers from 1.\nReceived: ranks={asked}.")
    clipped = tuple(int(min(r, bound)) for r, bound in zip(asked, bounds, strict=True))
    if clipped != asked and not isinstance(ranks, int | np.integer):
        warnings.warn(
            f"`ranks`={asked} are clipped to {clipped}: with these factors no table needs more.",
            TfrecWarning,
            stacklevel=4,
        )
    return clipped


def initial_cores(kind: str, scale: float, shape: TTShape, random: np.random.Generator) -> list[np.ndarray]:
    """First values of the cores, float32 of ``shape.core_shapes``.

    Args:
        kind: what is drawn.
            ``approx_normal``: the last core is normal with standard deviation ``scale``, and the product of those
            before it has unit vectors as rows, so that each number of the full table is normal with that deviation:
            exactly, as long as no rank is smaller than the one before it, otherwise in the mean.
            ``approx_uniform``: the last core is uniform in ``[-scale, scale]``, and every row of the others has one
            entry, 1 or -1, at a random place, so that each number of the full table is one of the last core's, with a
            random sign: exactly uniform. The cores start sparse.
            ``normal``, ``uniform``: all cores are normal, or uniform, of one variance, such that the table's numbers
            have the variance of a normal with standard deviation ``scale``, or of ``[-scale, scale]``. They are not
            normal or uniform: products of T numbers have heavier tails (TT-Rec, section 3.2).
        scale: of the table's numbers, above 0.
        shape: the table.
        random: where the numbers come from.
    """
    shapes = shape.core_shapes
    if kind in ("normal", "uniform"):
        deviation = scale if kind == "normal" else scale / math.sqrt(3.0)
        each = (deviation**2 / math.prod(shape.ranks)) ** (0.5 / len(shapes))
        if kind == "normal":
            return [(each * random.standard_normal(s, np.float32)).astype(np.float32) for s in shapes]
        return [((2.0 * random.random(s, np.float32) - 1.0) * each * math.sqrt(3.0)).astype(np.float32) for s in shapes]
    draw = _isometries if kind == "approx_normal" else _signs
    cores = [draw(s, random) for s in shapes[:-1]]
    last = random.standard_normal(shapes[-1], np.float32) if kind == "approx_normal" else None
    if last is None:
        last = 2.0 * random.random(shapes[-1], np.float32) - 1.0
    return [*cores, (scale * last).astype(np.float32)]


def _isometries(shape: tuple[int, int, int, int], random: np.random.Generator) -> np.ndarray:
    """For each slice and column a matrix ``[r, r']`` that keeps lengths: orthonormal rows, or where r > r' orthonormal
    columns times sqrt(r / r')."""
    slices, before, columns, after = shape
    # In pieces: the decomposition works in float64 and on a copy.
    found = np.empty(shape, np.float32)
    step = max(1, (1 << 22) // (before * columns * after))
    for first in range(0, slices, step):
        n = min(step, slices - first)
        matrix = random.standard_normal((n, columns, max(before, after), min(before, after)))
        matrix, triangle = np.linalg.qr(matrix)
        # Signs that make it uniform among such matrices (Mezzadri 2007).
        matrix = matrix * np.sign(np.diagonal(triangle, axis1=-2, axis2=-1))[..., None, :]
        matrix = np.swapaxes(matrix, -1, -2) if before <= after else matrix * math.sqrt(before / after)
        found[first : first + n] = np.swapaxes(matrix, 1, 2)
    return found


def _signs(shape: tuple[int, int, int, int], random: np.random.Generator) -> np.ndarray:
    slices, before, columns, after = shape
    found = np.zeros((slices * before * columns, after), np.float32)
    place = random.integers(after, size=len(found))
    found[np.arange(len(found)), place] = random.choice(np.array([-1.0, 1.0], np.float32), size=len(found))
    return found.reshape(shape)


def decompose(
    table: np.ndarray,
    row_factors: Sequence[int],
    column_factors: Sequence[int],
    ranks: Sequence[int] | None,
    max_error: float | None,
) -> tuple[list[np.ndarray], float]:
    """TT-SVD of a dense table (Oseledets 2011, algorithm 1): cores, and the relative error they leave.

    Args:
        table: ``[N, D]``.
        row_factors: p; the table is filled up with rows of zeros.
        column_factors: q.
        ranks: the most that are kept, or None.
        max_error: what must not be exceeded, relative to the table's Frobenius norm, or None.

    Returns:
        float32 cores ``[p_k, r_{k-1}, q_k, r_k]``, and ``|table - cores| / |table|``, Frobenius norms, as measured.
    """
    count, rows = len(row_factors), math.prod(row_factors)
    dense = np.zeros((rows, table.shape[1]), np.float64)
    dense[: len(table)] = table
    norm = float(np.linalg.norm(dense))
    tensor = dense.reshape(*row_factors, *column_factors)
    tensor = tensor.transpose([axis for k in range(count) for axis in (k, count + k)])
    del dense
    # Errors of the steps add up in squares.
    allowed = 0.0 if max_error is None else (max_error * norm) ** 2 / (count - 1)
    left, cores, rank = tensor.reshape(1, -1), [], 1
    for k in range(count - 1):
        left = left.reshape(rank * row_factors[k] * column_factors[k], -1)
        basis, squares = _principal(left)
        keep = len(squares)
        if max_error is not None:
            tail = np.cumsum(squares[::-1])[::-1]  # what is lost by keeping k: tail[k]
            keep = max(1, int((tail > allowed).sum()))
        if ranks is not None:
            keep = min(keep, ranks[k])
        basis = basis[:, :keep]
        cores.append(basis.reshape(rank, row_factors[k], column_factors[k], keep).transpose(1, 0, 2, 3))
        left, rank = basis.T @ left, keep
    cores.append(left.reshape(rank, row_factors[-1], column_factors[-1], 1).transpose(1, 0, 2, 3))
    # One scale for all cores: training moves them alike.
    scales = [float(np.sqrt(np.mean(c**2))) for c in cores]
    common = math.prod(scales) ** (1.0 / count)
    if common > 0.0:
        cores = [c * (common / s) for c, s in zip(cores, scales, strict=True)]
    cores32 = [np.ascontiguousarray(c, np.float32) for c in cores]
    product = np.ones((1, 1, 1))
    for core in cores32:
        product = np.einsum("nqr,prst->npqst", product, core.astype(np.float64), optimize=True)
        product = product.reshape(product.shape[0] * core.shape[0], -1, core.shape[3])
    error = float(np.linalg.norm(product[: len(table), :, 0] - table)) / norm if norm > 0.0 else 0.0
    return cores32, error


def _principal(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors and squared singular values, the largest first.

    Of a long matrix by its Gramian, which costs a fraction and loses what is below 1e-8 of the largest.
    """
    rows, columns = matrix.shape
    if columns > 4 * rows:
        squares, vectors = np.linalg.eigh(matrix @ matrix.T)
        return vectors[:, ::-1], np.maximum(squares[::-1], 0.0)
    basis, values, _ = np.linalg.svd(matrix, full_matrices=False)
    return basis, values**2
