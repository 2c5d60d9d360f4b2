"""Measure a model of users and items, and its references, on the held-out items."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfrec import distributed
from tfrec.configs import CandidateConfig
from tfrec.data import SyntheticCatalog
from tfrec.evaluation import Candidates, CandidateScorer, Report, evaluate_candidates
from tfrec.training.prepare_items import PreparedItems


def make_candidates(data: PreparedItems, part: str, config: CandidateConfig) -> Candidates:
    """What the held-out items of ``validation`` or ``test`` are ranked among.

    A user's test item may be among the negatives of her validation item: nobody knew it then.

    Raises:
        InputError: see `tfrec.evaluation.Candidates`.
    """
    if part == "test" and data.test_negatives is not None and config.protocol == "exact":
        return Candidates(data.seen(part), data.heldout(part), protocol="file", negatives=data.test_negatives)
    negatives = config.negatives
    if part == "validation" and config.validation_negatives is not None:
        negatives = config.validation_negatives
    return Candidates(data.seen(part), data.heldout(part), negatives, config.protocol, config.seed)


def measure_items(score: CandidateScorer, candidates: Candidates, config: CandidateConfig) -> Report:
    """Evaluate, on every rank its share; with a progress bar where it takes long and somebody watches."""
    shown = distributed.rank() == 0 and sys.stderr.isatty()
    with tqdm(total=len(candidates.users), unit="user", desc="evaluating", leave=False, disable=not shown) as bar:
        return evaluate_candidates(
            score,
            candidates,
            config.metrics,
            ties=config.ties,
            block_pairs=config.block_pairs,
            rank=distributed.rank(),
            size=distributed.size(),
            sum_across_ranks=distributed.sum_across_ranks,
            progress=lambda done: bar.update(done - bar.n),
        )


def measure_all_items(
    model: Any, data: PreparedItems, candidates: Candidates, config: CandidateConfig
) -> dict[str, Report]:
    """``model``, ``popularity`` and, where the truth is known, ``oracle`` -> report."""
    scorers: dict[str, CandidateScorer] = {"model": model.scores, "popularity": popularity_scorer(data.popularity())}
    if data.oracle is not None:
        scorers["oracle"] = _oracle_scorer(data)
    return {name: measure_items(score, candidates, config) for name, score in scorers.items()}


def popularity_scorer(counts: np.ndarray) -> CandidateScorer:
    """Scores an item by the number of training users who have it."""
    values = tf.constant(counts, tf.float32)

    def score(users: tf.Tensor, items: tf.Tensor | None) -> tf.Tensor:
        if items is None:
            return tf.tile(values[None, :], [tf.size(users), 1])
        return tf.gather(values, items)

    return score


def _catalog_scorer(oracle: SyntheticCatalog) -> CandidateScorer:
    """For candidates only: their scores need no row over all items."""

    def score(users: tf.Tensor, items: tf.Tensor | None) -> tf.Tensor:
        if items is None:
            items = tf.tile(tf.range(oracle.num_items, dtype=tf.int64)[None, :], [tf.size(users), 1])
        return tf.ensure_shape(tf.numpy_function(oracle.scores, [users, items], tf.float32), [None, items.shape[1]])

    return score


def _oracle_scorer(data: PreparedItems) -> CandidateScorer:
    oracle, ids = data.oracle, data.interactions.user_ids
    columns = data.interactions.item_ids
    assert oracle is not None
    if isinstance(oracle, SyntheticCatalog):
        return _catalog_scorer(oracle)

    def score(users: tf.Tensor, items: tf.Tensor | None) -> tf.Tensor:
        scores = tf.numpy_function(
            lambda u: np.ascontiguousarray(oracle.scores(ids[u])[:, columns], np.float32), [users], tf.float32
        )
        scores = tf.ensure_shape(scores, [None, len(columns)])
        return scores if items is None else tf.gather(scores, items, batch_dims=1)

    return score
