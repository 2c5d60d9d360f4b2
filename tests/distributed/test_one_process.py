"""Without Horovod, on one process, everything is there and does what plain Keras does."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfrec import distributed
from tfrec.errors import InputError
from tfrec.layers import TTEmbedding


def make(optimizer, dtype=None):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    if dtype:
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(4, dtype=dtype), keras.layers.Dense(1, dtype=dtype)]
        )
    model.compile(optimizer, loss="mse")
    return model


@pytest.fixture
def data(random):
    return random.normal(size=(40, 3)).astype(np.float32), random.normal(size=(40, 1)).astype(np.float32)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD,
        keras.optimizers.Adam,
        keras.optimizers.Adagrad,
        keras.optimizers.RMSprop,
        keras.optimizers.AdamW,
        keras.optimizers.Lion,
        keras.optimizers.Ftrl,
    ],
)
def test_any_optimizer(data, optimizer):
    plain, distributed_model = make(optimizer(0.01)), make(optimizer(0.01))
    distributed.distribute(distributed_model)
    assert isinstance(distributed_model.optimizer, optimizer)
    for model in (plain, distributed_model):
        model.fit(*data, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(plain.get_weights(), distributed_model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_in_compile_with_the_callbacks(data):
    model = make(distributed.DistributedOptimizer(keras.optimizers.SGD(0.1)))
    history = model.fit(*data, epochs=2, verbose=0, callbacks=distributed.callbacks())
    assert len(history.history["loss"]) == 2


def test_accumulation_equals_the_large_batch(data):
    large, small = make(keras.optimizers.SGD(0.1)), make(keras.optimizers.SGD(0.1))
    distributed.distribute(small, backward_passes_per_step=4)
    large.fit(*data, batch_size=40, epochs=3, shuffle=False, verbose=0)
    small.fit(*data, batch_size=10, epochs=3, shuffle=False, verbose=0)
    assert int(small.optimizer.iterations) == 3
    for a, b in zip(large.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_saved_model_names_the_plain_optimizer(data, tmp_path):
    model = make(keras.optimizers.Adam(0.05))
    distributed.distribute(model)
    model.fit(*data, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is keras.optimizers.Adam
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)


def test_loss_scaling_stays_inside():
    model = make(keras.optimizers.Adam(), dtype="mixed_float16")
    keras.config.set_dtype_policy("mixed_float16")
    model = make(keras.optimizers.Adam())
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    distributed.distribute(model)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert distributed.is_distributed(model.optimizer)
    assert not distributed.is_distributed(model.optimizer.inner_optimizer)
    # Named in compile under the global policy, it scales by itself, and Keras does not wrap it again.
    model = make(distributed.DistributedOptimizer(keras.optimizers.Adam()))
    assert distributed.is_distributed(model.optimizer)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


def test_the_order_that_would_hang_is_refused():
    with pytest.raises(InputError, match="inside LossScaleOptimizer"):
        keras.optimizers.LossScaleOptimizer(distributed.DistributedOptimizer(keras.optimizers.Adam()))


def test_rejects(data):
    with pytest.raises(InputError, match="compiled before"):
        distributed.distribute(keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises(InputError, match="compression"):
        distributed.DistributedOptimizer(keras.optimizers.SGD(), compression="int8")
    with pytest.raises(InputError, match="backward_passes_per_step"):
        distributed.DistributedOptimizer(keras.optimizers.SGD(), backward_passes_per_step=0)
    once = distributed.DistributedOptimizer(keras.optimizers.SGD())
    with pytest.raises(InputError, match="must not be distributed yet"):
        distributed.DistributedOptimizer(once)
    model = make(keras.optimizers.SGD())
    model.fit(*data, verbose=0)
    with pytest.raises(InputError, match="must have no state yet"):
        distributed.distribute(model)


def test_arrays_on_one_process():
    assert (distributed.rank(), distributed.size(), distributed.local_rank()) == (0, 1, 0)
    assert distributed.sum_across_ranks(np.array([1, 2])).tolist() == [1, 2]
    assert distributed.gather_across_ranks(np.array([1, 2])).tolist() == [[1, 2]]
    assert distributed.broadcast_json({"a": [1]}) == {"a": [1]}


@pytest.mark.gpu
def test_local_rank_picks_the_gpu():
    distributed.init()
    assert len(tf.config.get_visible_devices("GPU")) >= 1


def test_a_layer_that_updates_itself_takes_one_pass_per_step():
    model = keras.Sequential([keras.Input((2,), dtype="int64"), TTEmbedding(50, 4, 2, fused_optimizer="sgd")])
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match="updates itself in each batch"):
        distributed.distribute(model, backward_passes_per_step=2)


def test_several_processes_without_horovod_are_told_how_to_install_it(monkeypatch, tmp_path):
    from tfrec.distributed import ranks

    monkeypatch.setitem(sys.modules, "horovod", None)
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", None)
    monkeypatch.setattr(ranks, "_hvd", None)
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    with pytest.raises(InputError, match=r"(?s)horovodrun started 2 processes, but Horovod .*/launch/setup, which"):
        ranks.init()
    monkeypatch.setattr(ranks, "__file__", str(tmp_path / "site-packages" / "tfrec" / "distributed" / "ranks.py"))
    with pytest.raises(InputError, match=r"launch/wheel --horovod in .*pip install dist/horovod-\*\.whl"):
        ranks.init()
    monkeypatch.setenv("HOROVOD_SIZE", "1")
    ranks.init()
    assert (ranks.rank(), ranks.size()) == (0, 1)
