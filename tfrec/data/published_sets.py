"""The published data sets: where they come from and how their files are laid out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfrec.data.cache import cached
from tfrec.data.download import fetch, unpack, verify
from tfrec.data.files import cache_folder, checksum
from tfrec.data.interactions import Interactions, ValueKind
from tfrec.data.published import FieldKind, Form, read_rows
from tfrec.data.registry import Loaded, data_set
from tfrec.data.table_columns import build_interactions
from tfrec.data.text_files import check_readable
from tfrec.data.titles import read_titles
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
        titles_header: whether it has a header line.
        kind: what a value means, see `tfrec.data.interactions.ValueKind`.
        text: ids are text and a value is a count; lines that are no event are left out and counted. Otherwise ids
            and values are numbers, and such a line is named in an error.
    """

    ratings: str
    delimiter: str
    columns: dict[str, str]
    names: tuple[str, ...] | None = None
    titles: str | None = None
    titles_delimiter: str = ","
    titles_header: bool = True
    kind: ValueKind = "ratings"
    text: bool = False

    @property
    def form(self) -> Form:
        """How the lines of the file of events are read."""
        kinds: dict[str, FieldKind] = {"user": "id", "item": "id", "value": "number", "time": "time"}
        if self.text:
            kinds = {"user": "text", "item": "text", "value": "count"}
        fields = {column: kinds[role] for role, column in self.columns.items()}
        return Form(self.delimiter, fields, self.names, quoting=self.delimiter == ",", lenient=self.text)


@dataclass(frozen=True)
class Dataset:
    """A published data set.

    Args:
        name: its name for `tfrec.data.load`.
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


_MOVIELENS_COLUMNS = {"user": "userId", "item": "movieId", "value": "rating", "time": "timestamp"}
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


#: Checksums as the publishers state them (the ``.md5`` files next to the archives at GroupLens).
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
            ),
        ),
        _movielens("ml-1m", "c4d9eecfca2ab87c1945afe126590906", _MOVIELENS_DAT),
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
                columns={"user": "userID", "item": "artistID", "value": "weight"},
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
                columns={"user": "user", "item": "artist", "value": "plays"},
                names=("user", "artist_mbid", "artist", "plays"),
                kind="counts",
                text=True,
            ),
        ),
    )
}


#: Users, items with an interaction, and interactions, where the publishers state them and do not change them.
_SIZES = {
    "ml-100k": (943, 1_682, 100_000),
    "ml-1m": (6_040, 3_706, 1_000_209),
    "ml-10m": (69_878, 10_677, 10_000_054),
    "ml-20m": (138_493, 26_744, 20_000_263),
    "ml-25m": (162_541, 59_047, 25_000_095),
    "ml-32m": (200_948, 84_432, 32_000_204),
    "lastfm-2k": (1_892, 17_632, 92_834),
}


def published_sizes(name: str) -> tuple[int, int, int] | None:
    """Users, items and interactions of a published data set, without its files; None: unknown."""
    return _SIZES.get(name)


def _register(name: str) -> None:
    @data_set(name)
    def read(data_dir: str | Path | None) -> Loaded:
        return Loaded(load_published(name, data_dir))


for _name in DATASETS:
    _register(_name)


def load_published(name: str, data_dir: str | Path | None = None) -> Interactions:
    """The events of the published data set ``name``, prepared once and then from the cache, see `tfrec.data.load`."""
    dataset = DATASETS[name]
    ratings, titles = _find(dataset, data_dir)
    key = {
        "dataset": name,
        "ratings": checksum(ratings),
        "titles": checksum(titles) if titles else None,
        "layout": repr(dataset.layout),
    }

    def prepare() -> Interactions:
        source = {"file": ratings.name, "sha256": key["ratings"], "publisher": dataset.url}
        return read_layout(ratings, dataset, titles, source)

    return cached(key, prepare)


def _find(dataset: Dataset, data_dir: str | Path | None) -> tuple[Path, Path | None]:
    """The files of events and, where there are any, titles; unpacked or downloaded if need be."""
    layout = dataset.layout
    named = data_dir or os.environ.get("TFREC_DATA")
    if named:
        root = Path(named)
        if not root.is_dir():
            raise InputError(
                f"The data folder does not exist: {root}\n"
                "Give an existing folder with --data.dir or TFREC_DATA, or neither to download."
            )
        for path in ((dataset.name,), (dataset.folder,), (dataset.name, dataset.folder), ()):
            folder: Path | None = root
            for part in path:
                folder = _entry(folder, part) if folder else None
            ratings = _entry(folder, layout.ratings) if folder else None
            if ratings and ratings.is_file():
                check_readable(ratings)
                return ratings, _entry(ratings.parent, layout.titles) if layout.titles else None
        archive = _entry(root, dataset.archive)
        if archive and archive.is_file():
            verify(archive, dataset.md5)
            return _unpacked(dataset, archive)
    try:
        archive = fetch(dataset.url, cache_folder() / "downloads" / dataset.archive, dataset.md5)
    except InputError as error:
        if named:
            raise InputError(
                f"{named} has neither {dataset.name}/{dataset.layout.ratings} nor {dataset.archive}, and a "
                f"download failed.\n{error}"
            ) from error
        raise
    return _unpacked(dataset, archive)


def _entry(folder: Path, name: str) -> Path | None:
    """What ``folder`` has under ``name``, else under a name that differs in case alone."""
    if (folder / name).exists():
        return folder / name
    if not folder.is_dir():
        return None
    return next((p for p in sorted(folder.iterdir()) if p.name.lower() == name.lower()), None)


def _unpacked(dataset: Dataset, archive: Path) -> tuple[Path, Path | None]:
    # Told apart by content: the same name may hold another version tomorrow.
    folder = cache_folder() / "unpacked" / f"{dataset.name}-{checksum(archive)[:16]}"
    titles = dataset.layout.titles
    unpack(archive, folder, [dataset.layout.ratings], [titles] if titles else [])
    check_readable(folder / dataset.layout.ratings)
    return folder / dataset.layout.ratings, folder / titles if titles and (folder / titles).is_file() else None


def read_layout(path: Path, dataset: Dataset, titles: Path | None, source: dict[str, Any]) -> Interactions:
    """Read the file of events ``path`` and the file of ``titles`` of a published data set."""
    layout = dataset.layout
    rows = read_rows(path, layout.form)
    events = build_interactions(
        path, rows.table, layout.columns, name=dataset.name, kind=layout.kind, text_ids=layout.text
    )
    source = dict(source)
    item_titles = None
    if titles is not None:
        found = read_titles(titles, layout.titles_delimiter, layout.titles_header)
        item_titles = found.array(events.item_ids)
        source["titles"] = {"file": titles.name, **found.summary(events.item_ids)}
    elif layout.titles is not None:
        source["titles"] = {"file": None, "items_without_title": events.num_items}
    return replace(events, source=source, left_out=rows.left_out, item_titles=item_titles)
