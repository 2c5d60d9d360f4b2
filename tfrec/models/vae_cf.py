"""Variational autoencoder for collaborative filtering.

A user is the row x of their items. An encoder maps it to a normal distribution over a latent vector z, a decoder
maps z to a distribution over all items, and training maximises the multinomial likelihood of x less an annealed KL
divergence to the standard normal prior:

    loss = (1/B) sum over b of [ -sum over i of x_bi log softmax(decoder(z_b))_i  +  beta KL(q(z|x_b) || N(0, 1)) ]

with z ~ q(z | dropout(x / |x|)). Recommendations are the items of highest probability at z = mean of q.

Source: Liang, Krishnan, Hoffman, Jebara, "Variational Autoencoders for Collaborative Filtering", WWW 2018, equations 2
and 7; Mult-DAE (no sampling, no KL) is section 2.3 there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import scipy.sparse
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.layers import (
    AlignedDense,
    SparseDense,
    dropout_nonzeros,
    l2_normalize_rows,
    multinomial_nll,
)
from tfrec.layers.multinomial import CHUNK_BYTES
from tfrec.models.base import FLOAT_MAX, Model, check_within
from tfrec.models.carry import Side
from tfrec.models.leave_one_out import leave_one_out
from tfrec.models.queries import history_tensor
from tfrec.models.recommends import Recommends, of_candidates
from tfrec.models.rows import check_width, serve_rows, sparse_rows
from tfrec.models.vae_cf_inputs import are_users, checked, checked_counts

#: Turns what an input pipeline yields into a batch of sparse rows.
Gather = Callable[[tf.Tensor], tf.SparseTensor]


@keras.saving.register_keras_serializable(package="tfrec")
class VAECF(Recommends, Model):
    """Mult-VAE or Mult-DAE on sparse rows; nothing of size ``[B, I]`` exists on the input side.

    Args:
        num_items: I, from 2.
        hidden_dims: widths of the encoder's hidden layers; the decoder mirrors them. May be empty.
        latent_dim: width of z.
        dropout: share of a row's non-zeros dropped in training, in ``[0, 1)``.
        kl_cap: largest beta, the weight of the KL term, from 0.
        kl_anneal_steps: steps over which beta grows linearly from 0 to ``kl_cap``; 0: ``kl_cap`` from the start.
        l2: weight of ``sum of kernel^2`` over all kernels in the loss, from 0.
        variational: False gives Mult-DAE: z is the mean, without KL term.
        activation: of the hidden layers.
        chunk_bytes: bound on the size of the logits held at once in training.
        noise_seed: of dropout and sampling. The noise of a step depends on this and the step's number only, so a
            resumed training draws what an uninterrupted one would have. Ranks take different seeds.

    Input shape: SparseTensor ``[B, I]``, entries in order of row, or dense; ``fit``, ``evaluate`` and ``predict``
    accept a SciPy matrix too.
    Output shape: logits, float32 ``[B, I]``.

    ``fit``, ``evaluate`` and ``predict`` work as in Keras; ``compile`` accepts an optimizer and no loss, since the
    likelihood needs the hidden layer, not the logits. Then

    - ``x`` are counts: finite, from 0;
    - ``y``, if given, are the counts to predict, ``[B, I]`` as well: the likelihood is that of ``y`` given ``x``, so
      ``fit(past, future)`` trains on what came later. Without it a row predicts itself;
    - ``sample_weight``, ``[B]``, from 0: the loss is the mean over the batch of each user's loss times the user's
      weight, as in Keras;
    - ``class_weight`` is refused: users have no classes;
    - ``validation_data`` is ``x``, ``(x, y)`` or ``(x, y, sample_weight)``.

    Raises:
        InputError: an argument out of range; rows of another width than I; counts or weights that are negative, NaN or
            infinite. What comes from a pipeline is checked batch by batch, before a weight changes; there wrong
            counts are a `tf.errors.InvalidArgumentError`.

    Example:
        >>> model = VAECF(num_items=4, hidden_dims=(8,), latent_dim=2)
        >>> model(tf.sparse.from_dense([[1.0, 0, 0, 1.0]])).shape
        TensorShape([1, 4])
    """

    takes_histories = True

    def __init__(
        self,
        num_items: int,
        hidden_dims: Sequence[int] = (600,),
        latent_dim: int = 200,
        dropout: float = 0.5,
        kl_cap: float = 0.2,
        kl_anneal_steps: int = 0,
        l2: float = 0.0,
        variational: bool = True,
        activation: str = "tanh",
        chunk_bytes: int = CHUNK_BYTES,
        noise_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.check_policy()
        for name, value, low in (
            ("num_items", num_items, 2),
            ("latent_dim", latent_dim, 1),
            ("kl_cap", kl_cap, 0),
            ("kl_anneal_steps", kl_anneal_steps, 0),
            ("l2", l2, 0),
            ("chunk_bytes", chunk_bytes, 1),
            *((f"hidden_dims[{i}]", d, 1) for i, d in enumerate(hidden_dims)),
        ):
            if not low <= value < float("inf"):
                raise InputError(f"`{name}` must be at least {low}, and finite.\nReceived: {name}={value}.")
        if not 0 <= dropout < 1:
            raise InputError(f"`dropout` must lie in [0, 1).\nReceived: dropout={dropout}.")
        self.num_items = num_items
        self.hidden_dims = tuple(hidden_dims)
        self.latent_dim = latent_dim
        self.dropout = dropout
        self.kl_cap = kl_cap
        self.kl_anneal_steps = kl_anneal_steps
        self.l2 = l2
        self.variational = variational
        self.activation = activation
        self.chunk_bytes = chunk_bytes
        self.noise_seed = noise_seed
        # Rows are normalised in float32; Keras would round counts to the compute dtype before.
        self.autocast = False
        # XLA on a GPU has no kernel for a sparse product.
        self.supports_jit = False
        self.gather: Gather | None = None
        self._measures = False
        self.built = False

        regularizer = keras.regularizers.L2(l2) if l2 > 0 else None
        code_dim = 2 * latent_dim if variational else latent_dim
        widths = [*self.hidden_dims, code_dim]
        code_activation = None if variational else activation
        self.encoder: list[keras.layers.Layer] = []
        for i, width in enumerate(widths):
            layer = SparseDense if i == 0 else AlignedDense
            self.encoder.append(
                layer(
                    width,
                    activation=activation if i < len(self.hidden_dims) else code_activation,
                    kernel_regularizer=regularizer,
                    name=f"encoder_{i}",
                    dtype=self.dtype_policy,
                )
            )
        self.decoder: list[keras.layers.Layer] = [
            AlignedDense(
                width,
                activation=activation,
                kernel_regularizer=regularizer,
                name=f"decoder_{i}",
                dtype=self.dtype_policy,
            )
            for i, width in enumerate(reversed(self.hidden_dims))
        ]
        self._regularizer = regularizer
        self.nll_tracker = keras.metrics.Mean(name="nll")
        self.kl_tracker = keras.metrics.Mean(name="kl")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Create all weights. The shape is known from ``num_items``; the argument is ignored."""
        if self.built:
            return
        shape: tuple[int | None, ...] = (None, self.num_items)
        for layer in self.encoder:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        shape = (None, self.latent_dim)
        for layer in self.decoder:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.build_items(shape[-1])
        self.steps = self.add_weight(name="steps", shape=(), dtype="int64", initializer="zeros", trainable=False)
        self.built = True

    def build_items(self, width: int | None) -> None:
        """Create the last layer, whose input has this width."""
        # The last layer belongs to the model itself: training fuses it with the likelihood, which wants the float32
        # weights, so Keras must not cast them.
        self.item_kernel = self.add_weight(
            name="item_kernel",
            autocast=False,
            shape=(width, self.num_items),
            initializer="glorot_uniform",
            regularizer=self._regularizer,
        )
        self.item_bias = self.add_weight(name="item_bias", autocast=False, shape=(self.num_items,), initializer="zeros")

    def compile(self, optimizer: Any = "adam", *, gather: Gather | None = None, **kwargs: Any) -> None:
        """As `keras.Model.compile`, without a loss.

        Args:
            optimizer: any Keras optimizer.
            gather: turns a batch of user numbers, whole and ``[B]``, into sparse rows, on the device, e.g.
                ``tfrec.data.csr.ResidentMatrix(...).gather`` for a pipeline of user numbers. Rows stay as they are.
            **kwargs: as in Keras, but for ``loss``. ``metrics`` get the counts of ``y`` (without it, of ``x``) and the
                logits, dense ``[B, I]``. With ``y`` an item that ``x`` has is no candidate: its logit lies below all
                others of the row. So ranking metrics, such as keras-rs's ``NDCG(k=100)``, with
                ``validation_data=(past, future)`` tell after every epoch how well the future is ranked. In training
                they cost a ``[B, I]`` tensor that the loss does without; `tfrec.evaluation.RankingCallback` does not.
        """
        if kwargs.get("loss") is not None:
            raise InputError(
                f"VAECF has its own loss, the multinomial likelihood.\nReceived: loss={kwargs['loss']!r}.\n"
                "Leave `loss` out."
            )
        super().compile(optimizer=optimizer, **kwargs)
        self.gather = gather
        self._measures = bool(kwargs.get("metrics") or kwargs.get("weighted_metrics"))

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as when the model was saved; Keras asks for this where ``compile`` is a class's own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`; for ``x``, ``y`` and weights see the class."""
        given = checked(self, keras.Model.fit, args, kwargs)
        try:
            return super().fit(**given)
        except Exception:
            # A function whose tracing failed may make no variables when it is called again: the next fit traces anew.
            self.train_function = self.test_function = None
            raise

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`: the loss at the mean of z, without dropout."""
        if "_use_cached_eval_dataset" in kwargs:  # within ``fit``, which has looked at the data
            return super().evaluate(*args, **kwargs)
        return super().evaluate(**checked(self, keras.Model.evaluate, args, kwargs))

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`: logits, float32 ``[N, I]``."""
        return super().predict(**checked(self, keras.Model.predict, args, kwargs, counts=False))

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.train_on_batch`."""
        return super().train_on_batch(**checked(self, keras.Model.train_on_batch, args, kwargs, batch=True))

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.test_on_batch`."""
        return super().test_on_batch(**checked(self, keras.Model.test_on_batch, args, kwargs, batch=True))

    def predict_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict_on_batch`."""
        given = checked(self, keras.Model.predict_on_batch, args, kwargs, counts=False, batch=True)
        return super().predict_on_batch(**given)

    def call(self, x: tf.SparseTensor | tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Logits of all items, float32 ``[B, I]``, at the mean of z; with ``training``, with dropout and a drawn z."""
        hidden, _ = self._hidden(self._sparse(x, "x"), training=bool(training))
        return self._logits(hidden)

    def _logits(self, hidden: tf.Tensor) -> tf.Tensor:
        # In float32 also where the layers before compute in 16 bits: rounded to these, logits of different items would
        # be equal, and a ranking would be by their numbers.
        kernel, bias = tf.convert_to_tensor(self.item_kernel), tf.convert_to_tensor(self.item_bias)
        return tf.matmul(tf.cast(hidden, tf.float32), kernel) + bias

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """``[B, I]``."""
        check_width(input_shape, self.num_items, "x")
        return (input_shape[0], self.num_items)

    def served(self) -> tuple[Callable[[Any], tf.Tensor], list[Any]]:
        """See `Model.served`."""
        return serve_rows(self)

    def query_vectors(self, queries: Any) -> tf.Tensor:
        """The decoder's last hidden layer ``[B, D]`` at the mean of z, float32."""
        hidden, _ = self._hidden(history_tensor(queries, self.num_items), training=False)
        return tf.cast(hidden, tf.float32)

    def item_vectors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The last layer's kernel ``[I, D]`` and bias ``[I]``."""
        return tf.transpose(tf.convert_to_tensor(self.item_kernel)), tf.convert_to_tensor(self.item_bias)

    def scores(self, queries: Any, items: Any = None) -> tf.Tensor:
        """Logits, as calling the model gives them; see `Recommends.scores`."""
        return of_candidates(self._logits(self.query_vectors(queries)), items)

    def link(self, best: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Probabilities among all items. Rank by the logits: here different ones may round to one number."""
        return tf.exp(best - tf.reduce_logsumexp(scores, axis=1, keepdims=True))

    def reasons(self, row: Any, item: int, k: int) -> tuple[float, np.ndarray, np.ndarray]:
        """By how far the item's logit falls when each item of the history is left out; negative for one that
        lowers it. The falls need not add up to anything: the network is not linear in its items."""
        return leave_one_out(lambda rows: self._logit(rows, item), row, k)

    def _logit(self, rows: scipy.sparse.csr_matrix, item: int) -> np.ndarray:
        """One item's logits for histories ``[B, I]``, float32 ``[B]``."""
        kernel = tf.convert_to_tensor(self.item_kernel)[:, item]
        return (tf.linalg.matvec(self.query_vectors(rows), kernel) + self.item_bias[item]).numpy()

    def row_axes(self) -> list[tuple[keras.Variable, Side, int]]:
        """The first layer's kernel, and the last layer's kernel and bias."""
        return [(self.encoder[0].kernel, "item", 0), (self.item_kernel, "item", 1), (self.item_bias, "item", 0)]

    def beta(self) -> tf.Tensor:
        """The present weight of the KL term, float32 scalar."""
        if self.kl_anneal_steps == 0:
            return tf.constant(self.kl_cap, tf.float32)
        progress = tf.cast(tf.convert_to_tensor(self.steps), tf.float32) / self.kl_anneal_steps
        return self.kl_cap * tf.minimum(progress, 1.0)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on a batch of rows; see the module's text for the loss."""
        x, y, weight = self._batch(data)
        with tf.GradientTape() as tape:
            loss, hidden = self._track_loss(x, y, weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        # Wrong numbers have raised before the loss is there: then nothing changes, the counters neither.
        with tf.control_dependencies([loss]):
            self.optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights, strict=True))
            self.steps.assign_add(1)
        return self._measured(x, y, weight, hidden)

    def test_step(self, data: Any) -> dict[str, Any]:
        """The loss at the mean of z, without dropout."""
        x, y, weight = self._batch(data)
        _, hidden = self._track_loss(x, y, weight, training=False)
        return self._measured(x, y, weight, hidden)

    def predict_step(self, data: Any) -> tf.Tensor:
        """Logits of a batch."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self(self._rows(x, "x"), training=False)

    def _batch(self, data: Any) -> tuple[tf.SparseTensor, tf.SparseTensor | None, tf.Tensor | None]:
        """Rows, targets and weights ``[B]`` of a batch. Wrong numbers raise before anything reads them."""
        given, target, weight = keras.utils.unpack_x_y_sample_weight(data)
        x = checked_counts(self._rows(given, "x"), "x")
        itself = target is None or target.dtype == tf.complex64
        y = None if itself else checked_counts(self._sparse(target, "y"), "y")
        if y is not None:
            same = tf.debugging.assert_equal(
                y.dense_shape[0], x.dense_shape[0], message="`y` must have a row for each row of `x`."
            )
            with tf.control_dependencies([same]):
                y = y.with_values(tf.identity(y.values))
        if weight is None:
            return x, y, None
        weight = tf.cast(weight, tf.float32)
        if weight.shape.rank not in (None, 1) and tuple(weight.shape[1:]) not in ((1,), (None,)):
            raise InputError(f"`sample_weight` must have one number for each row.\nReceived shape: {weight.shape}.")
        weight = tf.reshape(weight, [-1])
        checks = [
            tf.debugging.assert_equal(
                tf.size(weight, tf.int64), x.dense_shape[0], message="`sample_weight` must have a number for each row."
            ),
            check_within(weight, 0.0, FLOAT_MAX, "`sample_weight` must be finite and at least 0."),
        ]
        with tf.control_dependencies(checks):
            return x, y, tf.identity(weight)

    def _rows(self, x: Any, name: str) -> tf.SparseTensor:
        """Rows, or those of the users that ``x`` names."""
        if self.gather is not None and are_users(x):
            x = self.gather(x)
        return self._sparse(x, name)

    def _sparse(self, x: tf.SparseTensor | tf.Tensor, name: str) -> tf.SparseTensor:
        # Normalised in float32: squares of counts overflow in float16.
        return tf.cast(sparse_rows(x, self.num_items, name), tf.float32)

    def _track_loss(
        self, x: tf.SparseTensor, y: tf.SparseTensor | None, weight: tf.Tensor | None, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss of a batch, also added to the metrics, weighted by the number of users; and the decoder's last
        hidden layer."""
        hidden, kl = self._hidden(x, training=training)
        batch = tf.cast(tf.shape(hidden)[0], tf.float32)
        users = tf.maximum(batch, 1.0)  # a rank's share of a small last batch may be empty
        target = x if y is None else y
        if weight is not None:
            # The likelihood is linear in the counts.
            target = target.with_values(target.values * tf.gather(weight, target.indices[:, 0]))
            kl *= weight
        nll = (
            multinomial_nll(
                hidden,
                tf.convert_to_tensor(self.item_kernel),
                tf.convert_to_tensor(self.item_bias),
                target,
                training=training,
                chunk_bytes=self.chunk_bytes,
            )
            / users
        )
        kl_mean = tf.reduce_sum(kl) / users
        loss = nll + self.beta() * kl_mean
        for penalty in self.losses:
            loss += tf.cast(penalty, tf.float32)
        self._loss_tracker.update_state(loss, sample_weight=batch)
        self.nll_tracker.update_state(nll, sample_weight=batch)
        self.kl_tracker.update_state(kl_mean, sample_weight=batch)
        return loss, hidden

    def _measured(
        self, x: tf.SparseTensor, y: tf.SparseTensor | None, weight: tf.Tensor | None, hidden: tf.Tensor
    ) -> dict[str, Any]:
        """The results of all metrics, those of ``compile`` brought up to date."""
        if not self._measures:
            return self.get_metrics_result()
        logits = self._logits(hidden)
        if y is not None:
            below = tf.reduce_min(logits, axis=1) - 1.0
            seen = tf.boolean_mask(x.indices, x.values > 0)
            logits = tf.tensor_scatter_nd_update(logits, seen, tf.gather(below, seen[:, 0]))
        target = x if y is None else y
        dense = tf.ensure_shape(tf.sparse.to_dense(target, validate_indices=False), [None, self.num_items])
        return self.compute_metrics(x, dense, logits, sample_weight=weight)

    def _hidden(self, x: tf.SparseTensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The decoder's last hidden layer ``[B, D]``, and the users' KL divergence, float32 ``[B]``."""
        x = tf.SparseTensor(x.indices, x.values, tf.stack([x.dense_shape[0], tf.constant(self.num_items, tf.int64)]))
        rows = l2_normalize_rows(x)
        if training:
            rows = dropout_nonzeros(rows, self.dropout, self._noise(0))
        code: Any = self.encoder[0](rows, training=training)
        for layer in self.encoder[1:]:
            code = layer(code)
        kl = tf.zeros(tf.shape(code)[:1])
        if self.variational:
            mean, log_variance = tf.split(tf.cast(code, tf.float32), 2, axis=1)
            kl = 0.5 * tf.reduce_sum(tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance, axis=1)
            code = mean
            if training:
                noise = tf.random.stateless_normal(tf.shape(mean), self._noise(1))
                code = mean + tf.exp(0.5 * log_variance) * noise
        hidden = tf.cast(code, self.compute_dtype)
        for layer in self.decoder:
            hidden = layer(hidden)
        return hidden, kl

    def _noise(self, purpose: int) -> tf.Tensor:
        """The seed of this step's noise, int32 ``[2]``."""
        step = tf.cast(tf.convert_to_tensor(self.steps), tf.int32)
        return tf.stack([tf.constant(self.noise_seed, tf.int32), 2 * step + purpose])

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {
            **super().get_config(),
            "num_items": self.num_items,
            "hidden_dims": list(self.hidden_dims),
            "latent_dim": self.latent_dim,
            "dropout": self.dropout,
            "kl_cap": self.kl_cap,
            "kl_anneal_steps": self.kl_anneal_steps,
            "l2": self.l2,
            "variational": self.variational,
            "activation": self.activation,
            "chunk_bytes": self.chunk_bytes,
            "noise_seed": self.noise_seed,
        }
