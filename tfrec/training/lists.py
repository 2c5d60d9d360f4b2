"""Lists of items with scores, as the implicit package's examples write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfrec.data.files import atomic_write
from tfrec.errors import InputError


def write_lists(path: Path, names: np.ndarray, labels: np.ndarray, ids: np.ndarray, scores: np.ndarray) -> None:
    """A line ``name <tab> label <tab> score`` for each item of each list; -1 are left out.

    Args:
        path: the file, written whole or not at all.
        names: ``[B]``, of the lists.
        labels: ``[I]``, of the items.
        ids: ``[B, k]``.
        scores: ``[B, k]``.

    Raises:
        InputError: the file cannot be written.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{path} cannot be written.\nName a file in a folder that exists.")
    clean = [_one_field(label) for label in labels]
    lines = 0
    with atomic_write(path, "w") as stream:
        for name, row, row_scores in zip(names, ids.tolist(), scores.tolist(), strict=True):
            first = _one_field(name)
            for item, score in zip(row, row_scores, strict=True):
                if item >= 0:
                    stream.write(f"{first}\t{clean[item]}\t{score:.6g}\n")
                    lines += 1
    print(f"Wrote {lines:,} lines to {path}")


def _one_field(text: object) -> str:
    """Without what separates fields and lines."""
    return " ".join(str(text).split())
