"""Read a model back, and tell whether it is the one that belongs here."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import keras

from tfrec.data.files import check_archive, reason
from tfrec.errors import InputError
from tfrec.runs.folder import RunFolder
from tfrec.runs.vocabulary import Vocabulary


def load_model(path: Path, remedy: str = "") -> keras.Model:
    """The model in a file.

    Args:
        path: a .keras file.
        remedy: what to do where it is damaged.

    Raises:
        InputError: it is damaged.
    """
    # A Keras model is full of reference cycles, and the collector counts objects, not bytes: without this a process
    # that opens one run after the other would hold the tables of dozens of them.
    gc.collect()
    try:
        check_archive(path)
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras, HDF5 and TensorFlow have many ways to say so
        raise InputError(f"{path} cannot be loaded: {reason(error)}.\n{remedy}".rstrip()) from error


def load_run_model(folder: RunFolder, kinds: Sequence[str], vocabulary: Vocabulary | None = None) -> keras.Model:
    """The model of a finished run.

    Args:
        folder: of the run.
        kinds: the classes that it may be of.
        vocabulary: of the run, whose users and items the model must have.

    Raises:
        InputError: it is damaged, or of another run.
    """
    model = load_model(folder.model, folder.remedy())
    if type(model).__name__ not in kinds:
        raise InputError(
            f"{folder.model} is of another run: {folder.config} is of {kinds[0]}.\n"
            f"Received: {type(model).__name__}.\n{folder.remedy()}"
        )
    if vocabulary is not None:
        check_sizes(folder, model, len(vocabulary.user_ids), len(vocabulary.item_ids), folder.items)
    return model


def check_sizes(folder: RunFolder, model: keras.Model, num_users: int, num_items: int, source: Path) -> None:
    """Raise InputError unless the model has no more users, and as many items, as ``source`` has."""
    known = getattr(model, "num_users", None) or 0
    wrong = [("items", model.num_items, num_items)] if model.num_items != num_items else []
    wrong += [("users", known, num_users)] if known > num_users else []
    for name, found, expected in wrong:
        raise InputError(
            f"{folder.model} is of another run than {source}: expected {expected:,} {name}.\n"
            f"Received: {found:,}.\n{folder.remedy()}"
        )


def load_vocabulary(folder: RunFolder) -> Vocabulary:
    """The users and items of a finished run.

    Raises:
        InputError: a damaged file.
    """
    try:
        return Vocabulary.load(folder.items, folder.users)
    except InputError as error:
        raise InputError(f"{error}\n{folder.remedy()}") from error
