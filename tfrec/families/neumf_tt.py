"""NeuMF's embedding tables as tensor trains."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tfrec.errors import InputError
from tfrec.families.derivation import CompressSettings, Derivation, Finished, Made, check_fine_tuning
from tfrec.families.family import liked

if TYPE_CHECKING:
    from tfrec.families.neumf import NeuMFRun
    from tfrec.models import NeuMF
    from tfrec.tasks import TrainingSet

#: Added to the run's seed: other samples than in training.
_OTHER_SEED = 1_000_003


class NeuMFTensorTrains(Derivation):
    """Decomposes the tables, and trains on if asked for.

    Args:
        settings: how.

    Raises:
        InputError: settings out of range.
    """

    name = "compression"

    def __init__(self, settings: CompressSettings) -> None:
        if not settings.tables:
            raise InputError("--tables must name at least one table.\nReceived: none.\nUse --tables user item.")
        check_fine_tuning(settings.fine_tune, settings.fine_tune_rate)
        self._settings = settings

    def check_model(self, model: Any, run: Path) -> None:
        """Raise InputError for integers."""
        from tfrec.models import NeuMF

        if not isinstance(model, NeuMF):
            raise InputError(f"{run} is quantized.\nCompress the run it was made from.")

    def make(self, run: Finished) -> Made:
        """Decompose, measure, and fine-tune."""
        settings, stages = self._settings, {}
        made, errors = run.model.with_tt_embeddings(settings.ranks, settings.tables, settings.group)
        if settings.fine_tune:
            stages["decomposed"] = run.measure(made)
            fine_tune(made, run.config, run.fitted, settings.fine_tune, settings.fine_tune_rate)
        sizes = {
            name: {side: embedding_parameters(model, side) for side in settings.tables}
            for name, model in (("before", run.model), ("after", made))
        }
        report = {
            "relative_error": errors,
            "fine_tuning": {"epochs": settings.fine_tune, "learning_rate": settings.fine_tune_rate}
            if settings.fine_tune
            else None,
            "embedding_parameters": sizes,
            "ratio": sum(sizes["before"].values()) / sum(sizes["after"].values()),
        }
        changed = {f"{side}_embedding": "tt" for side in settings.tables}
        return Made(
            made,
            report,
            {**changed, "embedding_ranks": settings.ranks, "embedding_group": settings.group},
            stages,
            lines=tuple(
                f"{side}: {sizes['before'][side]:,} numbers -> {sizes['after'][side]:,} "
                f"({sizes['before'][side] / sizes['after'][side]:.1f} times smaller), relative error {errors[side]:.3f}"
                for side in settings.tables
            ),
        )


def embedding_parameters(model: NeuMF, side: Literal["user", "item"]) -> int:
    """Numbers in the table of one side, or in its cores."""
    return int(sum(w.shape.num_elements() for w in model.weights if f"{side}_embedding" in w.path))


def fine_tune(model: NeuMF, config: NeuMFRun, data: TrainingSet, epochs: int, rate: float) -> list[float]:
    """Train a model further, in place, on what its run was trained on.

    As the run did it, but for the learning rate, which falls from ``rate`` to 0 as a cosine, and for the samples, which
    are those of another seed than the run's.

    Args:
        model: trained.
        config: of its run.
        data: of its run.
        epochs: from 1.
        rate: Adam's learning rate at first, above 0.

    Returns:
        Seconds of each epoch; the first one has the making of the graph in it.
    """
    import keras

    from tfrec.families.neumf import compile_model, make_sampler

    training = replace(
        config.training, epochs=epochs, learning_rate=rate, schedule="cosine", warmup_steps=0, threshold=None
    )
    config = replace(config, training=training, seed=(config.seed + _OTHER_SEED) % 2**31)
    keras.utils.set_random_seed(config.seed)
    sampler = make_sampler(config, liked(data.matrix))
    compile_model(model, training, sampler)
    seconds: list[float] = []
    start = time.perf_counter()

    def shown(epoch: int, logs: dict[str, float]) -> None:
        nonlocal start
        seconds.append(time.perf_counter() - start)
        print(f"fine-tuning, epoch {epoch + 1}/{epochs}  loss {logs['loss']:.4f}", flush=True)
        start = time.perf_counter()

    model.fit(
        sampler.steps(),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=shown)],
    )
    return seconds
