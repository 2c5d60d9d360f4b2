"""What two ranks run; started by test_two_ranks.py, alone and under horovodrun. Rank 0 writes arrays to a file."""

import os
import re
import sys
import time
from pathlib import Path

from tfrec import commands

commands.quiet_tensorflow()

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec import distributed
from tfrec.data import load
from tfrec.data.pipelines import sparse_batches, steps_per_epoch
from tfrec.data.pointwise import PointwiseSampler
from tfrec.distributed.optimizer import digest
from tfrec.errors import InputError
from tfrec.layers import CachedTTEmbedding, TTEmbedding
from tfrec.models import ALS, VAECF, NeuMF
from tfrec.optimizers import Adam

USERS, ITEMS, BATCH = 301, 120, 31  # 10 steps an epoch, the last with 22 users: 15 + 16, 11 + 11


def matrix():
    return load("synthetic", num_users=USERS, num_items=ITEMS, seed=3).to_csr()


def train(optimizer, *, epochs=2, batches=None, callbacks=(), **options):
    """A model after some epochs, without noise, so that it depends on the gradients alone."""
    keras.utils.set_random_seed(5 + distributed.rank())  # every rank starts elsewhere: rank 0 must win
    model = VAECF(ITEMS, hidden_dims=(32,), latent_dim=8, dropout=0.0, variational=False)
    model.compile(optimizer)
    distributed.distribute(model, **options)
    if batches is None:
        batches = sparse_batches(matrix(), BATCH, epochs=None, ranks=distributed.everyone())
    history = model.fit(
        batches,
        steps_per_epoch=steps_per_epoch(USERS, BATCH),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*distributed.callbacks(), *callbacks],
    )
    return model, history.history


def equal():
    """Weights after 20 steps, plain and with each option."""
    found = {}
    for name, optimizer, options in (
        ("adam", Adam(1e-2), {}),
        ("clipped", keras.optimizers.SGD(0.1, global_clipnorm=0.5), {}),
        ("accumulated", Adam(1e-2), {"backward_passes_per_step": 2}),
        ("float16", Adam(1e-3), {"compression": "float16"}),
    ):
        model, history = train(optimizer, **options)
        found |= {f"{name}.{i}": w for i, w in enumerate(model.get_weights())}
        found[f"{name}.loss"] = np.array(history["loss"])
    return found


def overflow():
    """mixed_float16, and a weight on the last rank in its third step that makes its gradient infinite."""
    keras.config.set_dtype_policy("mixed_float16")
    batches = sparse_batches(matrix(), BATCH, epochs=None, ranks=distributed.everyone())
    if distributed.rank() == distributed.size() - 1:
        batches = batches.enumerate().map(
            lambda i, x: (x, x, tf.fill([x.dense_shape[0]], tf.where(tf.equal(i, 2), 3e38, 1.0)))
        )
    model, _ = train(Adam(1e-2), batches=batches)
    mine = [model.optimizer.iterations.numpy(), model.optimizer.dynamic_scale.numpy()]
    return {
        "state": distributed.gather_across_ranks(np.array(mine, np.float64)),
        "finite": distributed.gather_across_ranks(np.array(all(np.isfinite(w).all() for w in model.get_weights()))),
    }


def embedding():
    """A sparse gradient, gathered from the ranks and summed as dense ones."""

    def train_step(dense):
        keras.utils.set_random_seed(2)
        optimizer = distributed.DistributedOptimizer(keras.optimizers.SGD(1.0), sparse_as_dense=dense)
        table = keras.Variable(np.arange(20, dtype=np.float32).reshape(10, 2))
        ids = np.array_split(np.array([1, 1, 3, 7, 9]), distributed.size())[distributed.rank()]

        @tf.function
        def step(ids):
            optimizer.record_batch(tf.size(ids))
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.gather(table.value, ids) ** 2)
            gradient = tape.gradient(loss, table.value)
            assert isinstance(gradient, tf.IndexedSlices)
            optimizer.apply([gradient], [table])

        step(tf.constant(ids))
        return table.numpy()

    return {f"table.{dense}": train_step(dense) for dense in (False, True)}


def drift():
    """One rank changes a weight by itself; DriftCallback must say so on every rank."""

    class Meddle(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if distributed.rank() == 1 and batch == 9:
                self.model.item_bias.assign_add(tf.ones_like(self.model.item_bias) * 1e-3)

    try:
        # Before the callback that compares: `callbacks` comes after distributed.callbacks(), batches before epochs.
        train(Adam(1e-2), epochs=1, callbacks=[Meddle()])
    except distributed.DriftError as error:
        return {"message": np.array(str(error))}
    return {"message": np.array("no error")}


def metrics():
    """Evaluation shared by the ranks, and the logs."""
    from tfrec.data import strong_generalization
    from tfrec.evaluation import evaluate_full_ranking

    split = strong_generalization(load("synthetic", num_users=400, num_items=90, seed=1), 97, None)
    scores = np.random.default_rng(0).integers(0, 9, (97, split.train.shape[1])).astype(np.float32)
    report = evaluate_full_ranking(
        lambda rows, _: scores[rows], split.test_in, split.test_out,
        ["recall@20", "ndcg@50", "mrr@5", "coverage@2", "novelty@3", "gini@5"],
        train=split.train, block_users=10, details_at=10,
        ranks=distributed.everyone(),
    )  # fmt: skip
    found = {name: np.array(value) for name, value in report.metrics.items()}
    details = report.details
    assert details is not None
    lists = {f"shown@{k}": exposure.shown for k, exposure in details.exposure.items()}
    return {**found, **lists, "items": details.items, "users": details.users, "found": details.found}


def neumf():
    """NeuMF on on-device samples, whose last step leaves one rank with less: weights after two epochs."""
    found = {}
    for name, lazy, options in (
        ("dense", (), {}),
        ("lazy", ("user_embedding", "item_embedding"), {}),
        ("float16", ("user_embedding",), {"compression": "float16"}),
        ("accumulated", (), {"backward_passes_per_step": 2}),
    ):
        keras.utils.set_random_seed(5 + distributed.rank())
        sampler = PointwiseSampler(matrix(), 3_001, 4, ranks=distributed.everyone())
        model = NeuMF(USERS, ITEMS, mf_dim=8, layer_dims=(16, 8), dropout=0.0, embedding_l2=0.01)
        model.compile(Adam(1e-2, lazy=bool(lazy)), sampler=sampler.batch, lazy_tables=lazy, steps_per_execution=4)
        distributed.distribute(model, **options)
        history = model.fit(
            sampler.steps(), epochs=2, shuffle=False, verbose=0, callbacks=distributed.callbacks()
        ).history
        found |= {f"{name}.{i}": w for i, w in enumerate(model.get_weights())}
        found[f"{name}.loss"] = np.array(history["loss"])
    return found


def shared_rows():
    """Lazy tables of which every rank has every row in every step: the weights' bits on each rank."""
    keras.utils.set_random_seed(5)
    sampler = PointwiseSampler(matrix(), 6_001, 4, ranks=distributed.everyone())
    model = NeuMF(USERS, ITEMS, mf_dim=8, layer_dims=(16, 8), dropout=0.0)
    tables = ("user_embedding", "item_embedding")

    def batch(step):
        users, items = sampler.batch(step)
        # Ranks reach the exchange one after another, another one last in each step.
        late = (tf.cast(step, tf.int32) + distributed.rank()) % distributed.size()
        tf.py_function(lambda n: time.sleep(0.005 * int(n)), [late], [])
        return users, items

    model.compile(Adam(1e-2, lazy=True), sampler=batch, lazy_tables=tables)
    distributed.distribute(model)
    model.fit(sampler.steps(), epochs=2, shuffle=False, verbose=0, callbacks=distributed.callbacks())
    weights = model.get_weights()
    seen = distributed.exchange([digest(w) for w in weights])
    return {"digests": np.array(seen)} | {f"weight.{i}": w for i, w in enumerate(weights)}


def tensor_train():
    """NeuMF with tensor-train tables, and a layer that updates itself: weights after some epochs."""
    found = {}
    keras.utils.set_random_seed(5 + distributed.rank())
    sampler = PointwiseSampler(matrix(), 3_001, 4, ranks=distributed.everyone())
    model = NeuMF(USERS, ITEMS, 8, (16, 8), dropout=0.0, user_embedding="tt", item_embedding="tt", embedding_ranks=4)
    model.compile(Adam(1e-2), sampler=sampler.batch)
    distributed.distribute(model)
    model.fit(sampler.steps(), epochs=2, shuffle=False, verbose=0, callbacks=distributed.callbacks())
    found |= {f"neumf.{i}": w for i, w in enumerate(model.get_weights())}
    random = np.random.default_rng(0)
    ids, labels = random.integers(ITEMS, size=(2, 32, 2)), random.normal(size=(2, 32, 1))
    # Of each batch of 32 the first rank has 20, and the last what is left.
    cuts = [0, 20, 32] if distributed.size() == 2 else [0, 32]
    mine = (slice(None), slice(*cuts[distributed.rank() : distributed.rank() + 2]))
    batches = tf.data.Dataset.from_tensor_slices((ids[mine], labels[mine]))
    for name in ("sgd", "adagrad", "adam"):
        keras.utils.set_random_seed(5 + distributed.rank())
        table = TTEmbedding(ITEMS, 8, 4, fused_optimizer=name, fused_learning_rate=0.02)
        model = keras.Sequential(
            [keras.Input((2,), dtype="int64"), table, keras.layers.Flatten(), keras.layers.Dense(1)]
        )
        model.compile(keras.optimizers.SGD(0.02), "mse")
        distributed.distribute(model)
        model.fit(batches, epochs=5, shuffle=False, verbose=0, callbacks=distributed.callbacks())
        found |= {f"{name}.{i}": w for i, w in enumerate(model.get_weights())}
    return found


def neumf_overflow():
    """mixed_float16 with sparse gradients, and an infinite weight on the last rank in the third step."""
    keras.config.set_dtype_policy("mixed_float16")
    keras.utils.set_random_seed(5)
    sampler = PointwiseSampler(matrix(), 3_001, 4, ranks=distributed.everyone())
    model = NeuMF(USERS, ITEMS, mf_dim=8, layer_dims=(16, 8), dropout=0.0)
    tables = ("user_embedding", "item_embedding")

    def batch(step):
        users, items = sampler.batch(step)
        return users, items

    real = model.loss_and_gradients

    def poisoned(users, items, labels=None, weights=None):
        loss, gradients = real(users, items, labels, weights)
        bad = tf.equal(tf.convert_to_tensor(model.steps), 2) & tf.constant(distributed.rank() == distributed.size() - 1)
        factor = tf.where(bad, tf.constant(np.inf, tf.float32), 1.0)
        first = tf.IndexedSlices(gradients[0].values * factor, gradients[0].indices, gradients[0].dense_shape)
        return loss, [first, *gradients[1:]]

    model.loss_and_gradients = poisoned
    model.compile(Adam(1e-2, lazy=True), sampler=batch, lazy_tables=tables)
    distributed.distribute(model)
    model.fit(sampler.steps(), epochs=1, shuffle=False, verbose=0, callbacks=distributed.callbacks())
    mine = [model.optimizer.iterations.numpy(), model.optimizer.dynamic_scale.numpy(), sampler.steps_per_epoch]
    return {
        "state": distributed.gather_across_ranks(np.array(mine, np.float64)),
        "finite": distributed.gather_across_ranks(np.array(all(np.isfinite(w).all() for w in model.get_weights()))),
    }


def _plays():
    """Long and short rows, an empty one, and dislikes."""
    random = np.random.default_rng(3)
    plays = scipy.sparse.random(301, 120, 0.08, format="lil", random_state=random, dtype=np.float32)
    plays[17] = random.random(120) + 0.5
    plays[40] = 0
    plays = scipy.sparse.csr_matrix(plays)
    plays.data *= np.where(random.random(plays.nnz) < 0.1, -3, 3).astype(np.float32)
    return plays


def als():
    """Factors and loss after a few iterations, each side solved by all ranks together."""
    found = {}
    for solver in ("cg", "cholesky", "block"):
        for kind in ("float32", "float16"):
            model = ALS(
                12, 0.5, iterations=3, solver=solver, block_size=5, factor_dtype=kind, seed=2, frequency_exponent=0.5
            )
            history = model.fit(_plays(), verbose=0, calculate_training_loss=True, ranks=distributed.everyone())
            name = f"{kind}.{solver}"
            found |= {f"{name}.users": model.user_factors, f"{name}.items": model.item_factors}
            found[f"{name}.loss"] = np.array(history.history["loss"])
    return found


def als_failure():
    """A value that one rank alone cannot solve for stops both."""
    plays = _plays()
    model = ALS(12, 1e-13, iterations=3, factor_dtype="float16", unobserved_weight=0.0, solver="cholesky")
    model.prepare(*plays.shape)
    items = np.full((120, 12), 0.1, np.float16)
    items[plays[300].indices] = 6e-8
    model.items.table.assign(items)
    try:
        model.fit(plays, verbose=0, ranks=distributed.everyone())
    except InputError as error:
        seen = float("not finite" in str(error))
    else:
        seen = 0.0
    return {"seen": distributed.gather_across_ranks(np.array([seen]))}


def _dense(*layers, metrics=(), lr=0.1):
    model = keras.Sequential(list(layers))
    model.compile(keras.optimizers.SGD(lr), loss="mse", metrics=list(metrics))
    return distributed.distribute(model)


def together():
    """Models and calls in which ranks easily part, one after another."""
    rank = distributed.rank()
    random = np.random.default_rng(rank)
    found = {}
    # Fits with other batch sizes: rank 1 traces its step anew in the second, and no rank in the third.
    hvd = distributed.ranks.horovod()
    model = _dense(keras.Input((4,)), keras.layers.Dense(1))
    batches = lambda n: tf.data.Dataset.from_tensor_slices(  # noqa: E731
        (np.ones((n, 4), np.float32) * (rank + 1), np.ones((n, 1), np.float32))
    ).batch(10)
    model.fit(batches(100), verbose=0)
    calls = []
    for name in ("second", "third"):
        if rank == 0:
            hvd.start_timeline(f"{sys.argv[2]}.{name}")
        distributed.exchange(None)
        model.fit(batches(95 if rank else 100), verbose=0)
        distributed.exchange(None)
        if rank == 0:
            hvd.stop_timeline()
            text = Path(f"{sys.argv[2]}.{name}").read_text()
            calls.append(len(re.findall(r'"name": "(?:ALLREDUCE|ALLGATHER|BROADCAST)"', text)))
    found["calls"] = np.array(calls)
    # Validation: 10 samples with an error of 0 and 30 with an error of 1.
    model = _dense(keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros"), lr=0.0)
    one = np.ones((10, 1), np.float32)
    some = np.ones((30 if rank else 10, 1), np.float32)
    history = model.fit(one, 0 * one, validation_data=(some, rank * some), verbose=0).history
    found["val_loss"] = np.array(history["val_loss"])
    # Moving statistics, of a model whose weights come to be in its first step.
    keras.utils.set_random_seed(rank)
    model = _dense(keras.layers.BatchNormalization(momentum=0.0), keras.layers.Dense(1), lr=0.0)
    x = np.full((30 if rank else 10, 2), float(rank), np.float32)
    model.fit(x, x[:, :1], batch_size=len(x), verbose=0)
    found["moving_mean"] = distributed.gather_across_ranks(model.layers[0].moving_mean.numpy())
    found["kernel"] = distributed.gather_across_ranks(model.layers[1].kernel.numpy())
    # A loop of one's own without broadcast: other weights on each rank.
    keras.utils.set_random_seed(rank)
    model = _dense(keras.Input((2,)), keras.layers.Dense(1))
    try:
        model.train_on_batch(x[:5], x[:5, :1])
        first = distributed.gather_across_ranks(model.layers[0].kernel.numpy())
        found["own_loop"] = np.array(str((first[0] == first[1]).all()))
    except InputError as error:
        found["own_loop"] = np.array(str(error))
    keras.utils.set_random_seed(rank)
    kernel = keras.Variable(np.full((2, 1), float(rank), np.float32))
    optimizer = distributed.DistributedOptimizer(keras.optimizers.SGD(0.1))
    try:
        optimizer.apply([tf.ones((2, 1))], [kernel])
        found["by_hand"] = np.array("no error")
    except InputError as error:
        found["by_hand"] = np.array(str(error))
    # One cache, though each rank looks up its own rows.
    keras.utils.set_random_seed(rank)
    layer = CachedTTEmbedding(60, 8, 4, cache_size=6)
    model = _dense(keras.Input((3,), dtype="int32"), layer, keras.layers.GlobalAveragePooling1D())
    ids = random.integers(30 * rank, 30 * rank + 30, (40, 3)).astype(np.int32)
    target = np.ones((40, 8), np.float32)
    for _ in range(2):
        model.fit(ids, target, batch_size=20, verbose=0)
        layer.cache_populate()
    model.fit(ids, target, batch_size=20, verbose=0)
    found["cache_ids"] = distributed.gather_across_ranks(layer.cache_ids.numpy())
    found["cache_rows"] = distributed.gather_across_ranks(layer.cache_rows.numpy())
    found["cache_counts"] = distributed.gather_across_ranks(layer.counts.numpy())
    return found


def uneven():
    """Six batches on one rank and five on the other: every rank ends with a message."""
    x = np.ones((60 - 10 * distributed.rank(), 4), np.float32)
    model = _dense(keras.Input((4,)), keras.layers.Dense(1))
    seen = []
    for data in (
        x,
        tf.data.Dataset.from_generator(  # the number of steps known, and unknown
            lambda: ((b, b[:, :1]) for b in np.split(x, len(x) // 10)),
            output_signature=(tf.TensorSpec((None, 4)), tf.TensorSpec((None, 1))),
        ),
    ):
        try:
            model.fit(data, *([x[:, :1]] if data is x else []), batch_size=10 if data is x else None, verbose=0)
            seen.append("no error")
        except Exception as error:
            seen.append(str(distributed.ranks.meaning(error)))
    return {"messages": np.array([m for both in distributed.exchange(seen) for m in both])}


if __name__ == "__main__":
    os.environ["HOROVOD_TIMELINE"] = "DYNAMIC"  # may be started later
    distributed.init()
    result = globals()[sys.argv[1]]()
    if distributed.rank() == 0:
        np.savez(sys.argv[2], **result)
