"""EASE's closed form in one dense matrix: Gramian, inverse and weights follow one another in the same memory.

    G = X'X + lambda I,    P = G^-1,    B_ij = -P_ij / P_jj,    B_ii = 0

Only the upper triangle of G and P is computed; weights need both. Besides the matrix there are blocks of bounded size
and the sparse X, never a second ``[I, I]``, and never a sparse one.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.sparse
from scipy.linalg import blas, lapack

from tfrec.errors import InputError

#: Numbers in a block of a sparse product, for each thread.
_BLOCK = 1 << 22
#: Bytes of the rows that are multiplied densely at once.
_DENSE_BYTES = 256 << 20
#: A row with more than I / 16 entries is multiplied densely: its n^2 / 2 additions one by one take longer than
#: the I^2 / 2 multiply-adds of a matrix product. Measured with 5,000 and 20,000 items on two cores.
_DENSE_SHARE = 16
#: The largest error of a weight that passes; weights lie mostly between -1 and 1.
_WEIGHT_ERROR = 1e-3
#: Columns whose error is looked at.
_CHECKED = 16
#: Side of the squares in which a matrix is mirrored.
_SQUARE = 1_024


def working_bytes(matrix: scipy.sparse.csr_matrix) -> int:
    """Upper bound of what `solve` takes besides the dense matrix: two copies of X, and blocks."""
    sparse = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    # A block of a product is there in sparse form, with up to 8 bytes for an index, and in dense form.
    blocks = _threads() * _BLOCK * (8 + 4 + 4)
    return 3 * sparse + blocks + _DENSE_BYTES + 5 * 8 * _CHECKED * matrix.shape[1]


def fill_gramian(dense: np.ndarray, matrix: scipy.sparse.csr_matrix, regularization: float) -> None:
    """``X'X + lambda I`` into the upper triangle of ``dense``; what is below it has no meaning.

    Args:
        dense: float32 ``[I, I]``, rows contiguous.
        matrix: X, float32 CSR ``[U, I]``, columns ascending.
        regularization: lambda.
    """
    num_items = matrix.shape[1]
    long = np.diff(matrix.indptr) > num_items / _DENSE_SHARE
    _sparse_product(dense, matrix if not long.any() else matrix[~long])
    rows = matrix[long]
    step = max(1, _DENSE_BYTES // (4 * num_items))
    for first in range(0, rows.shape[0], step):
        block = rows[first : first + step].toarray()
        # LAPACK and BLAS count by columns: to them the transpose is contiguous, and the upper triangle the lower.
        blas.ssyrk(1.0, block.T, beta=1.0, c=dense.T, lower=1, overwrite_c=1)
    dense[np.diag_indices(num_items)] += np.float32(regularization)


def _sparse_product(dense: np.ndarray, matrix: scipy.sparse.csr_matrix) -> None:
    """``X'X`` into the upper triangle, panel by panel of rows, on all cores: SciPy multiplies without Python's lock."""
    num_items = matrix.shape[1]
    by_item = matrix.T.tocsr()
    width = max(64, -(-num_items // 32))

    def fill(begin: int) -> None:
        end, right = min(num_items, begin + width), matrix[:, begin:]
        step = max(1, _BLOCK // (num_items - begin))
        for first in range(begin, end, step):
            last = min(end, first + step)
            dense[first:last, begin:] = (by_item[first:last] @ right).toarray()

    with ThreadPoolExecutor(_threads()) as pool:
        list(pool.map(fill, range(0, num_items, width)))


def invert(dense: np.ndarray) -> None:
    """The inverse of a symmetric positive definite matrix in its place; of both only the upper triangle counts.

    Args:
        dense: float32 ``[I, I]``, rows contiguous.

    Raises:
        InputError: float32 finds the matrix not positive definite.
    """
    # Both work in place, as the transpose is what they would copy to.
    _, failed = lapack.spotrf(dense.T, lower=1, clean=0, overwrite_a=1)
    if not failed:
        _, failed = lapack.spotri(dense.T, lower=1, overwrite_c=1)
    if failed:
        raise _too_small("the matrix X'X + regularization is not positive definite in float32")


def mirror(dense: np.ndarray) -> None:
    """Copy the upper triangle to the lower one, in place."""
    size = len(dense)
    for row in range(0, size, _SQUARE):
        rows = slice(row, row + _SQUARE)
        square = np.triu(dense[rows, rows])
        dense[rows, rows] = square + np.triu(square, 1).T
        for column in range(row + _SQUARE, size, _SQUARE):
            columns = slice(column, column + _SQUARE)
            dense[columns, rows] = dense[rows, columns].T


def weight_error(inverse: np.ndarray, matrix: scipy.sparse.csr_matrix, regularization: float) -> float:
    """About the largest error of a weight in some columns: of the items with most entries, and others evenly spread.

    One step of refinement says how far a column p_j of P is off: by ``P (G p_j - e_j)``, with the residual in float64
    and G multiplied as ``X' (X p) + lambda p``. The error is that by P_jj, as the weights are.

    Args:
        inverse: P, float32 ``[I, I]``, both triangles.
        matrix: X.
        regularization: lambda.
    """
    num_items = matrix.shape[1]
    frequent = np.argsort(-np.bincount(matrix.indices, minlength=num_items), kind="stable")[: _CHECKED // 2]
    spread = np.linspace(0, num_items - 1, _CHECKED // 2).astype(np.int64)
    columns = np.unique(np.concatenate([frequent, spread]))
    place = (columns, np.arange(len(columns)))
    wide: scipy.sparse.csr_matrix = matrix.astype(np.float64)
    with np.errstate(all="ignore"):  # a NaN or infinity is an error that no limit lets pass
        p = inverse[:, columns].astype(np.float64)
        residual = wide.T @ (wide @ p) + regularization * p
        residual[place] -= 1.0
        return float(np.abs((inverse @ residual.astype(np.float32)) / p[place]).max())


def check_weight_error(error: float) -> None:
    """Raise InputError where float32 is not enough; NaN is not."""
    if not error <= _WEIGHT_ERROR:
        raise _too_small(f"weights are off by up to {error:.2g} in float32, more than {_WEIGHT_ERROR:g}")


def to_weights(inverse: np.ndarray) -> None:
    """P becomes B, in place."""
    diagonal = -inverse.diagonal()
    for first in range(0, len(inverse), _SQUARE):
        inverse[first : first + _SQUARE] /= diagonal
    inverse[np.diag_indices(len(inverse))] = 0.0


def _too_small(problem: str) -> InputError:
    return InputError(
        f"`regularization` is too small for these counts: {problem}.\n"
        "Raise `regularization` (hundreds are usual where entries are 1), or lower the counts, for instance to 1."
    )


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
