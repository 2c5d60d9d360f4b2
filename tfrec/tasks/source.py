"""Where the interactions come from: a published data set, a generated one, a table, or what Python hands over."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tfrec.data import NAMES, Interactions, Synthetic, SyntheticCatalog, load_table, read_user_lists
from tfrec.data.datasets import load_source
from tfrec.data.digest import digest
from tfrec.data.files import combined_checksum
from tfrec.data.ncf import load_ncf, ncf_files
from tfrec.data.published_sets import published_sizes
from tfrec.data.table_files import table_files
from tfrec.errors import InputError

#: The data sets that there are, and what `tfrec.fit` is given in Python.
if TYPE_CHECKING:
    DataName = str
else:
    DataName = Literal[(*NAMES, "in-memory")]


@dataclass(frozen=True)
class SyntheticConfig:
    """The planted preference model behind the data set ``synthetic``, see tfrec.data.Synthetic."""

    num_users: int = 6_000
    """Number of users."""
    num_items: int = 2_000
    """Number of items."""
    rank: int = 8
    """Rank of the planted preference."""
    strength: float = 1.5
    """Standard deviation of the preference, in nats."""
    popularity: float = 1.5
    """Standard deviation of the items' popularity, in nats."""
    seed: int = 0
    """Seed of the generator."""


@dataclass(frozen=True)
class CatalogConfig:
    """The planted model behind the data set ``synthetic-catalog``, see tfrec.data.SyntheticCatalog."""

    num_users: int = 20_000
    """Number of users."""
    num_items: int = 10_000_000
    """Number of items."""
    category_size: int = 46_656
    """Items of a category, which is a stretch of ids."""
    events_per_user: int = 50
    """Draws of each user."""
    rank: int = 8
    """Rank of the planted taste for categories."""
    strength: float = 2.0
    """Standard deviation of the taste, in nats."""
    decay: float = 0.8
    """How fast popularity falls in a category."""
    seed: int = 0
    """Seed of the generator."""


@dataclass(frozen=True)
class SourceConfig:
    """Where the interactions come from."""

    name: DataName = "synthetic"
    """A published data set, or a generated one. ncf-ml-1m: ml-1m with the NCF paper's held-out items and its 99
    negatives for each. synthetic-catalog: ten million items in categories. in-memory: what tfrec.fit was given in
    Python. Ignored when path is given."""
    path: Path | None = None
    """A table of your own: CSV, TSV (also packed) or Parquet, with column names; a file, a pattern in quotes
    ('plays/*.parquet') or a folder of parts."""
    dir: Path | None = None
    """Folder with archives or unpacked folders of published data sets; default $TFREC_DATA, else download."""
    user: str = "user_id"
    """With path: the column of user ids."""
    item: str = "item_id"
    """With path: the column of item ids."""
    value: str | None = None
    """With path: the column of ratings, counts or votes; none: every event is positive."""
    value_kind: Literal["auto", "ratings", "counts", "votes"] = "auto"
    """With path: what that column holds. ratings: grades, a low one means dislike. counts: how often, never dropped for
    being small. votes: liked (above 0) or disliked (below). auto: the first lines of a
    run name it, and why."""
    time: str | None = None
    """With path: the column of times."""
    title: str | None = None
    """With path: the column of item titles."""
    bad_rows: Literal["error", "drop"] = "error"
    """With path: rows without an id, malformed, or with a value or time that cannot be read. error: stop and name
    them. drop: leave them out, counted."""
    delimiter: str | None = None
    """With path: the delimiter; default: detected in the first line."""
    quoting: Literal["auto", "on", "off"] = "auto"
    """With path: whether " is a quote. auto: not in text delimited by tabs; a quote that swallows lines is an error."""
    decimal: Literal[".", ","] = "."
    """With path: the sign before the fraction of a value."""
    encoding: str | None = None
    """With path: the encoding, such as latin-1; default: UTF-8."""
    column_names: tuple[str, ...] | None = None
    """With path: the columns' names, in order, where the first line is data."""
    time_format: str | None = None
    """With path: how dates are written, such as '%m/%d/%Y %H:%M'; default: ISO 8601."""
    text_ids: bool = False
    """With path: read ids as text even where they look like numbers."""
    min_rating: float | Literal["auto", "all"] = "auto"
    """Keep pairs of user and item with a value above this, from 0. auto: of ratings those above 7 tenths of the scale
    (3.5 of 5), of counts all above 0. all: those above 0. ALS reads votes below 0 as disliked in any case."""
    format: Literal["table", "lists", "ncf"] = "table"
    """With path. table: a file with column names. lists: a line per user, `user item item ...`, as in LightGCN's
    files. ncf: a folder with the NCF paper's NAME.train.rating, NAME.test.rating and NAME.test.negative."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    """The data set synthetic."""
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    """The data set synthetic-catalog."""


#: Settings of a user's own table, with the names of `Interactions.from_table`.
_TABLE_OPTIONS = (
    "title", "value_kind", "bad_rows", "delimiter", "quoting", "decimal", "encoding", "column_names", "time_format",
    "text_ids",
)  # fmt: skip
#: All that means nothing without a path.
_WITH_PATH = ("user", "item", "value", "time", "format", *_TABLE_OPTIONS)


@dataclass(frozen=True)
class Source:
    """What was read.

    Args:
        events: all of it; with files that have held out already, what these have for training.
        oracle: the planted model where the data was drawn from one.
        test_items: int32 ``[U]``, where the source has held out each user's latest item itself (-1: none); else None.
        test_negatives: int32 ``[U, n]``, what that item is ranked among, where the source states it; else None.
        notes: what -> how many, of what is unusual in the files.
        validation: events for validation, where Python hands them over.
        test: events for the test, where Python hands them over.
    """

    events: Interactions
    oracle: Synthetic | SyntheticCatalog | None = None
    test_items: np.ndarray | None = None
    test_negatives: np.ndarray | None = None
    notes: Mapping[str, int] = field(default_factory=dict)
    validation: Interactions | None = None
    test: Interactions | None = None

    @property
    def sha256(self) -> str | None:
        """Checksum of the files of events; None for generated data, which its settings determine."""
        return self.events.source.get("sha256")


@dataclass(frozen=True)
class InMemory:
    """What Python hands over.

    Args:
        events: all, or those for training.
        validation: the events for validation, where the data is split already.
        test: the events for the test.
    """

    events: Interactions
    validation: Interactions | None = None
    test: Interactions | None = None

    @property
    def checksum(self) -> str:
        """Of all that is in there."""
        return digest(
            array
            for events in (self.events, self.validation, self.test)
            if events is not None
            for array in (events.user_index, events.item_index, events.values, events.timestamps, events.user_ids,
                          events.item_ids, events.item_titles)
        )  # fmt: skip


def read_source(config: SourceConfig, in_memory: InMemory | None = None) -> Source:
    """What ``config`` names.

    Args:
        config: the settings.
        in_memory: for ``name="in-memory"``, the events.

    Raises:
        InputError: settings that do not go together, or see `tfrec.data.load`, `Interactions.from_table` and
            `tfrec.data.ncf.load_ncf`.
    """
    _check(config, in_memory)
    if in_memory is not None:
        given = in_memory.events
        events = dataclasses.replace(given, source={**given.source, "sha256": in_memory.checksum})
        return Source(events, validation=in_memory.validation, test=in_memory.test)
    if config.path is not None and config.format == "ncf":
        _check_held_out_already(config)
        files = load_ncf(config.path)
        return Source(files.train, None, files.test_items, files.test_negatives, files.notes)
    if config.path is not None:
        return Source(read_file(config, config.path))
    settings: Any = {"synthetic": config.synthetic, "synthetic-catalog": config.catalog}.get(config.name)
    folder = config.dir or os.environ.get("TFREC_DATA")
    found = load_source(config.name, folder, **({} if settings is None else asdict(settings)))
    if found.test_items is not None:
        _check_held_out_already(config)
    return Source(found.events, found.oracle, found.test_items, found.test_negatives, found.notes)


def sizes_without_reading(config: SourceConfig) -> tuple[int, int, int] | None:
    """Users, items and interactions of a published or a large generated data set; None: it must be read to tell.

    They are those of all its files: `min_rating` and what is held out leave fewer.
    """
    if config.path is not None:
        return None
    if config.name == "synthetic-catalog":
        users = config.catalog.num_users
        return users, config.catalog.num_items, users * config.catalog.events_per_user
    return published_sizes(config.name)


def _check_held_out_already(config: SourceConfig) -> None:
    if config.min_rating not in ("all", "auto"):
        raise InputError("Data in the NCF paper's format is held out already.\nLeave out --data.min-rating.")


def read_file(config: SourceConfig, path: Path) -> Interactions:
    """The events of a file, read with the settings ``config``.

    Raises:
        InputError: see `Interactions.from_table` and `tfrec.data.user_lists.read_user_lists`.
    """
    if config.format == "lists":
        return read_user_lists(path)
    return load_table(
        path,
        user=config.user,
        item=config.item,
        value=config.value,
        time=config.time,
        **{name: getattr(config, name) for name in _TABLE_OPTIONS},
    )


def source_checksum(config: SourceConfig) -> str:
    """The checksum that the source's ``sha256`` will be, from the files at ``config.path`` alone."""
    assert config.path is not None
    if config.format == "ncf":
        return combined_checksum(list(ncf_files(config.path)))
    # A split that was given is of several files.
    others = [getattr(config, name, None) for name in ("validation_path", "test_path")]
    if any(others):
        paths = [config.path, *(path for path in others if path is not None)]
        return combined_checksum([file for path in paths for file in table_files(path)])
    return combined_checksum(table_files(config.path))


def _check(config: SourceConfig, in_memory: InMemory | None) -> None:
    """Raise InputError for settings that contradict each other or would do nothing."""
    if config.path is None and config.name == "in-memory" and in_memory is None:
        raise InputError(
            "This run's data was handed over in Python (tfrec.fit), so it cannot be read again.\n"
            "Use tfrec.Recommender.load(RUN).evaluate(targets), or train from a file: --data.path FILE."
        )
    if config.path is not None:
        return
    if config.format == "ncf":
        raise InputError("The format ncf is of files of your own.\nName their folder with --data.path.")
    defaults = {f.name: f.default for f in dataclasses.fields(SourceConfig)}
    for name in _WITH_PATH:
        if getattr(config, name) != defaults[name]:
            option = f"--data.{name.replace('_', '-')}"
            raise InputError(
                f"{option} is for a table of your own, and none is named.\nReceived: {option} "
                f"{getattr(config, name)} with the data set {config.name}.\nName the table with --data.path, or leave "
                f"{option} out."
            )
