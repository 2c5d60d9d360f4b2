"""ALS: matrix factorization for implicit feedback, with known users or with histories that are folded in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from tfrec.errors import InputError
from tfrec.families.config import RunConfig, TrainingConfig
from tfrec.families.derivation import Derivation, QuantizeSettings
from tfrec.families.family import Family, Outcome, Trainer
from tfrec.families.memory import WORK, Memory, Sizes
from tfrec.tasks import DataConfig, EvaluationConfig, TrainingSet

if TYPE_CHECKING:
    import scipy.sparse

    from tfrec.evaluation import Report
    from tfrec.models import ALS
    from tfrec.models.als_sharded import ShardedALS
    from tfrec.runs.folder import RunFolder


def _pairs(**settings: Any) -> DataConfig:
    """A fifth of the user-item pairs held out, as in implicit's examples."""
    return DataConfig(split="random_pairs", **settings)


@dataclass(frozen=True)
class ALSConfig:
    """Alternating least squares, see tfrec.models.ALS."""

    factors: int = 128
    """Width of the factors, 1 to 1,024."""
    regularization: float = 0.01
    """Weight of the squared factors."""
    alpha: float = 1.0
    """Confidence of an entry per unit of its value."""
    iterations: int = 15
    """Sweeps over users and items."""
    unobserved_weight: float = 1.0
    """Weight of every pair that is not in the data."""
    frequency_exponent: float = 0.0
    """How the regularization grows with a row's entries; 0: not, 1: iALS."""
    solver: Literal["cg", "cholesky", "block"] = "cg"
    """cg: conjugate gradients; cholesky: exact; block: exact in blocks of coordinates (iALS++)."""
    cg_steps: int = 3
    """Conjugate gradient steps per half-sweep."""
    block_size: int = 64
    """Coordinates that the block solver solves for at once."""
    factor_dtype: Literal["float16", "float32"] = "float32"
    """How factors are stored; sums are float32."""
    confidence: Literal["values", "log", "bm25", "tf_idf"] = "values"
    """How the data's values become confidences, see tfrec.data.confidence."""
    bm25_k1: float = 100.0
    """BM25: larger: many plays of one item count more."""
    bm25_b: float = 0.8
    """BM25: how much an item's popularity counts against it, 0 to 1."""
    sharded: bool = False
    """Each rank holds its share of the rows of both tables and of the matrix, in place of both whole tables."""
    block_mib: int = 64
    """Of sharded: MiB of the other side's rows that a rank fetches at once."""


@dataclass(frozen=True)
class ALSTraining(TrainingConfig):
    """What is done with which data."""

    training_loss: bool = False
    """Compute the exact training loss after each iteration."""
    checkpoint_seconds: float = 20.0
    """Least time between checkpoints to resume from."""


@dataclass(frozen=True)
class ALSRun(RunConfig):
    """Train ALS, measure, and write a run folder."""

    data: DataConfig = field(default_factory=_pairs)
    """Where the interactions come from, and what is held out."""
    model: ALSConfig = field(default_factory=ALSConfig)
    """The objective and its solver."""
    training: ALSTraining = field(default_factory=ALSTraining)
    """How it is trained."""


#: Precision first, as in the implicit package's study.
_TOP_10 = EvaluationConfig(
    metrics=("precision@10", "recall@20", "recall@50", "ndcg@100", "map@10", "hit_rate@10", "coverage@100"),
    monitor="precision@10",
)


def als() -> ALSRun:
    """ALS on the embedded synthetic data, or on a table of your own with --data.path FILE."""
    return ALSRun(
        model=ALSConfig(
            factors=32,
            factor_dtype="float16",
            frequency_exponent=1.0,
            unobserved_weight=0.1,
            regularization=0.02,
            iterations=10,
        )
    )


def als_lastfm() -> ALSRun:
    """ALS on Last.fm-360k with BM25 weights, as in implicit's example; --data.name lastfm-2k for a small one."""
    return ALSRun(
        data=_pairs(name="lastfm-360k"),
        model=ALSConfig(
            factors=128, factor_dtype="float16", iterations=15, confidence="bm25", bm25_k1=100.0, bm25_b=0.8
        ),
        training=ALSTraining(train_on_validation=True),
        evaluation=_TOP_10,
    )


def als_ml20m() -> ALSRun:
    """ALS on MovieLens-20M, 4 stars and more, with BM25 weights, as in the implicit package's benchmark."""
    return ALSRun(
        data=_pairs(name="ml-20m", min_rating=3.5),
        model=ALSConfig(
            factors=128, factor_dtype="float16", iterations=15, confidence="bm25", bm25_k1=100.0, bm25_b=0.9, alpha=5.0
        ),
        training=ALSTraining(train_on_validation=True),
        evaluation=_TOP_10,
    )


def ials_ml1m() -> ALSRun:
    """iALS on MovieLens-1M, strong generalization with 600 + 600 held-out users, who are folded in."""
    return ALSRun(
        data=DataConfig(name="ml-1m", heldout_users=600),
        model=ALSConfig(
            factors=256,
            factor_dtype="float16",
            regularization=0.01,
            unobserved_weight=1 / 6,
            frequency_exponent=1.0,
            iterations=10,
        ),
    )


def ials_ml20m() -> ALSRun:
    """iALS on MovieLens-20M with the settings of Rendle et al. (2022), with 1,024 of their 2,048 factors."""
    return ALSRun(
        data=DataConfig(name="ml-20m", heldout_users=10_000),
        # Their alpha0 = .1 is a weight of .1 / 1.1 here; up to 1,024 factors.
        model=ALSConfig(
            factors=1024,
            factor_dtype="float16",
            regularization=0.003,
            unobserved_weight=0.1 / 1.1,
            frequency_exponent=1.0,
            iterations=16,
        ),
    )


class ALSTrainer(Trainer):
    """Iterations over users and items; rank 0 leaves a checkpoint now and then."""

    round = "iteration"

    def __init__(self, config: ALSRun, data: TrainingSet) -> None:
        from tfrec import distributed

        ranks = distributed.everyone()
        self._training, self._weighted = config.training, weigh(data.matrix, config.model)
        settings, sharded = make_model(config), config.model.sharded
        self.model: Any = in_parts(settings, data.matrix.shape, config.model.block_mib) if sharded else settings
        self.model.prepare(*data.matrix.shape)
        users, items = data.matrix.shape
        self._bytes = (users + items) * settings.factors * np.dtype(settings.factor_dtype).itemsize
        self.about = (
            f"{users:,} users, {items:,} items, {data.matrix.nnz:,} interactions; {settings.factors} factors in "
            f"{settings.factor_dtype} ({self._bytes / (ranks.size if sharded else 1) / 2**20:.1f} MiB on each rank"
            f"{', in parts' if sharded else ''}), solver {settings.sweep.solver}"
        )
        self._rows: list[dict[str, Any]] = []
        self._first = distributed.rank() == 0

    def resume(self, folder: RunFolder, monitor: str) -> int:
        """The factors of an earlier start, on every rank."""
        from tfrec import distributed
        from tfrec.runs.checkpoint import load_state
        from tfrec.runs.claim import on_rank_zero

        if on_rank_zero(folder.last.is_file):
            self._rows = load_state(folder.last, self.model, optimizer=False)["rows"]
            distributed.broadcast_state(self.model.weights)
        return len(self._rows)

    def fit(self, folder: RunFolder, monitor: str, validate: Callable[[], Report]) -> Outcome:
        """All iterations that are left. Validation has nothing to pick among them."""
        from tfrec import distributed
        from tfrec.runs.checkpoint import save_state
        from tfrec.runs.history import write_csv

        rows, model, saved_at = self._rows, self.model, time.perf_counter()

        def record(iteration: int, seconds: float, loss: float | None) -> None:
            nonlocal saved_at
            row = {"iteration": iteration, "seconds": round(seconds, 4)}
            rows.append(row if loss is None else {**row, "loss": loss})
            if self._first:
                shown = "" if loss is None else f"  loss {loss:.6f}"
                print(f"iteration {iteration}/{model.iterations}  {seconds:.2f} s{shown}", flush=True)
            # By rank 0's clock: with tables in parts every rank writes its own.
            late = time.perf_counter() - saved_at >= self._training.checkpoint_seconds
            if iteration == model.iterations or distributed.broadcast_json(late):
                if self._first:
                    write_csv(folder.history, rows)
                save_state(folder.last, model, {"rows": rows}, optimizer=False)
                saved_at = time.perf_counter()

        self.solve(record)
        seconds = [row["seconds"] for row in rows]
        return Outcome(
            {
                "iterations": len(rows),
                "seconds_per_iteration": seconds,
                "median_seconds_per_iteration": float(np.median(seconds)),
                "factor_bytes": self._bytes,
                **({"training_loss": rows[-1]["loss"]} if "loss" in rows[-1] else {}),
            }
        )

    def solve(self, record: Callable[[int, float, float | None], None] | None = None) -> Any:
        """The iterations that are left, on every rank its rows."""
        from tfrec import distributed
        from tfrec.data.sharded_matrix import ShardedMatrix
        from tfrec.models import ALS

        if len(self._rows) == self.model.iterations:
            return self.model
        shared: dict[str, Any] = {
            "callback": record,
            "calculate_training_loss": self._training.training_loss,
            "initial_iteration": len(self._rows),
        }
        if isinstance(self.model, ALS):
            self.model.fit(self._weighted, verbose=0, ranks=distributed.everyone(), **shared)
        else:
            self.model.fit(ShardedMatrix.of_matrix(self._weighted, distributed.everyone()), **shared)
        return self.model


class ALSFamily(Family[ALSRun]):
    """Has factors for its training users, and folds in the histories of others."""

    name = "als"
    config = ALSRun
    recipes: ClassVar = {
        "als": als,
        "als-lastfm": als_lastfm,
        "als-ml20m": als_ml20m,
        "ials-ml1m": ials_ml1m,
        "ials-ml20m": ials_ml20m,
    }
    models = ("ALS", "QuantizedItems")

    def check(self, config: ALSRun) -> None:
        """Weights that histories would not have, and blocks without a row."""
        if config.model.block_mib < 1:
            raise InputError(f"`block_mib` must be at least 1.\nReceived: --model.block-mib {config.model.block_mib}.")
        if config.data.split == "held_out_users" and config.model.confidence != "values":
            raise InputError(
                "The weights of held-out users' items would differ from those in training.\n"
                f"Received: --model.confidence {config.model.confidence} with --data.split held_out_users.\n"
                "Use --model.confidence values, or another --data.split."
            )

    def trainer(self, config: ALSRun, data: TrainingSet) -> ALSTrainer:
        """A training on confidences."""
        return ALSTrainer(config, data)

    def memory(self, config: ALSRun, sizes: Sizes, ranks: int) -> Memory:
        """Both tables on every rank, or its share of them; and its share of the matrix by users and by items."""
        row = config.model.factors * np.dtype(config.model.factor_dtype).itemsize
        whole, parts = (sizes.users + sizes.items) * row, ranks if config.model.sharded else 1
        tables = (-(-sizes.users // parts) + -(-sizes.items // parts)) * row
        matrix = 2 * (8 * sizes.interactions + 8 * max(sizes.users, sizes.items)) // ranks
        blocks = 2 * (config.model.block_mib << 20) if config.model.sharded else 0
        return Memory(
            sizes, tables=tables, model=whole, matrix=matrix, batch=WORK + blocks, whole=int(config.model.sharded)
        )

    def again(self, config: ALSRun, data: TrainingSet, outcome: Outcome) -> Any:
        """As many iterations."""
        return self.trainer(config, data).solve()

    def whole(self, model: Any) -> Any:
        """With whole tables."""
        from tfrec import distributed
        from tfrec.families.whole import check_memory
        from tfrec.models.als_sharded import ShardedALS

        if not isinstance(model, ShardedALS):
            return model
        width = model.factors * np.dtype(model.factor_dtype).itemsize
        check_memory(((model.num_users or 0) + (model.num_items or 0)) * width)
        whole = model.gathered()
        return whole if distributed.rank() == 0 else model

    def rows(self, config: ALSRun, data: TrainingSet) -> Callable[[scipy.sparse.csr_matrix], scipy.sparse.csr_matrix]:
        """Confidences per unit of alpha: the values, or what an item's weight was in training on the mean."""
        weights = None if config.model.confidence == "values" else self.weights(config, data)
        if weights is None:
            return lambda matrix: matrix

        def weighed(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
            found = matrix.copy()
            found.data = np.where(matrix.data > 0, weights[matrix.indices], matrix.data)
            return found

        return weighed

    def weights(self, config: ALSRun, data: TrainingSet) -> np.ndarray | None:
        """The mean confidence of an item among those who like it."""
        weighted = weigh(data.matrix, config.model)
        liked = weighted.data > 0
        if (weighted.data[liked] == 1).all():
            return None
        items, num_items = weighted.indices[liked], weighted.shape[1]
        total = np.bincount(items, weighted.data[liked], num_items)
        count = np.bincount(items, minlength=num_items)
        return np.where(count > 0, total / np.maximum(count, 1), weighted.data[liked].mean()).astype(np.float32)

    def quantizing(self, settings: QuantizeSettings) -> Derivation:
        """The item factors in int8; users' factors stay, and histories are folded in against the integers."""
        from tfrec.families.items_int8 import ItemsInt8
        from tfrec.quantization import ALSQueries

        return ItemsInt8(settings, "ALS", ALSQueries.of)


def make_model(config: ALSRun) -> ALS:
    """The model of a run, without tables."""
    from tfrec.models import ALS

    settings = {f.name: getattr(config.model, f.name) for f in fields(ALSConfig) if f.name not in _OF_THE_RUN}
    return ALS(**settings, seed=config.seed)


#: Settings that say what is made of the data's values or where the tables are, and are no arguments of the model.
_OF_THE_RUN = ("confidence", "bm25_k1", "bm25_b", "sharded", "block_mib")


def in_parts(settings: ALS, shape: tuple[int, int], block_mib: int) -> ShardedALS:
    """A model of which this rank holds its rows, marked for checkpoints."""
    from tfrec import distributed
    from tfrec.distributed.sharding import mark
    from tfrec.models.als_sharded import ShardedALS

    model = ShardedALS(settings, distributed.everyone(), block_mib)
    model.prepare(*shape)
    for table, rows in zip(model.weights, shape, strict=True):
        mark(table, distributed.Shard.mine(rows))
    return model


def weigh(matrix: scipy.sparse.csr_matrix, config: ALSConfig) -> scipy.sparse.csr_matrix:
    """The confidences, before alpha."""
    from tfrec.data import confidence

    if config.confidence == "bm25":
        return confidence.bm25(matrix, config.bm25_k1, config.bm25_b)
    if config.confidence == "tf_idf":
        return confidence.tf_idf(matrix)
    return confidence.log(matrix) if config.confidence == "log" else matrix
