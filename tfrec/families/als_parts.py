"""The training of ALS whose factors are spread over the ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec import distributed
from tfrec.data.sharded_matrix import ShardedMatrix
from tfrec.distributed.sharding import Shard, mark
from tfrec.families.als import ALSTrainer, make_model
from tfrec.models.als_sharded import ShardedALS

if TYPE_CHECKING:
    import scipy.sparse


class ShardedALSTrainer(ALSTrainer):
    """As `ALSTrainer`; checkpoints are a file per rank (`tfrec.runs.parts`), and all ranks write them together."""

    def prepare(self, weighted: scipy.sparse.csr_matrix) -> None:
        """Make this rank's part of the model, and keep its rows of the confidences."""
        ranks = distributed.everyone()
        self._matrix = ShardedMatrix.of_matrix(weighted, ranks)
        self.model = ShardedALS(make_model(self.config), ranks, self.config.model.block_mib)
        self.model.prepare(*weighted.shape)
        for table, num_rows in zip(self.model.weights, weighted.shape, strict=True):
            mark(table, Shard(num_rows, ranks.rank, ranks.size))

    @property
    def bytes_of_rank(self) -> int:
        """Of the factors that this rank holds."""
        return sum(int(np.prod(table.shape)) * np.dtype(table.dtype).itemsize for table in self.model.weights)

    def saves(self, due: bool) -> bool:
        """All ranks, by rank 0's clock."""
        return bool(distributed.broadcast_json(due))

    def solve(self, record: Callable[[int, float, float | None], None] | None = None) -> Any:
        """The iterations that are left, on every rank its rows; returns the model."""
        if len(self._rows) < self.model.iterations:
            self.model.fit(
                self._matrix,
                callback=record,
                calculate_training_loss=self._training.training_loss,
                initial_iteration=len(self._rows),
            )
        return self.model
