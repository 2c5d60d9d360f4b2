"""What compressing a finished run of NeuMF needs beside the decomposition."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

import keras

from tfrec.configs import NeuMFRun
from tfrec.models import NeuMF
from tfrec.training.neumf import compile_model, make_sampler
from tfrec.training.prepare_items import PreparedItems


def embedding_parameters(model: NeuMF, side: Literal["user", "item"]) -> int:
    """Numbers in the table of one side, or in its cores."""
    return int(sum(w.shape.num_elements() for w in model.weights if f"{side}_embedding" in w.path))


def fine_tune(model: NeuMF, config: NeuMFRun, data: PreparedItems, epochs: int, rate: float) -> list[float]:
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
    training = replace(
        config.training, epochs=epochs, learning_rate=rate, schedule="cosine", warmup_steps=0, threshold=None
    )
    config = replace(config, training=training, seed=(config.seed + 1_000_003) % 2**31)
    train = data.seen("test") if training.refit else data.train
    keras.utils.set_random_seed(config.seed)
    sampler = make_sampler(config, train)
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
