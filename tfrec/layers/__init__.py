"""Layers and operations for sparse user-item rows."""

from tfrec.quiet import load_tensorflow

load_tensorflow()


from tfrec.layers.aligned_dense import AlignedDense
from tfrec.layers.als_factors import ALSFactors
from tfrec.layers.multinomial import multinomial_nll
from tfrec.layers.sharded_embedding import ShardedEmbedding
from tfrec.layers.sparse_dense import SparseDense
from tfrec.layers.sparse_input import dropout_nonzeros, l2_normalize_rows
from tfrec.layers.tt_cache import CachedTTEmbedding, CacheRefresh
from tfrec.layers.tt_embedding import TTEmbedding
from tfrec.layers.tt_embedding_bag import TTEmbeddingBag
from tfrec.layers.tt_factors import suggest_factors

__all__ = [
    "ALSFactors",
    "AlignedDense",
    "CacheRefresh",
    "CachedTTEmbedding",
    "ShardedEmbedding",
    "SparseDense",
    "TTEmbedding",
    "TTEmbeddingBag",
    "dropout_nonzeros",
    "l2_normalize_rows",
    "multinomial_nll",
    "suggest_factors",
]
