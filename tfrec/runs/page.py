"""report.html of a run."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable

from tfrec.data.files import atomic_write
from tfrec.errors import TfrecWarning
from tfrec.reporting import RunFacts, draw
from tfrec.runs.folder import RunFolder


def write_page(folder: RunFolder, facts: Callable[[], RunFacts]) -> None:
    """Draw the page and write it, whole or not at all.

    A page that cannot be drawn loses no run: that is a warning, with its traceback.

    Args:
        folder: the run's.
        facts: gathers what the page shows.
    """
    try:
        text = draw(facts())
    except Exception as error:  # whatever is wrong with a picture, the model was trained and measured
        where = "".join(traceback.format_exception(error))
        warnings.warn(
            f"{folder.page.name} could not be drawn; the rest of the run is complete.\n{where}",
            TfrecWarning,
            stacklevel=2,
        )
        return
    with atomic_write(folder.page, "w") as stream:
        stream.write(text)
