"""What is averaged over passes and ranks, and by what, seen by one process that plays a rank among others."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfrec import distributed
from tfrec.distributed import ranks
from tfrec.errors import SharedError, TfrecWarning
from tfrec.optimizers import Adam


def linear(optimizer):
    """One weight, started at 0; its gradient for a sample (x, y) is -2 x y."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer, loss="mse")
    return model


def test_accumulated_passes_count_by_their_samples():
    """Batches of 4, 4 and 1 samples with an update for all three: as one batch of 9."""
    x = np.ones((9, 1), np.float32)
    y = np.array([[1], [1], [1], [1], [2], [2], [2], [2], [30]], np.float32)
    model = linear(keras.optimizers.SGD(0.5))
    distributed.distribute(model, backward_passes_per_step=3)
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 1
    np.testing.assert_allclose(model.get_weights()[0], [[y.mean()]], rtol=1e-6)


def test_epochs_logs_are_averaged_by_samples(monkeypatch):
    """This rank had 30 samples of loss 1, the other 10 of loss 3: 1.5 a sample, not 2."""
    model = linear(distributed.DistributedOptimizer(keras.optimizers.SGD(0.5)))
    callback = distributed.MetricAverageCallback()
    callback.set_model(model)
    callback.on_epoch_begin(0)
    model.optimizer.record_batch(tf.constant(20))
    model.optimizer.record_batch(tf.constant(10))
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "exchange", lambda mine, label: [mine, {"loss": (3.0, 10)}])
    logs = {"loss": 1.0}
    callback.on_epoch_end(0, logs)
    assert logs["loss"] == pytest.approx(1.5)


def test_gradients_count_by_a_ranks_share_of_the_samples(monkeypatch):
    """3 samples here, 9 on the other rank: a quarter. Without recorded batches the ranks count equally."""
    optimizer = distributed.DistributedOptimizer(keras.optimizers.SGD(1.0))
    monkeypatch.setattr(ranks, "size", lambda: 2)

    def meet(place, samples, step):
        return tf.constant([[place, float(samples), 1], [place, 9, 1]], tf.float64)

    monkeypatch.setattr(ranks, "meet", meet)
    assert float(optimizer.share()) == 0.5
    optimizer.record_batch(tf.constant(3))
    assert float(optimizer.share()) == pytest.approx(3 / 12)
    weight = keras.Variable([0.0])
    optimizer.build([weight])
    optimizer.apply([tf.constant([8.0])], [weight])
    np.testing.assert_allclose(weight.numpy(), [-8.0 / 4])


def test_the_first_rank_sends_weights_and_optimizer_state(monkeypatch):
    model = linear(distributed.DistributedOptimizer(Adam(0.1)))
    model.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=2, verbose=0)
    callback = distributed.BroadcastCallback()
    callback.set_model(model)
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "broadcast_from_zero", lambda values: np.full_like(values, 7))
    callback.on_train_begin()
    for variable in (*model.weights, *model.optimizer.variables):
        np.testing.assert_array_equal(variable.numpy(), np.full(variable.shape, 7), err_msg=variable.path)


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"clipvalue": 0.01}])
def test_the_settings_of_the_optimizer_stay(options):
    weights = []
    for wrap in (lambda o: o, distributed.DistributedOptimizer):
        model = linear(wrap(keras.optimizers.SGD(0.1, **options)))
        model.fit(np.ones((8, 1)), np.ones((8, 1)), epochs=3, batch_size=4, verbose=0)
        weights.append(model.get_weights()[0])
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-6)


def test_a_batch_script_of_several_tasks_warns(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "HOROVOD_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with pytest.warns(TfrecWarning, match=r"4 tasks(?s:.*)srun python -m tfrec\.slurm"):
        ranks._look_for_other_tasks()
    # One process was asked for.
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    ranks._look_for_other_tasks()
    # Independent runs: several processes, each of which was told that it is alone.
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(SharedError, match="set HOROVOD_SIZE=1"):
        ranks._look_for_other_tasks()
    monkeypatch.setenv("HOROVOD_SIZE", "1")
    ranks._look_for_other_tasks()
