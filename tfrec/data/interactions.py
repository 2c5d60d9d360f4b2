"""User-item events as dense indices, with the way back to raw ids and titles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse

from tfrec.data.report import Report
from tfrec.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from tfrec.data.quoting import Quoting

#: What a value means. ``events``: there are none, every event counts 1. ``counts``: how often or how much; those of a
#: pair are added up, and a pair with more than 0 is positive. ``ratings``: a grade, where a low one means dislike; the
#: latest of a pair counts. ``votes``: liked (above 0), disliked (below 0), no opinion (0); the latest of a pair counts.
ValueKind = Literal["events", "counts", "ratings", "votes"]
#: In place of a column's name in `Interactions.from_frame`: the column with the argument's own name, if it exists.
AUTO = "auto"
#: Where the metadata of `Interactions.to_frame` has the kind of the values.
KIND_KEY = b"tfrec.kind"


@dataclass(frozen=True, repr=False, eq=False)
class Interactions:
    """Events in file order, with N events, U users and I items.

    Args:
        user_index: int32 ``[N]``, in ``[0, U)``.
        item_index: int32 ``[N]``, in ``[0, I)``.
        values: float32 ``[N]``: a rating, a play count, or 1.
        user_ids: ``[U]``, the raw ids (int64, or ``str`` in an object array), ascending.
        item_ids: ``[I]``, the raw ids, ascending.
        timestamps: int64 ``[N]`` in the unit of the source, or None.
        item_titles: ``[I]`` of ``str`` in an object array, or None.
        kind: what a value means, see `ValueKind`.
        kind_rule: how ``kind`` was decided, for reports.
        name: for reports.
        source: where the events came from: path and checksum.
        left_out: reason -> rows of the source that did not become events.
        account: the account of the source's rows, where these events were made of others; None: their own, see
            `report`.

    Raises:
        InputError: lengths that do not match, or indices out of range.
    """

    user_index: np.ndarray
    item_index: np.ndarray
    values: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    timestamps: np.ndarray | None = None
    item_titles: np.ndarray | None = None
    kind: ValueKind = "events"
    kind_rule: str = ""
    name: str = "interactions"
    source: dict[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    account: Report | None = None

    def __post_init__(self) -> None:
        n = len(self.user_index)
        for what in ("item_index", "values", "timestamps"):
            array = getattr(self, what)
            if array is not None and len(array) != n:
                raise InputError(f"`{what}` must have one entry per event.\nReceived: {len(array)} for {n} events.")
        for what, index, ids in (
            ("user_index", self.user_index, self.user_ids),
            ("item_index", self.item_index, self.item_ids),
        ):
            if n and not (index.min() >= 0 and index.max() < len(ids)):
                raise InputError(f"`{what}` must lie in [0, {len(ids)}).\nReceived: {index.min()} to {index.max()}.")
        if self.item_titles is not None and len(self.item_titles) != len(self.item_ids):
            raise InputError(
                f"`item_titles` must have one entry per item.\n"
                f"Received: {len(self.item_titles)} for {len(self.item_ids)} items."
            )

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        user: str = "user_id",
        item: str = "item_id",
        value: str | None = AUTO,
        time: str | None = AUTO,
        *,
        title: str | None = AUTO,
        value_kind: Literal["auto", "ratings", "counts", "votes"] = "auto",
        bad_rows: Literal["error", "drop"] = "error",
        time_format: str | None = None,
        text_ids: bool = False,
        name: str | None = None,
    ) -> Interactions:
        """Interactions of a data frame, or of arrays.

        Args:
            frame: pandas, polars, PyArrow, a DuckDB relation, any object with the Arrow PyCapsule interface or the
                dataframe interchange protocol, a mapping of columns (arrays, lists, series), or a structured NumPy
                array. Only the columns that are used are read.
                Numbers among text are read as text, as from a CSV.
            user: the column of user ids: whole numbers from 0, or text.
            item: the column of item ids.
            value: the column of ratings, counts or votes. auto: the column ``value`` where the frame has one. None or
                no such column: every event counts 1 and is positive.
            time: the column of times, numbers or dates. auto: the column ``time`` where the frame has one. None or no
                such column: the order of the rows is that of time.
            title: the column of item titles. auto: the column ``title`` where the frame has one.
            value_kind: what ``value`` holds, as in `from_table`.
            bad_rows: as in `from_table`.
            time_format: how dates in text are written; None: ISO 8601.
            text_ids: take ids as text even where they look like numbers.
            name: for reports.

        Returns:
            Interactions, events in the order of the rows, with the account of all rows in ``report``.

        Raises:
            InputError: no frame, a missing column, or rows that cannot be read.

        Example:
            >>> columns = {"who": ["ada", "ada", "grace"], "what": ["Dune", "Solaris", "Dune"], "stars": [5, 3, 4]}
            >>> events = Interactions.from_frame(columns, user="who", item="what", value="stars")
            >>> events.num_users, events.num_items, events.kind
            (2, 2, 'ratings')
            >>> Interactions.from_frame(events.to_frame()).kind
            'ratings'
        """
        from tfrec.data.tables import Reading, read_frame

        reading = Reading(user, item, value, time, title, value_kind, bad_rows, time_format, text_ids)
        return read_frame(frame, reading, name)

    @classmethod
    def from_table(
        cls,
        path: str | Path | Sequence[str | Path],
        user: str = "user_id",
        item: str = "item_id",
        value: str | None = None,
        time: str | None = None,
        *,
        title: str | None = None,
        value_kind: Literal["auto", "ratings", "counts", "votes"] = "auto",
        bad_rows: Literal["error", "drop"] = "error",
        delimiter: str | None = None,
        quoting: Quoting = "auto",
        decimal: str = ".",
        encoding: str | None = None,
        column_names: Sequence[str] | None = None,
        time_format: str | None = None,
        text_ids: bool = False,
        name: str | None = None,
    ) -> Interactions:
        """Interactions of files with named columns.

        Blanks around ids and column names are stripped. Empty lines are no rows.

        Args:
            path: CSV, TSV or other delimited text, also packed (gzip, bz2, xz, zstd, or zip with one file), or Parquet;
                the first bytes tell which. A list of such files, a pattern (``plays/*.parquet``), or a folder of parts.
            user: the column of user ids, whole numbers from 0 or text, see `tfrec.data.columns.read_ids`.
            item: the column of item ids.
            value: the column of ratings, counts or votes; None: every event counts 1 and is positive.
            time: the column of times, numbers or dates; None: the order of the file is that of time.
            title: the column of item titles; None: none.
            value_kind: what ``value`` holds; auto: decided by the rule in `tfrec.data.value_kinds`.
            bad_rows: rows without an id, with a number of columns other than the first line's, a value that is no
                number or a time that is none. error: refuse the table, and name the first of each kind. drop: leave
                them out, counted in ``report``.
            delimiter: one character; None: tab for ``.tsv``, else the one of ``, ; tab |`` that the first line has most
                of.
            quoting: whether ``"`` quotes (RFC 4180). auto: in all text but that delimited by tabs, and an error where a
                quote that is probably not closed would swallow lines. on: always. off: never.
            decimal: the sign before the fraction of a value: ``.`` or ``,``.
            encoding: of the text; None: UTF-8, or UTF-16 and UTF-32 with a byte order mark.
            column_names: the names of the columns where the first line is data already.
            time_format: how dates are written, as for ``datetime.strptime``; None: ISO 8601.
            text_ids: take ids as text even where they look like numbers.
            name: for reports; default the file's name.

        Returns:
            Interactions, events in the order of the file, with the account of all rows in ``report``.

        Raises:
            InputError: no such file, an empty one, a missing column, or rows that cannot be read (with file and line).
                All problems that options get past are reported together, with these options.

        Example:
            >>> import pathlib, tempfile
            >>> path = pathlib.Path(tempfile.mkdtemp()) / "plays.csv"
            >>> _ = path.write_text("who,what,stars\\nada,Dune,5\\nada,Solaris,3\\ngrace,Dune,4\\n")
            >>> events = Interactions.from_table(path, user="who", item="what", value="stars")
            >>> events.num_users, events.num_items, list(events.item_ids), events.kind
            (2, 2, ['Dune', 'Solaris'], 'ratings')
            >>> print(events.report)
            3 rows: 3 pairs kept
        """
        from tfrec.data.tables import Reading, read_files

        reading = Reading(user, item, value, time, title, value_kind, bad_rows, time_format, text_ids, decimal)
        return read_files(path, reading, delimiter, quoting, encoding, column_names, name)

    def to_frame(self) -> pa.Table:
        """The events as an Arrow table, in raw ids, which `from_frame` reads without any names.

        For pandas ``to_frame().to_pandas()``, for polars ``polars.from_arrow(to_frame())``. What the values mean is in
        the Arrow table's metadata, which other libraries drop: give them back with ``value_kind=events.kind``.

        Returns:
            ``user_id``, ``item_id``, and ``value``, ``time``, ``title`` if known.
        """
        import pyarrow as pa

        columns = {"user_id": _taken(self.user_ids, self.user_index), "item_id": _taken(self.item_ids, self.item_index)}
        if self.kind != "events":
            columns["value"] = pa.array(self.values)
        if self.timestamps is not None:
            columns["time"] = pa.array(self.timestamps)
        if self.item_titles is not None:
            columns["title"] = _taken(self.item_titles, self.item_index)
        return pa.table(columns, metadata={KIND_KEY: self.kind.encode()})

    def __len__(self) -> int:
        return len(self.user_index)

    @property
    def num_users(self) -> int:
        """U, the number of users."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """I, the number of items."""
        return len(self.item_ids)

    @cached_property
    def num_pairs(self) -> int:
        """The number of different pairs of user and item."""
        if len(self) == 0:
            return 0
        pair = self.pair_numbers()
        pair.sort()
        return 1 + int(np.count_nonzero(pair[1:] != pair[:-1]))

    @property
    def report(self) -> Report:
        """How many rows the source had, and where each went."""
        if self.account is not None:
            return self.account
        rows = len(self) + sum(self.left_out.values())
        return Report(rows, self.num_pairs, len(self) - self.num_pairs, self.left_out)

    def described(self, **changes: Any) -> Interactions:
        """The same events with other words about them: ``kind``, ``kind_rule``, ``name``, ``source``, ``left_out``.

        As `dataclasses.replace`, but the pairs, which take a sort to count, are not counted again.
        """
        return replace(self, **changes).with_num_pairs(self.num_pairs)

    def with_num_pairs(self, num_pairs: int) -> Interactions:
        """Itself, with the number of pairs already known."""
        self.__dict__["num_pairs"] = num_pairs
        return self

    def pair_numbers(self) -> np.ndarray:
        """int64 ``[N]``: a number for each pair of user and item."""
        return self.user_index.astype(np.int64) * self.num_items + self.item_index

    def merge(self, keep: Literal["first", "last"] = "first") -> Interactions:
        """One event for each pair of user and item.

        Its value is the sum of the pair's for events and counts, and that of the latest (by time, else by the order of
        the file) for ratings and votes.

        Args:
            keep: the place in the file and the time of a pair: that of its first row, or of its latest.
        """
        if self.num_pairs == len(self):
            return self if self.account else replace(self, account=self.report).with_num_pairs(len(self))
        pair = self.pair_numbers()
        by_time = () if self.timestamps is None else (self.timestamps,)
        order = np.lexsort((*by_time, pair))  # stable: equal times stay in the order of the file
        first = np.flatnonzero(np.diff(pair[order], prepend=-1))
        latest = order[np.append(first[1:], len(order)) - 1]
        if self.kind in ("events", "counts"):
            values = np.add.reduceat(self.values[order].astype(np.float64), first).astype(np.float32)
        else:
            values = self.values[latest]
        place = latest if keep == "last" else np.minimum.reduceat(order, first)
        in_file = np.argsort(place)
        place = place[in_file]
        return replace(
            self,
            user_index=self.user_index[place],
            item_index=self.item_index[place],
            values=values[in_file],
            timestamps=None if self.timestamps is None else self.timestamps[place],
            account=self.report,
        ).with_num_pairs(len(place))

    def where(self, kept: np.ndarray, reason: str) -> Interactions:
        """The pairs for which ``kept`` is True, all users and items as they are.

        Args:
            kept: bool ``[N]``.
            reason: of the others, for the report.

        Raises:
            InputError: these are not pairs; `merge` first.
        """
        if self.num_pairs != len(self):
            raise InputError("Only one event of each pair of user and item may be here.\nCall `merge` first.")
        left = int(np.count_nonzero(kept))
        if left == len(self):
            return self
        return replace(
            self,
            user_index=self.user_index[kept],
            item_index=self.item_index[kept],
            values=self.values[kept],
            timestamps=None if self.timestamps is None else self.timestamps[kept],
            account=self.report.drop(reason, len(self) - left),
        ).with_num_pairs(left)

    def positives(
        self, above: float = 0.0, *, keep: Literal["first", "last"] = "first", dislikes: bool = False
    ) -> Interactions:
        """The positive pairs: those with a value above ``above``, merged first (see `merge`).

        Args:
            above: from 0.
            keep: as of `merge`.
            dislikes: of votes, keep the negative ones too, as what they are.

        Raises:
            InputError: a negative or infinite ``above``.
        """
        if not 0 <= above < float("inf"):
            raise InputError(f"`min_rating`, the threshold of positive values, must be at least 0.\nReceived: {above}.")
        pairs = self.merge(keep)
        if dislikes and self.kind == "votes":
            return pairs.where((pairs.values > above) | (pairs.values < 0), "without opinion (votes)")
        what = f"below the threshold {above:g} ({self.kind})" if above > 0 else f"of 0 or less ({self.kind})"
        return pairs.where(pairs.values > above, what)

    def to_csr(self, *, binary: bool = False) -> scipy.sparse.csr_matrix:
        """The U x I matrix of values, float32, columns sorted; the events of a pair as `merge` makes them one.

        Args:
            binary: 1 for every pair that occurs, whatever its value.
        """
        events = self.merge() if self.kind in ("ratings", "votes") else self
        matrix = scipy.sparse.coo_matrix(
            (events.values, (events.user_index, events.item_index)), shape=(self.num_users, self.num_items)
        ).tocsr()
        matrix.sort_indices()
        if binary:
            matrix.data[:] = 1.0
        return matrix

    def labels(self) -> np.ndarray:
        """What to show for each item: its title, or its raw id as text where there is none. ``[I]`` of str."""
        if self.item_titles is not None:
            return self.item_titles
        return np.array([str(i) for i in self.item_ids], dtype=object)

    def summary(self) -> dict[str, Any]:
        """Counts for a report."""
        pairs = self.num_users * self.num_items
        return {
            "name": self.name,
            "events": len(self),
            "users": self.num_users,
            "items": self.num_items,
            "density": len(self) / pairs if pairs else 0.0,
            "values": self.kind,
            "values_rule": self.kind_rule,
            "timestamps": self.timestamps is not None,
            "source": self.source,
            "report": self.report.summary(),
        }

    def __repr__(self) -> str:
        times = "" if self.timestamps is None else ", with times"
        titles = "" if self.item_titles is None else ", with titles"
        return (
            f"<Interactions {self.name!r}: {len(self):,} events of {self.num_users:,} users and {self.num_items:,} "
            f"items{times}{titles}; values: {self.kind}>"
        )


def _taken(values: np.ndarray, index: np.ndarray) -> pa.Array:
    import pyarrow as pa

    kind = pa.large_string() if values.dtype == object else None
    return pa.array(values, kind).take(pa.array(index))


def index_ids(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct values of ``raw`` in ascending order.

    Args:
        raw: int64 ``[N]``, none negative.

    Returns:
        index: int32 ``[N]``, and ids: int64, ascending, with ``ids[index] == raw``.
    """
    if len(raw) == 0:
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    top = int(raw.max())
    if raw.min() >= 0 and top <= max(8 * len(raw), 1 << 20):
        # Ids of this kind are nearly dense: one pass over a table is several times faster than a sort.
        seen = np.zeros(top + 1, bool)
        seen[raw] = True
        ids = np.flatnonzero(seen).astype(np.int64)
        table = np.zeros(top + 1, np.int32)
        table[ids] = np.arange(len(ids), dtype=np.int32)
        return table[raw], ids
    ids, index = np.unique(raw, return_inverse=True)
    return index.astype(np.int32), ids.astype(np.int64)
