"""Neural matrix factorization.

A user u and an item i each have an embedding for two branches, whose outputs meet in one logit:

    GMF:  g = p_u * q_i                                      (element by element)
    MLP:  h_0 = [a_u, b_i],  h_k = dropout(relu(W_k h_{k-1} + c_k))
    logit = <w_g, g> + <w_h, h_last> + c                     (w_g learned, or 1)

trained on positives and sampled negatives with the binary cross entropy of the logit. Source: He, Liao, Zhang, Nie, Hu,
Chua, "Neural Collaborative Filtering", WWW 2017, equations 8 to 12; dropout and sizes as in NVIDIA's NCF.

How it is computed. The first layer is linear in the two embeddings, ``W_1 h_0 = A a_u + B b_i``, and a batch has far
fewer different users and items than pairs. So ``A a_u`` is computed once per user of the batch and ``B b_i`` once per
item, and a pair only adds the two: at the reference sizes that leaves less than half of the operations, in training and
in scoring. Pairs go through the other layers in chunks small enough for their activations to stay in the cache;
their memory does not grow with the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.layers.relu_dropout import kept_share, relu_dropout
from tfrec.layers.tt_embedding import TTEmbedding
from tfrec.models.base import FLOAT_MAX, Model, bind, check_within
from tfrec.ops import tt_gradients

Branch = Literal["neumf", "gmf", "mlp"]
GMFWeights = Literal["learned", "ones"]
Table = Literal["dense", "tt"]
#: Makes the pairs of a step: its number -> users ``[P]``, items ``[P, C]``, of which column 0 is positive.
Sampler = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
#: ("user" or "item", "gmf" or "hidden") -> a row per user or item.
Terms: TypeAlias = dict[tuple[str, str], Any]
#: Pairs that go through the layers at once; see `NeuMF`. On a CPU the activations then fit its cache; a GPU wants more
#: work per launch.
CHUNK_PAIRS_CPU, CHUNK_PAIRS_GPU = 5_120, 1 << 18
#: Least and greatest of what goes into the cross entropy.
_LIMITS = {"labels": (0.0, 1.0), "sample_weight": (0.0, FLOAT_MAX)}
_MUST = {
    "labels": "lie in [0, 1]: 1 for an item that was taken, 0 for one that was not",
    "sample_weight": "be finite and at least 0",
}
#: Items of a tensor-train table whose rows are held at once when all items are scored.
BLOCK_ITEMS = 1 << 15


@keras.saving.register_keras_serializable(package="tfrec")
class NeuMF(Model):
    """NeuMF, or one of its branches alone.

    Args:
        num_users: U, from 1.
        num_items: I, from 1.
        mf_dim: width of the GMF embeddings.
        layer_dims: widths of the MLP: the first is that of the user's and the item's embedding together, half each;
            the others are those of the hidden layers. At least two.
        dropout: share of the hidden units dropped in training, in ``[0, 1)``, rounded to a multiple of 1/256.
        embedding_l2: lambda; ``lambda / 2 (|e_u|^2 + |e_i|^2)`` of every pair's embeddings is added to its loss, so a
            row is shrunk as often as it occurs, as in matrix factorization by SGD.
        mlp_embedding_l2: the same for the MLP's part of the embeddings; None: as ``embedding_l2``.
        gmf_weights: ``learned``: w_g as in the paper. ``ones``: fixed at 1: the branch is a dot product (Rendle,
            Krichene, Zhang, Anderson, 2020). With ``embedding_l2`` prefer it: learned weights grow, the embeddings
            shrink, and the penalty no longer holds anything.
        branch: ``neumf``, or ``gmf`` or ``mlp`` for that branch alone.
        split_final: two output layers, one per branch, whose logits are added, instead of one over both: the same
            function, exactly, with ranges of their own for quantization. See `with_split_final`.
        user_embedding: ``dense``, a row for each user, or ``tt``, a `TTEmbedding`.
        item_embedding: the same for items.
        embedding_ranks: of the ``tt`` tables, one number for all ranks, from 1.
        embedding_group: of the ``tt`` tables. None: three cores of about equal size. k, from 1: two cores, in which k
            neighbouring ids share r numbers and each place in a group has its own map ``[r, D]`` from them to a row.
            1 is a low-rank table, each row with r numbers to itself: the better form where rows are few.
        chunk_pairs: pairs computed at once; default by device.
        noise_seed: of dropout. The noise of a step depends on this and the step's number only. Ranks take different
            seeds.

    Input: a pair (or a dict with ``user`` and ``item``) of int tensors, users ``[B]`` and items ``[B, C]`` or ``[B]``.
    Output: logits, float32 ``[B, C]`` (``[B, 1]`` for items ``[B]``).

    ``fit`` takes batches ``((users, items), labels)`` with labels in the shape of items; or, with
    ``compile(sampler=...)``, anything with one element per step, the sampler making the pairs on the device.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> model = NeuMF(num_users=3, num_items=5, mf_dim=4, layer_dims=(8, 8))
        >>> model((tf.constant([0, 2]), tf.constant([[1, 4, 0], [2, 2, 3]]))).shape
        TensorShape([2, 3])
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        mf_dim: int = 64,
        layer_dims: Sequence[int] = (256, 256, 128, 64),
        dropout: float = 0.5,
        embedding_l2: float = 0.0,
        mlp_embedding_l2: float | None = None,
        gmf_weights: GMFWeights = "learned",
        branch: Branch = "neumf",
        split_final: bool = False,
        chunk_pairs: int | None = None,
        noise_seed: int = 0,
        user_embedding: Table = "dense",
        item_embedding: Table = "dense",
        embedding_ranks: int = 16,
        embedding_group: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_policy()
        _check(
            num_users,
            num_items,
            mf_dim,
            layer_dims,
            dropout,
            embedding_l2,
            mlp_embedding_l2,
            gmf_weights,
            branch,
            split_final,
            chunk_pairs,
        )
        for name, kind in (("user_embedding", user_embedding), ("item_embedding", item_embedding)):
            if kind not in ("dense", "tt"):
                raise InputError(f"`{name}` must be 'dense' or 'tt'.\nReceived: {kind!r}.")
        self.embedding_kinds = {"user": user_embedding, "item": item_embedding}
        if embedding_group is not None and embedding_group < 1:
            raise InputError(f"`embedding_group` must be at least 1.\nReceived: embedding_group={embedding_group}.")
        self.embedding_ranks = embedding_ranks
        self.embedding_group = embedding_group
        self.num_users = num_users
        self.num_items = num_items
        self.mf_dim = mf_dim
        self.layer_dims = tuple(layer_dims)
        self.dropout = dropout
        self.embedding_l2 = embedding_l2
        self.mlp_embedding_l2 = embedding_l2 if mlp_embedding_l2 is None else mlp_embedding_l2
        self.gmf_weights = gmf_weights
        self.branch = branch
        self.split_final = split_final
        self.chunk_pairs = chunk_pairs
        self.noise_seed = noise_seed
        # The number of different items in a batch is not known ahead, which XLA would need.
        self.supports_jit = False
        self._sampler: Sampler | None = None
        self._lazy_tables: tuple[str, ...] = ()
        widths = {"gmf": self._gmf, "hidden": self.layer_dims[1] if self._mlp else 0}
        self._row_sums = _RowSums({(side, n): w for side in ("user", "item") for n, w in widths.items() if w})
        self.built = False
        self.build()

    @property
    def _gmf(self) -> int:
        """Width of the GMF part of an embedding."""
        return 0 if self.branch == "mlp" else self.mf_dim

    @property
    def _mlp(self) -> int:
        """Width of the MLP part of an embedding."""
        return 0 if self.branch == "gmf" else self.layer_dims[0] // 2

    def build(self, input_shape: Any = None) -> None:
        """Create all weights; their shapes are known from the constructor."""
        if self.built:
            return
        # One row holds both branches' embeddings, GMF first: one access per user or item instead of two.
        # Keras must not cast the variables: rows are cast after they are gathered, not the whole table before.
        width = self._gmf + self._mlp
        normal = keras.initializers.RandomNormal(stddev=0.01)
        self.user_embedding = self._table("user", self.num_users, width, normal)
        self.item_embedding = self._table("item", self.num_items, width, normal)
        self.kernels, self.biases = [], []
        if self._mlp:
            for i, (before, after) in enumerate(zip(self.layer_dims[:-1], self.layer_dims[1:], strict=True), start=1):
                self.kernels.append(
                    self.add_weight(
                        name=f"kernel_{i}", shape=(before, after), initializer="glorot_uniform", autocast=False
                    )
                )
                self.biases.append(
                    self.add_weight(name=f"bias_{i}", shape=(after,), initializer="zeros", autocast=False)
                )
        # LeCun's initialization of the one output layer, whether it is split or not.
        widths = [w for w in (self._gmf, self.layer_dims[-1] if self._mlp else 0) if w]
        limit = (3.0 / sum(widths)) ** 0.5
        uniform = keras.initializers.RandomUniform(-limit, limit)
        names = [n for n, w in (("gmf", self._gmf), ("mlp", self._mlp)) if w]
        parts = list(zip(names, widths, strict=True)) if self.split_final else [("final", sum(widths))]
        self.final_kernels = [
            self.add_weight(name=f"{name}_kernel", shape=(w, 1), initializer=uniform, autocast=False)
            for name, w in parts
        ]
        if self._gmf and self.gmf_weights == "ones":
            kernel = self.final_kernels[0]
            kernel.assign(tf.concat([tf.ones([self._gmf, 1]), tf.convert_to_tensor(kernel)[self._gmf :]], axis=0))
        self.final_biases = [
            self.add_weight(name=f"{name}_bias", shape=(1,), initializer="zeros", autocast=False) for name, _ in parts
        ]
        self.steps = self.add_weight(name="steps", shape=(), dtype="int64", initializer="zeros", trainable=False)
        self.built = True

    def _table(self, side: str, rows: int, width: int, initializer: keras.initializers.RandomNormal) -> Any:
        """The embeddings of one side: a variable ``[rows, width]``, or a layer of the same first distribution."""
        name = f"{side}_embedding"
        if self.embedding_kinds[side] == "dense":
            return self.add_weight(name=name, shape=(rows, width), initializer=initializer, autocast=False)
        layer = TTEmbedding(
            rows,
            width,
            self.embedding_ranks,
            *self._factors(rows, width),
            embeddings_initializer=initializer,
            dtype="float32",
            name=name,
        )
        layer.build()
        return layer

    def _factors(self, rows: int, width: int) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Row and column factors of a tensor-train table."""
        if self.embedding_group is None:
            return None, None
        group = min(self.embedding_group, rows)
        return (-(-rows // group), group), (1, width)

    # ---- Keras's interface

    def compile(
        self,
        optimizer: Any = "adam",
        *,
        sampler: Sampler | None = None,
        lazy_tables: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.compile`, without a loss.

        Args:
            optimizer: any Keras optimizer.
            sampler: makes the pairs of a step on the device, e.g. ``tfrec.data.pointwise.PointwiseSampler(...).batch``.
            lazy_tables: of ``user_embedding`` and ``item_embedding``, those whose gradient goes to the optimizer as
                the rows of the batch (`tf.IndexedSlices`) instead of a dense tensor.
            **kwargs: as in Keras, but for ``loss``; ``steps_per_execution`` keeps Python out of that many steps.
        """
        if kwargs.get("loss") is not None:
            raise InputError(
                f"NeuMF has its own loss, the binary cross entropy of the logits.\nReceived: loss={kwargs['loss']!r}.\n"
                "Leave `loss` out."
            )
        if kwargs.get("metrics") or kwargs.get("weighted_metrics"):
            raise InputError(
                "NeuMF reports its loss only: a metric of single pairs says nothing of a ranking.\n"
                "Leave `metrics` out, and use tfrec.evaluation.evaluate_candidates."
            )
        cores = [t for t in lazy_tables if self.embedding_kinds.get(t.removesuffix("_embedding")) == "tt"]
        if cores:
            raise InputError(
                f"A tensor-train table has no rows to update lazily: each core serves all.\nReceived: {sorted(cores)}."
            )
        unknown = set(lazy_tables) - {"user_embedding", "item_embedding"}
        if unknown:
            raise InputError(f"`lazy_tables` names user_embedding or item_embedding.\nReceived: {sorted(unknown)}.")
        super().compile(optimizer=optimizer, **kwargs)
        self._sampler = sampler
        self._lazy_tables = tuple(lazy_tables)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as when the model was saved; Keras asks for this where ``compile`` is a class's own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`.

        Raises:
            InputError: labels outside [0, 1]; weights that are negative, NaN or infinite; ``class_weight`` with several
                items to a user, of which Keras would take the best item's number for the class. What comes from a
                pipeline is looked at batch by batch, before a weight changes; there wrong numbers are a
                `tf.errors.InvalidArgumentError`.
        """
        return super().fit(**_checked(keras.Model.fit, self, args, kwargs))

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`: the mean cross entropy, without dropout and penalty."""
        if "_use_cached_eval_dataset" in kwargs:  # within ``fit``, which has looked at the data
            return super().evaluate(*args, **kwargs)
        return super().evaluate(**_checked(keras.Model.evaluate, self, args, kwargs))

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.train_on_batch`."""
        return super().train_on_batch(**_checked(keras.Model.train_on_batch, self, args, kwargs))

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.test_on_batch`."""
        return super().test_on_batch(**_checked(keras.Model.test_on_batch, self, args, kwargs))

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Logits, see the class. Ids beyond the tables raise on a CPU; a GPU reads zeros."""
        return self.score(*_pairs(inputs))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int | None]:
        """``[B, C]``."""
        shape = tuple(input_shape["item"] if isinstance(input_shape, dict) else input_shape[1])
        return (shape[0], shape[1] if len(shape) == 2 else 1)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update on a batch of pairs."""
        labels = weights = None
        if self._sampler is not None:
            users, items = self._sampler(tf.convert_to_tensor(self.steps))
        else:
            inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
            users, items = _pairs(inputs)
            labels = _like(items, labels, "labels")
            weights = None if weights is None else _like(items, weights, "sample_weight")
        loss, gradients = self.loss_and_gradients(users, items, labels, weights)
        # Wrong labels and weights have raised before: then nothing changes, the counters neither.
        with tf.control_dependencies([loss, *(given for given in (labels, weights) if given is not None)]):
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            self.steps.assign_add(1)
        self._loss_tracker.update_state(loss, sample_weight=tf.cast(tf.size(items), tf.float32))
        return self.get_metrics_result()

    def test_step(self, data: Any) -> dict[str, Any]:
        """The mean cross entropy, without dropout and penalty."""
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        users, items = _pairs(inputs)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(_like(items, labels, "labels"), self.score(users, items))
        if weights is not None:
            losses *= _like(items, weights, "sample_weight")
        self._loss_tracker.update_state(tf.reduce_mean(losses), sample_weight=tf.cast(tf.size(items), tf.float32))
        return self.get_metrics_result()

    # ---- scoring

    def preference(self, users: tf.Tensor, items: tf.Tensor | None = None) -> tf.Tensor:
        """The probability that a user takes an item when offered it. Arguments as for `score`. Rank by `score`: here
        different logits may round to one number."""
        return tf.sigmoid(self.score(users, items))

    def shown(self, best: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """What is shown beside items with the scores ``best``: their `preference`."""
        return tf.sigmoid(best)

    def _served(self) -> tuple[Callable[[Any], tf.Tensor], list[Any]]:
        return serve_pairs(self)

    def score(self, users: tf.Tensor, items: tf.Tensor | None = None) -> tf.Tensor:
        """Logits of candidates, without dropout and without gradient.

        Args:
            users: int ``[B]``.
            items: int ``[B, C]``, or None for all items in order (C = I).

        Returns:
            float32 ``[B, C]``.
        """
        user_rows, user_index, _ = self._rows("user", users)
        if items is not None:
            item_rows, item_index, _ = self._rows("item", items)
            return self._score(user_rows, user_index, item_rows, item_index)
        if self.embedding_kinds["item"] == "dense":
            found = self._score(user_rows, user_index, self._gather("item", None), None)
        else:
            found = self._score_in_blocks(user_rows, user_index)
        return tf.ensure_shape(found, [None, self.num_items])

    def _score(
        self, user_rows: tf.Tensor, user_index: tf.Tensor, item_rows: tf.Tensor, item_index: tf.Tensor | None
    ) -> tf.Tensor:
        """Logits of the items that each user's row of ``item_index`` names, or of all ``item_rows``."""
        terms, late = self._terms(user_rows, item_rows, self._early()), self._late()
        width = tf.shape(item_rows)[0] if item_index is None else tf.shape(item_index)[1]

        def chunk(first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
            of_items = None if item_index is None else item_index[first:last]
            return self._logits(_take(terms, user_index[first:last], of_items), late)

        found = in_chunks(tf.size(user_index), self._chunk_users(width), width, chunk)
        return tf.ensure_shape(found, [None, None if item_index is None else item_index.shape[1]])

    def _score_in_blocks(self, user_rows: tf.Tensor, user_index: tf.Tensor) -> tf.Tensor:
        """Logits of all items, some at a time: a tensor train's table is never whole in memory."""
        count = -(-self.num_items // BLOCK_ITEMS)
        parts = tf.TensorArray(tf.float32, count, infer_shape=False, element_shape=tf.TensorShape([None, None]))

        def step(i: tf.Tensor, parts: tf.TensorArray) -> Any:
            ids = tf.cast(i, tf.int64) * BLOCK_ITEMS
            ids = tf.range(ids, tf.minimum(ids + BLOCK_ITEMS, self.num_items))
            found = self._score(user_rows, user_index, self._gather("item", ids), None)
            return i + 1, parts.write(i, tf.transpose(found))  # blocks follow one another on the first axis

        _, parts = tf.while_loop(lambda i, _: i < count, step, (tf.constant(0), parts), parallel_iterations=1)
        return tf.transpose(parts.concat())

    # ---- the loss and its gradients

    def loss_and_gradients(
        self,
        users: tf.Tensor,
        items: tf.Tensor,
        labels: tf.Tensor | None = None,
        weights: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, list[Any]]:
        """The mean loss over all pairs, and its gradients times the optimizer's loss scale, if it has one.

        Args:
            users: int ``[P]``.
            items: int ``[P, C]``.
            labels: float32 ``[P, C]`` in ``[0, 1]``; None: column 0 is 1, the others are 0.
            weights: of users ``[P]`` or of pairs ``[P, C]``; None: 1.

        Returns:
            float32 scalar, and a gradient for each of ``trainable_variables``: a tensor, or `tf.IndexedSlices` for
            ``lazy_tables``.
        """
        num_users, width = tf.shape(items)[0], tf.shape(items)[1]
        num_pairs = tf.maximum(tf.cast(num_users * width, tf.float32), 1.0)  # a rank's share of a batch may be empty
        scale = self.optimizer.scale_loss(1.0 / num_pairs)
        if labels is None:
            labels = tf.concat([tf.ones([num_users, 1]), tf.zeros([num_users, width - 1])], axis=1)
        if weights is not None:
            weights = _like(items, weights, "sample_weight")
        user_rows, user_index, user_ids = self._rows("user", users)
        item_rows, item_index, item_ids = self._rows("item", items)
        early = self._early()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([user_rows, item_rows, *early])
            terms = self._terms(user_rows, item_rows, early)
        loss_sum, late_gradients, upstream = self._through_layers(terms, user_index, item_index, labels, weights, scale)
        upstream = {name: tf.cast(u, self.compute_dtype) for name, u in upstream.items()}
        user_gradient, item_gradient, *early_gradients = tape.gradient(
            terms, [user_rows, item_rows, *early], output_gradients=upstream
        )
        if self.embedding_l2 or self.mlp_embedding_l2:
            strength = tf.constant([self.embedding_l2] * self._gmf + [self.mlp_embedding_l2] * self._mlp)
            for_users = tf.cast(width, tf.float32) * _occurrences(user_index, tf.size(user_ids))
            for_items = _occurrences(item_index, tf.size(item_ids))
            user_gradient += strength * scale * for_users[:, None] * user_rows
            item_gradient += strength * scale * for_items[:, None] * item_rows
            squares = [tf.reduce_sum(strength * tf.square(rows), axis=1) for rows in (user_rows, item_rows)]
            penalty = tf.reduce_sum(for_users * squares[0]) + tf.reduce_sum(for_items * squares[1])
            loss_sum += 0.5 * penalty
        found = zip([*self.kernels[:1], *self.biases[:1]], early_gradients, strict=True)
        by_weight = {id(v): g for v, g in [*found, *zip(self._late_weights(), late_gradients, strict=True)]}
        if self._gmf and self.gmf_weights == "ones":
            final = id(self.final_kernels[0])
            fixed = tf.range(self.final_kernels[0].shape[0])[:, None] < self._gmf
            by_weight[final] = tf.where(fixed, 0.0, by_weight[final])
        by_weight |= self._table_gradients(self.user_embedding, user_gradient, user_ids)
        by_weight |= self._table_gradients(self.item_embedding, item_gradient, item_ids)
        return loss_sum / num_pairs, [by_weight[id(v)] for v in self.trainable_variables]

    def _through_layers(
        self,
        terms: Terms,
        user_index: tf.Tensor,
        item_index: tf.Tensor,
        labels: tf.Tensor,
        weights: tf.Tensor | None,
        scale: tf.Tensor,
    ) -> tuple[tf.Tensor, list[tf.Tensor], Terms]:
        """Forward and back through everything after `_terms`, chunk by chunk.

        Returns:
            The sum of the losses; the gradients for `_late_weights`; and those for ``terms``, float32.
        """
        late = self._late()
        self._row_sums.reset(terms)
        step = self._chunk_users(tf.shape(item_index)[1])
        num_users = tf.size(user_index)

        def chunk(i: tf.Tensor, loss_sum: tf.Tensor, gradients: list[tf.Tensor]) -> Any:
            part = slice(i * step, tf.minimum((i + 1) * step, num_users))
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                taken = _take(terms, user_index[part], item_index[part])
                tape.watch([*taken.values(), *late])
                logits = self._logits(taken, late, seed=self._noise(i))
                losses = tf.nn.sigmoid_cross_entropy_with_logits(labels[part], logits)
                if weights is not None:
                    losses *= weights[part]
                loss = tf.reduce_sum(losses)
                scaled = loss * scale
            of_terms, of_late = tape.gradient(scaled, (taken, late))
            self._row_sums.add(of_terms, user_index[part], item_index[part])
            return i + 1, loss_sum + loss, [g + tf.cast(d, tf.float32) for g, d in zip(gradients, of_late, strict=True)]

        zeros = [tf.zeros(w.shape) for w in late]
        _, loss_sum, gradients = tf.while_loop(
            lambda i, *_: i * step < num_users, chunk, (tf.constant(0), tf.constant(0.0), zeros), parallel_iterations=1
        )
        return loss_sum, gradients, self._row_sums.read()

    # ---- the network

    def _rows(self, side: str, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The embeddings of the different ids, float32; the place of each id among them, in the shape of ``ids``; and
        these different ids."""
        # int64: places of int32 would be in host memory, and go over the bus to each gather on a GPU.
        different, index = tf.unique(tf.reshape(ids, [-1]), out_idx=tf.int64)
        return self._gather(side, different), tf.reshape(index, tf.shape(ids)), different

    def _gather(self, side: str, ids: tf.Tensor | None) -> tf.Tensor:
        """Rows of a table, or all of it, float32."""
        table = self.user_embedding if side == "user" else self.item_embedding
        if self.embedding_kinds[side] == "tt":
            rows = table(
                tf.range(self.num_users if side == "user" else self.num_items, dtype=tf.int64) if ids is None else ids
            )
        else:
            rows = tf.convert_to_tensor(table)
            rows = rows if ids is None else tf.gather(rows, ids)
        return self._embeddings(rows)

    def _early(self) -> list[tf.Tensor]:
        """The first layer's kernel and bias, float32; nothing for GMF."""
        return [tf.convert_to_tensor(w) for w in (*self.kernels[:1], *self.biases[:1])]

    def _late_weights(self) -> list[keras.Variable]:
        return [*self.kernels[1:], *self.biases[1:], *self.final_kernels, *self.final_biases]

    def _late(self) -> list[tf.Tensor]:
        """The weights after the first layer, in the precision of the computation."""
        return [tf.cast(tf.convert_to_tensor(w), self.compute_dtype) for w in self._late_weights()]

    def _terms(self, user_rows: tf.Tensor, item_rows: tf.Tensor, early: list[tf.Tensor]) -> Terms:
        """What a pair needs of its user and of its item: the GMF embedding, and its half of the first layer."""
        found: Terms = {}
        for side, rows in (("user", user_rows), ("item", item_rows)):
            rows = tf.cast(rows, self.compute_dtype)
            if self._gmf:
                found[side, "gmf"] = rows[:, : self._gmf]
            if self._mlp:
                kernel, bias = (tf.cast(w, rows.dtype) for w in early)
                if side == "user":
                    found[side, "hidden"] = tf.matmul(rows[:, self._gmf :], kernel[: self._mlp]) + bias
                else:
                    found[side, "hidden"] = tf.matmul(rows[:, self._gmf :], kernel[self._mlp :])
        return found

    def _logits(self, terms: Terms, late: list[tf.Tensor], seed: tf.Tensor | None = None) -> tf.Tensor:
        """From terms of users ``[p, D]`` and items ``[p or 1, C, D]`` to logits, float32 ``[p, C]``.

        With a seed: with dropout.
        """
        hidden_layers = len(self.kernels) - 1 if self._mlp else 0
        kernels, biases = late[:hidden_layers], late[hidden_layers : 2 * hidden_layers]
        final_kernels, final_biases = self._final(late[2 * hidden_layers :])
        # Scores are float32 from the last product on: rounded to 16 bits, those of different items would be equal.
        last = self.compute_dtype if seed is not None else "float32"
        final_kernels = [tf.cast(kernel, last) for kernel in final_kernels]
        parts = []
        if self._gmf:
            product = terms["user", "gmf"][:, None, :] * terms["item", "gmf"]
            shape = tf.shape(product)[:2]
            product = self._activation("product", tf.reshape(product, [-1, self._gmf]))
            parts.append(tf.matmul(tf.cast(product, last), final_kernels[0]))
        if self._mlp:
            drop = self.dropout if seed is not None else 0.0
            unscale = 1.0 / kept_share(drop)
            noise = seed if seed is not None else tf.constant([0, 0])
            first = terms["user", "hidden"][:, None, :] + terms["item", "hidden"]
            shape = tf.shape(first)[:2]
            hidden = self._activation(
                "hidden_1", relu_dropout(tf.reshape(first, [-1, self.layer_dims[1]]), drop, noise)
            )
            for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True), start=1):
                hidden = relu_dropout(tf.matmul(hidden, kernel * unscale) + bias, drop, noise + tf.constant([0, i]))
                hidden = self._activation(f"hidden_{i + 1}", hidden)
            parts.append(tf.matmul(tf.cast(hidden, last), final_kernels[-1] * unscale))
        # The same order of sums whether the layer is split or not, so that the two are the same numbers.
        logit = tf.add_n([tf.cast(p, tf.float32) for p in parts]) + tf.cast(tf.add_n(final_biases), tf.float32)
        return tf.reshape(logit, shape)

    def _embeddings(self, rows: tf.Tensor) -> tf.Tensor:
        """What the network sees of rows of a table; a subclass may round them."""
        return rows

    def _activation(self, name: str, value: tf.Tensor) -> tf.Tensor:
        """What the next layer sees of an activation; a subclass may round it."""
        return value

    def _final(self, final: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """The output layer's kernels by branch, and its biases."""
        count = len(self.final_kernels)
        kernels, biases = final[:count], final[count:]
        if count == 1 and self.branch == "neumf":
            kernels = [kernels[0][: self._gmf], kernels[0][self._gmf :]]
        return kernels, biases

    def _table_gradients(self, table: Any, gradient: tf.Tensor, ids: tf.Tensor) -> dict[int, Any]:
        """The gradients of a table, of whose rows ``ids`` (each once) they are not 0, by the id of each variable."""
        if isinstance(table, TTEmbedding):
            cores = [tf.convert_to_tensor(core) for core in table.cores]
            found = tt_gradients(ids, tf.cast(gradient, tf.float32), cores, table.shape)
            return {id(core): g for core, g in zip(table.cores, found, strict=True)}
        rows = tf.IndexedSlices(tf.cast(gradient, tf.float32), ids, tf.constant(tuple(table.shape), tf.int64))
        return {id(table): rows if table.name in self._lazy_tables else tf.convert_to_tensor(rows)}

    def _chunk_users(self, width: tf.Tensor) -> tf.Tensor:
        """Users whose ``width`` pairs each make a chunk."""
        pairs = self.chunk_pairs
        if pairs is None:
            pairs = CHUNK_PAIRS_GPU if tf.config.list_logical_devices("GPU") else CHUNK_PAIRS_CPU
        return tf.maximum(pairs // tf.maximum(width, 1), 1)

    def _noise(self, chunk: tf.Tensor) -> tf.Tensor:
        """The seed of a chunk's noise in this step, int32 ``[2]``; the second number counts up by layer."""
        step = tf.cast(tf.convert_to_tensor(self.steps), tf.int32)
        return tf.stack([tf.constant(self.noise_seed, tf.int32) + step * 7919, chunk * len(self.layer_dims)])

    # ---- configuration

    def with_split_final(self, split: bool = True) -> NeuMF:
        """The same function with the output layer split by branch, or joined again; exactly the same logits.

        The kernel is cut at the branches' border and the bias halved (Distiller's conversion of its NCF example).
        """
        other = NeuMF.from_config({**self.get_config(), "split_final": split})
        values = {_name(v): v.numpy() for v in self.weights}
        if split != self.split_final and split:
            kernel, bias = values["final_kernel"], values["final_bias"]
            values |= {"gmf_kernel": kernel[: self._gmf], "mlp_kernel": kernel[self._gmf :]}
            values |= {"gmf_bias": bias / 2, "mlp_bias": bias / 2}
        elif split != self.split_final:
            values["final_kernel"] = tf.concat([values["gmf_kernel"], values["mlp_kernel"]], 0)
            values["final_bias"] = values["gmf_bias"] + values["mlp_bias"]
        for variable in other.weights:
            variable.assign(values[_name(variable)])
        return other

    def with_tt_embeddings(
        self,
        ranks: int,
        sides: Sequence[Literal["user", "item"]] = ("user", "item"),
        group: int | None = None,
    ) -> tuple[NeuMF, dict[str, float]]:
        """The same network with tables that are approximated by tensor trains, see `TTEmbedding.from_dense`.

        Args:
            ranks: of the tables, from 1.
            sides: whose tables.
            group: the ``embedding_group`` of the class.

        Returns:
            the model; and for each side the relative error of its table, Frobenius norms.

        Raises:
            InputError: a table is a tensor train already.
        """
        kinds = dict(self.embedding_kinds)
        for side in sides:
            if kinds[side] == "tt":
                raise InputError(f"The {side} table is a tensor train already.\nLeave it out.")
            kinds[side] = "tt"
        config = {f"{side}_embedding": kind for side, kind in kinds.items()}
        other = NeuMF.from_config({**self.get_config(), **config, "embedding_ranks": ranks, "embedding_group": group})
        values, errors = {_name(v): v.numpy() for v in self.weights}, dict[str, float]()
        for side in sides:
            name = f"{side}_embedding"
            table: TTEmbedding = getattr(other, name)
            p, q = table.shape.row_factors, table.shape.column_factors
            made = TTEmbedding.from_dense(values[name], ranks, row_factors=p, column_factors=q, dtype="float32")
            values |= {f"{name}/core_{k}": core.numpy() for k, core in enumerate(made.cores, start=1)}
            table.approximation_error = made.approximation_error
            errors[side] = float(made.approximation_error or 0.0)
        for variable in other.weights:
            variable.assign(values[_name(variable)])
        return other, errors

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {
            **super().get_config(),
            "num_users": self.num_users,
            "num_items": self.num_items,
            "mf_dim": self.mf_dim,
            "layer_dims": list(self.layer_dims),
            "dropout": self.dropout,
            "embedding_l2": self.embedding_l2,
            "mlp_embedding_l2": self.mlp_embedding_l2,
            "gmf_weights": self.gmf_weights,
            "branch": self.branch,
            "split_final": self.split_final,
            "chunk_pairs": self.chunk_pairs,
            "noise_seed": self.noise_seed,
            "user_embedding": self.embedding_kinds["user"],
            "item_embedding": self.embedding_kinds["item"],
            "embedding_ranks": self.embedding_ranks,
            "embedding_group": self.embedding_group,
        }


class _RowSums:
    """Gradients of terms, summed over the chunks that use them. Not a Keras or TensorFlow object, so never saved.

    Variables, since only they are added to in place: adding to rows of a tensor copies all of it, or takes three times
    as long.
    """

    def __init__(self, widths: dict[tuple[str, str], int]) -> None:
        self._sums = {n: tf.Variable(tf.zeros([0, w]), shape=[None, w], trainable=False) for n, w in widths.items()}

    def reset(self, like: Terms) -> None:
        """Zeros in the shapes of ``like``."""
        for name, total in self._sums.items():
            total.assign(tf.zeros(tf.shape(like[name])))

    def add(self, gradients: Terms, user_index: tf.Tensor, item_index: tf.Tensor) -> None:
        """Add gradients to the rows that the indices name."""
        for name, total in self._sums.items():
            index = tf.reshape(user_index if name[0] == "user" else item_index, [-1])
            flat = tf.cast(tf.reshape(gradients[name], [-1, total.shape[1]]), tf.float32)
            total.scatter_add(tf.IndexedSlices(flat, index))

    def read(self) -> Terms:
        """The sums, float32."""
        return {name: total.read_value() for name, total in self._sums.items()}


def in_chunks(
    num_users: tf.Tensor, step: tf.Tensor, width: tf.Tensor, chunk: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Scores ``[num_users, width]`` from ``chunk(first, last)`` of ``step`` users at a time."""
    count = (num_users + step - 1) // step
    parts = tf.TensorArray(tf.float32, count, infer_shape=False, element_shape=tf.TensorShape([None, None]))
    _, parts = tf.while_loop(
        lambda i, _: i < count,
        lambda i, parts: (i + 1, parts.write(i, chunk(i * step, tf.minimum((i + 1) * step, num_users)))),
        (tf.constant(0), parts),
        parallel_iterations=1,
    )
    return tf.cond(count > 0, parts.concat, lambda: tf.zeros([0, width]))


def _pairs(inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Users ``[B]`` and items ``[B, C]`` from what Keras hands on."""
    users, items = (inputs["user"], inputs["item"]) if isinstance(inputs, dict) else inputs
    users, items = tf.convert_to_tensor(users), tf.convert_to_tensor(items)
    for name, ids in (("users", users), ("items", items)):
        if not ids.dtype.is_integer:
            raise InputError(f"NeuMF takes whole numbers as {name}.\nReceived: {ids.dtype.name}.")
    if users.shape.rank is None or (users.shape.rank == 2 and users.shape[1] == 1):
        users = tf.reshape(users, [-1])
    items = _columns(items)
    same = users.shape.rank == 1 and items.shape.rank == 2 and users.shape.is_compatible_with(items.shape[:1])
    if not same:
        raise InputError(
            f"NeuMF takes users [B] and items [B] or [B, C].\nReceived: users {users.shape}, items {items.shape}."
        )
    return users, items


def _columns(x: tf.Tensor) -> tf.Tensor:
    """``[B]`` as ``[B, 1]``; also where the rank is not known, as in a trace that has served both."""
    if x.shape.rank == 1:
        return x[:, None]
    if x.shape.rank is None:
        return tf.ensure_shape(tf.reshape(x, tf.concat([tf.shape(x), [1]], axis=0)[:2]), [None, None])
    return x


def serve_pairs(model: Model) -> tuple[Callable[[Any], tf.Tensor], list[Any]]:
    """What an export of a model of users and items answers: every form of input that the model takes, the signature
    being that of ``user`` int64 ``[B]`` and ``item`` int64 ``[B, C]``."""

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, None], tf.int64)], autograph=False
    )
    def score(users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return model((users, items), training=False)

    def serve(inputs: Any) -> tf.Tensor:
        users, items = _pairs(inputs)
        found = score(tf.cast(users, tf.int64), tf.cast(items, tf.int64))
        return tf.ensure_shape(found, [None, items.shape[1]])

    specs: list[Any] = []
    for shape in ([None, None], [None]):
        for dtype in (tf.int64, tf.int32):
            user, item = tf.TensorSpec([None], dtype, name="user"), tf.TensorSpec(shape, dtype, name="item")
            specs += [{"user": user, "item": item}, (user, item)]
    return serve, specs


def _checked(method: Any, model: NeuMF, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of one of Keras's methods, with the numbers at hand looked at before work starts."""
    given = bind(method, model, args, kwargs)
    validation = given.get("validation_data")
    parts = keras.utils.unpack_x_y_sample_weight(validation) if isinstance(validation, tuple | list) else (None,) * 3
    for name, values, what in (
        ("y", given.get("y"), "labels"),
        ("sample_weight", given.get("sample_weight"), "sample_weight"),
        ("validation_data[1]", parts[1], "labels"),
        ("validation_data[2]", parts[2], "sample_weight"),
    ):
        if values is None:
            continue
        low, high = _LIMITS[what]
        numbers = np.asarray(values)
        wrong = ~((numbers >= low) & (numbers <= high))  # NaN compares as neither
        if wrong.any():
            raise InputError(
                f"`{name}` must {_MUST[what]}.\nReceived: {numbers[wrong][0]}; {int(wrong.sum())} such numbers."
            )
    y = given.get("y")
    if given.get("class_weight") is not None and (y is None or np.prod(np.shape(y)[1:]) != 1):
        raise InputError(
            "`class_weight` goes with one item and one label to a row, given as arrays.\n"
            f"Received: y of shape {None if y is None else np.shape(y)}.\n"
            "Give `sample_weight`, in the shape of the items."
        )
    return given


def _like(items: tf.Tensor, values: Any, name: str) -> tf.Tensor:
    """Labels or weights, one per pair or one per user, as float32 ``[B, C]``."""
    if values is None:
        raise InputError(f"NeuMF needs `{name}` beside users and items.\nReceived: none.")
    values = _columns(tf.cast(values, tf.float32))
    if values.shape.rank != 2 or any(
        v not in (1, i) for v, i in zip(values.shape, items.shape, strict=True) if v is not None and i is not None
    ):
        raise InputError(f"`{name}` must have the shape of items, {items.shape}.\nReceived: {values.shape}.")
    check = check_within(values, *_LIMITS[name], f"`{name}` must {_MUST[name]}.")
    values = tf.broadcast_to(values, tf.shape(items))
    with tf.control_dependencies([check]):
        return tf.identity(values)


def _take(terms: Terms, user_index: tf.Tensor, item_index: tf.Tensor | None) -> Terms:
    """The rows of users ``[p, D]`` and items ``[p, C, D]``; all items, ``[1, I, D]``, without an index."""
    indices = {"user": user_index, "item": item_index}
    return {
        name: term[None] if indices[name[0]] is None else tf.gather(term, indices[name[0]])
        for name, term in terms.items()
    }


def _name(variable: keras.Variable) -> str:
    """A weight's name within the model; of a table's cores with that of the table."""
    return "/".join(variable.path.split("/")[-2 if variable.name.startswith("core_") else -1 :])


def _occurrences(index: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """How often each of ``0 ... count - 1`` occurs in ``index``, float32."""
    flat = tf.reshape(index, [-1])
    return tf.math.unsorted_segment_sum(tf.ones_like(flat, tf.float32), flat, count)


def _check(
    num_users: int,
    num_items: int,
    mf_dim: int,
    layer_dims: Sequence[int],
    dropout: float,
    embedding_l2: float,
    mlp_embedding_l2: float | None,
    gmf_weights: str,
    branch: str,
    split_final: bool,
    chunk_pairs: int | None,
) -> None:
    if gmf_weights not in ("learned", "ones"):
        raise InputError(f"`gmf_weights` must be 'learned' or 'ones'.\nReceived: {gmf_weights!r}.")
    if branch not in ("neumf", "gmf", "mlp"):
        raise InputError(f"`branch` must be 'neumf', 'gmf' or 'mlp'.\nReceived: {branch!r}.")
    wholes = [("num_users", num_users), ("num_items", num_items)]
    wholes += [("mf_dim", mf_dim)] if branch != "mlp" else []
    wholes += [(f"layer_dims[{i}]", d) for i, d in enumerate(layer_dims)] if branch != "gmf" else []
    wholes += [("chunk_pairs", chunk_pairs)] if chunk_pairs is not None else []
    for name, value in wholes:
        if value < 1:
            raise InputError(f"`{name}` must be at least 1.\nReceived: {name}={value}.")
    if branch != "gmf" and (len(layer_dims) < 2 or layer_dims[0] % 2):
        raise InputError(
            "`layer_dims` needs at least two widths, the first even: half of it for the user and half for the item.\n"
            f"Received: {tuple(layer_dims)}."
        )
    if not 0 <= dropout < 1 - 1 / 512:
        raise InputError(f"`dropout` must lie in [0, 1).\nReceived: dropout={dropout}.")
    for name, strength in (("embedding_l2", embedding_l2), ("mlp_embedding_l2", mlp_embedding_l2)):
        if strength is not None and not 0 <= strength < float("inf"):
            raise InputError(f"`{name}` must be at least 0, and finite.\nReceived: {strength}.")
    if split_final and branch != "neumf":
        raise InputError(f"Only NeuMF's output layer has two branches to split.\nReceived: branch={branch!r}.")
