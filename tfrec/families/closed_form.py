"""Families that are fitted in one go: nothing to resume, nothing to pick."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfrec.families.family import Outcome, Trainer

if TYPE_CHECKING:
    from tfrec.evaluation import Report
    from tfrec.runs.folder import RunFolder


class ClosedForm(Trainer):
    """Fits by one call.

    Args:
        model: not fitted yet.
        solve: fits it, the same on every rank.
        about: what is about to be fitted, for the first lines of a run.
    """

    def __init__(self, model: Any, solve: Callable[[], Any], about: str) -> None:
        self.model, self._solve, self.about = model, solve, about

    def solve(self) -> Any:
        """The model, fitted."""
        self._solve()
        return self.model

    def fit(self, folder: RunFolder, monitor: str, validate: Callable[[], Report]) -> Outcome:
        """All of it."""
        started = time.perf_counter()
        self.solve()
        return Outcome({"seconds": round(time.perf_counter() - started, 2)})
