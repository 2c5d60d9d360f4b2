"""Statistics of a NeuMF's activations over training pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.data.pointwise import PointwiseSampler
from tfrec.errors import InputError
from tfrec.models import NeuMF
from tfrec.quantization.statistics import Collector, Statistics, fingerprint

_BATCH_PAIRS = 1 << 15


def calibrate(
    model: Any,
    train: scipy.sparse.csr_matrix,
    fraction: float = 0.1,
    negatives: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Statistics:
    """Look at the activations for a part of the training pairs, with unseen items added as in training.

    Args:
        model: a `tfrec.models.NeuMF`.
        train: ``[U, I]``, training data: never the test's.
        fraction: of its entries, in (0, 1]; at least one.
        negatives: unseen items for each; any items where some user has them all.
        seed: of the choice.
        progress: called with batches done and their number.

    Raises:
        InputError: nothing to calibrate on, a fraction out of range, or a model that is no float NeuMF or does not
            fit ``train``.
    """
    if not isinstance(model, NeuMF):
        raise InputError(f"`calibrate` expects a float tfrec.models.NeuMF.\nReceived: {type(model).__name__}.")
    if train.shape != (model.num_users, model.num_items):
        raise InputError(
            f"The calibration data must have the model's users and items, {(model.num_users, model.num_items)}.\n"
            f"Received: {train.shape}."
        )
    if not 0 < fraction <= 1:
        raise InputError(f"`fraction` must lie in (0, 1].\nReceived: {fraction}.")
    if train.nnz == 0:
        raise InputError("There is no pair to calibrate on.\nReceived: an empty training matrix.")
    batches = _Batches(train, fraction, negatives, seed)
    compiled = tf.function(lambda users, items: activations(model, users, items), autograph=False)
    collectors: dict[str, Collector] = {}
    for last in (False, True):
        for number, (users, items) in enumerate(batches):
            for name, values in compiled(users, items).items():
                collector = collectors.setdefault(name, Collector())
                (collector.distribution if last else collector.moments)(values.numpy())
            progress(number + 1 + last * len(batches), 2 * len(batches))
    tensors = {name: collector.statistics() for name, collector in collectors.items()}
    return Statistics(fingerprint(model), batches.num_pairs, tensors)


class _Batches:
    """The same sample of pairs, each time it is iterated: users ``[P]``, items ``[P, 1 + negatives]``."""

    def __init__(self, train: scipy.sparse.csr_matrix, fraction: float, negatives: int, seed: int) -> None:
        free = train.shape[1] - int(np.diff(train.indptr).max())
        self._sampler = PointwiseSampler(
            train,
            min(_BATCH_PAIRS, train.nnz * (1 + negatives)),
            negatives,
            sampling="exact" if free > 0 else "approximate",
            seed=seed,
        )
        wanted = max(1, round(train.nnz * fraction))
        self._steps = -(-wanted // self._sampler.positives_per_step)
        self._wanted = wanted
        self.num_pairs = wanted * (1 + negatives)

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        left = self._wanted
        for step in range(self._steps):
            users, items = self._sampler.batch(tf.constant(step, tf.int64))
            yield users[:left], items[:left]
            left -= min(left, int(users.shape[0]))


def activations(model: NeuMF, users: tf.Tensor, items: tf.Tensor) -> dict[str, tf.Tensor]:
    """The float activations of pairs, pair by pair, by the names that `quantize` uses: float32 ``[B * C, width]``."""
    gmf = model.mf_dim if model.branch != "mlp" else 0
    repeated = tf.repeat(tf.reshape(users, [-1]), tf.shape(items)[1])
    user, item = model.table_rows("user", repeated), model.table_rows("item", tf.reshape(items, [-1]))
    weights = {v.path.split("/")[-1]: tf.convert_to_tensor(v) for v in model.trainable_variables}
    found: dict[str, tf.Tensor] = {}
    last = []
    if gmf:
        found["product"] = user[:, :gmf] * item[:, :gmf]
        last.append(found["product"])
    if model.branch != "gmf":
        hidden = tf.concat([user[:, gmf:], item[:, gmf:]], axis=1)
        for i in range(1, len(model.layer_dims)):
            found[f"hidden_{i}_linear"] = tf.matmul(hidden, weights[f"kernel_{i}"]) + weights[f"bias_{i}"]
            found[f"hidden_{i}"] = hidden = tf.nn.relu(found[f"hidden_{i}_linear"])
        last.append(hidden)
    if len(last) == 2:
        found["final_input"] = tf.concat(last, axis=1)
        if "final_kernel" in weights:
            kernels = [weights["final_kernel"][:gmf], weights["final_kernel"][gmf:]]
            # The bias goes half to each, as when the layer is split.
            biases = [weights["final_bias"] / 2] * 2
        else:
            kernels = [weights["gmf_kernel"], weights["mlp_kernel"]]
            biases = [weights["gmf_bias"], weights["mlp_bias"]]
        found["gmf_logit"] = tf.matmul(last[0], kernels[0]) + biases[0]
        found["mlp_logit"] = tf.matmul(last[1], kernels[1]) + biases[1]
        found["logit"] = found["gmf_logit"] + found["mlp_logit"]
    else:
        name = model.branch if model.split_final else "final"
        found[f"{model.branch}_logit"] = tf.matmul(last[0], weights[f"{name}_kernel"]) + weights[f"{name}_bias"]
    return found
