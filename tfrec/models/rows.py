"""Rows of counts as people hand them over: SciPy, NumPy, TensorFlow; checked before work starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError


def check_width(shape: Any, width: int, name: str) -> None:
    """Raise InputError unless a shape, as far as it is known, is ``[B, width]``."""
    rank = len(shape) if not isinstance(shape, tf.TensorShape) else shape.rank
    if rank is None:
        return
    if rank != 2 or shape[1] not in (None, width):
        shown = tuple(shape) if not isinstance(shape, tf.TensorShape) else tuple(shape.as_list())
        raise InputError(
            f"`{name}` must be rows of {width} columns, one for each item the model was made with.\n"
            f"Received: shape {shown}{f', {shown[1]} columns' if rank == 2 else ''}.\n"
            "Make the matrix from the same items as in training, or the model with num_items of the matrix."
        )


def sparse_rows(x: Any, width: int, name: str) -> tf.SparseTensor:
    """Rows as a SparseTensor ``[B, width]``, in a graph too."""
    if not isinstance(x, tf.SparseTensor):
        x = tf.convert_to_tensor(x)
        check_width(x.shape, width, name)
        x = tf.sparse.from_dense(x)
    check_width(x.shape, width, name)
    if x.shape.rank is not None and x.shape[1] is not None:
        return x
    # A width that is known when it runs.
    same = tf.debugging.assert_equal(
        x.dense_shape[1:],
        tf.constant([width], tf.int64),
        message=f"`{name}` must be rows of {width} columns, one for each item the model was made with.",
    )
    with tf.control_dependencies([same]):
        return tf.SparseTensor(x.indices, tf.identity(x.values), x.dense_shape)


def serve_rows(model: Any) -> tuple[Callable[[Any], tf.Tensor], list[Any]]:
    """What an export of a model over rows ``[B, num_items]`` answers: dense and sparse ones of the usual types, the
    signature being that of dense float32."""
    shape = [None, model.num_items]

    @tf.function(input_signature=[tf.SparseTensorSpec(shape, tf.float32)], autograph=False)
    def score(rows: tf.SparseTensor) -> tf.Tensor:
        return model(rows, training=False)

    def serve(rows: Any) -> tf.Tensor:
        return tf.ensure_shape(score(tf.cast(sparse_rows(rows, model.num_items, "x"), tf.float32)), shape)

    types = (tf.float32, tf.float64, tf.int64, tf.int32)
    return serve, [*(tf.TensorSpec(shape, t, name="x") for t in types), *(tf.SparseTensorSpec(shape, t) for t in types)]


def checked_rows(source: Any, name: str, width: int, counts: bool = True) -> Any:
    """A matrix or tensor with its width and, with ``counts``, its numbers checked: finite and at least 0. SciPy
    matrices come back as CSR in canonical form, SparseTensors in order. Pipelines come back as they are.

    Raises:
        InputError: another width; negative numbers, NaN or infinity, with the row of the first.
    """
    given: Any = source
    if scipy.sparse.issparse(source):
        check_width(given.shape, width, name)
        matrix: Any = given.tocsr()
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        if counts:
            _check_numbers(matrix.data, name, lambda at: int(np.searchsorted(matrix.indptr, at, side="right")) - 1)
        # Keras knows the matrix class.
        return scipy.sparse.csr_matrix(matrix)
    if isinstance(source, tf.SparseTensor):
        check_width(source.shape, width, name)
        source = tf.sparse.reorder(source)
        if counts:
            _check_numbers(source.values.numpy(), name, lambda at: int(source.indices[at, 0]))
        return source
    if isinstance(source, np.ndarray | tf.Tensor) or hasattr(source, "iloc"):
        check_width(source.shape, width, name)
        if counts:
            _check_numbers(np.asarray(source).reshape(-1), name, lambda at: at // width)
    return source


def check_weights(source: Any, name: str) -> None:
    """Raise InputError unless these are weights ``[B]``, finite and at least 0."""
    array = np.asarray(source)
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
        raise InputError(f"`{name}` must have one number for each row.\nReceived: shape {array.shape}.")
    _check_numbers(array.reshape(-1), name, lambda at: at, "weights")


def _check_numbers(values: np.ndarray, name: str, row: Callable[[int], int], what: str = "counts") -> None:
    if values.dtype.kind not in "biuf":
        raise InputError(f"`{name}` must be {what}, numbers.\nReceived: dtype {values.dtype}.")
    if values.size == 0 or values.dtype.kind in "bu":
        return
    # Compared as float32, in which the model computes. NaN compares as neither.
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32, copy=False)
    wrong = ~((narrow >= 0) & (narrow < np.inf))
    if wrong.any():
        at = int(wrong.argmax())
        raise InputError(
            f"`{name}` must be {what}: finite and at least 0.\nReceived: {values[at]} in row {row(at)}; "
            f"{int(wrong.sum())} such numbers."
        )
