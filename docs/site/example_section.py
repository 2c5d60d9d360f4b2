"""Reads ``Example:`` in a docstring as the section ``Examples:``, so that its ``>>>`` lines become code."""

from __future__ import annotations

import re
from typing import Any

import griffe


class ExampleSection(griffe.Extension):
    """Renames the section before the docstring is parsed; griffe knows the plural only."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
