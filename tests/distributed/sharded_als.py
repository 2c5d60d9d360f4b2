"""ALS with its factors in parts, as it is asked and as a run; sharded_ranks.py calls this on its ranks."""

import contextlib
import shutil
from unittest import mock

import numpy as np
import scipy.sparse
import tensorflow as tf

import tfrec
from tfrec import distributed
from tfrec.data import Interactions
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


def scored(model, whole, matrix):
    """Scores of users, of candidates and of histories, in a graph as evaluation asks, next to those of rank 0's whole
    model."""
    rank, size = distributed.rank(), distributed.size()
    # Another number on each rank, and none on the last one of several.
    users = np.array([17, 4, 3, 17, 19])[: 0 if 1 < size == rank + 1 else 5 - rank]
    candidates = np.stack([users, users * 2 + 1, users], axis=1) % matrix.shape[1]
    rows = matrix[users].tocoo()
    rows = tf.SparseTensor(np.stack([rows.row, rows.col], 1).astype(np.int64), rows.data, rows.shape)
    rows, numbers = tf.sparse.reorder(rows), tf.constant(users, tf.int64)
    found = {}
    for name, asked in (("users", (numbers,)), ("candidates", (numbers, tf.constant(candidates))), ("rows", (rows,))):
        scores = tf.function(lambda *given: model.scores(*given))(*asked)
        if rank == 0:
            np.testing.assert_allclose(scores, whole.scores(*asked), atol=1e-5, err_msg=name)
            found[name] = scores.numpy()
    return found


def events():
    """Fewer items than four ranks have, so that one has none."""
    random = np.random.default_rng(3)
    matrix = scipy.sparse.random(61, 3, 0.4, random_state=random, dtype=np.float32).tocoo()
    users, items = (np.arange(count) for count in matrix.shape)
    return Interactions(matrix.row, matrix.col, matrix.data, users, items)


def commands(folder):
    """One rank's run of the recipe; and one that stops after two iterations. Several ranks go on with what one left."""
    size = distributed.size()
    found = of_run(tfrec.fit("als", events(), output_dir=folder / "als", **RUN), "als.run") if size == 1 else {}
    fit = ShardedALS.fit

    def stopping(model, matrix, callback=None, **rest):
        def then(iteration, *seen):
            callback(iteration, *seen)
            if iteration == 2:
                raise Stopped

        return fit(model, matrix, callback=then, **rest)

    with mock.patch.object(ShardedALS, "fit", stopping), contextlib.suppress(Stopped):
        tfrec.fit("als", events(), output_dir=folder / f"als_stopped_{size}", **RUN)
    return found if size == 1 else resumed(folder / "als_stopped_1")


def resumed(folder):
    """The run of a folder, continued by these ranks in a copy."""
    ours = folder.with_name(f"{folder.name}_on_{distributed.size()}")
    if distributed.rank() == 0:
        shutil.copytree(folder, ours)
    distributed.exchange(None)
    assert (ours / "checkpoint").is_dir()
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
    seconds = run.metrics["training"]["seconds_per_iteration"]
    assert len(seconds) == run.metrics["training"]["iterations"] == 4
    return found | {f"{name}.loss": np.array(run.metrics["training"]["training_loss"])}
