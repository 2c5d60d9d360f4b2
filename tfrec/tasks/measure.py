"""Measure a model and its references on a split, on every rank its share.

A model is asked as it can be asked (`tfrec.models.recommends.Recommends`): by the number of a user that it was trained
with, else by the user's history.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf
from tqdm import tqdm

from tfrec import distributed
from tfrec.data.csr import ResidentMatrix, to_sparse_tensor
from tfrec.errors import InputError
from tfrec.evaluation import Candidates, Report, evaluate_candidates, evaluate_full_ranking
from tfrec.metrics import Metric
from tfrec.models import Popularity
from tfrec.tasks.config import EvaluationConfig
from tfrec.tasks.split import Part, PartName, Split, TrainingSet

#: How what a user has becomes what a model takes: a matrix ``[B, I]`` to another one.
Rows = Callable[[scipy.sparse.csr_matrix], scipy.sparse.csr_matrix]
#: Scores ``[B, I]`` are held to about this many at once.
_MOST_SCORES = 1 << 27


class Measure:
    """Reports of models on the parts of a split.

    Args:
        split: what is asked.
        config: resolved (`Task.resolve_evaluation`).

    Raises:
        InputError: an unknown metric, one with a cutoff beyond the candidates, or candidates that cannot be drawn.
    """

    def __init__(self, split: Split, config: EvaluationConfig) -> None:
        self._split, self._config = split, config
        self._candidates: dict[str, Candidates] = {}
        if config.protocol != "all":
            self._candidates = {name: self._draw(name) for name in ("validation", "test")}
        num_items = split.train.matrix.shape[1]
        check_evaluation(config, min([num_items, *(c.num_candidates for c in self._candidates.values())]))
        self._scorers: dict[tuple[int, str], Any] = {}

    def _draw(self, name: PartName) -> Candidates:
        part, config = self._split.part(name), self._config
        # A user's test item may be among the negatives of the validation item: it was unknown then.
        if part.negatives is not None and config.protocol == "exact":
            return Candidates(part.seen, part.target_items, protocol="file", negatives=part.negatives)
        negatives = config.negatives
        if name == "validation" and config.validation_negatives is not None:
            negatives = config.validation_negatives
        protocol: Any = config.protocol
        keys = None if part.users is None else part.users
        return Candidates(part.seen, part.target_items, negatives, protocol, config.seed, keys=keys)

    def model(self, model: Any, part: PartName, rows: Rows, details: bool = False) -> Report:
        """What a model reaches.

        Args:
            model: with ``scores``.
            part: on which.
            rows: what it takes of what users have.
            details: keep where hits and lists fall, too, at `details_at`.
        """
        return self._of(self._scorer(model, part, rows), part, details)

    def references(self, part: PartName, fitted: TrainingSet | None = None, details: bool = False) -> dict[str, Report]:
        """``popularity`` and, where the truth is known, ``oracle``.

        Args:
            part: on which.
            fitted: what the model was fitted to, so that popularity counts the same interactions; None: the training
                part.
            details: as of `model`.
        """
        matrix = (fitted or self._split.train).matrix
        popularity = Popularity(matrix.shape[1])
        popularity.adapt(matrix)
        found = {"popularity": self._of(_Scorer(popularity, self._split.part(part), lambda m: m), part, details)}
        if self._split.oracle is not None:
            found["oracle"] = self._of(_Oracle(self._split, part), part, details)
        return found

    def best(self, model: Any, part: PartName, rows: Rows, chosen: np.ndarray, k: int) -> np.ndarray:
        """What a model recommends to some users of a part, among all items that they have not. No collective.

        Args:
            model: as of `model`.
            part: on which.
            rows: as of `model`.
            chosen: int64 ``[B]``, rows of the part.
            k: how many items.

        Returns:
            int64 ``[B, k]``, the best first, equal scores by lower number; -1 where fewer are left.
        """
        seen = self._split.part(part).seen[chosen]
        scores = np.array(self._scorer(model, part, rows).everything(chosen, seen), np.float32)
        scores[np.repeat(np.arange(len(chosen)), np.diff(seen.indptr)), seen.indices] = -np.inf
        values, items = tf.math.top_k(scores, k=min(k, scores.shape[1]))
        found = np.full((len(chosen), k), -1, np.int64)
        found[:, : items.shape[1]] = np.where(values.numpy() > -np.inf, items.numpy(), -1)
        return found

    @property
    def details_at(self) -> int:
        """The cutoff of details: that of the first metric that has one, else 10."""
        metrics = [Metric.parse(name) for name in self._config.metrics or ()]
        return next((m.k for m in metrics if m.k is not None), 10)

    def _scorer(self, model: Any, part: PartName, rows: Rows) -> _Scorer:
        key = (id(model), part)
        if key not in self._scorers:
            self._scorers = {k: s for k, s in self._scorers.items() if k[0] == id(model)}
            self._scorers[key] = _Scorer(model, self._split.part(part), rows)
        return self._scorers[key]

    def candidates(self, part: PartName) -> Candidates | None:
        """What a part's targets are ranked among; None: all items."""
        return self._candidates.get(part)

    def _of(self, scorer: _Scorer | _Oracle, name: PartName, details: bool = False) -> Report:
        part, config = self._split.part(name), self._config
        num_users, num_items = part.targets.shape
        shown = distributed.rank() == 0 and sys.stderr.isatty()
        with tqdm(total=num_users, unit="user", desc="evaluating", leave=False, disable=not shown) as bar:
            shared: dict[str, Any] = {
                "ties": config.ties,
                "details_at": self.details_at if details else None,
                "ranks": distributed.everyone(),
                "together": scorer.together,
                "progress": lambda done: bar.update(done - bar.n),
            }
            assert config.metrics is not None
            if config.protocol != "all":
                return evaluate_candidates(
                    scorer.candidates,
                    self._candidates[name],
                    config.metrics,
                    block_pairs=config.block_pairs,
                    **shared,
                )
            return evaluate_full_ranking(
                scorer.everything,
                part.seen,
                part.targets,
                config.metrics,
                train=self._split.train.matrix,
                gains=config.gains,
                block_users=max(1, min(config.block_users, _MOST_SCORES // num_items)),
                **shared,
            )


class _Scorer:
    """Asks a model for the users of a part, who are numbered as its rows."""

    def __init__(self, model: Any, part: Part, rows: Rows) -> None:
        self._by_number = part.users is not None and model.num_users is not None
        if not self._by_number and not model.takes_histories:
            raise InputError(
                f"{type(model).__name__} answers for its training users only, and these are others.\n"
                "Use another --data.split than held_out_users, or a family that takes histories: vae-cf, ease, als."
            )
        self._model, self._rows = model, rows
        #: Whether other processes hold a part of the model.
        self.together = bool(getattr(model, "exchanges_rows", False))
        self._part = part
        self._resident: ResidentMatrix | None = None
        self._users = tf.constant(part.users, tf.int64) if self._by_number else None
        self._graph: Any = None

    @cached_property
    def _forward(self) -> Any:
        """Scores of all items, of a block of users or of rows."""
        spec: Any = tf.TensorSpec([None], tf.int64)
        if not self._by_number:
            spec = tf.SparseTensorSpec([None, self._part.seen.shape[1]], tf.float32)
        model = self._model
        self._graph = tf.function(lambda queries: model.scores(queries), input_signature=[spec])
        # Not called through `tf.function`, which takes one run after the other in a process for one that is traced
        # again and again, and warns.
        return self._graph.get_concrete_function()

    def everything(self, rows: np.ndarray, seen: scipy.sparse.csr_matrix) -> tf.Tensor:
        """Scores of all items."""
        if self._by_number:
            return self._forward(tf.gather(self._users, rows))
        return self._forward(to_sparse_tensor(self._rows(seen)))

    def candidates(self, rows: tf.Tensor, items: tf.Tensor | None) -> tf.Tensor:
        """Scores of candidates, in a graph."""
        if self._by_number:
            return self._model.scores(tf.gather(self._users, rows), items)
        if self._resident is None:
            with tf.init_scope():
                self._resident = ResidentMatrix(self._rows(self._part.seen))
        return self._model.scores(self._resident.gather(rows), items)


class _Oracle:
    """Asks the model that the data was drawn from."""

    together = False

    def __init__(self, split: Split, part: PartName) -> None:
        events = split.events
        self._oracle: Any = split.oracle
        self._users = events.user_ids[split.part(part).event_users]
        self._items = split.train.item_ids

    def everything(self, rows: np.ndarray, seen: scipy.sparse.csr_matrix) -> np.ndarray:
        """Scores of all items."""
        return self._scores(np.asarray(rows), None)

    def candidates(self, rows: tf.Tensor, items: tf.Tensor | None) -> tf.Tensor:
        """Scores of candidates, in a graph."""
        if items is None:
            scores = tf.numpy_function(lambda r: self._scores(r, None), [rows], tf.float32)
            return tf.ensure_shape(scores, [None, len(self._items)])
        return tf.ensure_shape(tf.numpy_function(self._scores, [rows, items], tf.float32), [None, items.shape[1]])

    def _scores(self, rows: np.ndarray, items: np.ndarray | None) -> np.ndarray:
        columns = np.arange(len(self._items))[None] if items is None else items
        wanted = np.broadcast_to(self._items[columns], (len(rows), columns.shape[1]))
        return np.ascontiguousarray(self._oracle.scores(self._users[rows], wanted), np.float32)


def check_evaluation(config: EvaluationConfig, num_items: int) -> None:
    """Raise InputError for an unknown metric, one with a cutoff beyond the number of candidates, or a wrong block size.

    Args:
        config: resolved.
        num_items: how many items a target is ranked among, itself included.
    """
    metrics: Sequence[str] = config.metrics or ()
    if not metrics or len(set(metrics)) < len(metrics):
        raise InputError(f"Name at least one metric, and each once.\nReceived: {' '.join(metrics) or 'none'}.")
    for name in metrics:
        metric = Metric.parse(name)
        if metric.k is not None and metric.k > num_items:
            small = min(10, num_items)
            raise InputError(
                f"A metric's cutoff must not exceed the number of items.\nReceived: {name} for {num_items} items.\n"
                f"Lower it, e.g. --evaluation.metrics recall@{small} ndcg@{small} --evaluation.monitor ndcg@{small}."
            )
        if config.protocol != "all" and metric.of_catalogue:
            raise InputError(f"{name} is not defined for a ranking among candidates.\nLeave it out.")
    if config.monitor not in metrics:
        raise InputError(
            f"`monitor` must be one of the metrics.\nReceived: {config.monitor!r}; metrics: {', '.join(metrics)}.\n"
            "Add it to --evaluation.metrics, or name another with --evaluation.monitor."
        )
    for name in ("block_users", "block_pairs"):
        if getattr(config, name) < 1:
            raise InputError(f"`{name}` must be at least 1.\nReceived: {getattr(config, name)}.")
