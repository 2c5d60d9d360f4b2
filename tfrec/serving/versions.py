"""Numbered versions of a served model: the next number, which old ones go, and whether a new one may come.

A server reads ``NAME/1``, ``NAME/2``, ..., and answers with the highest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfrec.data.files import read_json
from tfrec.errors import InputError
from tfrec.printing import printable


def model_folder(path: Path) -> Path | None:
    """The folder of the model where ``path`` is a version of it; None where its name is no number."""
    absolute = Path(os.path.abspath(path))
    return absolute.parent if _number(absolute.name) is not None and absolute.parent.name else None


def versions(folder: Path) -> list[int]:
    """The numbers that lie in a model's folder, rising."""
    if not folder.is_dir():
        return []
    found = (_number(p.name) for p in folder.iterdir() if (p / "saved_model.pb").is_file())
    return sorted(n for n in found if n is not None)


def next_version(folder: Path) -> Path:
    """The folder of the version after the highest: a number is not used twice, as a server would not read it again."""
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"The folder of a model holds its versions.\nReceived: {printable(folder)}, a file.\nName a folder."
        )
    taken = [n for p in (folder.iterdir() if folder.is_dir() else []) if (n := _number(p.name)) is not None]
    return folder / str(max(taken, default=0) + 1)


def prune(folder: Path, keep: int) -> list[Path]:
    """Remove all versions but the ``keep`` highest; which went."""
    if keep < 1:
        raise InputError(f"`keep` must be at least 1, the new version.\nReceived: {keep}.")
    gone = [folder / str(n) for n in versions(folder)[:-keep]]
    for path in gone:
        # Renamed first: a server never sees half a version.
        hidden = path.with_name(f".{path.name}.removed")
        os.rename(path, hidden)
        shutil.rmtree(hidden)
    return gone


def check_not_worse(folder: Path, metrics: Mapping[str, float], metric: str, share: float) -> str | None:
    """Refuse a model that is worse than the version that is served now.

    Args:
        folder: of the model.
        metrics: of the new model: name -> value, more is better.
        metric: the one to compare by.
        share: by how much it may fall, as a part of the old value, from 0 to 1.

    Returns:
        a line that says what was compared; None where there is no earlier version.

    Raises:
        InputError: it fell by more, or one of the two has no such metric.
    """
    if not 0 <= share < 1:
        raise InputError(
            "A guard is a metric and the part by which it may fall, from 0 to 1, such as `ndcg@100 0.02`.\n"
            f"Received: {share}."
        )
    if metric not in metrics:
        raise InputError(
            f"A guard needs a test metric of the run.\nReceived: {metric!r}.\nUse one of {', '.join(metrics)}."
        )
    there = versions(folder)
    if not there:
        return None
    newest = folder / str(there[-1])
    old = _old_metrics(newest).get(metric)
    if old is None:
        raise InputError(
            f"{printable(newest)} does not say its {metric}, so the new model cannot be compared with it.\n"
            "Export once without --guard."
        )
    new = float(metrics[metric])
    # Written so that NaN is refused.
    if not new >= float(old) * (1 - share):
        raise InputError(
            f"The new model is worse than version {there[-1]}, so it was not exported: {metric} {new:.4f}, before "
            f"{old:.4f}; it may fall by {share:.1%}.\nLook at the run and its data, or raise the part in --guard."
        )
    return f"{metric} {new:.4f}, version {there[-1]} had {old:.4f}"


def _old_metrics(version: Path) -> Mapping[str, Any]:
    path = version / "signatures.json"
    if not path.is_file():
        return {}
    about = read_json(path).get("about", {})
    return about.get("metrics") or {}


def _number(name: str) -> int | None:
    return int(name) if name.isascii() and name.isdigit() else None
