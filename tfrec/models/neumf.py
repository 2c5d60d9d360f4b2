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
from typing import Any, Literal

import keras
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.layers import ShardedEmbedding, TTEmbedding
from tfrec.models.neumf_checks import checked, like
from tfrec.models.neumf_network import NeuMFNetwork
from tfrec.models.neumf_terms import RowSums, Terms, occurrences, take
from tfrec.models.pairs import pairs
from tfrec.ops import tt_gradients

#: Makes the pairs of a step: its number -> users ``[P]``, items ``[P, C]``, of which column 0 is positive.
Sampler = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@keras.saving.register_keras_serializable(package="tfrec")
class NeuMF(NeuMFNetwork):
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
        user_embedding: ``dense``, a row for each user on every rank; ``sharded``, a `ShardedEmbedding`, of which each
            rank holds its share of the rows; or ``tt``, a `TTEmbedding`.
        item_embedding: the same for items.
        embedding_ranks: of the ``tt`` tables, one number for all ranks, from 1.
        embedding_group: of the ``tt`` tables. None: three cores of about equal size. k, from 1: two cores, in which k
            neighbouring ids share r numbers and each place in a group has its own map ``[r, D]`` from them to a row.
            1 is a low-rank table, each row with r numbers to itself, to be preferred where rows are few.
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

    #: Tables of which gradients go to the optimizer by row, see `compile`.
    lazy_tables: tuple[str, ...] = ()
    _sampler: Sampler | None = None

    def build(self, input_shape: Any = None) -> None:
        """Create all weights; their shapes are known from the constructor."""
        if self.built:
            return
        widths = {"gmf": self.gmf_width, "hidden": self.layer_dims[1] if self.mlp_width else 0}
        self._row_sums = RowSums({(side, n): w for side in ("user", "item") for n, w in widths.items() if w})
        super().build(input_shape)

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
                "NeuMF reports its loss only: a metric of single pairs does not measure a ranking.\n"
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
        self.lazy_tables = tuple(lazy_tables)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as when the model was saved; Keras asks for this where ``compile`` is a class's own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`.

        Raises:
            InputError: labels outside [0, 1]; weights that are negative, NaN or infinite; ``class_weight`` with several
                items to a user, of which Keras would take the best item's number for the class. What comes from a
                pipeline is checked batch by batch, before a weight changes; there wrong numbers are a
                `tf.errors.InvalidArgumentError`.
        """
        return super().fit(**checked(keras.Model.fit, self, args, kwargs))

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`: the mean cross entropy, without dropout and penalty."""
        if "_use_cached_eval_dataset" in kwargs:  # within ``fit``, which has looked at the data
            return super().evaluate(*args, **kwargs)
        return super().evaluate(**checked(keras.Model.evaluate, self, args, kwargs))

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.train_on_batch`."""
        return super().train_on_batch(**checked(keras.Model.train_on_batch, self, args, kwargs))

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.test_on_batch`."""
        return super().test_on_batch(**checked(keras.Model.test_on_batch, self, args, kwargs))

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update on a batch of pairs."""
        labels = weights = None
        if self._sampler is not None:
            users, items = self._sampler(tf.convert_to_tensor(self.steps))
        else:
            inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
            users, items = pairs(inputs)
            labels = like(items, labels, "labels")
            weights = None if weights is None else like(items, weights, "sample_weight")
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
        users, items = pairs(inputs)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(like(items, labels, "labels"), self.scores(users, items))
        if weights is not None:
            losses *= like(items, weights, "sample_weight")
        self._loss_tracker.update_state(tf.reduce_mean(losses), sample_weight=tf.cast(tf.size(items), tf.float32))
        return self.get_metrics_result()

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
            weights = like(items, weights, "sample_weight")
        user_rows, user_index, user_ids = self.rows("user", users)
        item_rows, item_index, item_ids = self.rows("item", items)
        early = self.early_weights()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([user_rows, item_rows, *early])
            terms = self.terms(user_rows, item_rows, early)
        loss_sum, late_gradients, upstream = self._through_layers(terms, user_index, item_index, labels, weights, scale)
        upstream = {name: tf.cast(u, self.compute_dtype) for name, u in upstream.items()}
        user_gradient, item_gradient, *early_gradients = tape.gradient(
            terms, [user_rows, item_rows, *early], output_gradients=upstream
        )
        if self.embedding_l2 or self.mlp_embedding_l2:
            strength = tf.constant([self.embedding_l2] * self.gmf_width + [self.mlp_embedding_l2] * self.mlp_width)
            for_users = tf.cast(width, tf.float32) * occurrences(user_index, tf.size(user_ids))
            for_items = occurrences(item_index, tf.size(item_ids))
            user_gradient += strength * scale * for_users[:, None] * user_rows
            item_gradient += strength * scale * for_items[:, None] * item_rows
            squares = [tf.reduce_sum(strength * tf.square(rows), axis=1) for rows in (user_rows, item_rows)]
            penalty = tf.reduce_sum(for_users * squares[0]) + tf.reduce_sum(for_items * squares[1])
            loss_sum += 0.5 * penalty
        found = zip([*self.kernels[:1], *self.biases[:1]], early_gradients, strict=True)
        by_weight = {id(v): g for v, g in [*found, *zip(self.late_variables(), late_gradients, strict=True)]}
        if self.gmf_width and self.gmf_weights == "ones":
            final = id(self.final_kernels[0])
            fixed = tf.range(self.final_kernels[0].shape[0])[:, None] < self.gmf_width
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
        """Forward and back through everything after `terms`, chunk by chunk.

        Returns:
            The sum of the losses; the gradients for `late_variables`; and those for ``terms``, float32.
        """
        late = self.late_weights()
        self._row_sums.reset(terms)
        step = self.chunk_users(tf.shape(item_index)[1])
        num_users = tf.size(user_index)

        def chunk(i: tf.Tensor, loss_sum: tf.Tensor, gradients: list[tf.Tensor]) -> Any:
            part = slice(i * step, tf.minimum((i + 1) * step, num_users))
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                taken = take(terms, user_index[part], item_index[part])
                tape.watch([*taken.values(), *late])
                logits = self.logits(taken, late, seed=self._noise(i))
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

    def _table_gradients(self, table: Any, gradient: tf.Tensor, ids: tf.Tensor) -> dict[int, Any]:
        """The gradients of a table, of whose rows ``ids`` (each once) they are not 0, by the id of each variable."""
        if isinstance(table, TTEmbedding):
            cores = [tf.convert_to_tensor(core) for core in table.cores]
            found = tt_gradients(ids, tf.cast(gradient, tf.float32), cores, table.shape)
            return {id(core): g for core, g in zip(table.cores, found, strict=True)}
        gradient = tf.cast(gradient, tf.float32)
        if isinstance(table, ShardedEmbedding):
            shape = tf.constant([table.input_dim, table.output_dim], tf.int64)
            return {id(table.embeddings): tf.IndexedSlices(gradient, ids, shape)}
        rows = tf.IndexedSlices(gradient, ids, tf.constant(tuple(table.shape), tf.int64))
        return {id(table): rows if table.name in self.lazy_tables else tf.convert_to_tensor(rows)}

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
            values |= {"gmf_kernel": kernel[: self.gmf_width], "mlp_kernel": kernel[self.gmf_width :]}
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
            if kinds[side] != "dense":
                raise InputError(
                    f"The {side} table must be dense to become a tensor train.\nReceived: {kinds[side]!r}.\n"
                    "Leave it out if it is one already; with_dense_embeddings makes a sharded table dense."
                )
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

    def with_dense_embeddings(self, here: bool = True) -> NeuMF:
        """The same network with tables of rows in place of tensor trains, the same logits but for rounding; and with
        whole tables in place of sharded ones, for which every rank must call it.

        Args:
            here: whether this rank needs the model; else it only sends its rows to the others, and gets ``self``.
        """
        other = self
        if here:
            other = NeuMF.from_config({**self.get_config(), "user_embedding": "dense", "item_embedding": "dense"})
            values = {_name(v): v for v in self.weights}
            for variable in other.weights:
                if _name(variable) in values:
                    variable.assign(values[_name(variable)])
        for side, kind in self.embedding_kinds.items():
            source, table = getattr(self, f"{side}_embedding"), getattr(other, f"{side}_embedding")
            if kind == "tt" and here:
                table.assign(source.full_table())
            elif kind == "sharded":
                for ids, rows in source.read_rows():
                    if here:
                        table.value.scatter_update(tf.IndexedSlices(rows, ids))  # in place
        return other


def _name(variable: keras.Variable) -> str:
    """A weight's name within the model; of what a table's layer has with that of the table."""
    own = variable.name.startswith("core_") or variable.name == "embeddings"
    return "/".join(variable.path.split("/")[-2 if own else -1 :])
