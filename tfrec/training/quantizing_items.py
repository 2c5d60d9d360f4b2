"""From a finished ALS or VAE-CF run to its item vectors in int8, and what that costs and gains."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.configs import ALSRun, VAECFRun
from tfrec.data.csr import to_sparse_tensor
from tfrec.evaluation import evaluate_full_ranking
from tfrec.evaluation.full_ranking import Scorer
from tfrec.models import ALS
from tfrec.ops import dot_top_k
from tfrec.quantization import Int8Rows
from tfrec.training.als import prepare_data
from tfrec.training.environment import hardware, versions
from tfrec.training.load_run import check_sizes, load_known_model, load_vocabulary
from tfrec.training.prepare import Prepared, prepare
from tfrec.training.report import table, write_json
from tfrec.training.run_folder import RunFolder

_K = 100


def quantize_items(folder: RunFolder, out: Path, config: ALSRun | VAECFRun) -> dict[str, Any]:
    """Write items.int8.npz, vocabulary.npz and quantization.json into the folder ``out``.

    Held-out users of ALS are folded in against the vectors that the integers stand for: nothing else is served.
    """
    model = load_known_model(folder, load_vocabulary(folder))
    data = prepare_data(config) if isinstance(config, ALSRun) else prepare(config.data)
    folder.check_data(data.sha256)
    check_sizes(folder, model, *(data.split.train if isinstance(data, Prepared) else data.train).shape, folder.config)
    exact, bias = item_vectors(model)
    rows = Int8Rows.of(exact, bias)
    vectors = query_vectors(model, data, exact)
    rounded = query_vectors(model, data, rows.dequantize()[0])

    def in_float(users: np.ndarray, seen: scipy.sparse.csr_matrix) -> np.ndarray:
        return vectors(users, seen) @ exact.T + (0.0 if bias is None else bias)

    def in_int8(users: np.ndarray, seen: scipy.sparse.csr_matrix) -> np.ndarray:
        return rows.scores(rounded(users, seen))

    seen, targets = data.heldout("test")[:2]
    scorers: dict[str, Scorer] = {"float": in_float, "int8": in_int8}
    reports = {
        name: evaluate_full_ranking(
            scorer,
            seen,
            targets,
            config.evaluation.metrics,
            ties=config.evaluation.ties,
            gains=config.evaluation.gains,
            block_users=config.evaluation.block_users,
        ).to_json()
        for name, scorer in scorers.items()
    }
    some = np.arange(min(2_000, seen.shape[0]))
    stored = model.item_factors if isinstance(model, ALS) else exact
    size = {"float": stored.nbytes + (0 if bias is None else bias.nbytes), "int8": rows.nbytes}
    fast = _time(vectors(some, seen[some]), exact, bias, stored, rows)
    result = {
        "test": reports,
        "bytes": size,
        "top_k": fast,
        "versions": versions(),
        "hardware": hardware(1),
    }
    rows.save(out / "items.int8.npz")
    shutil.copyfile(folder.vocabulary, out / "vocabulary.npz")
    write_json(out / "quantization.json", result)
    metrics = [str(m) for m in config.evaluation.metrics]
    print(f"\nTest, {reports['float']['users']:,} held-out users, ties {reports['float']['ties']}:")
    print(table(reports, metrics))
    print(
        f"Item vectors: {size['float'] / 2**20:.2f} MiB in {stored.dtype}, {size['int8'] / 2**20:.2f} MiB in int8. "
        f"Top {_K} of {len(some):,} queries {fast['int8_over_stored']:.2f} times as fast."
    )
    return result


def item_vectors(model: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """What queries are multiplied with: vectors float32 ``[I, F]``, and a bias ``[I]`` or None."""
    if isinstance(model, ALS):
        return model.item_factors.astype(np.float32), None
    kernel = np.asarray(model.item_kernel.numpy(), np.float32).T
    return np.ascontiguousarray(kernel[: model.num_items]), model.item_bias.numpy()[: model.num_items]


def query_vectors(
    model: Any, data: Any, items: np.ndarray
) -> Callable[[np.ndarray, scipy.sparse.csr_matrix], np.ndarray]:
    """From users and their rows to query vectors ``[B, F]``, given these item vectors."""
    if not isinstance(model, ALS):
        hidden = tf.function(
            model.query_vectors,
            input_signature=[tf.SparseTensorSpec([None, model.num_items], tf.float32)],
        )
        return lambda users, seen: hidden(to_sparse_tensor(seen)).numpy().astype(np.float32)
    if not isinstance(data, Prepared):
        known = model.user_factors.astype(np.float32)
        return lambda users, seen: known[users]
    other = ALS(
        model.factors,
        factor_dtype="float32",
        regularization=model.sweep.regularization,
        alpha=model.sweep.alpha,
        unobserved_weight=model.sweep.unobserved_weight,
        frequency_exponent=model.sweep.frequency_exponent,
    )
    other.prepare(model.num_users or 0, len(items))
    other.items.table.assign(items)
    return lambda users, seen: other.recalculate_users(seen).astype(np.float32)


def _time(
    vectors: np.ndarray, exact: np.ndarray, bias: np.ndarray | None, stored: np.ndarray, rows: Int8Rows
) -> dict[str, Any]:
    """Seconds of the top k, with the float vectors as they are stored and with int8: in turns, medians of five."""
    queries = tf.constant(vectors.astype(stored.dtype))
    items = tf.constant(stored)
    matrix, added = tf.constant(exact), None if bias is None else tf.constant(bias)
    k = min(_K, len(exact))

    def in_float() -> Any:
        if added is None:
            return dot_top_k(queries, items, k)
        return tf.math.top_k(tf.matmul(queries, matrix, transpose_b=True) + added, k)[0].numpy()

    ways = {"stored": in_float, "int8": lambda: rows.top_k(vectors, k)}
    seconds: dict[str, list[float]] = {n: [] for n in ways}
    for turn in range(6):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {
        "queries": len(vectors),
        "k": k,
        **{f"{n}_seconds": round(float(np.median(s)), 5) for n, s in seconds.items()},
        "int8_over_stored": round(float(np.median(np.array(seconds["stored"]) / seconds["int8"])), 3),
    }
