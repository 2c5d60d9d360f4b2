"""NeuMF: generalized matrix factorization and an MLP, on pairs with sampled negatives."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tfrec.errors import InputError
from tfrec.families.config import FitConfig, RunConfig, arguments
from tfrec.families.derivation import CompressSettings, Derivation, QuantizeSettings
from tfrec.families.family import Family, Outcome, liked
from tfrec.families.memory import WORK, Memory, Sizes, adam_slots
from tfrec.tasks import DataConfig, EvaluationConfig, TrainingSet

if TYPE_CHECKING:
    import scipy.sparse

    from tfrec.data.pointwise import PointwiseSampler
    from tfrec.families.gradient import GradientTrainer
    from tfrec.models import NeuMF

#: A table is updated row by row when a batch has less than this share of its rows. Measured on two cores for
#: 138,493 x 192: row by row takes as long as one pass over everything at .35 (docs/results/speed.md).
LAZY_BELOW = 0.35
_SAMPLES_PER_CALL = 1 << 20


def _latest(name: Any = "synthetic") -> DataConfig:
    """Each user's latest item held out; every rating is positive, as in the paper."""
    return DataConfig(name=name, split="latest_item", min_rating="all")


@dataclass(frozen=True)
class NeuMFConfig:
    """Neural matrix factorization, see tfrec.models.NeuMF."""

    mf_dim: int = 64
    """Width of the GMF embeddings (factors)."""
    layer_dims: tuple[int, ...] = (256, 256, 128, 64)
    """Widths of the MLP: user's and item's embedding together, then the hidden layers."""
    dropout: float = 0.5
    """Share of the hidden units dropped in training."""
    embedding_l2: float = 0.0
    """Weight of the squared embeddings of each pair in its loss."""
    mlp_embedding_l2: float | None = None
    """The same for the MLP's embeddings; default: as embedding_l2."""
    gmf_weights: Literal["learned", "ones"] = "learned"
    """Output weights of the GMF branch; ones: a dot product, to go with embedding_l2."""
    branch: Literal["neumf", "gmf", "mlp"] = "neumf"
    """Both branches, or one alone."""
    split_final: bool = False
    """Two output layers, one per branch, for int8 quantization; the same function."""
    user_embedding: Literal["dense", "tt", "sharded"] = "dense"
    """dense: a row per user on every rank; sharded: each rank holds its share of the rows; tt: a tensor-train table,
    many times smaller."""
    item_embedding: Literal["dense", "tt", "sharded"] = "dense"
    """The same for items."""
    embedding_ranks: int = 16
    """Of tensor-train tables: larger is nearer to dense, and slower."""
    embedding_group: int | None = None
    """Of tensor-train tables: rows that share a slice of the first of two cores; 1: a low-rank table, each row has
    embedding_ranks numbers of its own. Default: three cores of about equal size."""


@dataclass(frozen=True)
class NeuMFTraining(FitConfig):
    """The optimisation of NeuMF."""

    epochs: int = 30
    """Passes over the positives, at most."""
    epsilon: float = 1e-8
    """Adam's epsilon; small, as the gradient of an embedding's row is a few samples' share of a large batch's mean."""
    global_batch_size: int | None = None
    """Samples per step over all ranks, negatives included. Default: a 500th of an epoch, 1,024 to 1,048,576."""
    negatives: int = 4
    """Negatives drawn for each positive, again in each epoch."""
    sampling: Literal["exact", "approximate"] = "exact"
    """exact: no negative is a training positive of the user. approximate: uniform over all items."""
    embedding_update: Literal["auto", "lazy", "dense"] = "auto"
    """lazy: Adam touches the rows of the batch only. auto: lazy for a table of which a batch has less than .35, and for
    sharded tables."""
    steps_per_call: int | None = None
    """Steps that the device takes between two returns to Python. Default: about a million samples."""


@dataclass(frozen=True)
class NeuMFRun(RunConfig):
    """Train NeuMF, validate, test, and write a run folder."""

    data: DataConfig = field(default_factory=_latest)
    """Where the interactions come from, and what is held out."""
    model: NeuMFConfig = field(default_factory=NeuMFConfig)
    """The network."""
    training: NeuMFTraining = field(default_factory=NeuMFTraining)
    """The optimisation."""


def neumf() -> NeuMFRun:
    """NeuMF on the embedded synthetic data, or on a table of your own with --data.path FILE."""
    return NeuMFRun(
        model=NeuMFConfig(mf_dim=32, layer_dims=(64, 32, 16), dropout=0.5, embedding_l2=0.005),
        training=NeuMFTraining(epochs=20, patience=3),
    )


def neumf_ml1m() -> NeuMFRun:
    """NeuMF on MovieLens-1M, the latest item of each user held out, 99 different unseen negatives."""
    return replace(neumf_ncf_ml1m(), data=_latest(name="ml-1m"))


def neumf_ncf_ml1m() -> NeuMFRun:
    """NeuMF on MovieLens-1M with the NCF paper's held-out items and negatives (He et al., 2017)."""
    return NeuMFRun(
        data=_latest(name="ncf-ml-1m"),
        model=NeuMFConfig(
            mf_dim=192,
            layer_dims=(32, 16, 8),
            dropout=0.5,
            embedding_l2=0.005,
            mlp_embedding_l2=0.2,
            gmf_weights="ones",
        ),
        training=NeuMFTraining(
            epochs=8,
            negatives=8,
            global_batch_size=16_380,
            learning_rate=0.006,
            schedule="cosine",
            embedding_update="dense",
            train_on_validation=True,
        ),
        evaluation=EvaluationConfig(monitor="ndcg@10"),
    )


def neumf_reference_ml1m() -> NeuMFRun:
    """NeuMF of NVIDIA's sizes on MovieLens-1M, ranked among 999 negatives: what the quantization study trains."""
    return NeuMFRun(
        data=_latest(name="ml-1m"),
        training=NeuMFTraining(epochs=7, learning_rate=0.003, schedule="cosine"),
        evaluation=EvaluationConfig(negatives=999, ties="pessimistic"),
    )


def neumf_tt_10m() -> NeuMFRun:
    """NeuMF's GMF branch on ten million generated items, whose 128 factors each are a tensor train of 3.7 MiB."""
    return NeuMFRun(
        data=_latest(name="synthetic-catalog"),
        model=NeuMFConfig(
            mf_dim=128,
            branch="gmf",
            embedding_l2=0.002,
            gmf_weights="ones",
            item_embedding="tt",
            embedding_ranks=32,
        ),
        training=NeuMFTraining(epochs=3, global_batch_size=16_380, learning_rate=0.01, schedule="cosine"),
    )


def neumf_ml20m() -> NeuMFRun:
    """NeuMF on MovieLens-20M with the sizes, batch and Adam of NVIDIA's NCF; stops at its HR@10 of .9562."""
    return NeuMFRun(
        data=_latest(name="ml-20m"),
        training=NeuMFTraining(
            epochs=30,
            global_batch_size=1 << 20,
            sampling="approximate",
            learning_rate=0.0045,
            beta_1=0.25,
            beta_2=0.5,
            threshold=0.9562,
        ),
        evaluation=EvaluationConfig(protocol="nvidia", negatives=100, ties="pessimistic"),
    )


class NeuMFFamily(Family[NeuMFRun]):
    """Learns an embedding for each user, so it has no answer for others."""

    name = "neumf"
    elastic = True
    config = NeuMFRun
    recipes: ClassVar = {
        "neumf": neumf,
        "neumf-ml1m": neumf_ml1m,
        "neumf-ncf-ml1m": neumf_ncf_ml1m,
        "neumf-reference-ml1m": neumf_reference_ml1m,
        "neumf-tt-10m": neumf_tt_10m,
        "neumf-ml20m": neumf_ml20m,
    }
    models = ("NeuMF", "QuantizedNeuMF")
    new_users = False

    def check(self, config: NeuMFRun) -> None:
        """Settings of the optimisation."""
        from tfrec.families.gradient import check_fit

        check_fit(config.training, config.seed)
        negatives = config.training.negatives
        if negatives < 0:
            raise InputError(f"`negatives` must be at least 0.\nReceived: --training.negatives {negatives}.")

    def trainer(self, config: NeuMFRun, data: TrainingSet) -> GradientTrainer:
        """Samples made on the device."""
        from tfrec.families import gradient
        from tfrec.models import NeuMF

        training = config.training
        gradient.begin(training, config.seed)
        matrix = liked(data.matrix)
        sampler = make_sampler(config, matrix)
        model = NeuMF(*matrix.shape, **arguments(config.model), noise_seed=gradient.noise_seed(config.seed))
        lazy, traffic = compile_model(model, training, sampler)
        batch_size = sampler.positives_per_step * (1 + sampler.num_negatives)
        return gradient.GradientTrainer(
            training,
            model,
            lambda first_epoch, first_step: sampler.steps(first_step),
            steps=sampler.steps_per_epoch,
            samples=sampler.num_positives * (1 + sampler.num_negatives),
            unit="samples",
            global_batch_size=batch_size,
            about=f"{matrix.shape[0]:,} users, {matrix.shape[1]:,} items, {matrix.nnz:,} positives with "
            f"{sampler.num_negatives} negatives each ({sampler.sampling}); "
            f"{gradient.num_parameters(model):,} parameters, "
            f"batches of {batch_size:,} samples, {training.precision}.\nAdam updates "
            f"{' and '.join(lazy) + ' rows of the batch only (lazy)' if lazy else 'all rows'}; "
            f"{traffic / 2**20:.1f} MiB of gradients per step and rank",
            summary={"gradient_bytes_per_step": traffic},
        )

    def memory(self, config: NeuMFRun, sizes: Sizes, ranks: int) -> Memory:
        """Sharded tables by their rows; all else on every rank."""
        from tfrec.models import NeuMF

        training, kinds = config.training, {"user": config.model.user_embedding, "item": config.model.item_embedding}
        rows = {"user": sizes.users, "item": sizes.items}
        # The weights besides the tables, and tensor-train tables, which are small.
        settings = arguments(config.model)
        for side, kind in kinds.items():
            settings |= {f"{side}_embedding": kind, f"num_{side}s": rows[side]}
            if kind != "tt":
                settings |= {f"{side}_embedding": "dense", f"num_{side}s": 1}
        model = NeuMF(**settings)
        width = model.gmf_width + model.mlp_width
        replicated = sum(math.prod(v.shape) for v in model.trainable_variables)
        rest = sum(math.prod(v.shape) for v in model.non_trainable_variables)
        sharded = dense_gradients = row_bytes = 0
        positives = batch_size(training, sizes.interactions) // (1 + training.negatives)
        asked = {"user": positives, "item": positives * (1 + training.negatives)}
        whole = replicated
        for side, kind in kinds.items():
            if kind == "tt":
                continue
            whole += (rows[side] - 1) * width
            if kind == "sharded":
                replicated -= width
                sharded += -(-rows[side] // ranks) * width
            else:
                replicated += (rows[side] - 1) * width
            row_bytes += 4 * width * min(rows[side], asked[side] // ranks)
            if not is_lazy(training, asked[side], rows[side], kind == "sharded"):
                dense_gradients += 4 * width * (rows[side] if kind == "dense" else -(-rows[side] // ranks))
        numbers = replicated + sharded
        return Memory(
            sizes,
            tables=4 * (numbers + rest),
            model=4 * (whole + rest),
            slots=adam_slots(numbers, training.backward_passes_per_step),
            matrix=8 * sizes.interactions + 8 * sizes.users,
            gradients=dense_gradients * (1 + (ranks > 1)),
            # Of a row of the batch: it, its gradient, both moments before and after, and copies of them in order.
            batch=WORK + 8 * row_bytes,
            whole=int("sharded" in kinds.values()),
        )

    def again(self, config: NeuMFRun, data: TrainingSet, outcome: Outcome) -> Any:
        """As many epochs as the best one."""
        return self.trainer(config, data).fit_anew(outcome.epochs or config.training.epochs)

    def whole(self, model: Any) -> Any:
        """With dense tables."""
        if "sharded" not in getattr(model, "embedding_kinds", {}).values():
            return model
        from tfrec import distributed
        from tfrec.families.gradient import num_parameters
        from tfrec.families.whole import check_memory

        check_memory(4 * num_parameters(model))
        return model.with_dense_embeddings(here=distributed.rank() == 0)

    def quantizing(self, settings: QuantizeSettings) -> Derivation:
        """All of it in integers."""
        from tfrec.families.neumf_int8 import NeuMFInt8

        return NeuMFInt8(settings)

    def compressing(self, settings: CompressSettings) -> Derivation:
        """The embeddings as tensor trains."""
        from tfrec.families.neumf_tt import NeuMFTensorTrains

        return NeuMFTensorTrains(settings)


def make_sampler(config: NeuMFRun, train: scipy.sparse.csr_matrix) -> PointwiseSampler:
    """The sampler of a run, this rank's part of it."""
    from tfrec import distributed
    from tfrec.data.pointwise import PointwiseSampler

    training = config.training
    return PointwiseSampler(
        train,
        batch_size(training, train.nnz),
        training.negatives,
        training.sampling,
        config.seed,
        distributed.everyone(),
    )


def batch_size(training: NeuMFTraining, positives: int) -> int:
    """Samples of a step over all ranks."""
    if training.global_batch_size is not None:
        return training.global_batch_size
    width = 1 + training.negatives
    samples = positives * width
    return min(max(samples // 500, 1_024, width), 1 << 20, samples)


def compile_model(model: NeuMF, training: NeuMFTraining, sampler: PointwiseSampler) -> tuple[list[str], int]:
    """Compile for ``fit`` with ``sampler.steps()``.

    Returns:
        Of ``user`` and ``item`` those whose table is updated row by row; and how many bytes of gradients a rank hands
        to the others in a step.
    """
    from tfrec.families import gradient

    gradient.check_updates(training, sampler.steps_per_epoch)
    rows = {
        "user_embedding": sampler.positives_per_step,
        "item_embedding": sampler.positives_per_step * (1 + sampler.num_negatives),
    }
    # The cores of a tensor-train table have no rows of their own: their gradients are small and dense.
    kinds = {t: model.embedding_kinds[t.removesuffix("_embedding")] for t in rows}
    rows = {t: n for t, n in rows.items() if kinds[t] != "tt"}
    num_rows = {"user_embedding": model.num_users, "item_embedding": model.num_items}
    lazy = [t for t, count in rows.items() if is_lazy(training, count, num_rows[t], kinds[t] == "sharded")]
    if training.backward_passes_per_step > 1:
        if training.embedding_update == "lazy":
            raise InputError(
                "Gradients that are added up over several batches are dense, so no table can be updated lazily.\n"
                f"Received: --training.embedding-update lazy, --training.backward-passes-per-step "
                f"{training.backward_passes_per_step}.\nLeave one of them out."
            )
        lazy = []
    batch = sampler.positives_per_step * (1 + sampler.num_negatives)
    steps_per_call = training.steps_per_call or max(1, _SAMPLES_PER_CALL // batch)
    model.compile(
        gradient.adam(training, sampler.steps_per_epoch, lazy=bool(lazy)),
        sampler=sampler.batch,
        lazy_tables=lazy,
        steps_per_execution=min(steps_per_call, sampler.steps_per_epoch),
    )
    gradient.distribute(model, training)
    sides = [table.removesuffix("_embedding") for table in lazy]
    return sides, gradient_bytes(model, lazy, rows, training.compression)


def is_lazy(training: NeuMFTraining, rows: int, table_rows: int, sharded: bool = False) -> bool:
    """Whether a table of which a global batch has ``rows`` rows, repetitions counted, is updated row by row.

    A sharded one is, unless told otherwise: it is large, and a dense update needs as much memory again.
    """
    if training.embedding_update != "auto" or sharded:
        return training.embedding_update != "dense"
    # Expected number of different rows, were all equally likely: never more than there are.
    different = table_rows * -math.expm1(-rows / table_rows)
    return different < LAZY_BELOW * table_rows


def gradient_bytes(model: NeuMF, lazy: list[str], rows: dict[str, int], compression: str) -> int:
    """Bytes of gradients that one rank hands over in a step: what an allreduce sums, or an allgather collects; of a
    sharded table the rows that it sends and receives, and their gradients."""
    from tfrec import distributed

    size = distributed.size()
    item = 2 if compression == "float16" else 4
    total = 0
    tables = {id(v): t for t in rows for v in getattr(getattr(model, t), "weights", [])}
    for variable in model.trainable_variables:
        shard = distributed.shard_of(variable)
        if shard is not None:
            most = min(rows[tables[id(variable)]] // size, shard.rows)
            total += most * (variable.shape[1] * (4 + item) + 2 * 4)
        elif variable.name in lazy:
            most = min(rows[variable.name] // size, variable.shape[0])
            total += most * (variable.shape[1] * item + 8)
        else:
            total += math.prod(variable.shape) * item
    return total
