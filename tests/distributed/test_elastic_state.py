"""Commits and the way back, in one process: a training that was thrown back is the training that was not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import starting
from tfrec import distributed
from tfrec.data.pipelines import user_batches
from tfrec.distributed import ElasticState, elastic, ranks
from tfrec.distributed.epoch_sums import add_sums
from tfrec.distributed.sharding import Shard, mark
from tfrec.errors import InputError, RankLostError, SharedError

STEPS, EPOCHS = 7, 3


def make():
    """Dropout has a seed, Adam has slots, and mixed_float16 a loss scale."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, dtype="mixed_float16"),
            keras.layers.Dropout(0.5, dtype="mixed_float16"),
            keras.layers.Dense(1, dtype="float32"),
        ]
    )
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), dynamic_growth_steps=4), loss="mse")
    return distributed.distribute(model)


def batches(epoch, step):
    """From a step on; the rows of a step depend on its number alone."""

    def rows(number):
        x = tf.random.stateless_normal((10, 4), seed=tf.stack([number, 5]))
        return x, tf.reduce_sum(x, 1, keepdims=True)

    return tf.data.Dataset.range(epoch * STEPS + step, EPOCHS * STEPS).map(rows)


class Lost(Exception):
    pass


class LoseAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise Lost


def fit(state, model, *callbacks):
    losses = {}
    history = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: losses.update({epoch: logs["loss"]}))
    options = {"epochs": EPOCHS, "steps_per_epoch": STEPS, "commit_every": 2, "shuffle": False, "verbose": 0}
    state.fit(model, batches, callbacks=[history, *callbacks], **options)
    return losses


@pytest.mark.parametrize(("lost", "step"), [(12, (1, 4)), (5, (0, 4)), (14, (1, 6)), (15, (2, 0)), (1, (0, 0))])
def test_thrown_back_to_the_last_commit(lost, step):
    undisturbed, state = make(), ElasticState()
    wanted = fit(ElasticState(), undisturbed)
    with pytest.raises(Lost):
        fit(state, make(), LoseAt(lost))
    assert (state.epoch, state.step) == step
    model = make()
    found = fit(state, model)
    for a, b in zip(model.get_weights(), undisturbed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.optimizer.variables, undisturbed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a.value), np.asarray(b.value))
    # The loss of an epoch that was begun before the loss counts all its batches.
    for epoch, loss in found.items():
        assert loss == pytest.approx(wanted[epoch], rel=1e-6)
    assert max(found) == EPOCHS - 1


def test_values_are_those_of_the_commit():
    model, state = make(), ElasticState(best=0.1)
    state.values["best"] = 0.4
    state.commit(model, 2, 3)
    state.values["best"] = 0.9
    assert state.restore(make())
    assert (state.epoch, state.step, state.values) == (2, 3, {"best": 0.4})
    state.clear()
    assert not state.restore(model)


def test_news_of_the_launcher_end_the_attempt_after_the_commit():
    model, state = make(), ElasticState()
    state.news = lambda: True
    with pytest.raises(elastic.RanksChanged):
        state.commit(model, 1)
    assert state.commits == 1
    assert state.epoch == 1


def test_another_model_is_refused():
    state = ElasticState()
    state.commit(make(), 1)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(9), keras.layers.Dense(1)])
    other.compile("sgd", loss="mse")
    with pytest.raises(InputError, match="not the one that was committed"):
        state.restore(distributed.distribute(other))


def test_rows_of_a_lost_rank_are_named(monkeypatch):
    model, state = make(), ElasticState()
    mark(model.layers[0].kernel, Shard(8, 0, 2))
    state.commit(model, 1)
    monkeypatch.setattr(ranks, "_elastic", True)
    with pytest.raises(InputError, match=r"kernel\) are in no commit"):
        state.restore(model)


@pytest.mark.parametrize("every", [0, -1])
def test_commits_come_every_so_many_steps(every):
    with pytest.raises(InputError, match="`every` must be at least 1"):
        distributed.CommitCallback(ElasticState(), every)


def test_sums_of_an_epoch():
    parts = [
        {"mean": [3.0, 2.0], "steps": [4.0], "samples": [20.0]},
        {"mean": [1.5, 1.0], "steps": [4.0], "samples": [10.0]},
    ]
    assert add_sums(parts) == {"mean": [4.5, 3.0], "steps": [4.0], "samples": [30.0]}
    assert add_sums([{}, {}]) == {}


def test_batches_from_a_step_on():
    whole = [b.numpy().tolist() for b in user_batches(20, 6, seed=2, epochs=2)]
    rest = user_batches(20, 6, seed=2, epochs=2, first_step=3)
    assert [b.numpy().tolist() for b in rest] == whole[3:]
    assert rest.cardinality() == 5
    with pytest.raises(InputError, match=r"`first_step` must lie in \[0, 4\)"):
        user_batches(20, 6, first_step=4)


def test_alone_it_is_the_function():
    assert elastic.run(lambda state: state.commits) == 0


def meeting(monkeypatch, rank, told):
    """What ``agree`` does on a rank that hears these (member, values) from all."""
    monkeypatch.setattr(ranks, "_hvd", object())
    monkeypatch.setattr(ranks, "exchange", lambda value, label="": told)
    monkeypatch.setattr(ranks, "rank", lambda: rank)
    monkeypatch.setattr(ranks, "_hosts", ["a", "b", "c"])
    ranks.agree({}, "The ranks differ", "Do this.")


@pytest.mark.parametrize(
    ("told", "raised"),
    [
        # Nobody has trained yet: all stop.
        ([(False, {"x": 1}), (False, {"x": 2}), (False, {"x": 1})], [SharedError] * 3),
        # One joins two that have: that one is refused, wherever it stands.
        ([(True, {"x": 1}), (False, {"x": 2}), (True, {"x": 1})], [RankLostError, InputError, RankLostError]),
        ([(False, {"x": 2}), (True, {"x": 1}), (True, {"x": 1})], [InputError, RankLostError, RankLostError]),
        # Two that have trained together never differ; if they do, all stop.
        ([(True, {"x": 1}), (True, {"x": 2}), (True, {"x": 1})], [SharedError] * 3),
        ([(True, {"x": 1}), (False, {"x": 1}), (True, {"x": 1})], [None] * 3),
    ],
)
def test_who_is_refused(monkeypatch, told, raised):
    for rank, kind in enumerate(raised):
        if kind is None:
            meeting(monkeypatch, rank, told)
            continue
        with pytest.raises(kind) as error:
            meeting(monkeypatch, rank, told)
        assert type(error.value) is kind
        if kind is not RankLostError:
            assert "x: " in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--elastic"], "`--elastic` must be started by horovodrun with a script that prints the hosts."),
        (["--commit-every", "0"], "`commit_every` must be at least 1.\nReceived: --commit-every 0."),
    ],
)
def test_wrong_starts(tmp_path, options, said):
    _, err = starting.run("train", "vae-cf", *starting.SMALL_DATA, *options, cwd=tmp_path, code=2)
    assert said in err
    assert not list(tmp_path.iterdir())
