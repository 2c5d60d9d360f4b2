"""Read a finished run's folder back."""

from __future__ import annotations

import gc
from pathlib import Path

import keras

import tfrec.models
import tfrec.quantization  # noqa: F401 - the same
from tfrec.configs import Run, from_json, with_data
from tfrec.data.files import DAMAGE
from tfrec.errors import InputError
from tfrec.recipes import RECIPES
from tfrec.serving import Recommender, UserItemRecommender
from tfrec.training.run_folder import RunFolder
from tfrec.training.vocabulary import Vocabulary


def load_config(folder: RunFolder, data_dir: Path | None = None) -> Run:
    """The run's config; ``data_dir`` says where its data is now.

    Raises:
        InputError: it is damaged, or of another version of tfrec.
    """
    saved = folder.read_config()
    try:
        config = from_json(RECIPES[saved["recipe"]](), saved)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder.config} is damaged or was written by another version of tfrec: {error}.") from error
    if data_dir is None:
        return config
    if config.data.path is not None:
        raise InputError(
            f"The run was trained on a table of its own: {config.data.path}\nReceived: --data-dir {data_dir}.\n"
            "Leave it out; the table is read from where it was."
        )
    return with_data(config, dir=data_dir)


def load_model(folder: RunFolder) -> keras.Model:
    """The run's best model.

    Raises:
        InputError: it is damaged.
    """
    # A Keras model is full of reference cycles, and the collector counts objects, not bytes: without this a process
    # that opens one run after the other would hold the tables of dozens of them.
    gc.collect()
    try:
        return keras.saving.load_model(folder.model, compile=False)
    except DAMAGE as error:
        raise InputError(f"{folder.model} cannot be loaded: {error}.\nTrain the run again with --no-resume.") from error


def load_recommender(
    folder: RunFolder, vocabulary: Vocabulary, raw_ids: bool = True
) -> Recommender | UserItemRecommender:
    """The run's best model as it is served.

    Raises:
        InputError: it is damaged.
    """
    model = load_model(folder)
    if vocabulary.user_ids is None or vocabulary.seen is None:
        return Recommender(model, vocabulary.item_ids, vocabulary.labels, vocabulary.popularity, raw_ids)
    return UserItemRecommender(
        model,
        vocabulary.user_ids,
        vocabulary.item_ids,
        vocabulary.labels,
        vocabulary.popularity,
        vocabulary.seen,
        raw_ids,
    )


def load_vocabulary(folder: RunFolder) -> Vocabulary:
    """The run's items."""
    return Vocabulary.load(folder.vocabulary)
