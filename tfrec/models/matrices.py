"""Sparse matrices as people hand them over, in one form, checked before any work starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError


def sparse_matrix(
    source: Any, name: str, rows: int | None = None, columns: int | None = None, fewest_columns: int | None = None
) -> scipy.sparse.csr_matrix:
    """float32 CSR with ascending columns and no stored zeros; a copy only where something has to change.

    Args:
        source: SciPy matrix or array of any format, or tf.SparseTensor; ``[B, N]``, or ``[N]`` for one row.
        name: of the argument, for messages.
        rows: B; None: any.
        columns: N; None: any.
        fewest_columns: narrower matrices, down to this, are filled up with empty columns to N; None: N.

    Raises:
        InputError: something else, another shape, an entry that occurs twice, NaN or infinite values, or columns
            that the matrix does not have.
    """
    if isinstance(source, tf.SparseTensor):
        source = _of_tensor(source, name)
    elif not scipy.sparse.issparse(source):
        # A list of numbers could be values as well as item numbers, so it is not guessed.
        raise InputError(
            f"`{name}` must be a SciPy sparse matrix or a tf.SparseTensor.\nReceived: {type(source)}.\n"
            "Make one of dense values by scipy.sparse.csr_array(values)."
        )
    if source.dtype.kind not in "biuf":
        raise InputError(f"`{name}` must have real numbers.\nReceived: values of type {source.dtype}.")
    if source.ndim not in (1, 2):
        raise InputError(f"`{name}` must have one dimension (a row) or two.\nReceived: shape {source.shape}.")
    _check_shape(source.shape, name, rows, columns, fewest_columns)
    matrix = _as_csr(source, name)
    ascends = _row_ascends(matrix)
    if not ascends:
        matrix = scipy.sparse.csr_matrix(matrix, copy=True)
        # SciPy keeps a flag, which is wrong where the columns were changed in place.
        matrix.has_sorted_indices = False
        matrix.sort_indices()
        if not _row_ascends(matrix):
            raise _twice(name)
    if matrix.data.dtype != np.float32:
        # Not `astype` of the matrix, which adds up entries that occur twice.
        with np.errstate(over="ignore"):
            data = matrix.data.astype(np.float32)
        matrix = scipy.sparse.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)
    if not np.isfinite(matrix.data).all():
        row = int(np.searchsorted(matrix.indptr, np.flatnonzero(~np.isfinite(matrix.data))[0], side="right")) - 1
        raise InputError(f"`{name}` must be finite in float32.\nReceived: NaN or infinity in row {row}.")
    if not matrix.data.all():
        # A stored zero says as much as one that is not stored; formats of blocks store many.
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    if columns is not None and matrix.shape[1] < columns:
        matrix = scipy.sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), (matrix.shape[0], columns))
    return matrix


def _of_tensor(source: tf.SparseTensor, name: str) -> scipy.sparse.coo_array:
    if source.shape.rank not in (1, 2):
        raise InputError(f"`{name}` must have one dimension (a row) or two.\nReceived: shape {source.shape}.")
    index, shape = source.indices.numpy(), tuple(source.dense_shape.numpy().tolist())
    if len(index) and ((index < 0).any() or (index >= shape).any()):
        raise InputError(f"`{name}` has an entry outside its shape.\nReceived: shape {shape}.")
    if not (source.dtype.is_floating or source.dtype.is_integer or source.dtype.is_bool):
        raise InputError(f"`{name}` must have real numbers.\nReceived: values of type {source.dtype.name}.")
    values = tf.cast(source.values, tf.float32) if source.dtype in (tf.float16, tf.bfloat16) else source.values
    return scipy.sparse.coo_array((values.numpy(), tuple(index.T)), shape=shape)


def _check_shape(
    shape: tuple[int, ...], name: str, rows: int | None, columns: int | None, fewest_columns: int | None
) -> None:
    given_rows, given_columns = (1, shape[0]) if len(shape) == 1 else shape
    fewest = columns if fewest_columns is None else fewest_columns
    narrow = columns is not None and fewest is not None and not fewest <= given_columns <= columns
    if narrow or (rows is not None and given_rows != rows):
        expected = tuple("any" if s is None else s for s in (rows, columns))
        or_less = f", or have from {fewest} columns" if fewest != columns else ""
        several = "" if rows is None or given_rows == rows else f"\nGive a row for each: {name}=matrix[numbers]."
        raise InputError(f"`{name}` must be of shape {expected}{or_less}.\nReceived: shape {shape}.{several}")


def _as_csr(source: Any, name: str) -> scipy.sparse.csr_matrix:
    """Two dimensions, the values as they are, nothing added up."""
    if source.format in ("csr", "csc") and source.ndim == 2:
        try:
            source.check_format(full_check=True)
        except ValueError as error:
            raise InputError(f"`{name}` is no valid {source.format.upper()} matrix.\nSciPy: {error}.") from error
        matrix = source.tocsr()
    else:
        coo = source.tocoo()
        if coo.ndim == 1:
            (column,) = coo.coords
            coo = scipy.sparse.coo_matrix((coo.data, (np.zeros_like(column), column)), shape=(1, coo.shape[0]))
        matrix = coo.tocsr()
        if matrix.nnz != coo.nnz:
            # The conversion has added up entries of the same place.
            raise _twice(name)
    # Of an array, a row has one dimension; of a matrix it has two.
    return scipy.sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)


def _row_ascends(matrix: scipy.sparse.csr_matrix) -> bool:
    """Whether each row's columns rise, none twice."""
    falls = matrix.indices[1:] <= matrix.indices[:-1]
    if falls.any():
        falls[matrix.indptr[(matrix.indptr > 0) & (matrix.indptr < matrix.nnz)] - 1] = False  # across two rows
    return not falls.any()


def _twice(name: str) -> InputError:
    return InputError(
        f"`{name}` must have each entry once.\nReceived: an entry that occurs twice.\n"
        "Add them up with matrix.sum_duplicates(), or take the last."
    )
