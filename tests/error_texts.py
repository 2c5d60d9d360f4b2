"""A hundred mistakes that people make. `tests/error_texts.yaml` has what each of them is told, word by word."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas
import scipy.sparse
import tensorflow as tf

import tfrec
from tests import starting
from tfrec import Interactions, slurm
from tfrec.data import confidence, leave_one_out, random_holdout, strong_generalization
from tfrec.data.pointwise import PointwiseSampler
from tfrec.evaluation import Candidates, evaluate_full_ranking
from tfrec.layers import CachedTTEmbedding, TTEmbedding, TTEmbeddingBag
from tfrec.quantization import Int8Rows, QuantizationConfig, calibrate

MATRIX = scipy.sparse.csr_matrix(np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0]], np.float32))
#: What srun tells the first task of two nodes with two tasks each.
TASK = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "0",
    "SLURM_NODEID": "0",
    "SLURM_LOCALID": "0",
}
EVENTS = {"user_id": ["ada", "ada", "bob"], "item_id": [1, 2, 2]}


def written(name: str, text: str | bytes) -> Path:
    """A file in the folder of the test."""
    path = Path(name)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def table(text: str | bytes, name: str = "plays.csv", **options: Any) -> Interactions:
    """What `from_table` makes of a file."""
    return Interactions.from_table(written(name, text), **options)


def frame(changes: dict[str, Any] | None = None, **options: Any) -> Interactions:
    """What `from_frame` makes of a small frame."""
    return Interactions.from_frame({**EVENTS, **(changes or {})}, **options)


def train(*arguments: Any) -> str:
    """A training with the options that a person typed."""
    return starting.run("train", *arguments, cwd=Path.cwd(), code=2)[1]


def command(name: str, *arguments: Any) -> str:
    """Another command."""
    return starting.run(name, *arguments, cwd=Path.cwd(), code=2)[1]


def _fitted() -> tfrec.ALS:
    model = tfrec.ALS(factors=2, iterations=1, seed=1)
    model.fit(MATRIX, verbose=0)
    return model


def recommender() -> tfrec.Recommender:
    """A recommender of three users and four items."""
    data = Interactions.from_frame(
        {"user_id": ["ada", "ada", "bob", "bob", "cleo", "cleo"], "item_id": [1, 3, 2, 4, 1, 2],
         "name": ["Dune", "Heat", "Solaris", "Heat", "Dune", "Solaris"]},
        title="name",
    )  # fmt: skip
    return tfrec.Recommender(_fitted(), data)


SMALL = starting.SMALL_DATA
#: Name -> what is done.
FILES: dict[str, Callable[[], Any]] = {
    "no such file": lambda: Interactions.from_table("missing.csv"),
    "an empty file": lambda: table(""),
    "no rows": lambda: table("user_id,item_id\n"),
    "no such column": lambda: table("user,item\n1,2\n"),
    "a column twice": lambda: table("user_id,item_id,user_id\n1,2,3\n"),
    "no line of names": lambda: table("196,242,3,881250949\n186,302,3,891717742\n"),
    "a row without an id": lambda: table("user_id,item_id\nada,1\n,2\n"),
    "a row too short": lambda: table("user_id,item_id,n\nada,1,2\nbob,2\n"),
    "a value that is no number": lambda: table("user_id,item_id,n\nada,1,2\nbob,2,many\n", value="n"),
    "a time that is none": lambda: table("user_id,item_id,t\nada,1,2024-01-01\nbob,2,0000-00-00\n", time="t"),
    "a date in another format": lambda: table("user_id,item_id,t\nada,1,12/31/2024 8:26\n", time="t"),
    "a wrong time format": lambda: table("user_id,item_id,t\nada,1,2024\n", time="t", time_format="%Q"),
    "not UTF-8": lambda: table("user_id,item_id\nJosé,1\n".encode("latin-1")),
    "an unknown encoding": lambda: table("user_id,item_id\n1,1\n", encoding="utf-99"),
    "an open quote": lambda: table('user_id,item_id,n\na,"x,1\nb,y",2\nc,z,3\n'),
    "a long delimiter": lambda: table("user_id,item_id\n1,2\n", delimiter=";;"),
    "values below 0": lambda: table("user_id,item_id,qty\na,1,5\nb,2,-3\n", value="qty"),
    "a kind of value without a column": lambda: table("user_id,item_id\n1,2\n", value_kind="counts"),
    "an unknown kind of value": lambda: table("user_id,item_id,n\n1,2,3\n", value="n", value_kind="stars"),
    "one column for two roles": lambda: table("user_id,item_id\n1,2\n", value="item_id"),
    "a folder without tables": lambda: (Path("empty").mkdir(), Interactions.from_table("empty")),
    "a pattern without files": lambda: Interactions.from_table("parts/*.parquet"),
    "not Parquet": lambda: table(b"PAR1 and something else", "plays.parquet"),
    "an Office file": lambda: table(_office(), "plays.xlsx"),
    "several problems at once": lambda: table(
        "user_id,item_id,n,t\n,1,2,2024-01-01\nbob,2,many,soon\n", value="n", time="t"
    ),
    "a negative id": lambda: table("user_id,item_id\n-1,2\n3,4\n"),
    "one id in two spellings": lambda: table("user_id,item_id\n12,1\n12.0,2\nPOST,3\n"),
}
FRAMES: dict[str, Callable[[], Any]] = {
    "no frame": lambda: Interactions.from_frame([("ada", 1)]),
    "a NumPy matrix": lambda: Interactions.from_frame(np.ones((3, 2))),
    "columns of other lengths": lambda: frame({"item_id": [1, 2]}),
    "mixed types": lambda: frame({"user_id": ["ada", b"ben", 2]}),
    "two dimensions": lambda: frame({"user_id": np.ones((3, 2))}),
    "lists as ids": lambda: frame({"user_id": [[1], [2], [3]]}),
    "an id in the index": lambda: Interactions.from_frame(pandas.DataFrame(EVENTS).set_index("user_id")),
    "a missing id": lambda: frame({"user_id": ["ada", None, "bob"]}),
    "a column that is no name": lambda: frame(value=3),
}
DATA: dict[str, Callable[[], Any]] = {
    "an unknown data set": lambda: tfrec.load("ml-2m"),
    "an unknown setting of a data set": lambda: tfrec.load("synthetic", users=10),
    "too few users": lambda: tfrec.load("synthetic", num_users=0),
    "a threshold below 0": lambda: frame().positives(-1),
    "too few items to hold one out": lambda: leave_one_out(frame({"user_id": ["ada", "bob", "cleo"]})),
    "a share above 1": lambda: random_holdout(frame(), target_share=1.5),
    "no user to hold out": lambda: strong_generalization(frame(), heldout_users=0),
    "BM25 with a negative k1": lambda: confidence.bm25(MATRIX, k1=-1),
    "a user who has every item": lambda: PointwiseSampler(scipy.sparse.csr_matrix(np.ones((2, 3), np.float32)), 10),
    "a batch larger than an epoch": lambda: PointwiseSampler(MATRIX, global_batch_size=1_000),
}
MODELS: dict[str, Callable[[], Any]] = {
    "no factors": lambda: tfrec.ALS(factors=0),
    "factors of another type": lambda: tfrec.ALS(factor_dtype="int8"),
    "an unknown solver": lambda: tfrec.ALS(solver="lbfgs"),
    "a negative regularization": lambda: tfrec.ALS(regularization=-1.0),
    "users without items": lambda: tfrec.ALS(num_users=3),
    "a dense matrix": lambda: tfrec.ALS(factors=2).fit(MATRIX.toarray()),
    "an empty matrix": lambda: tfrec.ALS(factors=2).fit(scipy.sparse.csr_matrix((3, 4), dtype=np.float32)),
    "a matrix with NaN": lambda: tfrec.ALS(factors=2).fit(scipy.sparse.csr_matrix(np.array([[np.nan, 1.0]]))),
    "asked before it is fitted": lambda: tfrec.ALS(factors=2).recommend(0, MATRIX[0]),
    "an unknown user": lambda: _fitted().recommend(99, MATRIX[0]),
    "seen items without a history": lambda: _fitted().recommend(0),
    "no items asked for": lambda: _fitted().recommend(0, MATRIX[0], k=0),
    "a history of other items": lambda: _fitted().recommend(0, scipy.sparse.csr_matrix((1, 9), dtype=np.float32)),
    "both among and without": lambda: _fitted().recommend(0, MATRIX[0], items=[1], filter_items=[2]),
    "similar to no item": lambda: _fitted().similar_items(99),
    "EASE without regularization": lambda: tfrec.EASE(4, regularization=0.0),
    "EASE asked by number": lambda: tfrec.EASE(4).recommend(0, MATRIX[0]),
    "VAE-CF that drops everything": lambda: tfrec.VAECF(4, dropout=1.0),
    "VAE-CF with a loss": lambda: tfrec.VAECF(4).compile("adam", loss="mse"),
    "VAE-CF with classes": lambda: _vae().fit(MATRIX, class_weight={0: 1.0}),
    "VAE-CF on other items": lambda: _vae().fit(scipy.sparse.csr_matrix((3, 9), dtype=np.float32)),
    "VAE-CF saved as HDF5": lambda: _vae().save("model.h5"),
    "NeuMF of no users": lambda: tfrec.NeuMF(0, 4),
    "NeuMF with one layer": lambda: tfrec.NeuMF(3, 4, layer_dims=(8,)),
    "NeuMF of an unknown branch": lambda: tfrec.NeuMF(3, 4, branch="both"),
    "NeuMF for a new user": lambda: tfrec.NeuMF(3, 4, mf_dim=2, layer_dims=(4, 2)).recommend(MATRIX),
    "NeuMF's similar items": lambda: tfrec.NeuMF(3, 4, mf_dim=2, layer_dims=(4, 2)).similar_items(0),
    "NeuMF explained": lambda: tfrec.NeuMF(3, 4, mf_dim=2, layer_dims=(4, 2)).explain(MATRIX[0], 1),
    "NeuMF with a metric of pairs": lambda: tfrec.NeuMF(3, 4).compile("adam", metrics=["auc"]),
    "a tensor train of no rows": lambda: TTEmbedding(0, 8, ranks=2),
    "factors that do not multiply": lambda: TTEmbedding(100, 8, ranks=2, row_factors=(10, 10), column_factors=(2, 2)),
    "ranks and an error": lambda: TTEmbedding.from_dense(np.ones((4, 4), np.float32), ranks=2, max_error=0.1),
    "a cache larger than the table": lambda: CachedTTEmbedding(10, 8, ranks=2, cache_size=11),
    "an unknown mode of a bag": lambda: TTEmbeddingBag(10, 8, ranks=2, mode="max"),
    "a fused optimizer that does not exist": lambda: TTEmbedding(10, 8, ranks=2, fused_optimizer="lamb"),
}
MEASURES: dict[str, Callable[[], Any]] = {
    "an unknown metric": lambda: tfrec.metrics.Metric.parse("ndgc@10"),
    "a metric without its cutoff": lambda: tfrec.metrics.Metric.parse("ndcg"),
    "targets that are seen": lambda: evaluate_full_ranking(_zeros, MATRIX, MATRIX, ["ndcg@2"]),
    "a cutoff beyond the items": lambda: evaluate_full_ranking(_zeros, _unseen(), MATRIX, ["ndcg@9"]),
    "no targets": lambda: evaluate_full_ranking(_zeros, MATRIX, _unseen(), ["ndcg@2"]),
    "an unknown tie rule": lambda: evaluate_full_ranking(_zeros, _unseen(), MATRIX, ["ndcg@2"], ties="random"),
    "scores that are NaN": lambda: evaluate_full_ranking(_nan, _unseen(), MATRIX, ["ndcg@2"]),
    "a held-out item that is seen": lambda: Candidates(MATRIX, np.array([0, -1, -1]), 1),
    "too many negatives": lambda: Candidates(MATRIX, np.array([1, -1, -1]), 9),
    "an unknown protocol": lambda: Candidates(MATRIX, np.array([1, -1, -1]), protocol="sampled"),
    "nobody with a held-out item": lambda: Candidates(MATRIX, np.array([-1, -1, -1])),
    "calibration of another model": lambda: calibrate(_fitted(), MATRIX),
    "one bit": lambda: QuantizationConfig(weights=1).check(),
    "rows with NaN": lambda: Int8Rows.of(np.full((3, 2), np.nan, np.float32)),
}
ANSWERS: dict[str, Callable[[], Any]] = {
    "one user, not a list": lambda: recommender().recommend("ada"),
    "an item without its title": lambda: recommender().similar_items(["Heat 2"]),
    "a title of two items": lambda: recommender().similar_items(["Heat"]),
    "an empty title": lambda: recommender().recommend_to([[""]]),
    "an unknown user to explain": lambda: recommender().explain("dora", "Dune"),
    "a list of an unknown format": lambda: recommender().write("lists.xlsx"),
    "longer than the catalogue": lambda: recommender().recommend(["ada"], k=99),
    "nothing to measure": lambda: recommender().evaluate({"dora": [1]}),
    "a recommender that was not saved": lambda: tfrec.Recommender.load("nowhere"),
    "an index of an unknown kind": lambda: recommender().index("tree"),
    "an index that stores something else": lambda: recommender().index(dtype="int4"),
    "an index that finds more than everything": lambda: recommender().index(recall=95),
    "another model's data": lambda: tfrec.Recommender(_fitted(), frame()),
}
FITS: dict[str, Callable[[], Any]] = {
    "an unknown recipe": lambda: tfrec.fit("asl"),
    "the data first": lambda: tfrec.fit(frame(), "als"),
    "an unknown option": lambda: tfrec.fit("als", frame(), factor=8),
    "an option of several settings": lambda: tfrec.fit("als", frame(), **{"num_items": 3}),
    "an option of another type": lambda: tfrec.fit("als", frame(), factors="many"),
}
COMMANDS: dict[str, Callable[[], str]] = {
    "--data.split and an option of another": lambda: train("als", "--data.validation-from", "2024-01-01"),
    "a split that a family cannot": lambda: train("neumf", "--data.split", "held_out_users"),
    "a monitor that is not measured": lambda: train("als", *SMALL, "--evaluation.monitor", "mrr@7"),
    "an option for a table without one": lambda: train("als", "--data.user", "who"),
    "no epochs": lambda: train("vae-cf", *SMALL, "--training.epochs", "0"),
    "a folder that is not a run": lambda: train("als", *SMALL, "--output-dir", _notes()),
    "no finished run": lambda: command("recommend", "runs/none", "--user", "1"),
    "nothing asked": lambda: command("recommend", "runs/none"),
    "a run compared with itself alone": lambda: command("compare", "runs/none"),
    "a command on no run": lambda: command("evaluate", "runs/none"),
    "an index of no run": lambda: command("index", "runs/none"),
}
SLURM: dict[str, Callable[[], Any]] = {
    "a start without srun": lambda: slurm.Task.from_environment({}),
    "a task without its place": lambda: task(SLURM_LOCALID="", SLURM_NODEID=""),
    "srun and horovodrun": lambda: task(HOROVOD_RANK="3"),
    "a rank that is no number": lambda: task(SLURM_PROCID="first"),
    "tasks that are not those of the step": lambda: task(SLURM_STEP_TASKS_PER_NODE="2(x3),1"),
    "a list of tasks that is none": lambda: task(SLURM_STEP_TASKS_PER_NODE="2*3"),
    "a port that is no number": lambda: slurm.prepare({**TASK, "TFREC_RENDEZVOUS_PORT": "auto"}),
    "tasks that are no ranks": lambda: _train_as_task(),
}


def task(**changes: str) -> slurm.Task:
    """A task of a job step whose variables were changed."""
    return slurm.Task.from_environment({**TASK, **changes})


def _train_as_task() -> str:
    with mock.patch.dict(os.environ, TASK):
        return train("als", *SMALL)


def _office() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    return file.getvalue()


def _notes() -> str:
    Path("notes").mkdir()
    written("notes/todo.txt", "")
    return "notes"


def _vae() -> tfrec.VAECF:
    model = tfrec.VAECF(4, hidden_dims=(), latent_dim=2)
    model.compile("adam")
    return model


def _unseen() -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix(MATRIX.shape, dtype=np.float32)


def _zeros(users: np.ndarray, histories: Any) -> tf.Tensor:
    return tf.zeros([len(users), 4])


def _nan(users: np.ndarray, histories: Any) -> tf.Tensor:
    return tf.fill([len(users), 4], np.nan)


#: All of them, by section.
MISTAKES = {
    "files": FILES, "frames": FRAMES, "data": DATA, "models": MODELS, "measures": MEASURES, "answers": ANSWERS,
    "fits": FITS, "commands": COMMANDS, "slurm": SLURM,
}  # fmt: skip
