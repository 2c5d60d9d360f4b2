"""Faiss, which is an extra."""

from __future__ import annotations

import importlib
from typing import Any

from tfrec.errors import InputError


def faiss() -> Any:
    """The package.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise InputError(
            f"An index needs the package faiss-cpu.\nReceived: {error}.\nInstall it: pip install 'tfrec[index]'."
        ) from error
