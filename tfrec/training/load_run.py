"""Read a finished run's folder back."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import keras

from tfrec.configs import ALSRun, NeuMFRun, PopularityRun, Run, VAECFRun, from_json, with_data
from tfrec.data.files import check_archive, reason
from tfrec.errors import InputError
from tfrec.models import ALS, VAECF, NeuMF, Popularity
from tfrec.quantization import QuantizedNeuMF
from tfrec.recipes import RECIPES
from tfrec.serving import ServedHistories, ServedUsers
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
        _check_types(config)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
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
        InputError: it is damaged, or of another run.
    """
    # A Keras model is full of reference cycles, and the collector counts objects, not bytes: without this a process
    # that opens one run after the other would hold the tables of dozens of them.
    gc.collect()
    try:
        check_archive(folder.model)
        model = keras.saving.load_model(folder.model, compile=False)
    except Exception as error:  # Keras, HDF5 and TensorFlow have many ways to say so
        raise InputError(f"{folder.model} cannot be loaded: {reason(error)}.\n{folder.remedy()}") from error
    recipe = load_config(folder)
    kinds = next(kinds for config, kinds in _MODELS.items() if isinstance(recipe, config))
    if not isinstance(model, kinds):
        raise InputError(
            f"{folder.model} is of another run: {folder.config} is of {kinds[0].__name__}.\n"
            f"Received: {type(model).__name__}.\n{folder.remedy()}"
        )
    return model


#: What a run's model may be, by its config.
_MODELS: dict[type, tuple[type, ...]] = {
    VAECFRun: (VAECF,),
    NeuMFRun: (NeuMF, QuantizedNeuMF),
    ALSRun: (ALS,),
    PopularityRun: (Popularity,),
}


def check_sizes(folder: RunFolder, model: keras.Model, num_users: int | None, num_items: int, source: Path) -> None:
    """Raise InputError unless the model has as many users (if it knows any) and items as ``source`` has."""
    sizes = {"users": (getattr(model, "num_users", None), num_users), "items": (model.num_items, num_items)}
    for name, (found, expected) in sizes.items():
        if found is not None and expected is not None and found != expected:
            raise InputError(
                f"{folder.model} is of another run than {source}: expected {expected:,} {name}.\n"
                f"Received: {found:,}.\n{folder.remedy()}"
            )


def load_recommender(folder: RunFolder, vocabulary: Vocabulary, raw_ids: bool = True) -> ServedHistories | ServedUsers:
    """The run's best model as it is served.

    Raises:
        InputError: it is damaged.
    """
    model = load_known_model(folder, vocabulary)
    if vocabulary.user_ids is None or vocabulary.seen is None:
        return ServedHistories(model, vocabulary.item_ids, vocabulary.labels, vocabulary.popularity, raw_ids)
    return ServedUsers(
        model,
        vocabulary.user_ids,
        vocabulary.item_ids,
        vocabulary.labels,
        vocabulary.popularity,
        vocabulary.seen,
        raw_ids,
    )


def load_known_model(folder: RunFolder, vocabulary: Vocabulary) -> keras.Model:
    """The run's best model, whose users and items are those of ``vocabulary``.

    Raises:
        InputError: it is damaged, or of another run.
    """
    model = load_model(folder)
    num_users = None if vocabulary.user_ids is None else len(vocabulary.user_ids)
    if num_users is None and isinstance(model, NeuMF | QuantizedNeuMF):
        raise InputError(f"{folder.vocabulary} is of another run: it knows no users.\n{folder.remedy()}")
    check_sizes(folder, model, num_users, len(vocabulary.item_ids), folder.vocabulary)
    return model


def load_vocabulary(folder: RunFolder) -> Vocabulary:
    """The run's items.

    Raises:
        InputError: it is damaged.
    """
    try:
        return Vocabulary.load(folder.vocabulary)
    except InputError as error:
        raise InputError(f"{error}\n{folder.remedy()}") from error


def _check_types(settings: Any, name: str = "config") -> None:
    """Raise TypeError for a setting that is not of its type."""
    for key, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, key)
        if dataclasses.is_dataclass(kind):
            _check_types(value, key)
        elif not _is(value, kind):
            raise TypeError(f"{name}.{key} is {value!r:.80}")


def _is(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in inner
    if origin in (Union, UnionType):
        return any(_is(value, k) for k in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_is(v, inner[0]) for v in value)
    if kind in (int, float):
        return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind)
