"""A table of item vectors in int8, a scale per row: what serving reads for every query.

A row y becomes integers q = round(y / s), s = max |y| / 127, and so does a query x; the score is the exact int32
product of the two times both scales. A bias per item rides along as further coordinates, whose part in the query is 1:
it is rounded to steps of its row's scale as a whole and then cut up, so that none of its parts widens the row's range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.ops import int8_dot_top_k

_MOST = 127


@dataclass(frozen=True)
class Int8Rows:
    """Item vectors in int8.

    Args:
        values: int8 ``[I, F + m]``, the last m columns for the bias: an array, a tensor or a variable.
        scales: float32 ``[I]``, the same.
        bias_columns: m.

    Example:
        >>> rows = Int8Rows.of(np.array([[1.0, 0.0], [0.0, 2.0]], np.float32))
        >>> rows.top_k(np.array([[1.0, 1.0]], np.float32), 1)[0].tolist()
        [[1]]
    """

    values: Any
    scales: Any
    bias_columns: int = 0

    @classmethod
    def of(cls, table: np.ndarray, bias: np.ndarray | None = None) -> Int8Rows:
        """From vectors ``[I, F]`` and a bias ``[I]``.

        Raises:
            InputError: other shapes, or numbers that are not finite.
        """
        table = np.asarray(table, np.float32)
        bias = None if bias is None else np.asarray(bias, np.float32)
        if table.ndim != 2 or 0 in table.shape or (bias is not None and bias.shape != table.shape[:1]):
            shape = None if bias is None else bias.shape
            raise InputError(
                "Int8Rows expects a table [I, F] and a bias [I], neither empty.\n"
                f"Received shapes: {table.shape} and {shape}."
            )
        if not np.isfinite(table).all() or not (bias is None or np.isfinite(bias).all()):
            raise InputError("Int8Rows expects finite numbers.\nReceived: NaN or infinity.")
        scales = _scales(np.abs(table).max(axis=1))
        values = _rounded(table, scales)
        columns = 0
        if bias is not None:
            whole = np.rint(bias / scales)
            columns = max(1, int(np.ceil(np.abs(whole).max() / _MOST)))
            if columns > 16:
                # A row of nearly nothing with a large bias: give these rows a coarser scale instead of more columns.
                columns = 16
                scales = np.maximum(scales, np.abs(bias) / (columns * _MOST)).astype(np.float32)
                values, whole = _rounded(table, scales), np.rint(bias / scales)
            # Equal parts, the remainder spread over the first columns.
            parts = whole.astype(np.int64)
            share = np.sign(parts) * ((np.abs(parts)[:, None] + np.arange(columns)[::-1]) // columns).T
            values = np.concatenate([values, share.T.astype(np.int8)], axis=1)
        return cls(values, scales, columns)

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return int(np.prod(self.values.shape)) + 4 * int(self.values.shape[0])

    @property
    def width(self) -> int:
        """F, without the columns of the bias."""
        return int(self.values.shape[1]) - self.bias_columns

    def dequantize(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The vectors ``[I, F]`` and the bias ``[I]`` (or None) that the integers stand for, float32."""
        values, scales = tf.cast(self.values, tf.float32), tf.convert_to_tensor(self.scales)
        floats = values[:, : self.width] * scales[:, None]
        # Sums of a few whole numbers below 2^7 are exact.
        return floats, tf.reduce_sum(values[:, self.width :], axis=1) * scales if self.bias_columns else None

    def queries(self, vectors: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Queries ``[B, F]`` as int8 ``[B, F + m]`` and their scales ``[B]``; in a graph too."""
        vectors = tf.cast(tf.convert_to_tensor(vectors), tf.float32)
        if vectors.shape.rank != 2 or vectors.shape[1] != self.width:
            raise InputError(f"Queries must be [B, {self.width}].\nReceived shape: {vectors.shape}.")
        largest = tf.reduce_max(tf.abs(vectors), axis=1)
        most = float(_MOST)
        if self.bias_columns:
            # One over a whole number, so that the 1 that the bias is taken with is exact.
            largest = tf.maximum(largest, 1.0)
            largest = tf.where(largest <= most, most / tf.maximum(tf.floor(most / largest), 1.0), largest)
        # Not divided: of a graph TensorFlow makes this product anyway, and both must give the same bits.
        scales = largest * (1.0 / most)
        scales = tf.where(scales > float(np.finfo(np.float32).tiny), scales, 1.0)
        if self.bias_columns:
            vectors = tf.concat([vectors, tf.ones([tf.shape(vectors)[0], self.bias_columns])], axis=1)
        return tf.cast(tf.clip_by_value(tf.round(vectors / scales[:, None]), -most, most), tf.int8), scales

    def scores(self, vectors: Any, items: Any = None) -> tf.Tensor:
        """Scores of all items, float32 ``[B, I]``, or of candidates ``[B, C]``; in a graph too.

        The same bits as those of `top_k`: products of bytes are added exactly, the rest is done in the same order.
        """
        queries, of_queries = self.queries(vectors)
        # Exact in float32 up to 1,040 products of bytes, in float64 always.
        dtype = tf.float32 if int(self.values.shape[1]) <= 1_040 else tf.float64
        queries = tf.cast(queries, dtype)
        if items is None:
            totals = tf.matmul(queries, tf.cast(self.values, dtype), transpose_b=True)
            return tf.cast(totals, tf.float32) * (of_queries[:, None] * tf.convert_to_tensor(self.scales)[None])
        totals = tf.linalg.matvec(tf.cast(tf.gather(self.values, items), dtype), queries)
        return tf.cast(totals, tf.float32) * (of_queries[:, None] * tf.gather(self.scales, items))

    def top_k(
        self,
        vectors: Any,
        k: int,
        excluded_offsets: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
        chosen: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best items of each query.

        Args:
            vectors: ``[B, F]``.
            k: how many.
            excluded_offsets: see `tfrec.ops.int8_dot_top_k`, as for
            excluded: and what comes back.
            chosen: ascending numbers of items; only among these, by their places.
        """
        queries, scales = self.queries(vectors)
        values, of_items = self.values, self.scales
        if chosen is not None:
            values, of_items = tf.gather(values, chosen), tf.gather(of_items, chosen)
        values, of_items = tf.convert_to_tensor(values), tf.convert_to_tensor(of_items)
        return int8_dot_top_k(queries, scales, values, of_items, k, excluded_offsets, excluded)


def _scales(largest: np.ndarray) -> np.ndarray:
    scales = largest.astype(np.float32) / np.float32(_MOST)
    return np.where(scales > np.finfo(np.float32).tiny, scales, np.float32(1.0)).astype(np.float32)


def _rounded(vectors: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(vectors / scales[:, None]), -_MOST, _MOST).astype(np.int8)
