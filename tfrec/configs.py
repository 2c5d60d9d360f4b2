"""Typed settings of a run. Library classes never see them; the command line is made from them.

Nothing here loads TensorFlow, so that ``--help`` is instant.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]


@dataclass(frozen=True)
class SyntheticConfig:
    """The planted preference model behind the data set ``synthetic``, see tfrec.data.Synthetic."""

    num_users: int = 6_000
    """Number of users."""
    num_items: int = 2_000
    """Number of items."""
    rank: int = 8
    """Rank of the planted preference."""
    strength: float = 1.5
    """Standard deviation of the preference, in nats."""
    popularity: float = 1.5
    """Standard deviation of the items' popularity, in nats."""
    seed: int = 0
    """Seed of the generator."""


@dataclass(frozen=True)
class CatalogConfig:
    """The planted model behind the data set ``synthetic-catalog``, see tfrec.data.SyntheticCatalog."""

    num_users: int = 20_000
    """Number of users."""
    num_items: int = 10_000_000
    """Number of items."""
    category_size: int = 46_656
    """Items of a category, which is a stretch of ids."""
    events_per_user: int = 50
    """Draws of each user."""
    rank: int = 8
    """Rank of the planted taste for categories."""
    strength: float = 2.0
    """Standard deviation of the taste, in nats."""
    decay: float = 0.8
    """How fast popularity falls in a category."""
    seed: int = 0
    """Seed of the generator."""


@dataclass(frozen=True)
class SourceConfig:
    """Where the interactions come from."""

    name: Literal[
        "synthetic",
        "ml-100k",
        "ml-1m",
        "ml-10m",
        "ml-20m",
        "ml-25m",
        "ml-32m",
        "ml-latest-small",
        "lastfm-2k",
        "lastfm-360k",
    ] = "synthetic"
    """A published data set, or the embedded synthetic one. Not looked at when path is given."""
    path: Path | None = None
    """A table of your own: CSV, TSV (also packed) or Parquet, with column names; a file, a pattern in quotes
    ('plays/*.parquet') or a folder of parts."""
    dir: Path | None = None
    """Folder with archives or unpacked folders of published data sets; default $TFREC_DATA, else download."""
    user: str = "user_id"
    """With path: the column of user ids."""
    item: str = "item_id"
    """With path: the column of item ids."""
    rating: str | None = None
    """With path: the column of ratings, counts or votes; none: every event is positive."""
    values: Literal["auto", "ratings", "counts", "votes"] = "auto"
    """With path: what that column holds. ratings: grades, a low one means dislike. counts: how often, never dropped for
    being small. votes: liked (above 0) or disliked (below). auto: by the rule that the first lines of a run name."""
    timestamp: str | None = None
    """With path: the column of times."""
    title: str | None = None
    """With path: the column of item titles."""
    bad_rows: Literal["error", "drop"] = "error"
    """With path: rows without an id, malformed, or with a rating or time that is none. error: stop and name them. drop:
    leave them out, counted."""
    delimiter: str | None = None
    """With path: the delimiter; default: told from the first line."""
    quoting: Literal["auto", "on", "off"] = "auto"
    """With path: whether " quotes. auto: not in text delimited by tabs; a quote that swallows lines is an error."""
    decimal: Literal[".", ","] = "."
    """With path: what stands before the fraction of a rating."""
    encoding: str | None = None
    """With path: the encoding, such as latin-1; default: UTF-8."""
    column_names: tuple[str, ...] | None = None
    """With path: the columns' names, in order, where the first line is data already."""
    time_format: str | None = None
    """With path: how dates are written, such as '%m/%d/%Y %H:%M'; default: ISO 8601."""
    text_ids: bool = False
    """With path: take ids as text even where they look like numbers."""
    min_rating: float | Literal["auto", "all"] = "auto"
    """Keep pairs of user and item with a value above this, from 0. auto: of ratings those above 7 tenths of the scale
    (3.5 of 5), of counts all above 0. all: those above 0. ALS takes votes below 0 as disliked, whatever this says."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    """The embedded data set."""


@dataclass(frozen=True)
class DataConfig(SourceConfig):
    """Where the interactions come from and how users are held out."""

    heldout_users: int | None = None
    """Users held out for validation, and as many for test. Default: a tenth of them, at most 10,000."""
    min_user_events: int = 5
    """Leave out users with fewer events."""
    min_item_events: int = 0
    """Leave out items with fewer events."""
    split_seed: int = 98765
    """Seed of the split; 98765 is that of the papers."""


@dataclass(frozen=True)
class LeaveOneOutConfig(SourceConfig):
    """Where the interactions come from; each user's latest one is held out for test, the one before for validation."""

    name: Literal[
        "synthetic",
        "ml-100k",
        "ml-1m",
        "ml-10m",
        "ml-20m",
        "ml-25m",
        "ml-32m",
        "ml-latest-small",
        "lastfm-2k",
        "lastfm-360k",
        "ncf-ml-1m",
        "synthetic-catalog",
    ] = "synthetic"  # type: ignore[assignment]
    """A published data set, or a generated one. ncf-ml-1m: ml-1m with the NCF paper's held-out items and its 99
    negatives for each. synthetic-catalog: ten million items in categories. Not looked at when path is given."""
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    """The data set synthetic-catalog."""
    format: Literal["table", "ncf"] = "table"
    """With path. table: a file with column names. ncf: a folder with the NCF paper's NAME.train.rating,
    NAME.test.rating and NAME.test.negative."""
    min_rating: float | Literal["auto", "all"] = "all"
    """Keep pairs of user and item with a value above this, from 0. all: those above 0, so every rating, as in the
    paper. auto: of ratings those above 7 tenths of the scale (3.5 of 5)."""
    min_user_events: int = 3
    """Users with fewer different items are trained on, and not held out from."""


@dataclass(frozen=True)
class ALSDataConfig(DataConfig):
    """Where the interactions come from and what is held out: users, or entries of all users."""

    split: Literal["users", "entries"] = "entries"
    """users: held-out users are folded in (strong generalization). entries: a random share of the user-item pairs."""
    test_share: float = 0.2
    """With split entries: the share held out."""


@dataclass(frozen=True)
class VAECFConfig:
    """Mult-VAE, see tfrec.models.VAECF."""

    hidden_dims: tuple[int, ...] = (600,)
    """Widths of the encoder's hidden layers; the decoder mirrors them."""
    latent_dim: int = 200
    """Width of the latent vector."""
    dropout: float = 0.5
    """Share of a user's items dropped from the input in training."""
    kl_cap: float = 0.2
    """Largest weight of the KL term (beta)."""
    kl_anneal_steps: int = 0
    """Steps over which beta grows from 0 to its cap."""
    l2: float = 0.0
    """Weight of the sum of squared kernels in the loss."""
    variational: bool = True
    """False: Mult-DAE."""


@dataclass(frozen=True)
class FitConfig:
    """What every optimisation has."""

    epochs: int = 100
    """Passes over the training data, at most."""
    learning_rate: float = 1e-3
    """Adam's learning rate, its peak under a schedule."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the learning rate goes on after the warm-up; cosine: down to 0 at the last epoch."""
    warmup_steps: int = 0
    """Steps over which the learning rate grows linearly from 0."""
    beta_1: float = 0.9
    """Adam's decay of the mean."""
    beta_2: float = 0.999
    """Adam's decay of the variance."""
    epsilon: float = 1e-7
    """Adam's epsilon."""
    clip_norm: float | None = None
    """Largest norm of the whole gradient, after the reduction over ranks."""
    precision: Precision = "float32"
    """Keras dtype policy; weights, loss and softmax are float32 in each."""
    validate_every: int = 1
    """Epochs between validations."""
    patience: int | None = None
    """Stop after this many validations without a better one. None: train all epochs."""
    threshold: float | None = None
    """Stop when the monitored validation metric reaches this."""
    checkpoint_every: int = 1
    """Epochs between checkpoints to resume from."""
    compression: Literal["none", "float16"] = "none"
    """Gradients on the wire between ranks."""
    backward_passes_per_step: int = 1
    """Batches whose gradients are added up before an update."""
    deterministic: bool = False
    """Bit-identical from run to run, at some cost in speed."""
    compare_ranks: bool = True
    """Compare the ranks' weights after each epoch."""


@dataclass(frozen=True)
class TrainingConfig(FitConfig):
    """The optimisation of VAE-CF."""

    global_batch_size: int | None = None
    """Users per step over all ranks. Default: a fortieth of the training users, at most 500."""
    pipeline: Literal["host", "device"] = "device"
    """Where batches are gathered: from a copy of the matrix on the device, or on the host ahead of time."""


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
    """Two output layers, one per branch, as int8 quantization wants it; the same function."""
    user_embedding: Literal["dense", "tt"] = "dense"
    """dense: a row per user; tt: a tensor-train table, many times smaller."""
    item_embedding: Literal["dense", "tt"] = "dense"
    """The same for items."""
    embedding_ranks: int = 16
    """Of tensor-train tables: larger is nearer to dense, and slower."""
    embedding_group: int | None = None
    """Of tensor-train tables: rows that share a slice of the first of two cores; 1: a low-rank table, each row has
    embedding_ranks numbers of its own. Default: three cores of about equal size."""


@dataclass(frozen=True)
class NeuMFTrainingConfig(FitConfig):
    """The optimisation of NeuMF."""

    epochs: int = 30
    """Passes over the positives, at most."""
    epsilon: float = 1e-8
    """Adam's epsilon; small, as the gradient of an embedding's row is a few samples' share of a large batch's mean."""
    global_batch_size: int | None = None
    """Samples per step over all ranks, negatives included. Default: a 500th of an epoch, 1,024 to 1,048,576."""
    negatives: int = 4
    """Negatives drawn for each positive, anew in each epoch."""
    sampling: Literal["exact", "approximate"] = "exact"
    """exact: no negative is a training positive of the user. approximate: uniform over all items."""
    embedding_update: Literal["auto", "lazy", "dense"] = "auto"
    """lazy: Adam touches the rows of the batch only. auto: lazy for a table of which a batch has less than .35."""
    steps_per_call: int | None = None
    """Steps that the device does between two looks of Python. Default: about a million samples."""
    refit: bool = False
    """After validation has picked the epoch, train anew on training and validation data for as many epochs."""


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
    factor_dtype: Literal["float16", "float32"] = "float16"
    """How factors are stored; sums are float32."""
    confidence: Literal["values", "log", "bm25", "tf_idf"] = "values"
    """What is made of the data's values, see tfrec.data.confidence."""
    bm25_k1: float = 100.0
    """BM25: how late more plays stop to count."""
    bm25_b: float = 0.8
    """BM25: how much an item's popularity counts against it."""
    training_loss: bool = False
    """Compute the exact training loss after each iteration."""


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured on held-out users."""

    metrics: tuple[str, ...] = (
        "recall@20",
        "recall@50",
        "ndcg@100",
        "precision@10",
        "hit_rate@10",
        "map@10",
        "mrr@10",
        "coverage@100",
    )
    """Metrics with their cutoffs."""
    monitor: str = "ndcg@100"
    """The validation metric that picks the best epoch."""
    ties: Literal["expected", "pessimistic", "optimistic"] = "expected"
    """How tied scores are ranked."""
    gains: Literal["binary", "linear", "exponential"] = "binary"
    """What a held-out item is worth to NDCG: 1, its value, or 2^value - 1 (values: --data.split entries only)."""
    block_users: int = 512
    """Users scored at once."""


@dataclass(frozen=True)
class CandidateConfig:
    """What is measured on the held-out items, see tfrec.evaluation.candidates."""

    metrics: tuple[str, ...] = ("hit_rate@10", "ndcg@10", "mrr@10")
    """Metrics with their cutoffs."""
    monitor: str = "hit_rate@10"
    """The validation metric that picks the best epoch."""
    protocol: Literal["exact", "nvidia", "mlperf", "all"] = "exact"
    """exact: different unseen items; nvidia and mlperf: with those benchmarks' quirks; all: every unseen item.
    Data in the NCF paper's format brings its own negatives for test."""
    negatives: int = 99
    """Items that a held-out one is ranked among."""
    validation_negatives: int | None = None
    """The same for validation; default: as for test."""
    ties: Literal["pessimistic", "expected", "optimistic"] = "pessimistic"
    """How tied scores are ranked."""
    seed: int = 0
    """Of the candidates."""
    block_pairs: int = 1 << 19
    """Scores computed at once."""


@dataclass(frozen=True)
class PopularityRun:
    """Rank items by the number of training users who have them: the baseline."""

    data: DataConfig = field(default_factory=DataConfig)
    """Where the interactions come from."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What is measured."""
    output_dir: Path | None = None
    """Where everything is written. Default: runs/RECIPE-HASH, a folder per configuration."""
    resume: bool = True
    """Go on with what the folder has; --no-resume starts over and replaces it."""


@dataclass(frozen=True)
class VAECFRun:
    """Train VAE-CF, validate, test, and write a run folder."""

    data: DataConfig = field(default_factory=DataConfig)
    """Where the interactions come from."""
    model: VAECFConfig = field(default_factory=VAECFConfig)
    """The network."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The optimisation."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What is measured."""
    seed: int = 1
    """Of the weights, the order of users, dropout and sampling."""
    output_dir: Path | None = None
    """Where everything is written. Default: runs/RECIPE-HASH, a folder per configuration."""
    resume: bool = True
    """Go on with what the folder has; --no-resume starts over and replaces it."""


@dataclass(frozen=True)
class NeuMFRun:
    """Train NeuMF, validate, test, and write a run folder."""

    data: LeaveOneOutConfig = field(default_factory=LeaveOneOutConfig)
    """Where the interactions come from."""
    model: NeuMFConfig = field(default_factory=NeuMFConfig)
    """The network."""
    training: NeuMFTrainingConfig = field(default_factory=NeuMFTrainingConfig)
    """The optimisation."""
    evaluation: CandidateConfig = field(default_factory=CandidateConfig)
    """What is measured."""
    seed: int = 1
    """Of the weights, the order of samples, the negatives and dropout."""
    output_dir: Path | None = None
    """Where everything is written. Default: runs/RECIPE-HASH, a folder per configuration."""
    resume: bool = True
    """Go on with what the folder has; --no-resume starts over and replaces it."""


@dataclass(frozen=True)
class ALSRun:
    """Train ALS, measure, and write a run folder."""

    data: ALSDataConfig = field(default_factory=ALSDataConfig)
    """Where the interactions come from."""
    model: ALSConfig = field(default_factory=ALSConfig)
    """The objective and its solver."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What is measured."""
    checkpoint_seconds: float = 20.0
    """Least time between checkpoints to resume from."""
    seed: int = 1
    """Of the first factors."""
    output_dir: Path | None = None
    """Where everything is written. Default: runs/RECIPE-HASH, a folder per configuration."""
    resume: bool = True
    """Go on with what the folder has; --no-resume starts over and replaces it."""


Run = PopularityRun | VAECFRun | NeuMFRun | ALSRun

#: Settings that do not change what is computed, so a run may be resumed with others.
_PLACES = ("output_dir", "resume", "checkpoint_seconds")


def with_data(config: Run, **changes: Any) -> Run:
    """``config`` with other settings of its data."""
    changed: Any = dataclasses.replace(config.data, **changes)
    return dataclasses.replace(config, data=changed)


def to_json(config: Any) -> Any:
    """A config as JSON values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple | list):
        return [to_json(c) for c in config]
    return str(config) if isinstance(config, Path) else config


def identity(recipe: str, config: Run) -> dict[str, Any]:
    """What makes two runs the same: the recipe and every setting but the folders' places."""
    settings = {k: v for k, v in to_json(config).items() if k not in _PLACES}
    settings["data"] = {k: v for k, v in settings["data"].items() if k != "dir"}
    return {"recipe": recipe, **settings}


def from_json(recipe_config: Run, saved: dict[str, Any]) -> Run:
    """The config that `identity` or `to_json` gave ``saved`` for, of the type of ``recipe_config``.

    A setting that ``saved`` does not have is younger than the run: it gets the default of its class, which stands for
    what was done before there was the setting.

    Raises:
        KeyError: a setting that the type does not have, or no settings of data or evaluation at all.
    """
    if "data" not in saved or "evaluation" not in saved:
        raise KeyError("data, evaluation")
    return _fill(recipe_config, {k: v for k, v in saved.items() if k not in ("recipe", "data_sha256")})


def _fill(template: Any, saved: dict[str, Any]) -> Any:
    changes: dict[str, Any] = {}
    known = {f.name: f for f in dataclasses.fields(template)}
    # All settings have defaults.
    younger = set(known) - set(saved) - {*_PLACES, "dir"}
    changes |= {name: getattr(type(template)(), name) for name in younger}
    for name, value in saved.items():
        if name not in known:
            raise KeyError(name)
        current = getattr(template, name)
        if dataclasses.is_dataclass(current):
            changes[name] = _fill(current, value)
        elif isinstance(value, list):
            changes[name] = tuple(value)
        elif value is not None and "Path" in str(known[name].type):
            changes[name] = Path(value)
        else:
            changes[name] = value
    return dataclasses.replace(template, **changes)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """The settings in which two `identity` results differ, as ``training.epochs: 10 -> 20``."""
    found = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {json.dumps(a)} -> {json.dumps(b)}")
    return found
