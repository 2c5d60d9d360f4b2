"""A users x items matrix of which each rank holds some rows, in both directions, and no rank the whole.

Row r is on rank ``r % size``, there at place ``r // size``. A rank holds its users' rows, and its items' rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.data.sharded_files import Entries, read_share
from tfrec.errors import InputError
from tfrec.ranks import ALONE, Ranks

#: Entries that a rank sends at once.
_SENT = 1 << 17
_NOTHING: Entries = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))


@dataclass
class ShardedMatrix:
    """One rank's rows of a matrix ``[U, I]``.

    Args:
        shape: U and I.
        by_user: float32 CSR ``[this rank's users, I]``, columns ascending and each once, no zeros stored.
        by_item: the same of the items, ``[this rank's items, U]``.
        num_entries: stored over all ranks.
    """

    shape: tuple[int, int]
    by_user: scipy.sparse.csr_matrix
    by_item: scipy.sparse.csr_matrix
    num_entries: int

    @classmethod
    def of_entries(
        cls,
        users: np.ndarray,
        items: np.ndarray,
        values: np.ndarray,
        shape: tuple[int, int],
        ranks: Ranks = ALONE,
        *,
        add_repeated: bool = False,
    ) -> ShardedMatrix:
        """From entries, of which each rank gives some: any, each on one rank. Every rank must call it.

        Args:
            users: int ``[B]``, from 0.
            items: int ``[B]``, from 0.
            values: ``[B]``.
            shape: U and I.
            ranks: who takes part.
            add_repeated: add up the values of an entry that is given several times; False: an error.

        Raises:
            InputError: on every rank: numbers outside of ``shape``, values that float32 cannot hold, or an entry that
                is given twice.
        """
        with np.errstate(over="ignore"):
            values = np.asarray(values, np.float32)
        problem = _problem(users, items, values, shape)
        _all_raise(ranks, problem)
        parts = []
        for rows, columns, count, width in ((users, items, shape[0], shape[1]), (items, users, shape[1], shape[0])):
            matrix, repeated = _rows_of(rows, columns, values, count, width, ranks)
            parts.append(matrix)
            if not add_repeated:
                _all_raise(ranks, f"{repeated:,} entries occur twice" if repeated else "")
        _all_raise(
            ranks, "" if np.isfinite(parts[0].data).all() else "sums of repeated entries that float32 cannot hold"
        )
        stored = int(ranks.sum(np.array([float(parts[0].nnz)]))[0])
        return cls((int(shape[0]), int(shape[1])), parts[0], parts[1], stored)

    @classmethod
    def of_parquet(
        cls,
        paths: Sequence[Path | str],
        shape: tuple[int, int],
        ranks: Ranks = ALONE,
        *,
        user: str = "user",
        item: str = "item",
        value: str | None = "value",
        add_repeated: bool = False,
    ) -> ShardedMatrix:
        """From Parquet files, of which each rank reads every size-th row group. Every rank must call it.

        Write at least as many row groups as there are ranks, of about equal size: ``row_group_size`` of PyArrow.

        Args:
            paths: of the files, which all ranks see.
            shape: U and I.
            ranks: who takes part.
            user: column of the users' numbers, from 0.
            item: column of the items' numbers, from 0.
            value: column of the values; None: each is 1.
            add_repeated: as in `of_entries`.

        Raises:
            InputError: on every rank: a file that cannot be read, a column that is missing or of another type, or as
                in `of_entries`.
        """
        columns = {"user": user, "item": item, **({} if value is None else {"value": value})}
        found, problem = _NOTHING, ""
        try:
            found = read_share([Path(path) for path in paths], columns, ranks.rank, ranks.size)
        except InputError as error:
            problem = str(error)
        if ranks.sum(np.array([float(bool(problem))]))[0]:
            raise InputError(problem or "Another rank cannot read its share of the files.\nSee its message.")
        return cls.of_entries(*found, shape, ranks, add_repeated=add_repeated)

    @classmethod
    def of_matrix(cls, matrix: scipy.sparse.csr_matrix, ranks: Ranks = ALONE) -> ShardedMatrix:
        """This rank's rows of a matrix that every rank has; no exchange.

        Args:
            matrix: float32 CSR ``[U, I]``, columns ascending and each once, no zeros stored.
            ranks: who takes part.
        """
        by_user = matrix[ranks.rank :: ranks.size]
        # Fitting changes the columns in place for a while, so they must not be the caller's.
        by_user = by_user if by_user.indices.base is None and by_user is not matrix else by_user.copy()
        return cls(matrix.shape, by_user, _by_item(matrix, ranks), matrix.nnz)


def _problem(users: np.ndarray, items: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> str:
    if not len(users) == len(items) == len(values):
        return f"{len(users)} users, {len(items)} items and {len(values)} values"
    for what, numbers, count in (("users", users, shape[0]), ("items", items, shape[1])):
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= count):
            return f"{what} from {numbers.min()} to {numbers.max()}"
    return "" if np.isfinite(values).all() else "values that are NaN, or infinite in float32"


def _all_raise(ranks: Ranks, problem: str) -> None:
    """An error on one rank is an error on all."""
    if ranks.sum(np.array([float(bool(problem))]))[0]:
        raise InputError(
            "The entries of a sharded matrix must be finite, lie in its shape, and occur once.\n"
            f"Received: {problem or 'others on another rank, which names them'}."
        )


def _rows_of(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, count: int, width: int, ranks: Ranks
) -> tuple[scipy.sparse.csr_matrix, int]:
    """The rank's rows of the entries of all ranks, and how many entries were given more than once."""
    size = ranks.size
    owners = np.bincount(rows % size, minlength=size) if len(rows) else np.zeros(size, np.int64)
    expected = int(ranks.sum(owners.astype(np.float64))[ranks.rank])
    rounds = int(np.max(ranks.gather_rows(tf.constant([-(-len(rows) // _SENT)], tf.int64)).numpy()))
    place, column = np.empty(expected, np.int32), np.empty(expected, np.int32)
    value = np.empty(expected, np.float32)
    at = 0
    for begin in range(0, rounds * _SENT, _SENT):
        part = slice(min(begin, len(rows)), min(begin + _SENT, len(rows)))
        owner = rows[part] % size
        order = np.argsort(owner, kind="stable") if size > 1 else slice(None)
        counts = tf.constant(np.bincount(owner, minlength=size).astype(np.int32))
        sent = (
            (rows[part] // size, place, np.int32),
            (columns[part], column, np.int32),
            (values[part], value, np.float32),
        )
        for given, into, kind in sent:
            received, _ = ranks.exchange(tf.constant(given[order].astype(kind)), counts)
            found = received.numpy()
            into[at : at + len(found)] = found
        at += len(found)
    local = len(range(ranks.rank, count, size))
    matrix = scipy.sparse.csr_matrix((value, (place, column)), shape=(local, width))
    repeated = expected - matrix.nnz
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix, repeated


def _by_item(matrix: scipy.sparse.csr_matrix, ranks: Ranks) -> scipy.sparse.csr_matrix:
    """The rank's rows of the transpose, which is not made as a whole."""
    if ranks.size == 1:
        return matrix.T.tocsr()
    mine = matrix.indices % ranks.size == ranks.rank
    users = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))[mine]
    places = matrix.indices[mine] // ranks.size
    local = len(range(ranks.rank, matrix.shape[1], ranks.size))
    found = scipy.sparse.csr_matrix((matrix.data[mine], (places, users)), shape=(local, matrix.shape[0]))
    found.sort_indices()
    return found
