"""VAE-CF: Mult-VAE and Mult-DAE on histories."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tfrec.errors import InputError
from tfrec.families.config import FitConfig, RunConfig, arguments
from tfrec.families.derivation import Derivation, QuantizeSettings
from tfrec.families.family import Family, Outcome, liked
from tfrec.families.memory import WORK, Memory, Sizes, adam_slots
from tfrec.tasks import DataConfig, TrainingSet

if TYPE_CHECKING:
    from tfrec.families.gradient import GradientTrainer


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
class VAECFTraining(FitConfig):
    """The optimisation of VAE-CF."""

    global_batch_size: int | None = None
    """Users per step over all ranks. Default: a fortieth of the training users, at most 500."""
    pipeline: Literal["host", "device"] = "device"
    """Where batches are gathered: from a copy of the matrix on the device, or on the host ahead of time."""


@dataclass(frozen=True)
class VAECFRun(RunConfig):
    """Train VAE-CF, validate, test, and write a run folder."""

    model: VAECFConfig = field(default_factory=VAECFConfig)
    """The network."""
    training: VAECFTraining = field(default_factory=VAECFTraining)
    """The optimisation."""


def vae_cf() -> VAECFRun:
    """VAE-CF on the embedded synthetic data, or on a table of your own with --data.path FILE."""
    return VAECFRun(training=VAECFTraining(epochs=60, patience=6))


def vae_cf_ml1m() -> VAECFRun:
    """VAE-CF on MovieLens-1M, strong generalization with 600 + 600 held-out users."""
    return VAECFRun(
        data=DataConfig(name="ml-1m", heldout_users=600),
        model=VAECFConfig(hidden_dims=(), latent_dim=200, dropout=0.5, kl_cap=0.1, l2=3e-4),
        training=VAECFTraining(epochs=80, global_batch_size=100, validate_every=2, patience=10),
    )


def vae_cf_ml20m() -> VAECFRun:
    """VAE-CF on MovieLens-20M, the split of Liang et al. (2018): 10,000 + 10,000 held-out users."""
    return VAECFRun(
        data=DataConfig(name="ml-20m", heldout_users=10_000),
        model=VAECFConfig(kl_cap=0.2, kl_anneal_steps=20_000),
        training=VAECFTraining(epochs=100, patience=20),
    )


class VAECFFamily(Family[VAECFRun]):
    """Takes histories; trained by Adam on the multinomial likelihood."""

    name = "vae-cf"
    elastic = True
    config = VAECFRun
    recipes: ClassVar = {"vae-cf": vae_cf, "vae-cf-ml1m": vae_cf_ml1m, "vae-cf-ml20m": vae_cf_ml20m}
    models = ("VAECF", "QuantizedItems")

    def check(self, config: VAECFRun) -> None:
        """Settings of the optimisation."""
        from tfrec.families.gradient import check_fit

        check_fit(config.training, config.seed)

    def trainer(self, config: VAECFRun, data: TrainingSet) -> GradientTrainer:
        """Batches of users' rows, by default gathered on the device."""
        from tfrec import distributed
        from tfrec.data.csr import ResidentMatrix
        from tfrec.data.pipelines import sparse_batches, steps_per_epoch, user_batches
        from tfrec.families import gradient
        from tfrec.models import VAECF

        training = config.training
        gradient.begin(training, config.seed)
        matrix = liked(data.matrix)
        num_users, num_items = matrix.shape
        batch_size = global_batch_size(training, num_users)
        steps = steps_per_epoch(num_users, batch_size)
        gradient.check_updates(training, steps)
        model = VAECF(num_items, **arguments(config.model), noise_seed=gradient.noise_seed(config.seed))
        on_device = training.pipeline == "device"
        model.compile(gradient.adam(training, steps), gather=ResidentMatrix(matrix).gather if on_device else None)
        gradient.distribute(model, training)

        def batches(first_epoch: int, first_step: int) -> Any:
            options: dict[str, Any] = {
                "seed": config.seed,
                "epochs": None,
                "first_epoch": first_epoch,
                "first_step": first_step,
                "ranks": distributed.everyone(),
            }
            if on_device:
                return user_batches(num_users, batch_size, **options)
            return sparse_batches(matrix, batch_size, **options)

        return gradient.GradientTrainer(
            training,
            model,
            batches,
            steps=steps,
            samples=num_users,
            unit="users",
            global_batch_size=batch_size,
            about=f"{num_users:,} training users, {num_items:,} items, {matrix.nnz:,} interactions; "
            f"{model.count_params():,} parameters, batches of {batch_size:,}, {training.precision}",
            limit_steps=True,
        )

    def memory(self, config: VAECFRun, sizes: Sizes, ranks: int) -> Memory:
        """All layers on every rank. Logits of a batch go through in chunks."""
        from tfrec.layers.multinomial import CHUNK_BYTES
        from tfrec.models import VAECF

        # Every item adds as many weights as every other.
        one, two = (VAECF(items, **arguments(config.model)).count_params() for items in (2, 3))
        numbers = one + (sizes.items - 2) * (two - one)
        training = config.training
        batch = global_batch_size(training, sizes.users) // ranks
        logits = min(4 * batch * sizes.items, CHUNK_BYTES)
        return Memory(
            sizes,
            tables=4 * numbers,
            model=4 * numbers,
            slots=adam_slots(numbers, training.backward_passes_per_step),
            matrix=4 * sizes.interactions + 8 * (sizes.users + 1) if training.pipeline == "device" else 0,
            gradients=4 * numbers * (1 + (ranks > 1)),
            batch=WORK + 3 * logits,
        )

    def again(self, config: VAECFRun, data: TrainingSet, outcome: Outcome) -> Any:
        """As many epochs as the best one."""
        return self.trainer(config, data).fit_anew(outcome.epochs or config.training.epochs)

    def quantizing(self, settings: QuantizeSettings) -> Derivation:
        """The last layer, a row per item, in int8; the others stay."""
        from tfrec.families.items_int8 import ItemsInt8
        from tfrec.quantization import VAECFQueries

        return ItemsInt8(settings, "VAECF", VAECFQueries.of)


def global_batch_size(training: VAECFTraining, num_users: int) -> int:
    """Users per step over all ranks.

    Raises:
        InputError: more than there are.
    """
    if training.global_batch_size is None:
        return max(1, min(500, num_users // 40))
    if training.global_batch_size > num_users:
        raise InputError(
            f"`global_batch_size` must not exceed the number of training users.\n"
            f"Received: {training.global_batch_size} for {num_users} users.\n"
            f"Try --training.global-batch-size {max(1, num_users // 40)}."
        )
    return training.global_batch_size
