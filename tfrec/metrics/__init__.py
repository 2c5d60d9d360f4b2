"""Ranking metrics. NumPy only."""

from tfrec.metrics.ranking import (
    TIES,
    Metric,
    TiedRanks,
    Ties,
    auc,
    average_precision,
    hit_rate,
    ndcg,
    precision,
    recall,
    reciprocal_rank,
    tied_ranks,
)

__all__ = [
    "TIES",
    "Metric",
    "TiedRanks",
    "Ties",
    "auc",
    "average_precision",
    "hit_rate",
    "ndcg",
    "precision",
    "recall",
    "reciprocal_rank",
    "tied_ranks",
]
