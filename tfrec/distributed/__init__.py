"""Keras 3 on Horovod. Works the same, without Horovod installed, on one process.

tfrec.distributed.init()
model.compile(optimizer=...)
tfrec.distributed.distribute(model)
model.fit(batches_of_this_rank, callbacks=[*tfrec.distributed.callbacks(), ...])
"""

from tfrec.quiet import load_tensorflow

load_tensorflow()


from tfrec.distributed import elastic
from tfrec.distributed.callbacks import (
    BroadcastCallback,
    DriftCallback,
    DriftError,
    MetricAverageCallback,
    StateAverageCallback,
    StopTogetherCallback,
    callbacks,
)
from tfrec.distributed.elastic_state import CommitCallback, ElasticState, RanksChanged
from tfrec.distributed.everyone import everyone
from tfrec.distributed.optimizer import DistributedOptimizer, broadcast_state, detach, distribute, is_distributed
from tfrec.distributed.ranks import (
    agree,
    broadcast_from_zero,
    broadcast_json,
    built_with,
    exchange,
    gather_across_ranks,
    host,
    how_to_install,
    init,
    local_rank,
    local_size,
    on_gpu,
    rank,
    size,
    sum_across_ranks,
    together,
    where,
)
from tfrec.distributed.sharding import Shard, gather_rows, shard_of

__all__ = [
    "BroadcastCallback",
    "CommitCallback",
    "DistributedOptimizer",
    "DriftCallback",
    "DriftError",
    "ElasticState",
    "MetricAverageCallback",
    "RanksChanged",
    "Shard",
    "StateAverageCallback",
    "StopTogetherCallback",
    "agree",
    "broadcast_from_zero",
    "broadcast_json",
    "broadcast_state",
    "built_with",
    "callbacks",
    "detach",
    "distribute",
    "elastic",
    "everyone",
    "exchange",
    "gather_across_ranks",
    "gather_rows",
    "host",
    "how_to_install",
    "init",
    "is_distributed",
    "local_rank",
    "local_size",
    "on_gpu",
    "rank",
    "shard_of",
    "size",
    "sum_across_ranks",
    "together",
    "where",
]
