"""Tables in parts, trained on any number of ranks; started by test_sharded_ranks.py. Rank 0 writes arrays to a file."""

import functools
import os
import sys
from pathlib import Path
from unittest import mock

from tfrec import commands

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    commands.quiet_tensorflow()

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tests.distributed import sharded_als
from tfrec import distributed
from tfrec.data.sharded_matrix import ShardedMatrix
from tfrec.distributed import sharding
from tfrec.distributed.sharding import Shard, mark, shard_of
from tfrec.evaluation import evaluate_full_ranking
from tfrec.layers import ShardedEmbedding
from tfrec.models import ALS, NeuMF
from tfrec.models.als_sharded import ShardedALS
from tfrec.optimizers import Adam
from tfrec.runs.checkpoint import load_state, save_state

USERS, ITEMS, WIDTH = 37, 3, 6  # with four ranks one has no item
STEPS = 10
#: Where the ranks' parts of a batch of 24 end, in turn: unequal, and without a sample on some rank.
CUTS = {
    1: [[0, 24]],
    2: [[0, 17, 24], [0, 24, 24], [0, 0, 24]],
    4: [[0, 10, 10, 22, 24], [0, 0, 0, 1, 24], [0, 6, 12, 18, 24]],
}


def batches(parts=1):
    """This rank's part of each batch: users, items; labels. On one process also all of them, one after another."""
    random = np.random.default_rng(0)
    cuts = CUTS[distributed.size() * parts]
    for step in range(STEPS):
        # Many samples of few rows, so that ranks share some and a rank needs some twice.
        users, items = random.integers(USERS, size=24) // (1 + step % 3), random.integers(ITEMS, size=(24, 2))
        labels = random.normal(size=(24, 1)).astype(np.float32)
        cut = cuts[step % len(cuts)]
        for number in range(distributed.rank() * parts, (distributed.rank() + 1) * parts):
            part = slice(cut[number], cut[number + 1])
            yield (users[part], items[part]), labels[part]


def dataset(parts=1):
    spec = (
        (tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 2], tf.int64)),
        tf.TensorSpec([None, 1], tf.float32),
    )
    return tf.data.Dataset.from_generator(lambda: batches(parts), output_signature=spec).apply(
        tf.data.experimental.assert_cardinality(STEPS * parts)
    )


def network(dtype=None):
    """An ordinary functional model."""
    keras.utils.set_random_seed(3)
    user, item = keras.Input((), dtype="int64"), keras.Input((2,), dtype="int64")
    users = ShardedEmbedding(USERS, WIDTH, replicate_below=0, dtype=dtype)
    items = ShardedEmbedding(ITEMS, WIDTH, "glorot_normal", replicate_below=0, dtype=dtype)
    pooled = keras.layers.GlobalAveragePooling1D(dtype=dtype)(items(item))
    hidden = keras.layers.Concatenate(dtype=dtype)([users(user), pooled])
    hidden = keras.layers.Dense(8, "relu", dtype=dtype)(hidden)
    return keras.Model([user, item], keras.layers.Dense(1, dtype="float32")(hidden))


def whole(variable):
    """The table of which a variable is this rank's part."""
    shard = shard_of(variable)
    if shard is None:
        return np.asarray(variable)
    return np.concatenate([rows for _, rows in distributed.gather_rows(variable)])


def values(model, name):
    """Weights and slots, whole."""
    weights = {f"{name}.weight.{i}": whole(v) for i, v in enumerate(model.weights)}
    slots = {f"{name}.slot.{i}": whole(v) for i, v in enumerate(model.optimizer.variables)}
    return weights | slots


def fitted():
    """Weights after two epochs by each optimizer."""
    found = {}
    for name, optimizer, options in (
        ("sgd", keras.optimizers.SGD(0.5, clipnorm=0.05), {}),
        ("adagrad", keras.optimizers.Adagrad(0.1), {}),
        ("adam", keras.optimizers.Adam(0.02), {}),
        ("float16", keras.optimizers.SGD(0.5), {"compression": "float16"}),
        ("accumulated", Adam(0.02), {"backward_passes_per_step": 2}),
        ("lazy", Adam(0.02, lazy=True, global_clipnorm=0.1), {}),
    ):
        if distributed.size() > 2 and name != "lazy":
            continue
        model = network()
        model.compile(optimizer, "mse")
        distributed.distribute(model, **options)
        history = model.fit(dataset(), epochs=2, shuffle=False, verbose=0, callbacks=distributed.callbacks()).history
        found |= values(model, name)
        found[f"{name}.loss"] = np.array(history["loss"])
    return found


def first():
    """The rows that a table starts with, in each distribution."""
    kinds = ("uniform", "random_normal", "truncated_normal", "glorot_uniform", "he_normal", "ones", "zeros")
    found = {}
    for kind in kinds:
        keras.utils.set_random_seed(9)
        layer = ShardedEmbedding(1_001, 40, kind, replicate_below=0)
        layer.build()
        found[f"first.{kind}"] = whole(layer.embeddings)
    return found


def own_loops():
    """GradientTape, in a graph and outside; one table looked up twice; a bfloat16 layer."""
    found = {}
    in_graph = functools.partial(tf.function, reduce_retracing=True)
    for name, wrap, dtype in (
        ("graph", in_graph, None),
        ("eager", lambda f: f, None),
        ("bfloat16", in_graph, "mixed_bfloat16"),
    ):
        keras.utils.set_random_seed(4)
        layer = ShardedEmbedding(USERS, WIDTH, replicate_below=0, dtype=dtype)
        layer.build()
        optimizer = distributed.DistributedOptimizer(keras.optimizers.SGD(2.0))
        optimizer.build(layer.trainable_variables)

        def step(a, b, layer=layer, optimizer=optimizer):
            optimizer.record_batch(tf.shape(a)[0])
            with tf.GradientTape() as tape:
                both = tf.cast(layer(a)[:, None] * layer(b), tf.float32)
                loss = tf.math.divide_no_nan(tf.reduce_sum(both), tf.cast(tf.shape(a)[0], tf.float32))
            gradients = tape.gradient(loss, layer.trainable_variables)
            assert isinstance(gradients[0], tf.IndexedSlices)
            optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))

        step = wrap(step)
        for (a, b), _ in list(batches())[:4]:
            step(tf.constant(a), tf.constant(b))
        found[f"loop.{name}"] = whole(layer.embeddings)
    return found


def predicted():
    """Validation and prediction, of which ranks have other samples."""
    model = network("mixed_bfloat16")
    model.compile("sgd", "mse")
    distributed.distribute(model)
    history = model.fit(dataset(), validation_data=dataset(), shuffle=False, verbose=0).history
    return {"bfloat16.val_loss": np.array(history["val_loss"]), **values(model, "bfloat16")}


def overflow():
    """mixed_float16, and a label that makes one rank's gradient infinite in one step of which only its rows know."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        table = ShardedEmbedding(USERS, 1, replicate_below=0)
        model = keras.Sequential(
            [keras.Input((), dtype="int64"), table, keras.layers.Activation("linear", dtype="float32")]
        )
        model.compile(Adam(0.01, lazy=True, global_clipnorm=1.0), "mse")
        distributed.distribute(model)
        rank, size = distributed.rank(), distributed.size()
        ids = np.full((6, 4), rank, np.int64)
        labels = np.ones((6, 4, 1), np.float32)
        labels[2] = 1e38 if rank == size - 1 else 1
        data = tf.data.Dataset.from_tensor_slices((ids, labels))
        model.fit(data, shuffle=False, verbose=0)
        state = [int(model.optimizer.iterations.numpy()), float(model.optimizer.dynamic_scale.numpy())]
        seen = distributed.gather_across_ranks(np.array(state))
        finite = distributed.gather_across_ranks(np.isfinite(model.get_weights()[0]).all())
        return {"overflow.state": np.unique(seen, axis=0), "overflow.finite": np.array(finite.all())}
    finally:
        keras.config.set_dtype_policy("float32")


def trained_neumf(policy, parts=1, epochs=2):
    """20 updates with two epochs, each with the union of the ranks' parts of a batch or with ``parts`` one by one."""
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(5)
        model = NeuMF(
            USERS, ITEMS, 4, (16, 8), dropout=0.0, embedding_l2=0.01, user_embedding="sharded", item_embedding="sharded"
        )
        # Above the rounding of gradients that are 0, which Adam would divide by itself.
        model.compile(Adam(1e-2, epsilon=1e-5, lazy=policy == "float32"))
        distributed.distribute(model, backward_passes_per_step=parts)
        data = dataset(parts).map(lambda ids, label: (ids, tf.cast(tf.repeat(label > 0, 2, axis=1), tf.float32)))
        model.optimizer.build(model.trainable_variables)
        if epochs:
            model.fit(data, epochs=epochs, shuffle=False, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    return model


def neumf_in_parts(parts):
    """What ``parts`` ranks compute in mixed_float16, by one: float16 rounds the gradient of a part, not of a batch."""
    found = values(trained_neumf("mixed_float16", parts), "neumf.mixed_float16")
    # The model's count of steps is that of the parts.
    return {name: value for name, value in found.items() if value.dtype == np.float32}


def neumf():
    """Weights after 20 steps, and what is said of the model then: metrics over all items, and the scores of one that a
    process alone has."""
    found = {}
    for policy in ("float32", "mixed_float16"):
        model = trained_neumf(policy)
        name = f"neumf.{policy}"
        found |= values(model, name)
        if policy != "float32":
            continue
        targets = scipy.sparse.csr_matrix(np.eye(ITEMS, dtype=np.float32)[np.arange(USERS) % ITEMS])
        report = evaluate_full_ranking(
            lambda users, _, model=model: model.scores(tf.constant(users)),
            scipy.sparse.csr_matrix(targets.shape, dtype=np.float32), targets, ["ndcg@2", "mrr@3"],
            block_users=5, ranks=distributed.everyone(), together=model.exchanges_rows,
        )  # fmt: skip
        found |= {f"{name}.{metric}": np.array(value) for metric, value in report.metrics.items()}
        dense = model.with_dense_embeddings(here=distributed.rank() == 0)
        if distributed.rank() == 0:
            assert dense.embedding_kinds == {"user": "dense", "item": "dense"}
            found[f"{name}.dense"] = dense.scores(tf.range(USERS)).numpy()
    return found


def _plays():
    random = np.random.default_rng(7)
    matrix = scipy.sparse.random(150, 40, 0.15, format="csr", random_state=random, dtype=np.float32)
    matrix.data = 1 + np.floor(9 * matrix.data)
    return matrix


def als_sharded():
    """Factors and loss with tables, and a matrix, of which each rank holds its share; a rank without an item too."""
    ranks, found = distributed.everyone(), {}
    plays = _plays()
    for name, matrix, solver, most in (
        ("one block", plays, "cg", 1_000),
        # Few blocks: each costs two exchanges, of some milliseconds however little they send.
        ("pieces cg", plays[:60], "cg", 40),
        ("one item", plays[:, :1], "cg", 40),
    ):
        entries = matrix.tocoo()
        # Dealt by anything but the rule of who holds a row.
        dealt = np.arange(matrix.nnz) * 7 // 3 % ranks.size == ranks.rank
        mine = ShardedMatrix.of_entries(
            entries.row[dealt], entries.col[dealt], entries.data[dealt], matrix.shape, ranks
        )
        settings = ALS(12, 0.5, iterations=3, solver=solver, block_size=5, seed=2, frequency_exponent=0.5)
        with mock.patch.object(ShardedALS, "block_rows", most):
            model = ShardedALS(settings, ranks)
            losses = model.fit(mine, calculate_training_loss=True)
            whole = model.gathered()
            if name == "one item" or (name == "pieces cg" and ranks.size <= 2):
                scores = sharded_als.scored(model, whole, matrix)
                found |= {f"als.{name}.scores of {what}": value for what, value in scores.items()}
        if ranks.rank == 0:
            found |= {f"als.{name}.users": whole.user_factors, f"als.{name}.items": whole.item_factors}
            found[f"als.{name}.loss"] = np.array(losses)
    return found


def gathered():
    """A table on rank 0, on all, and one with fewer rows than ranks, in chunks smaller than a row."""
    for rows in (1, 11):
        table = np.arange(rows * 3, dtype=np.int32).reshape(rows, 3)
        shard = Shard.mine(rows)
        variable = tf.Variable(table[shard.ids()])
        mark(variable, shard)
        for to in (0, None):
            with mock.patch.object(sharding, "CHUNK", 12):
                chunks = list(distributed.gather_rows(variable, to))
            if to is None or distributed.rank() == 0:
                ids, got = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
                np.testing.assert_array_equal(ids, np.arange(rows))
                np.testing.assert_array_equal(got, table)
            else:
                assert all(len(ids) == len(got) == 0 for ids, got in chunks)


def checkpointed(folder):
    """What one rank has saved, read by these; and what these have saved, for one to read. Slots too."""
    model = trained_neumf("float32", epochs=1)
    save_state(folder / f"of_{distributed.size()}.npz", model, {"epoch": 1}, optimizer=True)
    other = trained_neumf("float32", epochs=0)
    assert load_state(folder / "of_1.npz", other, optimizer=True) == {"epoch": 1}
    distributed.broadcast_state([*other.weights, *other.optimizer.variables])
    return values(other, "read")


def everything(folder):
    gathered()
    found = fitted() | neumf() | als_sharded() | overflow() | checkpointed(folder) | sharded_als.commands(folder)
    return found if distributed.size() > 2 else found | first() | own_loops() | predicted()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    tf.config.threading.set_intra_op_parallelism_threads(1)
    distributed.init()
    result = everything(Path(sys.argv[1]))
    if distributed.rank() == 0:
        np.savez(Path(sys.argv[1], f"found_{distributed.size()}.npz"), **result)
