"""ALS with its factors in parts, on any number of ranks; sharded_ranks.py calls it there."""

import contextlib
import shutil
from unittest import mock

import numpy as np
import scipy.sparse
import tensorflow as tf

import tfrec
from tfrec import distributed
from tfrec.data import Interactions
from tfrec.data.sharded_matrix import ShardedMatrix
from tfrec.families.als_parts import ShardedALSTrainer
from tfrec.models import ALS
from tfrec.models.als_sharded import ShardedALS

RUN = {
    "sharded": True,
    "factors": 6,
    "factor_dtype": "float32",
    "regularization": 0.1,
    "iterations": 4,
    "confidence": "bm25",
    "training_loss": True,
    "checkpoint_seconds": 0.0,
    "train_on_validation": True,
    "metrics": ("recall@2", "ndcg@3", "coverage@2"),
    "monitor": "ndcg@3",
}


class Stopped(Exception):
    """What ends a training in the middle."""


def plays(items=33):
    """Long and short rows, an empty one, and dislikes."""
    random = np.random.default_rng(3)
    found = scipy.sparse.random(61, items, 0.3, format="lil", random_state=random, dtype=np.float32)
    found[17] = random.random(items) + 0.5
    found[4] = 0
    found = scipy.sparse.csr_matrix(found)
    found.data *= np.where(random.random(found.nnz) < 0.1, -3, 3).astype(np.float32)
    return found


def events():
    """Fewer items than four ranks deal evenly."""
    matrix = plays(items=3).tocoo()
    users, items = (np.arange(count) for count in matrix.shape)
    return Interactions(matrix.row, matrix.col, np.abs(matrix.data), users, items)


def fitted():
    """Factors, loss and scores in blocks and pieces; also with one item, so that ranks are without one."""
    ranks, found = distributed.everyone(), {}
    for name, matrix, solver, most in (
        ("one block", plays(), "cg", 1_000),
        # Few blocks: each costs two exchanges, of some milliseconds however little they send.
        ("pieces", plays()[:20], "cg", 16),
        ("one item", plays()[:, :1], "cholesky", 16),
    ):
        if ranks.size > 2 and name != "one item":
            continue
        entries = matrix.tocoo()
        # Dealt by anything but the rule of who holds a row.
        dealt = np.arange(matrix.nnz) * 7 // 3 % ranks.size == ranks.rank
        mine = ShardedMatrix.of_entries(
            entries.row[dealt], entries.col[dealt], entries.data[dealt], matrix.shape, ranks
        )
        settings = ALS(12, 0.5, iterations=2, solver=solver, seed=2, frequency_exponent=0.5)
        with mock.patch.object(ShardedALS, "block_rows", most):
            model = ShardedALS(settings, ranks)
            losses = model.fit(mine, calculate_training_loss=True)
            whole = model.gathered()
            if name != "one block":
                found |= scored(model, whole, matrix, f"als.{name}", graph=name == "pieces")
        if ranks.rank == 0:
            found |= {f"als.{name}.users": whole.user_factors, f"als.{name}.items": whole.item_factors}
            found[f"als.{name}.loss"] = np.array(losses)
    return found


def scored(model, whole, matrix, name, graph):
    """Scores of users, of candidates and of histories, in a graph as evaluation asks or not; rank 0's are kept."""
    rank, last = distributed.rank(), distributed.size() - 1
    # Another number on each rank, and none on the last one of several.
    users = np.array([17, 4, 3, 17, 19])[: 5 - rank if rank < last or last == 0 else 0]
    candidates = np.stack([users, users * 2 + 1, users], axis=1) % matrix.shape[1]
    rows = matrix[users].tocoo()
    rows = tf.sparse.reorder(tf.SparseTensor(np.stack([rows.row, rows.col], 1).astype(np.int64), rows.data, rows.shape))
    ask = tf.function(model.scores, reduce_retracing=True) if graph else model.scores
    numbers = tf.constant(users, tf.int64)
    found = {"all": ask(numbers), "candidates": ask(numbers, tf.constant(candidates)), "histories": ask(rows)}
    if rank:
        return {}
    for what, values in found.items():
        queries = rows if what == "histories" else numbers
        expected = whole.scores(queries, tf.constant(candidates) if what == "candidates" else None)
        np.testing.assert_allclose(values, expected, atol=1e-5, err_msg=what)
    return {f"{name}.{what}": values.numpy() for what, values in found.items()}


def commands(folder):
    """One rank's run of the recipe; and one that stops after two iterations. Several ranks go on with what one left."""
    size = distributed.size()
    found = of_run(tfrec.fit("als", events(), output_dir=folder / "als", **RUN), "als.run") if size == 1 else {}
    saves, seen = ShardedALSTrainer.saves, []

    def stop(trainer, due):
        seen.append(due)
        if len(seen) == 3:
            raise Stopped
        return saves(trainer, due)

    with mock.patch.object(ShardedALSTrainer, "saves", stop), contextlib.suppress(Stopped):
        tfrec.fit("als", events(), output_dir=folder / f"als_stopped_{size}", **RUN)
    return found if size == 1 else resumed(folder / "als_stopped_1")


def resumed(folder):
    """The run of a folder, continued by these ranks in a copy."""
    ours = folder.with_name(f"{folder.name}_on_{distributed.size()}")
    if distributed.rank() == 0:
        shutil.copytree(folder, ours)
    distributed.exchange(None)
    return of_run(tfrec.fit("als", events(), output_dir=ours, **RUN), "als.resumed")


def of_run(run, name):
    """What a run measured, and the factors of the model that it wrote, on rank 0."""
    if distributed.rank():
        return {}
    model = run.recommender.model
    assert type(model) is ALS
    found = {f"{name}.users": model.user_factors, f"{name}.items": model.item_factors}
    for part in ("validation", "test"):
        for metric, value in run.metrics[part]["model"].items():
            if isinstance(value, float):
                found[f"{name}.{part}.{metric}"] = np.array(value)
    return found | {f"{name}.loss": np.array(run.metrics["training"]["training_loss"])}
