"""One index in a process of its own: python -m tfrec.benchmark.ann_candidate NAME ITEMS.npy QUERIES.npy ROUNDS"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec import ops
from tfrec.ann import AnnIndex
from tfrec.ann.index import recall_of

_K = 10
#: Queries of a full search that is timed: enough that its table is read once for many.
_FULL = 256
_RECALL = 0.95
_EFFORTS = (32, 64, 128, 256, 512, 1_024)

Search = Callable[[np.ndarray], np.ndarray]
#: Seconds to build, and each effort's search, rising.
Built = tuple[float, Iterator[tuple[int, Search]]]
#: From the vectors of the items and the queries.
Build = Callable[[tf.Tensor, np.ndarray], Built]


def _ours(kind: str, dtype: str) -> Build:
    def build(table: tf.Tensor, queries: np.ndarray) -> Built:
        index = AnnIndex.build(table, queries[:_FULL], kind, dtype, recall=_RECALL)
        effort = index.report.effort
        return index.report.seconds, iter([(effort, lambda q: index.search(q, _K, effort=effort)[0])])

    return build


def _hnswlib(table: tf.Tensor, queries: np.ndarray) -> Built:
    import hnswlib

    items = table.numpy()
    started = time.perf_counter()
    index = hnswlib.Index("ip", items.shape[1])
    index.init_index(len(items), M=16, ef_construction=100)
    index.add_items(items)

    def searches() -> Iterator[tuple[int, Search]]:
        for effort in _EFFORTS:
            index.set_ef(effort)
            yield effort, lambda q: index.knn_query(q, k=_K)[0]

    return time.perf_counter() - started, searches()


def _usearch(dtype: str) -> Build:
    def build(table: tf.Tensor, queries: np.ndarray) -> Built:
        from usearch.index import Index

        items = table.numpy()
        started = time.perf_counter()
        index = Index(ndim=items.shape[1], metric="ip", dtype=dtype, connectivity=16, expansion_add=100)
        index.add(np.arange(len(items)), items)

        def searches() -> Iterator[tuple[int, Search]]:
            for effort in _EFFORTS:
                index.expansion_search = effort
                yield effort, lambda q: index.search(q, _K).keys

        return time.perf_counter() - started, searches()

    return build


def _full(dtype: str) -> Build:
    """A full search with another type of table."""

    def build(table: tf.Tensor, queries: np.ndarray) -> Built:
        started = time.perf_counter()
        if dtype == "float16":
            half = tf.cast(table, tf.float16)

            def search(q: np.ndarray) -> np.ndarray:
                return ops.dot_top_k(tf.constant(q, tf.float16), half, _K)[0]
        else:
            numbers, scales = _int8(table.numpy())

            def search(q: np.ndarray) -> np.ndarray:
                return ops.int8_dot_top_k(*_int8(q), numbers, scales, _K)[0]

        return time.perf_counter() - started, iter([(0, search)])

    return build


def _int8(rows: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """Each row in int8 with a scale of its own."""
    scales = np.maximum(np.abs(rows).max(axis=1), 1e-30) / 127
    numbers = np.empty(rows.shape, np.int8)
    for first in range(0, len(rows), 1 << 18):
        part = slice(first, first + (1 << 18))
        numbers[part] = np.rint(rows[part] / scales[part, None])
    return tf.constant(numbers), tf.constant(scales.astype(np.float32))


CANDIDATES: dict[str, Build] = {
    "full_float16": _full("float16"),
    "full_int8": _full("int8"),
    **{f"{kind}_{dtype}": _ours(kind, dtype) for kind in ("ivf", "hnsw") for dtype in ("float32", "float16", "int8")},
    "hnswlib_float32": _hnswlib,
    **{f"usearch_{dtype}": _usearch(dtype) for dtype in ("f32", "f16", "i8")},
}


def measure(name: str, table: tf.Tensor, queries: np.ndarray, rounds: int) -> dict[str, Any]:
    """The least effort with recall .95, and its figures against a full search in float32."""

    def full(q: np.ndarray) -> np.ndarray:
        return ops.dot_top_k(tf.constant(q), table, _K)[0]

    def scores(ids: np.ndarray) -> np.ndarray:
        vectors = tf.gather(table, ids.astype(np.int64)).numpy()
        return np.where(ids >= 0, np.einsum("qkf,qf->qk", vectors, queries), -np.inf)

    truth = scores(full(queries))
    before = _resident()
    seconds, searches = CANDIDATES[name](table, queries)
    found: dict[str, Any] = {"build_seconds": round(seconds, 1), "mib": round(_resident() - before)}
    for effort, search in searches:
        recall = recall_of(scores(search(queries)), truth)
        found |= {"effort": effort, "recall@10": round(recall, 4)}
        if recall >= _RECALL:
            break
    times: dict[str, list[float]] = {"index": [], "full": []}
    for _ in range(rounds):
        for way, ask, asked in (("index", search, queries), ("full", full, queries[:_FULL])):
            started = time.perf_counter()
            ask(asked)
            times[way].append(len(asked) / (time.perf_counter() - started))
    ratios = np.array(times["index"]) / np.array(times["full"])
    return {
        **found,
        "queries_per_second": round(float(np.median(times["index"]))),
        "full_float32": round(float(np.median(times["full"]))),
        "ratio": [round(float(r), 2) for r in (np.median(ratios), ratios.min(), ratios.max())],
    }


def _resident() -> float:
    """Memory of this process, MiB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4_096 / 2**20


def main() -> None:
    """Prints a line of JSON."""
    name, items, queries, rounds = sys.argv[1:]
    # Not mapped: pages of the file would be counted as the index's memory.
    table = tf.constant(np.load(items))
    print(json.dumps(measure(name, table, np.load(queries), int(rounds))))


if __name__ == "__main__":
    main()
