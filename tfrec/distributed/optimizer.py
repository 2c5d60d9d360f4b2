"""Any Keras 3 optimizer, applied to the gradient of the union of all ranks' batches.

Horovod's own Keras wrapper hooks methods that Keras 3 never calls: training seems to work, and every rank trains
alone. Here the reduction is in ``Optimizer.apply``, which every path through Keras 3 ends in.

Order of things in one step: scale the loss (mixed_float16), gradients, **sum over ranks weighted by samples**, check
for overflow, unscale, clip, update. The reduction comes before the check, so an overflow on one rank reaches all of
them and all skip the step; were it after, that rank would leave the others waiting forever.

**The same collectives on every rank, whatever it traces.** TensorFlow treats Horovod's operations as pure functions:
one with a constant input is computed once, while the graph is made, and not in the steps. A rank that traces again
would then wait for one that does not. So no input of a collective is constant: it depends on a variable (`_nothing`).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tfrec.distributed import ranks
from tfrec.distributed.row_exchange import send_to_owners
from tfrec.distributed.shard_steps import ShardSteps, all_finite
from tfrec.distributed.sharding import Shard, shard_of
from tfrec.distributed.sparse_sum import sum_in_rank_order
from tfrec.errors import InputError
from tfrec.optimizers.distinct_rows import with_distinct_rows

#: A tf.Tensor, a tf.IndexedSlices, or None for a variable without influence on the loss.
Gradient: TypeAlias = Any
Compression = Literal["none", "float16"]


#: Where ranks that share a table's rows meet before they validate or predict.
_TEST = ranks.place("at a step of validation or prediction")


class _Distributed:
    """What `DistributedOptimizer` adds in front of an optimizer class."""

    def distribute_over_ranks(
        self, compression: Compression, sparse_as_dense: bool, backward_passes_per_step: int
    ) -> None:
        self._compression = compression
        self._sparse_as_dense = sparse_as_dense
        self._passes = backward_passes_per_step
        self._batch: tf.Tensor | None = None
        #: Computed when the ranks have met for the step under way; what the step exchanges waits for it.
        self._begun: tf.Tensor | None = None
        #: Whether the model has tables of which each rank holds a part, so that each of its steps is an exchange.
        self._exchanges_rows = False
        self._accumulators: list[tf.Variable] | None = None
        #: Whether all ranks are known to have the same weights.
        self._same_weights = ranks.size() == 1
        with tf.init_scope():
            # Plain TensorFlow variables: they are no state of the optimizer that a checkpoint should hold.
            self._epoch_samples = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._epoch_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._validation_samples = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._nothing = tf.Variable(0.0, trainable=False)
            self._compared = tf.Variable(False, trainable=False)
            self._pass = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._accumulated_samples = tf.Variable(0.0, trainable=False)

    def __setattr__(self, name: str, value: Any) -> None:
        # LossScaleOptimizer clears this of the optimizer it wraps; nothing else sets it once we are set up.
        if name == "loss_scale_factor" and hasattr(self, "_passes"):
            raise InputError(
                "DistributedOptimizer is being put inside LossScaleOptimizer, where an overflow on one rank would "
                "leave the others waiting forever. (`compile` does this for a mixed_float16 model.)\n"
                "Wrap it the other way round: DistributedOptimizer(keras.optimizers.LossScaleOptimizer(optimizer)); "
                "or compile with the plain optimizer, then call tfrec.distributed.distribute(model)."
            )
        super().__setattr__(name, value)

    def record_batch(self, samples: tf.Tensor) -> None:
        """Say how many samples the gradients of this step are the mean of; called before they are computed.

        The ranks exchange their numbers here, so that the sum is there when the gradients are.
        """
        samples = tf.convert_to_tensor(samples)
        # Not before there is a batch: with a static batch size nothing here would wait for the input pipeline.
        with tf.control_dependencies([samples]):
            self._epoch_samples.assign_add(tf.cast(samples, tf.int64))
            self._epoch_steps.assign_add(1)
            count = tf.cast(samples, tf.float32)
            # Several passes make one update; but each of them fetches rows.
            total = self._total(count) if self._passes == 1 or self._exchanges_rows else count
            self._batch = self._begun = tf.stack([count, total])

    def record_test(self, samples: tf.Tensor) -> None:
        """Say that a step of validation or prediction begins, of so many samples."""
        if self._exchanges_rows and ranks.size() > 1:
            samples = tf.cast(samples, tf.float32) + self._nothing.read_value()
            self._begun = self._meet(_TEST, samples)[:, 1]

    def begun(self) -> tf.Tensor | None:
        """What the exchanges of the step under way wait for: that all ranks have come to it."""
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        own = getattr(self._begun, "graph", None) if graph is not None else None
        while graph is not None and graph is not own:
            graph = getattr(graph, "outer_graph", None)
        return None if graph is None else self._begun

    def check_finite(self, grads: Sequence[Gradient]) -> tf.Tensor:
        """Whether all gradients are finite, asked by `keras.optimizers.LossScaleOptimizer`; the same on all ranks."""
        return all_finite(grads, self._trainable_variables)  # type: ignore[attr-defined]

    def apply(self, grads: Sequence[Gradient], trainable_variables: Sequence[Any] | None = None) -> None:
        """Reduce over ranks, then apply as the optimizer does."""
        if not self.built:  # type: ignore[attr-defined]
            assert trainable_variables is not None
            self.build(trainable_variables)  # type: ignore[attr-defined]
        if self._same_weights:
            self._apply(grads, trainable_variables)
            return
        # One after another: after the step's meeting, and before anything that goes over the wire in the update.
        with tf.control_dependencies([] if self._batch is None else [self._batch]):
            same = self._compare_weights()
        with tf.control_dependencies([same]):
            self._apply([None if g is None else _same(g) for g in grads], trainable_variables)

    def _apply(self, grads: Sequence[Gradient], trainable_variables: Sequence[Any] | None) -> None:
        if self._passes > 1:
            self._accumulate(list(grads), trainable_variables)
            return
        if ranks.size() > 1:
            if self._batch is None:
                # Samples are not counted, so all ranks count alike.
                self.record_batch(tf.constant(1))
            share = self.share()
            self._batch = None
            grads = self._reduce(list(grads), share, self._shards(trainable_variables))
        super().apply(grads, trainable_variables)  # type: ignore[misc]

    def share(self) -> tf.Tensor:
        """This rank's part of the samples of the step under way, float32; equal parts where none were recorded."""
        if self._batch is None:
            return 1.0 / ranks.size() + self._nothing.read_value()
        return tf.math.divide_no_nan(self._batch[0], self._batch[1])

    def _total(self, samples: tf.Tensor) -> tf.Tensor:
        """The sum over the ranks, float32, after all have said that they make this step too."""
        if ranks.size() == 1:
            return samples
        rows = self._meet(ranks.STEP, samples + self._nothing.read_value())
        return tf.cast(tf.reduce_sum(rows[:, 1]), tf.float32)

    def _meet(self, place: int, samples: tf.Tensor) -> tf.Tensor:
        """What `ranks.meet` gives, once it is known that all ranks are at ``place``."""
        rows = ranks.meet(place, samples, self._epoch_steps.read_value())
        together = tf.reduce_all(tf.equal(rows[:, 0], tf.constant(place, tf.float64)))
        if tf.executing_eagerly():
            if not together:
                self._raise_apart(rows.numpy())
        else:
            checked = tf.cond(
                together, lambda: tf.constant(True), lambda: tf.numpy_function(self._raise_apart, [rows], tf.bool)
            )
            with tf.control_dependencies([checked]):
                rows = tf.identity(rows)
        return rows

    def _shards(self, variables: Sequence[Any] | None) -> list[Shard | None]:
        """The part of a table that each variable holds, or None."""
        known = variables if variables is not None else self._trainable_variables  # type: ignore[attr-defined]
        return [shard_of(v) for v in known]

    def _raise_apart(self, rows: np.ndarray) -> np.ndarray:
        raise ranks.apart(rows)

    def _compare_weights(self) -> tf.Tensor:
        """Raise unless all ranks begin with the same weights; asked once, before the first update. Returns True."""
        variables = [v for v in self._trainable_variables if shard_of(v) is None]  # type: ignore[attr-defined]
        paths = [v.path for v in variables]

        def compare(*values: np.ndarray) -> np.ndarray:
            ranks.agree(
                {path: digest(value) for path, value in zip(paths, values, strict=True)},
                "The ranks begin with different weights (shown as checksums)",
                "Call tfrec.distributed.broadcast_state(model.variables) on every rank before the first step; or "
                "train with fit after tfrec.distributed.distribute(model), which does it.",
            )
            return np.array(True)

        if tf.executing_eagerly():
            compare(*(np.asarray(v.value) for v in variables))
            self.weights_are_the_same()
            return tf.constant(True)
        done = tf.cond(
            self._compared.read_value(),
            lambda: tf.constant(True),
            lambda: tf.numpy_function(compare, [tf.convert_to_tensor(v.value) for v in variables], tf.bool),
        )
        self._compared.assign(done)
        return done

    def weights_are_the_same(self) -> None:
        """Say that all ranks have the same weights, so that they need not be compared."""
        self._same_weights = True
        self._compared.assign(True)

    def _accumulate(self, grads: list[Gradient], variables: Sequence[Any] | None) -> None:
        """Add this pass's gradients, and update with the mean over all samples every so many passes."""
        if self._batch is None:
            self.record_batch(tf.constant(1))
        assert self._batch is not None
        samples = self._batch[0]
        self._batch = None
        present = [i for i, g in enumerate(grads) if g is not None]
        shards = self._shards(variables)
        if self._accumulators is None:
            with tf.init_scope():
                known = variables if variables is not None else self._trainable_variables  # type: ignore[attr-defined]
                self._accumulators = [tf.Variable(tf.zeros(known[i].shape), trainable=False) for i in present]
        for accumulator, i in zip(self._accumulators, present, strict=True):
            shard = shards[i]
            if shard is not None and ranks.size() > 1:
                # Each pass has other rows, so the owners add them up.
                accumulator.scatter_add(self._at_owners(i, grads[i], samples, shard))
            else:
                accumulator.assign_add(tf.math.multiply_no_nan(_dense(grads[i]), samples))
        self._accumulated_samples.assign_add(samples)
        self._pass.assign_add(1)
        structure: list[Gradient] = [None] * len(grads)

        def update() -> tf.Tensor:
            share = tf.math.divide_no_nan(1.0, self._total(self._accumulated_samples.read_value()))
            assert self._accumulators is not None
            for accumulator, i in zip(self._accumulators, present, strict=True):
                structure[i] = accumulator.read_value()
            none = [None] * len(grads)
            of_ranks = [None if shards[i] is not None else g for i, g in enumerate(structure)]
            reduced = self._reduce(of_ranks, share, none)
            for i in present:
                if shards[i] is not None:
                    reduced[i] = tf.math.multiply_no_nan(structure[i], share)
            super(_Distributed, self).apply(reduced, variables)  # type: ignore[misc]
            for variable in (*self._accumulators, self._accumulated_samples):
                variable.assign(tf.zeros_like(variable))
            return tf.constant(True)

        tf.cond(tf.equal(self._pass % self._passes, 0), update, lambda: tf.constant(False))

    def _reduce(self, grads: list[Gradient], share: tf.Tensor, shards: Sequence[Shard | None]) -> list[Gradient]:
        """Sum over ranks of ``share * gradient``. A rank without samples has share 0 and counts for nothing."""
        reduced = list(grads)
        dense: list[int] = []
        sparse: list[int] = []
        for i, (gradient, shard) in enumerate(zip(grads, shards, strict=True)):
            if gradient is None:
                continue
            if shard is not None:
                reduced[i] = self._at_owners(i, gradient, share, shard)
            elif isinstance(gradient, tf.IndexedSlices) and not self._sparse_as_dense:
                reduced[i] = self._times(gradient, share)
                sparse.append(i)
            else:
                tensor = _dense(gradient)
                reduced[i] = tf.math.multiply_no_nan(tensor, tf.cast(share, tensor.dtype))
                dense.append(i)
        for i, tensor in zip(dense, self._sum_all([reduced[i] for i in dense]), strict=True):
            reduced[i] = tensor
        for i, rows in zip(sparse, self._sum_rows({i: reduced[i] for i in sparse}), strict=True):
            reduced[i] = rows
        return reduced

    def _times(self, gradient: tf.IndexedSlices, factor: tf.Tensor) -> tf.IndexedSlices:
        """``factor * gradient``, in which a row that occurs several times is one: it travels once."""
        values = tf.math.multiply_no_nan(gradient.values, tf.cast(factor, gradient.dtype))
        # Not before all ranks have met for this step, and never constant.
        with tf.control_dependencies([factor]):
            indices = gradient.indices + tf.cast(self._nothing.read_value(), gradient.indices.dtype)
        return with_distinct_rows(tf.IndexedSlices(values, indices, gradient.dense_shape))

    def _at_owners(self, i: int, gradient: Gradient, factor: tf.Tensor, shard: Shard) -> tf.IndexedSlices:
        """Sum over ranks of ``factor * gradient`` of variable i, of which this rank gets the rows that it holds."""
        if not isinstance(gradient, tf.IndexedSlices):
            raise InputError(
                "The gradient of a table that is shared among ranks must be rows (tf.IndexedSlices) by their ids.\n"
                f"Received: a {type(gradient).__name__} for variable {i}, of {shard.rows} rows.\n"
                "Read the table through the layer's call or `rows`, not as a whole."
            )
        mine = self._times(gradient, factor)
        return send_to_owners(mine, shard, self._wire(mine.values), f"gradient.{i}")

    def _sum_rows(self, gradients: dict[int, tf.IndexedSlices]) -> list[tf.IndexedSlices]:
        """Sparse gradients summed over the ranks: a row that several ranks have is one row with the sum, as it would be
        on one rank."""
        if not gradients:
            return []
        # The bounds of the ranks' parts are read on the host, and travel between hosts.
        with tf.device("CPU:0"):
            mine = tf.stack([tf.shape(g.indices, tf.int64)[0] for g in gradients.values()])
            counts = _gather(mine[None], "rows")
        found = []
        for k, (i, g) in enumerate(gradients.items()):
            values = _gather(tf.cast(g.values, self._wire(g.values)), f"values.{i}")
            indices = _gather(g.indices, f"indices.{i}")
            rows, total = sum_in_rank_order(indices, tf.cast(values, g.dtype), counts[:, k], ranks.size())
            found.append(tf.IndexedSlices(total, rows, g.dense_shape))
        return found

    def _wire(self, tensor: Any) -> tf.DType:
        """The type in which a tensor travels. Horovod has no bfloat16."""
        if self._compression == "float16":
            return tf.float16
        return tf.float32 if tensor.dtype == tf.bfloat16 else tensor.dtype

    def _sum_all(self, tensors: list[Any]) -> list[Any]:
        hvd = ranks.horovod()
        if hvd is None or not tensors:
            return tensors
        wires = [self._wire(t) for t in tensors]
        # One group: one negotiation, and small tensors travel together.
        summed = hvd.grouped_allreduce(
            [tf.cast(t, wire) for t, wire in zip(tensors, wires, strict=True)], op=hvd.Sum, name="tfrec.gradients"
        )
        return [tf.cast(s, t.dtype) for s, t in zip(summed, tensors, strict=True)]


def DistributedOptimizer(
    optimizer: keras.optimizers.Optimizer,
    *,
    compression: Compression = "none",
    sparse_as_dense: bool = False,
    backward_passes_per_step: int = 1,
) -> keras.optimizers.Optimizer:
    """An optimizer like ``optimizer`` that updates with the gradient of the union of all ranks' batches.

    Gradients are averaged by sample: ranks with n_r samples give ``sum of n_r g_r / sum of n_r``. The counts come
    from `distribute` or from `BroadcastCallback`; in a training loop of your own call
    ``optimizer.record_batch(n)`` before ``apply_gradients``, or the ranks count equally.

    Clipping (``clipnorm``, ``global_clipnorm``, ``clipvalue``) happens after the reduction. Saved with a model it is
    the plain optimizer; on one process it does what ``optimizer`` does.

    Args:
        optimizer: any Keras 3 optimizer that was not used yet. Under the global policy ``mixed_float16`` it is put
            into a `keras.optimizers.LossScaleOptimizer` first, as Keras would. (For a model with a policy of its
            own use `distribute` after ``compile``.)
        compression: ``float16`` sends gradients in half the bytes.
        sparse_as_dense: sum `tf.IndexedSlices` as dense tensors, for tables most of whose rows occur in each step;
            otherwise rows and indices are gathered from all ranks.
        backward_passes_per_step: update every so many calls, with the mean over all samples since the last update.

    Raises:
        InputError: an optimizer that was built already, or an argument out of range.

    Example:
        >>> optimizer = DistributedOptimizer(keras.optimizers.SGD(0.1), compression="float16")
        >>> isinstance(optimizer, keras.optimizers.SGD)
        True
    """
    if compression not in ("none", "float16"):
        raise InputError(f"`compression` must be 'none' or 'float16'.\nReceived: {compression!r}.")
    if backward_passes_per_step < 1:
        raise InputError(f"`backward_passes_per_step` must be at least 1.\nReceived: {backward_passes_per_step}.")
    if isinstance(optimizer, _Distributed):
        raise InputError("The optimizer must not be distributed yet.\nWrap it once.")
    if optimizer.built:
        raise InputError(
            "The optimizer must have no state yet, as that would be lost.\n"
            "Wrap it before the first step: DistributedOptimizer(keras.optimizers.Adam(...))."
        )
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if not scales and keras.config.dtype_policy().name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    base = type(optimizer)
    # Under its own name: a saved model then names the plain optimizer, which every process can load.
    made: Any = type(
        base.__name__,
        (_Distributed, ShardSteps, base),
        {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__},
    )
    distributed = made.from_config(optimizer.get_config())
    if scales or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = distributed.inner_optimizer
        kind = type(inner)
        with_shards: Any = type(
            kind.__name__,
            (ShardSteps, kind),
            {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__},
        )
        distributed.inner_optimizer = with_shards.from_config(inner.get_config())
    distributed.distribute_over_ranks(compression, sparse_as_dense, backward_passes_per_step)
    return distributed


def is_distributed(optimizer: Any) -> bool:
    """Whether ``optimizer`` came from `DistributedOptimizer`."""
    return isinstance(optimizer, _Distributed)


def distribute(
    model: keras.Model,
    *,
    compression: Compression = "none",
    sparse_as_dense: bool = False,
    backward_passes_per_step: int = 1,
) -> keras.Model:
    """Make a compiled model train on the union of all ranks' batches. Call between ``compile`` and ``fit``.

    Replaces the model's optimizer by `DistributedOptimizer` of it (around Keras's loss scaling, if any) and has
    ``train_step`` report batch sizes to it. A layer that updates itself (``fused_optimizer``) averages its gradients
    by sample over the ranks first.

    Args:
        model: compiled and not trained yet.
        compression: see `DistributedOptimizer`.
        sparse_as_dense: see `DistributedOptimizer`.
        backward_passes_per_step: see `DistributedOptimizer`.

    Returns:
        ``model``.

    Raises:
        InputError: the model is not compiled, its optimizer cannot be wrapped, or gradients are to be added up over
            batches while a layer updates itself in each.
    """
    if not model.compiled:
        raise InputError("The model must be compiled before it is distributed.\nCall model.compile(...) first.")
    fused = [layer for layer in model._flatten_layers() if getattr(layer, "fused_optimizer", None) is not None]
    if fused and backward_passes_per_step > 1:
        raise InputError(
            "A layer with `fused_optimizer` updates itself in each batch; its gradients cannot be added up.\n"
            f"Received: backward_passes_per_step={backward_passes_per_step}, layer {fused[0].name}.\n"
            "Leave `fused_optimizer` out, or take one pass per step."
        )
    model.optimizer = DistributedOptimizer(
        model.optimizer,
        compression=compression,
        sparse_as_dense=sparse_as_dense,
        backward_passes_per_step=backward_passes_per_step,
    )
    attach(model)
    if ranks.size() > 1:
        # Imported here, since callbacks are made of what is in this module.
        from tfrec.distributed.callbacks import with_callbacks

        model.fit = with_callbacks(model)
    return model


def attach(model: keras.Model) -> None:
    """Connect a model to its distributed optimizer, before its training function is traced.

    ``train_step`` tells it the batch sizes, and sends rank 0's weights where the first step makes them; ``test_step``
    counts samples; layers that update themselves, or that choose a cache, do so together with the other ranks; an error
    of a step names the rank at fault.
    """
    optimizer = model.optimizer
    if getattr(model, "_tfrec_attached", None) is optimizer:
        return
    for layer in model._flatten_layers():
        if getattr(layer, "fused_optimizer", None) is not None:
            layer.reduce_gradients = functools.partial(_mean, optimizer, layer.path)
        if hasattr(layer, "exchange_with"):
            layer.exchange_with(ranks.sum_across_ranks, ranks.broadcast_from_zero)
    tables = [layer for layer in model._flatten_layers() if hasattr(layer, "exchange_name")]
    for i, layer in enumerate(tables):
        # By its place in the model: a rank may have made other models, after which Keras's names are others.
        layer.exchange_name, layer.begun = f"table.{i}", optimizer.begun
    optimizer._exchanges_rows = any(layer.shard is not None or not layer.built for layer in tables)
    if getattr(model, "_tfrec_attached", None) is None:
        _wrap(model)
    model._tfrec_attached = optimizer
    ranks.count_steps_with(lambda: float(optimizer._epoch_steps.numpy()))
    # Drop graphs that were traced from the old steps.
    model.train_function = model.test_function = model.predict_function = None


def detach(model: keras.Model) -> None:
    """Undo `attach` and `distribute` on a model that is not trained any more, so that its optimizer can be freed."""
    for name in _WRAPPED:
        if name in vars(model):
            delattr(model, name)
    for layer in model._flatten_layers():
        if hasattr(layer, "exchange_name"):
            layer.begun = None
    ranks.count_steps_with(None)


#: What `distribute` and `attach` set on a model.
_WRAPPED = ("_tfrec_attached", "fit", "train_step", "test_step", "predict_step", "make_train_function")


def _wrap(model: keras.Model) -> None:
    train, test, make = model.train_step, model.test_step, model.make_train_function
    predict = model.predict_step

    def train_step(data: Any) -> Any:
        optimizer = model.optimizer
        if not is_distributed(optimizer):
            return train(data)
        if not optimizer._same_weights:
            # While the first step is traced, and before it runs.
            with tf.init_scope():
                _build(model, data)
                send_state(model)
        optimizer.record_batch(_num_samples(data))
        return train(data)

    def test_step(data: Any) -> Any:
        if is_distributed(model.optimizer):
            samples = _num_samples(data)
            model.optimizer._validation_samples.assign_add(tf.cast(samples, tf.int64))
            model.optimizer.record_test(samples)
        return test(data)

    def predict_step(data: Any) -> Any:
        if is_distributed(model.optimizer):
            model.optimizer.record_test(_num_samples(data))
        return predict(data)

    def make_train_function(force: bool = False) -> Any:
        found = model.train_function
        made = make(force)
        if model.train_function is not None and (force or found is None):
            model.train_function = _explaining(model, model.train_function)
        return made

    model.train_step, model.test_step, model.predict_step = train_step, test_step, predict_step
    model.make_train_function = make_train_function


def _explaining(model: keras.Model, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``function``, whose errors that come from other ranks are marked as such."""

    def train_function(iterator: Any) -> Any:
        with ranks.watched():
            return function(iterator)

    return train_function


def _build(model: keras.Model, data: Any) -> None:
    """Make the weights of a model without `keras.Input`, from the shapes of a batch."""
    if model.weights and all(layer.built for layer in model._flatten_layers()):
        return
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data)

    def symbolic(leaf: Any) -> keras.KerasTensor:
        sparse = isinstance(leaf, tf.SparseTensor)
        return keras.KerasTensor(tuple(leaf.shape), dtype=leaf.dtype.name, sparse=sparse)

    try:
        model(keras.tree.map_structure(symbolic, x))
    except Exception as error:
        raise InputError(
            f"The weights of the model cannot be made before its first step: {error}\n"
            "Call the model on a batch before fit, on every rank."
        ) from error


def send_state(model: keras.Model) -> None:
    """Rank 0's weights and optimizer state on every rank. Every process must call it.

    Raises:
        SharedError: the weights have other names, shapes or types on some rank.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    variables = [*model.weights, *model.optimizer.variables]
    ranks.agree(
        {f"weight {i}": label for i, label in enumerate(labels(model, variables))},
        "The ranks have different models",
        "Make the model with the same settings on every rank.",
    )
    broadcast_state(variables)
    for layer in model._flatten_layers():
        if hasattr(layer, "exchange_with"):
            layer.agreed()
    model.optimizer.weights_are_the_same()


def broadcast_state(variables: Sequence[keras.Variable]) -> None:
    """Rank 0's values in every rank's variables, but for parts of tables, which are each rank's own. Every process must
    call it."""
    if ranks.size() > 1:
        for variable in (v for v in variables if shard_of(v) is None):
            variable.assign(ranks.broadcast_from_zero(np.asarray(variable.value)))


def labels(model: keras.Model, variables: Sequence[Any]) -> list[list[Any]]:
    """Name, shape and type of variables, without what Keras counts up with every model of a process."""
    weights = {id(w) for w in model.weights}

    def name(variable: Any) -> str:
        last: str = variable.path.split("/")[-1]
        # The optimizer's end in what they are: ..._momentum.
        return last if id(variable) in weights else last.rsplit("_", 1)[-1]

    return [[name(v), _shape(v), str(v.dtype)] for v in variables]


def _shape(variable: Any) -> list[Any]:
    """A variable's shape; of a part of a table that of the table."""
    shard = shard_of(variable)
    return list(variable.shape) if shard is None else ["in parts", shard.rows, *variable.shape[1:]]


def digest(value: Any) -> str:
    """A checksum of an array, to compare between ranks."""
    return hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8).hexdigest()


def _num_samples(data: Any) -> tf.Tensor:
    first = next(leaf for leaf in keras.tree.flatten(data) if leaf is not None)
    with tf.control_dependencies([first.values if isinstance(first, tf.SparseTensor) else first]):
        return tf.identity(_first_dimension(first))


def _first_dimension(first: Any) -> tf.Tensor:
    if isinstance(first, tf.SparseTensor):
        return first.dense_shape[0]
    if first.shape.rank == 0:
        # The samples are made in the step itself; the pipeline says how many there will be.
        return tf.cast(first, tf.int64)
    return tf.shape(first, out_type=tf.int64)[0]


def _mean(optimizer: Any, path: str, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Gradients of one layer, averaged over the ranks by sample."""
    share = optimizer.share()
    hvd = ranks.horovod()
    mine = [tf.math.multiply_no_nan(g, share) for g in gradients]
    return [g if hvd is None else hvd.allreduce(g, op=hvd.Sum, name=f"tfrec.{path}.{k}") for k, g in enumerate(mine)]


def _gather(value: tf.Tensor, name: str) -> tf.Tensor:
    hvd = ranks.horovod()
    return value if hvd is None else hvd.allgather(value, name=f"tfrec.{name}")


def _same(gradient: Gradient) -> Gradient:
    """``gradient``, after the control dependencies that are in force."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(tf.identity(gradient.values), tf.identity(gradient.indices), gradient.dense_shape)
    return tf.identity(gradient)


def _dense(gradient: Gradient) -> tf.Tensor:
    return tf.convert_to_tensor(gradient)
