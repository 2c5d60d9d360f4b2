"""What a VAE-CF is asked with once its last layer is integers: all layers before it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.models import VAECF
from tfrec.models.leave_one_out import leave_one_out
from tfrec.quantization.rows import Int8Rows


@keras.saving.register_keras_serializable(package="tfrec")
class VAECFQueries(VAECF):
    """The encoder, and the decoder up to its last hidden layer.

    Args:
        **network: of `tfrec.models.VAECF`.
    """

    def __init__(self, **network: Any) -> None:
        super().__init__(**{"trainable": False, **network})

    @classmethod
    def of(cls, model: VAECF) -> VAECFQueries:
        """Those of a trained model."""
        made = cls(**{k: v for k, v in model.get_config().items() if k not in ("name", "trainable")})
        for own, source in zip([*made.encoder, *made.decoder], [*model.encoder, *model.decoder], strict=True):
            own.set_weights(source.get_weights())
        return made

    def build_items(self, width: int | None) -> None:
        """None: they are elsewhere."""

    def least_items(self, num_items: int) -> int:
        """Columns that a row must have: all."""
        return num_items

    def check(self, rows: scipy.sparse.csr_matrix, name: str) -> None:
        """Rows may have any finite numbers."""

    def vectors(self, queries: Any, items: Int8Rows) -> tf.Tensor:
        """float32 ``[B, F]`` of histories."""
        return self.query_vectors(queries)

    def answerable(self, queries: Any, items: Int8Rows | None = None) -> tf.Tensor:
        """bool ``[B]``: True for all."""
        return super().answerable(queries)

    def contributions(
        self, row: scipy.sparse.csr_matrix, item: int, k: int, items: Int8Rows
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `tfrec.models.VAECF.explain`; queries are not rounded, which would hide small differences."""

        table, bias = items.dequantize()
        assert bias is not None

        def score(rows: scipy.sparse.csr_matrix) -> np.ndarray:
            return (tf.linalg.matvec(self.query_vectors(rows), table[item]) + bias[item]).numpy()

        return leave_one_out(score, row, k)[1:]
