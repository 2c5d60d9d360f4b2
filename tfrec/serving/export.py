"""Write what is served as a SavedModel."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from tfrec.data.files import atomic_folder
from tfrec.errors import InputError
from tfrec.layers.reference import plain_operations
from tfrec.serving.histories import ServedHistories
from tfrec.serving.users import ServedUsers


def export(served: ServedHistories | ServedUsers, path: str | Path) -> Path:
    """Write a SavedModel to ``path``, whole or not at all.

    Raises:
        InputError: ``path`` exists already, or cannot be written.
    """
    path = Path(path)
    try:
        with plain_operations(served.layers), atomic_folder(path) as temporary:
            tf.saved_model.save(served, str(temporary), signatures=served.signatures)
    except tf.errors.OpError as error:  # a full disk, a limit, a name: TensorFlow's own way to say so
        raise InputError(
            f"{path} cannot be written: {type(error).__name__} in TensorFlow; the disk may be full, or a file larger "
            "than a limit (ulimit -f).\nFree some space or raise the limit, or name another place."
        ) from error
    return path
