"""Any Keras 3 optimizer, applied to the gradient of the union of all ranks' batches.

Horovod's own Keras wrapper hooks methods that Keras 3 never calls: training seems to work, and every rank trains
alone. Here the reduction is in ``Optimizer.apply``, which every path through Keras 3 ends in.

Order of things in one step: scale the loss (mixed_float16), gradients, **sum over ranks weighted by samples**, check
for overflow, unscale, clip, update. The reduction comes before the check, so an overflow on one rank reaches all of
them and all skip the step; were it after, that rank would leave the others waiting for ever.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

from tfrec.distributed import ranks
from tfrec.errors import InputError

#: A tf.Tensor, a tf.IndexedSlices, or None for a variable without influence on the loss.
Gradient: TypeAlias = Any
Compression = Literal["none", "float16"]


class _Distributed:
    """What `DistributedOptimizer` adds in front of an optimizer class."""

    def distribute_over_ranks(
        self, compression: Compression, sparse_as_dense: bool, backward_passes_per_step: int
    ) -> None:
        self._compression = compression
        self._sparse_as_dense = sparse_as_dense
        self._passes = backward_passes_per_step
        self._batch: tf.Tensor | None = None
        self._accumulators: list[tf.Variable] | None = None
        with tf.init_scope():
            # Plain TensorFlow variables: they are no state of the optimizer that a checkpoint should hold.
            self._epoch_samples = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._pass = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._accumulated_samples = tf.Variable(0.0, trainable=False)

    def __setattr__(self, name: str, value: Any) -> None:
        # LossScaleOptimizer clears this of the optimizer it wraps; nothing else sets it once we are set up.
        if name == "loss_scale_factor" and hasattr(self, "_passes"):
            raise InputError(
                "DistributedOptimizer is being put inside LossScaleOptimizer, where an overflow on one rank would "
                "leave the others waiting for ever. (`compile` does this for a mixed_float16 model.)\n"
                "Wrap it the other way round: DistributedOptimizer(keras.optimizers.LossScaleOptimizer(optimizer)); "
                "or compile with the plain optimizer, then call tfrec.distributed.distribute(model)."
            )
        super().__setattr__(name, value)

    def record_batch(self, samples: tf.Tensor) -> None:
        """Say how many samples the gradients of this step are the mean of; called before they are computed.

        Their sum over ranks is started here, so that it is there when the gradients are.
        """
        self._epoch_samples.assign_add(tf.cast(samples, tf.int64))
        count = tf.cast(samples, tf.float32)
        self._batch = tf.stack([count, count if self._passes > 1 else _sum(count, "samples")])

    def apply(self, grads: Sequence[Gradient], trainable_variables: Sequence[Any] | None = None) -> None:
        """Reduce over ranks, then apply as the optimizer does."""
        if not self.built:  # type: ignore[attr-defined]
            assert trainable_variables is not None
            self.build(trainable_variables)  # type: ignore[attr-defined]
        if self._passes > 1:
            self._accumulate(list(grads), trainable_variables)
            return
        if ranks.size() > 1:
            share = self.share()
            self._batch = None
            grads = self._reduce(list(grads), share)
        super().apply(grads, trainable_variables)  # type: ignore[misc]

    def share(self) -> tf.Tensor:
        """This rank's part of the samples of the step under way, float32; equal parts where nobody recorded them."""
        if self._batch is None:
            return tf.constant(1.0 / ranks.size())
        return tf.math.divide_no_nan(self._batch[0], self._batch[1])

    def _accumulate(self, grads: list[Gradient], variables: Sequence[Any] | None) -> None:
        """Add this pass's gradients, and update with the mean over all samples every so many passes."""
        samples = self._batch[0] if self._batch is not None else tf.constant(1.0)
        self._batch = None
        present = [i for i, g in enumerate(grads) if g is not None]
        if self._accumulators is None:
            with tf.init_scope():
                known = variables if variables is not None else self._trainable_variables  # type: ignore[attr-defined]
                self._accumulators = [tf.Variable(tf.zeros(known[i].shape), trainable=False) for i in present]
        for accumulator, i in zip(self._accumulators, present, strict=True):
            accumulator.assign_add(tf.math.multiply_no_nan(_dense(grads[i]), samples))
        self._accumulated_samples.assign_add(samples)
        self._pass.assign_add(1)
        structure: list[Gradient] = [None] * len(grads)

        def update() -> tf.Tensor:
            share = tf.math.divide_no_nan(1.0, _sum(self._accumulated_samples.read_value(), "accumulated"))
            assert self._accumulators is not None
            for accumulator, i in zip(self._accumulators, present, strict=True):
                structure[i] = accumulator.read_value()
            super(_Distributed, self).apply(self._reduce(structure, share), variables)  # type: ignore[misc]
            for variable in (*self._accumulators, self._accumulated_samples):
                variable.assign(tf.zeros_like(variable))
            return tf.constant(True)

        tf.cond(tf.equal(self._pass % self._passes, 0), update, lambda: tf.constant(False))

    def _reduce(self, grads: list[Gradient], share: tf.Tensor) -> list[Gradient]:
        """Sum over ranks of ``share * gradient``. A rank without samples has share 0 and counts for nothing."""
        reduced = list(grads)
        dense: list[int] = []
        for i, gradient in enumerate(grads):
            if gradient is None:
                continue
            if isinstance(gradient, tf.IndexedSlices) and not self._sparse_as_dense:
                values = tf.math.multiply_no_nan(gradient.values, tf.cast(share, gradient.dtype))
                gathered = _gather(tf.cast(values, self._wire(values)), f"values.{i}")
                rows, place = tf.unique(_gather(gradient.indices, f"indices.{i}"))
                # A row that several ranks have is one row with the sum, as it would be on one rank.
                total = tf.math.unsorted_segment_sum(tf.cast(gathered, values.dtype), place, tf.size(rows))
                reduced[i] = tf.IndexedSlices(total, rows, gradient.dense_shape)
            else:
                tensor = _dense(gradient)
                reduced[i] = tf.math.multiply_no_nan(tensor, tf.cast(share, tensor.dtype))
                dense.append(i)
        for i, tensor in zip(dense, self._sum_all([reduced[i] for i in dense]), strict=True):
            reduced[i] = tensor
        return reduced

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
        raise InputError("This optimizer is distributed already.\nWrap it once.")
    if optimizer.built:
        raise InputError(
            "The optimizer has state already, which would be lost.\n"
            "Wrap it before the first step: DistributedOptimizer(keras.optimizers.Adam(...))."
        )
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if not scales and keras.config.dtype_policy().name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    base = type(optimizer)
    # Under its own name: a saved model then names the plain optimizer, which every process can load.
    made: Any = type(
        base.__name__,
        (_Distributed, base),
        {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__},
    )
    distributed = made.from_config(optimizer.get_config())
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
    report_batch_sizes(model)
    for layer in fused:
        layer.reduce_gradients = functools.partial(_mean, model.optimizer, layer.path)
    return model


def report_batch_sizes(model: keras.Model) -> None:
    """Have ``model.train_step`` tell the distributed optimizer how many samples its batch has."""
    if getattr(model, "_tfrec_reports_batch_sizes", False):
        return
    step = model.train_step

    def train_step(data: Any) -> Any:
        model.optimizer.record_batch(_num_samples(data))
        return step(data)

    model.train_step = train_step
    model._tfrec_reports_batch_sizes = True
    model.train_function = None  # drop a graph traced from the old step


def _num_samples(data: Any) -> tf.Tensor:
    first = next(leaf for leaf in keras.tree.flatten(data) if leaf is not None)
    if isinstance(first, tf.SparseTensor):
        return first.dense_shape[0]
    if first.shape.rank == 0:
        # The samples are made in the step itself; the pipeline says how many there will be.
        return tf.cast(first, tf.int64)
    return tf.shape(first, out_type=tf.int64)[0]


def _mean(optimizer: Any, path: str, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Gradients of one layer, averaged over the ranks by sample."""
    share = optimizer.share()
    return [_sum(tf.math.multiply_no_nan(g, share), f"{path}.{k}") for k, g in enumerate(gradients)]


def _sum(value: tf.Tensor, name: str) -> tf.Tensor:
    hvd = ranks.horovod()
    return value if hvd is None else hvd.allreduce(value, op=hvd.Sum, name=f"tfrec.{name}")


def _gather(value: tf.Tensor, name: str) -> tf.Tensor:
    hvd = ranks.horovod()
    return value if hvd is None else hvd.allgather(value, name=f"tfrec.{name}")


def _dense(gradient: Gradient) -> tf.Tensor:
    return tf.convert_to_tensor(gradient)
