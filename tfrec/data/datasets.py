"""The published data sets by name: where they come from and how their files are laid out."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tfrec.data.cache import cached
from tfrec.data.delimited import parse_csv
from tfrec.data.download import fetch, unpack, verify
from tfrec.data.files import cache_folder, checksum, combined_checksum
from tfrec.data.interactions import Interactions, ValueKind
from tfrec.data.tables import build_interactions, check_readable, from_table, table_files
from tfrec.errors import InputError

_GROUPLENS = "https://files.grouplens.org/datasets"


@dataclass(frozen=True)
class Layout:
    """How the files of a data set are written.

    Args:
        ratings: name of the file of events.
        delimiter: of the file of events; ``::`` is MovieLens's of 2003 to 2009.
        names: its columns, where it has no header line; roles are taken from ``columns``.
        columns: role (user, item, rating, timestamp) -> column.
        titles: name of the file of titles, or None.
        titles_delimiter: of that file.
        titles_columns: (position of the id, position of the title).
        titles_header: whether it has a header line.
        encoding: of the file of titles.
        kind: what a value says, see `tfrec.data.interactions.ValueKind`.
    """

    ratings: str
    delimiter: str
    columns: dict[str, str]
    names: tuple[str, ...] | None = None
    titles: str | None = None
    titles_delimiter: str = ","
    titles_columns: tuple[int, int] = (0, 1)
    titles_header: bool = True
    encoding: str = "utf-8"
    kind: ValueKind = "ratings"


@dataclass(frozen=True)
class Dataset:
    """A published data set.

    Args:
        name: what `load` knows it by.
        url: the publisher's address of the archive.
        md5: the publisher's checksum; None where the publisher updates the file in place.
        folder: the folder inside the archive.
        layout: how the files are written.
    """

    name: str
    url: str
    md5: str | None
    folder: str
    layout: Layout

    @property
    def archive(self) -> str:
        """The archive's file name."""
        return self.url.rsplit("/", 1)[1]


_MOVIELENS_COLUMNS = {"user": "userId", "item": "movieId", "rating": "rating", "timestamp": "timestamp"}
_MOVIELENS_NAMES = ("userId", "movieId", "rating", "timestamp")
_MOVIELENS_CSV = Layout(ratings="ratings.csv", delimiter=",", columns=_MOVIELENS_COLUMNS, titles="movies.csv")
_MOVIELENS_DAT = Layout(
    ratings="ratings.dat",
    delimiter="::",
    columns=_MOVIELENS_COLUMNS,
    names=_MOVIELENS_NAMES,
    titles="movies.dat",
    titles_delimiter="::",
    titles_header=False,
)


def _movielens(name: str, md5: str | None, layout: Layout, folder: str | None = None) -> Dataset:
    return Dataset(name, f"{_GROUPLENS}/movielens/{name}.zip", md5, folder or name, layout)


#: Checksums as the publishers state them (the ``.md5`` files beside the archives at GroupLens).
DATASETS: dict[str, Dataset] = {
    d.name: d
    for d in (
        _movielens(
            "ml-100k",
            "0e33842e24a9c977be4e0107933c0723",
            Layout(
                ratings="u.data",
                delimiter="\t",
                columns=_MOVIELENS_COLUMNS,
                names=_MOVIELENS_NAMES,
                titles="u.item",
                titles_delimiter="|",
                titles_header=False,
                encoding="latin-1",
            ),
        ),
        _movielens("ml-1m", "c4d9eecfca2ab87c1945afe126590906", replace(_MOVIELENS_DAT, encoding="latin-1")),
        _movielens("ml-10m", "ce571fd55effeba0271552578f2648bd", _MOVIELENS_DAT, folder="ml-10M100K"),
        _movielens("ml-20m", "cd245b17a1ae2cc31bb14903e1204af3", _MOVIELENS_CSV),
        _movielens("ml-25m", "6b51fb2759a8657d3bfcbfc42b592ada", _MOVIELENS_CSV),
        _movielens("ml-32m", "d472be332d4daa821edc399621853b57", _MOVIELENS_CSV),
        _movielens("ml-latest-small", None, _MOVIELENS_CSV),
        Dataset(
            "lastfm-2k",
            f"{_GROUPLENS}/hetrec2011/hetrec2011-lastfm-2k.zip",
            None,
            "hetrec2011-lastfm-2k",
            Layout(
                ratings="user_artists.dat",
                delimiter="\t",
                columns={"user": "userID", "item": "artistID", "rating": "weight"},
                titles="artists.dat",
                titles_delimiter="\t",
                kind="counts",
            ),
        ),
        Dataset(
            "lastfm-360k",
            "http://mtg.upf.edu/static/datasets/last.fm/lastfm-dataset-360K.tar.gz",
            "635e6ed3fc873aa4ba33aba0ebce02b1",
            "lastfm-dataset-360K",
            Layout(
                ratings="usersha1-artmbid-artname-plays.tsv",
                delimiter="\t",
                # A third of the artists have no MusicBrainz id, so the name is the id, as in implicit.
                columns={"user": "user", "item": "artist", "rating": "plays"},
                names=("user", "artist_mbid", "artist", "plays"),
                kind="counts",
            ),
        ),
    )
}

#: What `load` accepts.
NAMES: tuple[str, ...] = ("synthetic", *DATASETS)


def load(name: str, data_dir: str | Path | None = None, **synthetic: Any) -> Interactions:
    """Interactions of a data set by name.

    Looks for its archive or unpacked folder in ``data_dir`` (or ``$TFREC_DATA``), else downloads the archive
    from its publisher into ``~/.cache/tfrec/downloads``. Prepared arrays are cached by the checksum of the
    source file.

    Args:
        name: ``synthetic``, ``ml-100k``, ``ml-1m``, ``ml-10m``, ``ml-20m``, ``ml-25m``, ``ml-32m``,
            ``ml-latest-small``, ``lastfm-2k`` or ``lastfm-360k``.
        data_dir: a folder with archives or unpacked folders.
        **synthetic: for ``synthetic`` only: the arguments of `tfrec.data.Synthetic`.

    Returns:
        Interactions with users and items in ascending order of their raw ids.

    Raises:
        InputError: an unknown name, no such data and no network, a damaged file.

    Example:
        >>> events = load("synthetic", num_users=50, num_items=40, seed=1)
        >>> events.num_users, events.num_items
        (50, 40)
    """
    if name == "synthetic":
        from tfrec.data.synthetic import Synthetic

        unknown = set(synthetic) - {f.name for f in fields(Synthetic)}
        if unknown:
            raise InputError(f"`synthetic` has no argument {', '.join(sorted(unknown))}.\nSee tfrec.data.Synthetic.")
        return Synthetic(**synthetic).interactions()
    if synthetic:
        raise InputError(f"Only `synthetic` takes {', '.join(synthetic)}.\nReceived: name={name!r}.")
    if name not in DATASETS:
        raise InputError(
            f"Unknown data set.\nReceived: {name!r}.\nKnown: {', '.join(NAMES)}.\n"
            "For a table of your own: tfrec.data.from_table(path), on the command line --data.path FILE."
        )
    dataset = DATASETS[name]
    folder = _find(dataset, data_dir)
    ratings = folder / dataset.layout.ratings
    titles = _titles_file(dataset, folder)
    key = {
        "dataset": name,
        "ratings": checksum(ratings),
        "titles": checksum(titles) if titles else None,
        "layout": repr(dataset.layout),
    }

    def prepare() -> Interactions:
        source = {"file": ratings.name, "sha256": key["ratings"], "publisher": dataset.url}
        return read_layout(folder, dataset, titles, source)

    return cached(key, prepare)


def load_table(path: str | Path | Sequence[str | Path], **options: Any) -> Interactions:
    """`from_table` with its result cached by the files' checksum and the options."""
    files = table_files(path)
    key = {"table": combined_checksum(files), "suffix": [file.name for file in files], "options": options}
    events = cached(key, lambda: from_table(files, **options))
    found = replace(events, source={"file": str(path), "sha256": key["table"]})
    found.__dict__["num_pairs"] = events.num_pairs
    return found


def _find(dataset: Dataset, data_dir: str | Path | None) -> Path:
    """The folder with the data set's files, unpacked or downloaded if need be."""
    named = data_dir or os.environ.get("TFREC_DATA")
    unpacked = cache_folder() / "unpacked" / dataset.name
    downloads = cache_folder() / "downloads"
    wanted = [f for f in (dataset.layout.ratings, dataset.layout.titles) if f]
    if named:
        root = Path(named)
        if not root.is_dir():
            raise InputError(
                f"The data folder does not exist: {root}\n"
                "Give an existing folder with --data.dir or TFREC_DATA, or neither to download."
            )
        for folder in (root / dataset.name, root / dataset.folder, root):
            if (folder / dataset.layout.ratings).is_file():
                check_readable(folder / dataset.layout.ratings)
                return folder
        archive = root / dataset.archive
        if archive.is_file():
            verify(archive, dataset.md5)
            # Told apart by content: the same name may hold another version tomorrow.
            return unpack(archive, unpacked.with_name(f"{dataset.name}-{checksum(archive)[:16]}"), wanted)
    try:
        archive = fetch(dataset.url, downloads / dataset.archive, dataset.md5)
    except InputError as error:
        if named:
            raise InputError(
                f"{named} has neither {dataset.name}/{dataset.layout.ratings} nor {dataset.archive}, and {error}"
            ) from error
        raise
    return unpack(archive, unpacked.with_name(f"{dataset.name}-{checksum(archive)[:16]}"), wanted)


def _titles_file(dataset: Dataset, folder: Path) -> Path | None:
    if dataset.layout.titles is None:
        return None
    path = folder / dataset.layout.titles
    return path if path.exists() else None


def read_layout(folder: Path, dataset: Dataset, titles: Path | None, source: dict[str, Any]) -> Interactions:
    """Read the files of a published data set from ``folder``."""
    layout = dataset.layout
    path = folder / layout.ratings
    content = None
    delimiter = layout.delimiter
    if delimiter == "::":
        # pyarrow takes one character. The fields are numbers, so a tab cannot occur in them.
        content = path.read_bytes().replace(b"::", b"\t")
        delimiter = "\t"
    types: dict[str, Any] = {layout.columns["rating"]: pa.float32()}
    if "timestamp" in layout.columns:
        types[layout.columns["timestamp"]] = pa.int64()
    table = parse_csv(
        path,
        delimiter=delimiter,
        include=list(layout.columns.values()),
        types=types,
        quoting=False,
        names=list(layout.names) if layout.names else None,
        content=content,
    )
    del content
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows.\nGet {dataset.archive} from its publisher.")
    left_out: dict[str, int] = {}
    if dataset.name == "lastfm-360k":
        table, nameless = _drop_nameless(table)
        left_out["no artist"] = nameless
    events = build_interactions(
        path,
        table,
        layout.columns,
        name=dataset.name,
        kind=layout.kind,
        text_ids=dataset.name == "lastfm-360k",
        first_line=1 if layout.names else 2,
    )
    return replace(
        events,
        source=source,
        left_out=left_out,
        item_titles=_read_titles(titles, layout, events.item_ids) if titles else None,
    )


def _drop_nameless(table: pa.Table) -> tuple[pa.Table, int]:
    """Last.fm 360K has some rows without an artist's name; implicit leaves them out, and so do we, counted."""
    import pyarrow.compute as pc

    artist = pc.cast(table["artist"], pa.string())
    named = pc.and_(pc.is_valid(artist), pc.not_equal(pc.utf8_trim_whitespace(artist), ""))
    kept = table.filter(pc.fill_null(named, False))
    return kept, table.num_rows - kept.num_rows


def _read_titles(path: Path, layout: Layout, item_ids: np.ndarray) -> np.ndarray:
    try:
        text = path.read_bytes().decode(layout.encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not {layout.encoding} text: {error}.\nGet it from its publisher.") from error
    if item_ids.dtype == object:
        raise InputError(f"Item ids must be whole numbers.\nReceived: {item_ids[0]!r}, beside {path}.")
    if layout.titles_delimiter == ",":
        csv.field_size_limit(1 << 30)
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except csv.Error as error:
            raise InputError(f"{path} has a quote that is not closed: {error}.\nMend the line.") from error
    else:
        rows = [line.split(layout.titles_delimiter) for line in text.splitlines() if line]
    id_at, title_at = layout.titles_columns
    titles: dict[int, str] = {}
    for number, row in enumerate(rows[layout.titles_header :], start=1 + layout.titles_header):
        if (
            len(row) <= max(id_at, title_at)
            or not (row[id_at].isascii() and row[id_at].isdigit())
            or "\n" in row[title_at]
        ):
            raise InputError(f"{path}, line {number}: expected an id and a title.\nReceived: {row!r}.\nMend the line.")
        titles[int(row[id_at])] = row[title_at]
    return np.array([titles.get(int(i), str(i)) for i in item_ids], dtype=object)
