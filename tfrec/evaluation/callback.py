"""Metrics of a whole ranking after every epoch of ``fit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.data.csr import to_sparse_tensor
from tfrec.evaluation.full_ranking import evaluate_full_ranking
from tfrec.metrics import Ties


class RankingCallback(keras.callbacks.Callback):
    """Puts `evaluate_full_ranking` of held-out users into the logs of each epoch, as ``val_ndcg@100`` and the like.

    For a model whose ``scores`` takes histories, a SparseTensor ``[B, I]``, such as `tfrec.models.VAECF`. Callbacks
    that look at these logs, such as EarlyStopping, come after it in the list.

    Args:
        seen: ``[U, I]``, the users' rows; what is in them is no candidate.
        targets: ``[U, I]``, the items to predict, none of them seen.
        metrics: names, see `tfrec.metrics.Metric`.
        ties: as in `evaluate_full_ranking`.
        block_users: users scored at once.

    Example:
        >>> past = scipy.sparse.csr_matrix([[1.0, 0, 1, 0], [0, 1, 0, 0]])
        >>> future = scipy.sparse.csr_matrix([[0, 1.0, 0, 0], [1, 0, 0, 0]])
        >>> ranking = RankingCallback(past, future, ["ndcg@2"])
        >>> stop = keras.callbacks.EarlyStopping("val_ndcg@2", mode="max")
        >>> callbacks = [ranking, stop]
    """

    def __init__(
        self,
        seen: scipy.sparse.csr_matrix,
        targets: scipy.sparse.csr_matrix,
        metrics: Sequence[str] = ("ndcg@100",),
        ties: Ties = "expected",
        block_users: int = 512,
    ) -> None:
        super().__init__()
        self._data = scipy.sparse.csr_matrix(seen), scipy.sparse.csr_matrix(targets)
        self._options: dict[str, Any] = {"metrics": list(metrics), "ties": ties, "block_users": block_users}
        self._forward: Any = None

    def set_model(self, model: keras.Model) -> None:
        """Keras tells whose ``fit`` it is."""
        super().set_model(model)
        spec = tf.SparseTensorSpec([None, self._data[0].shape[1]], tf.float32)
        self._forward = tf.function(lambda rows: model.scores(rows), input_signature=[spec])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Evaluate, and add to the logs."""

        def score(users: np.ndarray, rows: scipy.sparse.csr_matrix) -> tf.Tensor:
            return self._forward(to_sparse_tensor(rows))

        report = evaluate_full_ranking(score, *self._data, **self._options)
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in report.metrics.items()})
