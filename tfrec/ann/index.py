"""An index over the vectors of items.

Inner products are what the models rank by, so the index is searched by inner product, too. (Lengthening all vectors to
one norm makes it a search by distance, Bachrach et al., "Speeding Up the Xbox Recommender System Using a Euclidean
Transformation for Inner-Product Spaces", RecSys 2014; on factors of ALS, whose norms lie far apart, that found a tenth
of the items in the same time.) Two kinds:

- ``ivf``: vectors in lists around centroids, of which the best lists are read (Jégou, Douze and Schmid, "Product
  Quantization for Nearest Neighbor Search", TPAMI 2011; here with whole vectors). A vector is in the list of its
  nearest centroid; lists are chosen by the centroids' inner products with the query, so centroids keep their norms;
- ``hnsw``: a graph of neighbours that is walked from the top (Malkov and Yashunin, TPAMI 2020; by inner product:
  Morozov and Babenko, "Non-metric Similarity Graphs for Maximum Inner Product Search", NeurIPS 2018).

What the index finds is scored again with the model's own vectors, so that scores and ties are those of a full search,
and only what it does not find is lost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.ann.library import faiss
from tfrec.errors import InputError
from tfrec.ops import dot_top_k

KINDS = ("ivf", "hnsw")
DTYPES = ("float32", "float16", "int8")

#: The list whose recall is measured.
_K = 10
#: Vectors that are added at once, so that progress can be shown and Ctrl-C is heard.
_CHUNK = 1 << 16
#: Training vectors of each centroid, and rounds of k-means.
_PER_CENTROID, _ROUNDS = 64, 8
#: Neighbours of a vector in the graph, and candidates while it is built.
_NEIGHBOURS, _CANDIDATES = 16, 100
#: Scores this close, as a part of the largest, are equal.
_ROUNDING = 1e-6
#: Bytes of vectors that are held at once while what was found is scored again.
_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class IndexReport:
    """What an index is, and how well it finds.

    Args:
        kind: ``ivf``, ``hnsw``; ``exact``: all items are scored.
        dtype: of the vectors in the index.
        items: I.
        effort: lists that are read (ivf), or candidates that are kept (hnsw), for each query.
        recall: recall@10 against a full search, mean over the sample of queries.
        asked: the recall that was asked for.
        seconds: that building took.
    """

    kind: str
    dtype: str
    items: int
    effort: int
    recall: float
    asked: float
    seconds: float

    def check(self) -> None:
        """Raise ValueError for a report that says what cannot be, read from a file."""
        wrong = [
            name for name in ("items", "effort") if type(getattr(self, name)) is not int or getattr(self, name) < 1
        ]
        wrong += [name for name in ("recall", "asked", "seconds") if type(getattr(self, name)) not in (int, float)]
        if wrong:
            raise ValueError(f"`{wrong[0]}` is {getattr(self, wrong[0])!r}")

    def __str__(self) -> str:
        if self.kind == "exact":
            return f"No index: all {self.items:,} items are scored."
        short = "" if self.recall >= self.asked else f", below the {self.asked:g} that was asked for"
        # Rounded down: 1.000 is nothing missed.
        return (
            f"Index {self.kind} of {self.items:,} items in {self.dtype}, effort {self.effort}: "
            f"recall@{_K} {math.floor(self.recall * 1_000) / 1_000:.3f}{short}; built in {self.seconds:.1f} s."
        )


class AnnIndex:
    """Finds the items of highest inner product; made by `AnnIndex.build` or read back.

    Args:
        index: of faiss.
        table: ``[I, F]`` half or float, the vectors of the items.
        report: what it is.
    """

    def __init__(self, index: Any, table: tf.Tensor, report: IndexReport) -> None:
        self.index, self.report = index, report
        self.table = table
        self._rows: np.ndarray = table.numpy()

    # ---- to build --------------------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        table: tf.Tensor,
        sample: np.ndarray,
        kind: str,
        dtype: str = "float16",
        *,
        offsets: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
        recall: float = 0.95,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> AnnIndex:
        """An index, and the least effort with which it has the recall.

        Args:
            table: ``[I, F]`` half or float, the vectors of the items.
            sample: ``[Q, F]``, queries to measure with.
            kind: ``ivf`` or ``hnsw``.
            dtype: ``float32``, ``float16`` or ``int8``: how the index stores vectors.
            offsets: int64 ``[Q + 1]``, where the items begin that a query of the sample is not answered with.
            excluded: int32, ascending within a query.
            recall: recall@10 wanted, in (0, 1].
            seed: of k-means, and of the vectors that it sees. (A graph also depends on the order of threads.)
            progress: is told how many vectors of how many are in.

        Raises:
            InputError: a kind, dtype or recall that there is not; no item, or vectors that are not finite.
        """
        _check(table, sample, kind, dtype, recall)
        started = time.perf_counter()
        rows: np.ndarray = table.numpy()
        index = _empty(kind, dtype, *rows.shape)
        some = _PER_CENTROID * max(getattr(index, "nlist", 1), 1_024)
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows), min(some, len(rows)), replace=False))
        nearest = _train(index, np.ascontiguousarray(rows[chosen], np.float32), seed)
        for first in range(0, len(rows), _CHUNK):
            _add(index, np.ascontiguousarray(rows[first : first + _CHUNK], np.float32), nearest)
            if progress is not None:
                progress(min(first + _CHUNK, len(rows)), len(rows))
        seconds = time.perf_counter() - started
        made = cls(index, table, IndexReport(kind, dtype, len(rows), 1, 0.0, recall, seconds))
        effort, reached = made._least_effort(sample, recall, offsets, excluded)
        made.report = IndexReport(kind, dtype, len(rows), effort, reached, recall, seconds)
        return made

    def _least_effort(
        self, sample: np.ndarray, wanted: float, offsets: np.ndarray | None, excluded: np.ndarray | None
    ) -> tuple[int, float]:
        """The least effort with this recall; where none has it, the largest."""
        truth = self.exact(sample, min(_K, len(self._rows)), offsets, excluded)[1]
        reached, effort = 0.0, 0
        for effort in self.efforts():
            found = self.search(sample, truth.shape[1], offsets, excluded, effort=effort)[1]
            reached = recall_of(found, truth)
            if reached >= wanted:
                break
        return effort, reached

    def efforts(self) -> list[int]:
        """Efforts worth trying, rising."""
        # A graph keeps at least as many candidates as are fetched.
        least, most = (1, self.index.nlist) if self.report.kind == "ivf" else (_fetched(_K), 4_096)
        steps = [least, *(n for power in range(1, 20) for n in (2**power, 3 * 2 ** (power - 1)))]
        return [n for n in steps if least <= n < most] + [most]

    # ---- to search -------------------------------------------------------------------------------------------------

    def search(
        self,
        queries: np.ndarray,
        k: int,
        offsets: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
        *,
        without: np.ndarray | None = None,
        effort: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best items of each query, best first; equal ones by lower number first.

        More than k are fetched, twice as many each time, until k are left that are not excluded. A query for which the
        index has not enough is answered by a full search, so that k are given whenever k are left.

        Args:
            queries: float ``[B, F]``.
            k: from 1 to I.
            offsets: int64 ``[B + 1]``, where each query's excluded items begin; None: none.
            excluded: int32, ascending within a query.
            without: int, ascending: items that no query gets.
            effort: None: that of the report.

        Returns:
            ids: int32 ``[B, k]``, -1 where fewer than k items are left.
            scores: float32 ``[B, k]``, -infinity there.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        num, num_items = len(queries), len(self._rows)
        if offsets is None or excluded is None:
            offsets, excluded = np.zeros(num + 1, np.int64), np.zeros(0, np.int32)
        without = np.zeros(0, np.int64) if without is None else without
        banned = np.diff(offsets) + len(without)
        keys = np.repeat(np.arange(num), np.diff(offsets)) * num_items + excluded
        ids = np.full((num, k), -1, np.int32)
        scores = np.full((num, k), -np.inf, np.float32)
        effort = self.report.effort if effort is None else effort
        todo, fetch = np.arange(num), min(_fetched(k), num_items)
        while len(todo):
            found = self._nearest(queries[todo], fetch, effort)
            allowed = (found >= 0) & ~_has(keys, todo[:, None] * num_items + found) & ~_has(without, found)
            enough = allowed.sum(axis=1) >= k
            self._place(todo[enough], found[enough], allowed[enough], queries, ids, scores)
            todo = todo[~enough]
            # Every query would have k by now, had the index found all that it was asked for.
            hopeless = fetch >= np.minimum(k + banned[todo], num_items)
            if hopeless.any():
                self._fill(todo[hopeless], queries, k, offsets, excluded, without, ids, scores)
                todo = todo[~hopeless]
            fetch, effort = min(2 * fetch, num_items), 2 * effort
        return ids, scores

    def exact(
        self,
        queries: np.ndarray,
        k: int,
        offsets: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, by a full search."""
        return dot_top_k(tf.constant(queries, self.table.dtype), self.table, k, offsets, excluded)

    def _nearest(self, queries: np.ndarray, fetch: int, effort: int) -> np.ndarray:
        """Numbers ``[B, fetch]`` of items that the index finds, -1 where it finds no more."""
        library = faiss()
        if self.report.kind == "ivf":
            parameters = library.SearchParametersIVF(nprobe=min(effort, self.index.nlist))
        else:
            parameters = library.SearchParametersHNSW(efSearch=max(effort, fetch))
        found: np.ndarray = self.index.search(queries, fetch, params=parameters)[1]
        return found

    def _place(
        self,
        rows: np.ndarray,
        found: np.ndarray,
        allowed: np.ndarray,
        queries: np.ndarray,
        ids: np.ndarray,
        scores: np.ndarray,
    ) -> None:
        """Score what was found with the model's vectors, and write the best into ``ids`` and ``scores``."""
        k, width = ids.shape[1], self._rows.shape[1]
        block = max(1, _BLOCK_BYTES // (4 * width * max(found.shape[1], 1)))
        for first in range(0, len(rows), block):
            part = slice(first, first + block)
            numbers = np.where(allowed[part], found[part], 0)
            vectors = self._rows[numbers].astype(np.float32, copy=False)
            exact = np.matmul(vectors, queries[rows[part], :, None])[..., 0]
            exact[~allowed[part]] = -np.inf
            order = np.lexsort((numbers, -exact), axis=1)[:, :k]
            ids[rows[part]] = np.take_along_axis(numbers, order, axis=1)
            scores[rows[part]] = np.take_along_axis(exact, order, axis=1)

    def _fill(
        self,
        rows: np.ndarray,
        queries: np.ndarray,
        k: int,
        offsets: np.ndarray,
        excluded: np.ndarray,
        without: np.ndarray,
        ids: np.ndarray,
        scores: np.ndarray,
    ) -> None:
        """A full search for some rows."""
        lists = [np.union1d(excluded[offsets[row] : offsets[row + 1]], without).astype(np.int32) for row in rows]
        own = np.concatenate([[0], np.cumsum([len(items) for items in lists])]).astype(np.int64)
        ids[rows], scores[rows] = self.exact(queries[rows], k, own, np.concatenate(lists))


def _fetched(k: int) -> int:
    """How many are fetched at first for a list of k: more, as the index ranks by vectors that are rounded."""
    return 2 * k + 16


def recall_of(found: np.ndarray, truth: np.ndarray) -> float:
    """recall@k: the share of the k best that was found, mean over queries.

    What has the score of the last of the k best counts as one of them, whatever its number (Aumüller, Bernhardsson and
    Faithfull, "ANN-Benchmarks", Information Systems 2020). Places without an item, -infinity in ``truth``, do not
    count, nor do queries that have no other.

    Args:
        found: scores ``[Q, k]`` of different items.
        truth: the best scores ``[Q, k]``.
    """
    wanted = np.isfinite(truth)
    asked = wanted.any(axis=1)
    found, truth, wanted = found[asked], truth[asked], wanted[asked]
    if not len(truth):
        return 1.0
    last = np.min(truth, axis=1, where=wanted, initial=np.inf)
    # Two ways of adding up may differ in the last digits.
    last -= _ROUNDING * np.abs(truth).max(axis=1, where=wanted, initial=0)
    count = wanted.sum(axis=1)
    return float(np.mean(np.minimum((found >= last[:, None]).sum(axis=1), count) / count))


def _has(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whether each value is one of some."""
    if not len(ascending):
        return np.zeros(values.shape, bool)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[place] == values)


def _empty(kind: str, dtype: str, num_items: int, width: int) -> Any:
    """An index without vectors."""
    library = faiss()
    stored = {"float16": library.ScalarQuantizer.QT_fp16, "int8": library.ScalarQuantizer.QT_8bit}
    metric = library.METRIC_INNER_PRODUCT
    if kind == "hnsw":
        graph = (
            library.IndexHNSWFlat(width, _NEIGHBOURS, metric)
            if dtype == "float32"
            else library.IndexHNSWSQ(width, stored[dtype], _NEIGHBOURS, metric)
        )
        graph.hnsw.efConstruction = _CANDIDATES
        return graph
    # Some 4 sqrt(I) lists balance looking for lists and reading them; k-means wants 39 vectors of each.
    lists = max(1, min(round(4 * num_items**0.5), num_items // 39))
    centroids = library.IndexFlatIP(width)
    if dtype == "float32":
        return library.IndexIVFFlat(centroids, width, lists, metric)
    return library.IndexIVFScalarQuantizer(centroids, width, lists, stored[dtype], metric, False)


def _train(index: Any, some: np.ndarray, seed: int) -> Any:
    """Prepare an index with some of the vectors.

    Returns:
        of lists, what finds the centroid nearest to a vector; of a graph, None.
    """
    library = faiss()
    if not hasattr(index, "nlist"):
        if not index.is_trained:
            index.train(some)
        return None
    means = library.Kmeans(
        some.shape[1], index.nlist, niter=_ROUNDS, seed=seed + 1, max_points_per_centroid=_PER_CENTROID
    )
    means.train(some)
    # With centroids in it, the index trains only how it stores vectors.
    index.quantizer.add(means.centroids)
    index.train(some)
    nearest = library.IndexFlatL2(some.shape[1])
    nearest.add(means.centroids)
    return nearest


def _add(index: Any, rows: np.ndarray, nearest: Any) -> None:
    if nearest is None:
        index.add(rows)
        return
    library = faiss()
    lists = np.ascontiguousarray(nearest.search(rows, 1)[1][:, 0])
    pointers = [library.swig_ptr(array) for array in (rows, lists)]
    index.add_core(len(rows), pointers[0], None, pointers[1])


def _check(table: tf.Tensor, sample: np.ndarray, kind: str, dtype: str, recall: float) -> None:
    for name, given, known in (("kind", kind, KINDS), ("dtype", dtype, DTYPES)):
        if given not in known:
            raise InputError(f"`{name}` must be one of {', '.join(known)}.\nReceived: {given!r}.")
    if not 0 < recall <= 1:
        raise InputError(f"`recall` must lie in (0, 1].\nReceived: {recall!r}.")
    if table.shape[0] == 0 or len(sample) == 0:
        raise InputError(
            "An index needs items, and queries to measure its recall with.\n"
            f"Received: {table.shape[0]} items, {len(sample)} queries."
        )
    if not bool(tf.reduce_all(tf.math.is_finite(table))):
        raise InputError("An index needs finite vectors.\nReceived: NaN or infinity.\nTrain the model again.")
