"""A model whose item vectors are int8, a scale per row; what it is asked with stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.models.base import Model
from tfrec.models.best import best_by_search
from tfrec.models.matrices import sparse_matrix
from tfrec.models.questions import Choice
from tfrec.models.recommends import Recommends
from tfrec.models.rows import serve_rows
from tfrec.quantization.als_queries import ALSQueries
from tfrec.quantization.rows import Int8Rows
from tfrec.quantization.vae_cf_queries import VAECFQueries

#: The part of a model that makes query vectors, see `QuantizedItems`.
Side = ALSQueries | VAECFQueries


@keras.saving.register_keras_serializable(package="tfrec")
class QuantizedItems(Recommends, Model):
    """Ranks by inner products of bytes: a quarter of the item vectors' float32 memory.

    Vectors of queries are made as by the float model (`ALSQueries`, `VAECFQueries`) and rounded query by query; the
    score is the exact int32 product of the two rows of integers times their scales, see `tfrec.quantization.Int8Rows`.
    Similar items, reasons and the fold-in of histories go by the vectors that the integers stand for.

    Args:
        side: makes query vectors, or its config.
        num_items: I.
        width: F, of the vectors.
        bias_columns: m, of `Int8Rows`.

    Input shape: histories, sparse or dense rows ``[B, I]``.
    Output shape: scores, float32 ``[B, I]``.

    Example:
        >>> import scipy.sparse
        >>> from tfrec.models import ALS
        >>> plays = scipy.sparse.csr_matrix([[3, 1, 0, 0], [2, 4, 0, 0], [0, 0, 5, 1], [0, 0, 1, 2.0]])
        >>> model = ALS(factors=2, iterations=5)
        >>> _ = model.fit(plays, verbose=0)
        >>> small = QuantizedItems.of(model, ALSQueries.of(model))
        >>> int(small.recommend(0, k=1, filter_seen=False)[0][0]) in (0, 1)
        True
    """

    def __init__(
        self, side: Side | dict[str, Any], num_items: int, width: int, bias_columns: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**{"trainable": False, **kwargs})
        self.side: Any = keras.saving.deserialize_keras_object(side) if isinstance(side, dict) else side
        self.num_items, self.width, self.bias_columns = num_items, width, bias_columns
        self.num_users = self.side.num_users
        self.takes_histories = True
        # Values of rows stay float32 in mixed precision.
        self.autocast = False
        self.supports_jit = False
        self.integers = self.add_weight(
            name="integers", shape=(num_items, width + bias_columns), dtype="int8", initializer="zeros", autocast=False
        )
        self.scales = self.add_weight(
            name="scales", shape=(num_items,), dtype="float32", initializer="ones", autocast=False
        )
        self.built = True

    @classmethod
    def of(cls, model: Any, side: Side) -> QuantizedItems:
        """From a float model with `item_vectors`, and what makes its queries.

        Raises:
            InputError: vectors that are not finite.
        """
        table, bias = model.item_vectors()
        rows = Int8Rows.of(tf.cast(table, tf.float32).numpy(), None if bias is None else bias.numpy())
        made = cls(side, model.num_items, rows.width, rows.bias_columns)
        made.integers.assign(rows.values)
        made.scales.assign(rows.scales)
        return made

    def build(self, input_shape: Any = None) -> None:
        """All weights are there from the start."""

    @property
    def rows(self) -> Int8Rows:
        """The item vectors."""
        # The variables, not their values: on a GPU TensorFlow gathers bytes from a variable only.
        return Int8Rows(self.integers.value, self.scales.value, self.bias_columns)

    # ---- what it is asked ------------------------------------------------------------------------------------------

    def checked_rows(self, rows: Any, name: str, num_rows: int | None = None) -> scipy.sparse.csr_matrix:
        """As the float model's."""
        matrix = sparse_matrix(rows, name, num_rows, self.num_items, self.side.least_items(self.num_items))
        self.side.check(matrix, name)
        return matrix

    def query_vectors(self, queries: Any) -> tf.Tensor:
        """Float vectors ``[B, F]``, before they are rounded."""
        return self.side.vectors(self._checked(queries), self.rows)

    def item_vectors(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The vectors ``[I, F]`` and the bias that the integers stand for. `scores` rounds the query, too."""
        return self.rows.dequantize()

    def inner_products(self) -> tuple[Callable[[Any], tf.Tensor], tf.Tensor]:
        """Refused: the query is rounded, too.

        Raises:
            InputError: always.
        """
        raise self.cannot("ranks by integers, not by inner products of float vectors", "Use the float model")

    def scores(self, queries: Any, items: Any = None) -> tf.Tensor:
        """The product of integers, times both scales; see `Recommends.scores`."""
        return self.rows.scores(self.query_vectors(queries), items)

    def link(self, best: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """As the float model's."""
        return self.side.link(best, scores)

    def answerable(self, queries: Any) -> tf.Tensor:
        """As the float model's."""
        return self.side.answerable(self._checked(queries), self.rows)

    def best_items(
        self, queries: Any, k: int, seen: scipy.sparse.csr_matrix | None, choice: Choice, linked: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Recommends.best_items`; in one operation on integers, but where all scores are needed for the link."""
        num_queries = queries.shape[0]
        if linked or num_queries == 0:
            return super().best_items(queries, k, seen, choice, linked)
        vectors = self.query_vectors(queries)

        def search(chosen: np.ndarray | None, k: int, offsets: Any, columns: np.ndarray) -> Any:
            return self.rows.top_k(vectors, k, offsets, columns, chosen)

        ids, scores = best_by_search(search, num_queries, self.num_items, k, seen, choice)
        silent = ~self.answerable(queries).numpy()
        ids[silent], scores[silent] = -1, -np.inf
        return ids, scores

    def reasons(self, row: Any, item: int, k: int) -> tuple[float, np.ndarray, np.ndarray]:
        """As the float model's, by the vectors that the integers stand for; the score is that of `scores`."""
        items, parts = self.side.contributions(row, item, k, self.rows)
        return float(self.scores(row)[0, item]), items, parts

    def carry_over(self, old: Any, users: Any, items: Any) -> None:
        """Refused: integers have the ranges of their model's vectors.

        Raises:
            InputError: always.
        """
        raise self.cannot("cannot start from an earlier model", "Carry over the float model, train it, and quantize it")

    def _checked(self, queries: Any) -> Any:
        return self.checked_rows(queries, "queries") if scipy.sparse.issparse(queries) else queries

    # ---- as a Keras model ------------------------------------------------------------------------------------------

    def call(self, x: tf.SparseTensor | tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Scores of all items for histories."""
        return self.scores(x if isinstance(x, tf.SparseTensor) else tf.sparse.from_dense(x))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """``[B, I]``."""
        return (input_shape[0], self.num_items)

    def served(self) -> tuple[Callable[[Any], tf.Tensor], list[Any]]:
        """See `Model.served`."""
        return serve_rows(self)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {
            **super().get_config(),
            "side": keras.saving.serialize_keras_object(self.side),
            "num_items": self.num_items,
            "width": self.width,
            "bias_columns": self.bias_columns,
        }
