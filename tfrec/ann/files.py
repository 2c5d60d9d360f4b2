"""An index as two files in a folder: ``index.faiss``, and ``index.json``, which says what it is.

``index.json`` is written last and removed first: without it there is no index.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.ann.index import DTYPES, KINDS, AnnIndex, IndexReport
from tfrec.ann.library import faiss
from tfrec.data.files import DAMAGE, atomic_path, atomic_write, checksum, read_json, reason
from tfrec.errors import InputError
from tfrec.runs.folder import INDEX_FILES

_FORMAT = 1
#: Rows of a table that tell it from another.
_ROWS = 4_096


def write_index(index: AnnIndex, folder: Path) -> None:
    """Write an index; an earlier one there is replaced."""
    remove_index(folder)
    with atomic_path(_vectors(folder)) as temporary:
        faiss().write_index(index.index, str(temporary))
    about = {
        "format": _FORMAT,
        **asdict(index.report),
        "table": _fingerprint(index.table.numpy()),
        "sha256": checksum(_vectors(folder)),
    }
    with atomic_write(_about(folder), "w") as stream:
        json.dump(about, stream, indent=2)


def read_index(folder: Path, table: Any) -> AnnIndex | None:
    """The index in a folder; None where there is none.

    Args:
        folder: where `write_index` wrote.
        table: gives the vectors ``[I, F]`` of the model's items, called where there is an index.

    Raises:
        InputError: it is damaged, or was built for other vectors.
    """
    path, about = _vectors(folder), _about(folder)
    if not about.exists():
        return None
    remedy = "Build it again with `tfrec index`, or remove it with `tfrec index RUN --kind exact`."
    try:
        said = read_json(about)
        fields = {name: said[name] for name in IndexReport.__dataclass_fields__}
        report = IndexReport(**fields)
        if said["format"] != _FORMAT or report.kind not in KINDS or report.dtype not in DTYPES:
            raise ValueError(f"it is of format {said['format']}")
        report.check()
        if checksum(path) != said["sha256"]:
            raise ValueError("its SHA-256 is another one")
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"The index in {folder} is damaged: {reason(error)}.\n{remedy}") from error
    vectors: tf.Tensor = table()
    if _fingerprint(vectors.numpy()) != said["table"]:
        raise InputError(f"The index in {folder} was built for another model than {folder} has.\n{remedy}")
    library = faiss()
    try:
        index = library.read_index(str(path))
        if index.ntotal != report.items or index.d != vectors.shape[1]:
            raise RuntimeError(f"it has {index.ntotal} vectors, and {report.items} are stated")
    except RuntimeError as error:
        raise InputError(f"The index in {folder} is damaged: {reason(error)}.\n{remedy}") from error
    return AnnIndex(index, vectors, report)


def remove_index(folder: Path) -> None:
    """Remove an index, where there is one."""
    for path in (_about(folder), _vectors(folder)):
        path.unlink(missing_ok=True)


def _vectors(folder: Path) -> Path:
    return folder / INDEX_FILES[0]


def _about(folder: Path) -> Path:
    return folder / INDEX_FILES[1]


def _fingerprint(table: np.ndarray) -> str:
    """Tells the vectors of one training from those of another: rows spread over the table, not all gigabytes of it."""
    places = np.unique(np.linspace(0, len(table) - 1, min(_ROWS, len(table))).astype(np.int64))
    about = f"{table.shape} {table.dtype}".encode()
    return hashlib.sha256(about + np.ascontiguousarray(table[places]).tobytes()).hexdigest()
