"""A table of item vectors in int8, a scale per row: what serving reads for every query.

A row y becomes integers q = round(y / s), s = max |y| / 127, and so does a query x; the score is the exact int32
product of the two times both scales. A bias per item rides along as further coordinates, whose part in the query is 1:
it is rounded to steps of its row's scale as a whole and then cut up, so that none of its parts widens the row's range.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrec.data.files import atomic_write
from tfrec.errors import InputError
from tfrec.ops import int8_dot_top_k

_MOST = 127


@dataclass(frozen=True)
class Int8Rows:
    """Item vectors in int8.

    Args:
        values: int8 ``[I, F + m]``, the last m columns for the bias.
        scales: float32 ``[I]``.
        bias_columns: m.

    Example:
        >>> rows = Int8Rows.of(np.array([[1.0, 0.0], [0.0, 2.0]], np.float32))
        >>> rows.top_k(np.array([[1.0, 1.0]], np.float32), 1)[0].tolist()
        [[1]]
    """

    values: np.ndarray
    scales: np.ndarray
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
                "Int8Rows takes a table [I, F] and a bias [I], neither empty.\n"
                f"Received shapes: {table.shape} and {shape}."
            )
        if not np.isfinite(table).all() or not (bias is None or np.isfinite(bias).all()):
            raise InputError("Int8Rows takes finite numbers.\nReceived: NaN or infinity.")
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
        return self.values.nbytes + self.scales.nbytes

    def dequantize(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The vectors ``[I, F]`` and the bias ``[I]`` that the integers stand for, float32."""
        floats = self.values.astype(np.float32) * self.scales[:, None]
        if not self.bias_columns:
            return floats, None
        whole = self.values[:, -self.bias_columns :].sum(axis=1, dtype=np.int64)
        return floats[:, : -self.bias_columns], whole.astype(np.float32) * self.scales

    def queries(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Queries ``[B, F]`` as int8 ``[B, F + m]`` and their scales ``[B]``."""
        vectors = np.asarray(vectors, np.float32)
        width = self.values.shape[1] - self.bias_columns
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise InputError(f"Queries must be [B, {width}].\nReceived shape: {vectors.shape}.")
        largest = np.abs(vectors).max(axis=1, initial=0.0)
        if self.bias_columns:
            # One over a whole number, so that the 1 that the bias is taken with is exact.
            largest = np.maximum(largest, 1.0)
            largest = np.where(largest <= _MOST, _MOST / np.maximum(_MOST // largest, 1.0), largest)
        scales = _scales(largest)
        values = _rounded(vectors, scales)
        if self.bias_columns:
            one = np.repeat(_rounded(np.ones([len(vectors), 1], np.float32), scales), self.bias_columns, axis=1)
            values = np.concatenate([values, one], axis=1)
        return values, scales

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """Scores of all items, float32 ``[B, I]``."""
        values, scales = self.queries(vectors)
        # Sums of products of bytes are exact in float32 up to 1,040 of them, in float64 always.
        dtype = np.float32 if values.shape[1] <= 1_040 else np.float64
        totals = (values.astype(dtype) @ self.values.T.astype(dtype)).astype(np.float32)
        return totals * (scales[:, None] * self.scales[None, :])

    def top_k(
        self,
        vectors: np.ndarray,
        k: int,
        excluded_offsets: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best items of each query; see `tfrec.ops.int8_dot_top_k` for the excluded ones and what comes back."""
        values, scales = self.queries(vectors)
        return int8_dot_top_k(
            tf.constant(values),
            tf.constant(scales),
            tf.constant(self.values),
            tf.constant(self.scales),
            k,
            excluded_offsets,
            excluded,
        )

    def save(self, path: Path) -> None:
        """Write an .npz, whole or not at all."""
        with atomic_write(path) as stream:
            np.savez(stream, values=self.values, scales=self.scales, bias_columns=np.int64(self.bias_columns))

    @classmethod
    def load(cls, path: Path) -> Int8Rows:
        """Read what `save` wrote.

        Raises:
            InputError: it is damaged or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                found = cls(file["values"], file["scales"], int(file["bias_columns"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is no int8 table: {error}.") from error
        rows = found.values.shape[0] if found.values.ndim == 2 else -1
        fits = found.values.dtype == np.int8 and found.scales.shape == (rows,)
        if not fits or not 0 <= found.bias_columns < found.values.shape[1]:
            raise InputError(f"{path} is no int8 table: values {found.values.shape}, scales {found.scales.shape}.")
        return found


def _scales(largest: np.ndarray) -> np.ndarray:
    scales = largest.astype(np.float32) / np.float32(_MOST)
    return np.where(scales > np.finfo(np.float32).tiny, scales, np.float32(1.0)).astype(np.float32)


def _rounded(vectors: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(vectors / scales[:, None]), -_MOST, _MOST).astype(np.int8)
