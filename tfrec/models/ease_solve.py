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
from scipy.linalg import lapack

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
#: Rows of a block of the inverse.
_INVERSE_BLOCK = 1_024
#: Side of the squares in which a matrix is mirrored.
_SQUARE = 1_024


def working_bytes(matrix: scipy.sparse.csr_matrix) -> int:
    """Upper bound of what `solve` takes besides the dense matrix: two copies of X, and blocks."""
    sparse = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    # A block of a product is there in sparse form, with up to 8 bytes for an index, and in dense form.
    blocks = _threads() * _BLOCK * (8 + 4 + 4)
    products = 2 * 4 * _SQUARE * matrix.shape[1]
    return 3 * sparse + max(blocks, _DENSE_BYTES + products) + 5 * 8 * _CHECKED * matrix.shape[1]


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
        for begin in range(0, num_items, _SQUARE):
            dense[begin : begin + _SQUARE, begin:] += block[:, begin : begin + _SQUARE].T @ block[:, begin:]
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

    With G = U'U (Cholesky) and V = U^-1 it is P = V V'. Each of the three takes I^3 / 3 operations, nearly all in
    NumPy's products of blocks with long inner sides. SciPy's routines get single blocks only: its BLAS counts in 32
    bits, and ssyrk of 40,000 rows ended the process (SciPy 1.17, OpenBLAS 0.3.30).

    Args:
        dense: float32 ``[I, I]``, rows contiguous.

    Raises:
        InputError: float32 finds the matrix not positive definite.
    """
    size = len(dense)
    blocks = [slice(first, min(size, first + _INVERSE_BLOCK)) for first in range(0, size, _INVERSE_BLOCK)]
    for k in blocks:
        above, right = slice(0, k.start), slice(k.stop, size)
        if k.start:
            dense[k, k.start :] -= dense[above, k].T @ dense[above, k.start :]
        factor, failed = lapack.spotrf(dense[k, k], lower=0)
        if failed:
            raise _too_small("the matrix X'X + regularization is not positive definite in float32")
        # The inverse of the factor's own block: the next step needs it in any case.
        dense[k, k], failed = lapack.strtri(factor, lower=0)
        if failed:
            raise _too_small("the matrix X'X + regularization is singular in float32")
        dense[k, right] = dense[k, k].T @ dense[k, right]
    # From U with inverted blocks on the diagonal to V, column by column; what is read of U lies below what is written.
    for k in blocks:
        for i in blocks:
            if i.start == k.start:
                break
            between = slice(i.start, k.start)
            dense[i, k] = -(dense[i, between] @ dense[between, k]) @ dense[k, k]
    # From V to P, row by row; what is read of V lies below, or to the right of, what is written.
    for n, i in enumerate(blocks):
        for j in blocks[n:]:
            dense[i, j] = dense[i, j.start :] @ dense[j, j.start :].T


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

    One step of refinement measures how far a column p_j of P is off: by ``P (G p_j - e_j)``, with the residual in
    float64 and G multiplied as ``X' (X p) + lambda p``. The error is that by P_jj, as the weights are.

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
