"""Write what is served as a SavedModel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrec.data.files import atomic_folder
from tfrec.errors import InputError
from tfrec.layers.reference import plain_operations
from tfrec.serving.served import Served
from tfrec.serving.servers import batching_parameters, write_model_files, write_warmup
from tfrec.serving.signatures import describe
from tfrec.serving.versions import model_folder


def export(served: Served, path: str | Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write a SavedModel to ``path``, whole or not at all.

    With it come ``signatures.json`` (`tfrec.serving.signatures.describe`) and what servers read
    (`tfrec.serving.servers`). Where the last part of ``path`` is a number, it is a version, and the folder around it is
    the model's and gets ``models.config`` and ``config.pbtxt``.

    Args:
        served: what to write.
        path: a new folder; for servers ``NAME/VERSION``.
        about: put into ``signatures.json`` besides, under ``about``.

    Raises:
        InputError: ``path`` exists already, or cannot be written.
    """
    path = Path(path)
    model = model_folder(path)
    try:
        with plain_operations(served.layers), atomic_folder(path) as temporary:
            tf.saved_model.save(served, str(temporary), signatures=served.signatures)
            described = {**describe(served), "about": dict(about or {})}
            (temporary / "signatures.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
            (temporary / "batching_params.pbtxt").write_text(batching_parameters(), encoding="utf-8")
            write_warmup(served, (model or path).name, temporary)
    except tf.errors.OpError as error:  # a full disk, a limit, a name: TensorFlow's own way to say so
        raise InputError(
            f"{path} cannot be written: {type(error).__name__} in TensorFlow; the disk may be full, or a file larger "
            "than a limit (ulimit -f).\nFree some space or raise the limit, or name another place."
        ) from error
    if model is not None:
        write_model_files(served, model)
    return path
