"""Data sets by name, and tables from the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

# These register what they know.
from tfrec.data import ncf, published_sets, synthetic, synthetic_catalog  # noqa: F401
from tfrec.data.cache import cached
from tfrec.data.files import combined_checksum
from tfrec.data.interactions import Interactions
from tfrec.data.registry import REGISTRY, Loaded
from tfrec.data.table_files import shown, table_files
from tfrec.errors import InputError

#: What `load` accepts.
NAMES: tuple[str, ...] = tuple(sorted(REGISTRY))
#: The same as a type, from which a command line makes its choices.
if TYPE_CHECKING:
    DataSetName = str
else:
    DataSetName = Literal[NAMES]


def load(name: str, data_dir: str | Path | None = None, **settings: Any) -> Interactions:
    """Interactions of a data set by name.

    Looks for its archive or unpacked folder in ``data_dir`` (or ``$TFREC_DATA``), else downloads the archive
    from its publisher into ``~/.cache/tfrec/downloads``. Names of files and folders may be in upper case, and
    ``ml-10M100K`` be called ``ml-10m``. Prepared arrays are cached by the checksum of the source file.

    Files are read as the reference implementations read them, and `Interactions.report` accounts for every line that
    is not blank:

    - MovieLens and ``lastfm-2k``: blank lines, CR LF, a byte order mark, quoted numbers, blanks around numbers,
      ``5.0`` for 5 and further columns (where there are column names) are taken, as by pandas, which Liang's
      notebook for the VAE, NVIDIA's examples, implicit and RecSysDatasets use. A line that is no event
      stops there, too: the publishers' files have none, so the file is damaged, and the error names the line.
    - ``lastfm-360k``: the publisher's file does have such lines. Those without four columns or whose plays are not
      digits (``-1``, ``2.5``) are left out and counted, and a CR inside a name is removed, as by the script that
      implicit refers to. So are lines with a NUL, where pandas cuts the name off, or with a name that is not UTF-8, at
      which it stops; and lines without a name: implicit makes all of these one artist. 0 plays stay, and are no
      positive. A quote is a character like others.

    Titles (see `tfrec.data.titles.read_titles`) never stop a run: an item without one is shown by its id, and
    ``source["titles"]`` says how many are.

    Args:
        name: one of `NAMES`. Of ``ncf-ml-1m`` these are the events for training, see `load_source`.
        data_dir: a folder with archives or unpacked folders.
        **settings: for ``synthetic`` the arguments of `tfrec.data.Synthetic`, for ``synthetic-catalog`` those of
            `tfrec.data.SyntheticCatalog`.

    Returns:
        Interactions with users and items in ascending order of their raw ids.

    Raises:
        InputError: an unknown name or setting, no such data and no network, a damaged file.

    Example:
        >>> events = load("synthetic", num_users=50, num_items=40, seed=1)
        >>> events.num_users, events.num_items
        (50, 40)
    """
    return load_source(name, data_dir, **settings).events


def load_source(name: str, data_dir: str | Path | None = None, **settings: Any) -> Loaded:
    """As `load`, with all that the data set has besides its events: the planted model, held-out items.

    Raises:
        InputError: see `load`.
    """
    if name not in REGISTRY:
        raise InputError(
            f"The data set must be one of {', '.join(NAMES)}.\nReceived: {name!r}.\n"
            "For a table of your own: tfrec.Interactions.from_table(path), on the command line --data.path FILE."
        )
    return REGISTRY[name].load(name, data_dir, settings)


def load_table(path: str | Path | Sequence[str | Path], **options: Any) -> Interactions:
    """`Interactions.from_table` with its result cached by the files' checksum and the options."""
    files = table_files(path)
    key = {"table": combined_checksum(files), "suffix": [file.name for file in files], "options": options}
    events = cached(key, lambda: Interactions.from_table(files, **options))
    # The cache may hold what another path with the same bytes was read as.
    name = options.get("name") or shown([_relative(file) for file in files])
    return events.described(name=name, source={"file": str(path), "sha256": key["table"]})


def _relative(path: Path) -> Path:
    """A path below the current folder without what comes before it, for messages."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
