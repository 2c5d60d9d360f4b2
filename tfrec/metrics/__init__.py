"""Metrics, one module each, and the registry that finds them by name. NumPy only."""

from tfrec.metrics.auc import auc
from tfrec.metrics.average_precision import average_precision
from tfrec.metrics.coverage import coverage
from tfrec.metrics.exposure import Exposure
from tfrec.metrics.gini import gini
from tfrec.metrics.hit_rate import hit_rate
from tfrec.metrics.ndcg import ndcg
from tfrec.metrics.novelty import novelty
from tfrec.metrics.precision import precision
from tfrec.metrics.recall import recall, recall_relevant
from tfrec.metrics.reciprocal_rank import reciprocal_rank
from tfrec.metrics.registry import REGISTRY, Definition, Metric, catalogue_metric, ranking_metric
from tfrec.metrics.tied_ranks import TIES, TiedRanks, Ties, tied_ranks

__all__ = [
    "REGISTRY",
    "TIES",
    "Definition",
    "Exposure",
    "Metric",
    "TiedRanks",
    "Ties",
    "auc",
    "average_precision",
    "catalogue_metric",
    "coverage",
    "gini",
    "hit_rate",
    "ndcg",
    "novelty",
    "precision",
    "ranking_metric",
    "recall",
    "recall_relevant",
    "reciprocal_rank",
    "tied_ranks",
]
