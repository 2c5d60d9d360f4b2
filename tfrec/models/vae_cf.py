"""Variational autoencoder for collaborative filtering.

A user is the row x of items she has. An encoder maps it to a normal distribution over a latent vector z, a decoder
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

#: Turns what an input pipeline yields into a batch of sparse rows.
Gather = Callable[[tf.Tensor], tf.SparseTensor]


@keras.saving.register_keras_serializable(package="tfrec")
class VAECF(keras.Model):
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

    Input shape: SparseTensor ``[B, I]`` (a dense tensor or a SciPy matrix passed to ``fit`` is taken too).
    Output shape: logits, float32 ``[B, I]``.

    ``fit``, ``evaluate`` and ``predict`` work as in Keras; ``compile`` takes an optimizer and no loss, since the
    likelihood needs the hidden layer, not the logits.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> model = VAECF(num_items=4, hidden_dims=(8,), latent_dim=2)
        >>> model(tf.sparse.from_dense([[1.0, 0, 0, 1.0]])).shape
        TensorShape([1, 4])
    """

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
        # XLA on a GPU has no kernel for a sparse product.
        self.supports_jit = False
        self._gather: Gather | None = None
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
        """Create all weights. The shape is known from ``num_items``; the argument is not looked at."""
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
        # The last layer belongs to the model itself: training fuses it with the likelihood, which wants the float32
        # weights, so Keras must not cast them.
        self.item_kernel = self.add_weight(
            name="item_kernel",
            autocast=False,
            shape=(shape[-1], self.num_items),
            initializer="glorot_uniform",
            regularizer=self._regularizer,
        )
        self.item_bias = self.add_weight(name="item_bias", autocast=False, shape=(self.num_items,), initializer="zeros")
        self.steps = self.add_weight(name="steps", shape=(), dtype="int64", initializer="zeros", trainable=False)
        self.built = True

    def compile(self, optimizer: Any = "adam", *, gather: Gather | None = None, **kwargs: Any) -> None:
        """As `keras.Model.compile`, without a loss.

        Args:
            optimizer: any Keras optimizer.
            gather: turns a batch of the input pipeline into sparse rows, on the device, e.g.
                ``tfrec.data.csr.ResidentMatrix(...).gather`` for a pipeline of user indices.
            **kwargs: as in Keras, but for ``loss``.
        """
        if kwargs.get("loss") is not None:
            raise InputError(
                f"VAECF has its own loss, the multinomial likelihood.\nReceived: loss={kwargs['loss']!r}.\n"
                "Leave `loss` out."
            )
        super().compile(optimizer=optimizer, **kwargs)
        self._gather = gather

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as when the model was saved; Keras asks for this where ``compile`` is a class's own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def call(self, x: tf.SparseTensor | tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Logits of all items, float32 ``[B, I]``, at the mean of z."""
        hidden, _ = self._hidden(self._sparse(x), training=bool(training))
        kernel = tf.cast(tf.convert_to_tensor(self.item_kernel), hidden.dtype)
        logits = tf.cast(tf.matmul(hidden, kernel), tf.float32)
        return logits + tf.convert_to_tensor(self.item_bias)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """``[B, I]``."""
        return (input_shape[0], self.num_items)

    def probabilities(self, x: tf.SparseTensor | tf.Tensor) -> tf.Tensor:
        """The distribution over all items, float32 ``[B, I]``."""
        return tf.nn.softmax(self(x, training=False))

    def beta(self) -> tf.Tensor:
        """The present weight of the KL term, float32 scalar."""
        if self.kl_anneal_steps == 0:
            return tf.constant(self.kl_cap, tf.float32)
        progress = tf.cast(tf.convert_to_tensor(self.steps), tf.float32) / self.kl_anneal_steps
        return self.kl_cap * tf.minimum(progress, 1.0)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on a batch of rows; see the module's text for the loss."""
        x = self._batch(data)
        with tf.GradientTape() as tape:
            loss = self._track_loss(x, training=True)
            scaled = self.optimizer.scale_loss(loss)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(scaled, weights), weights, strict=True))
        self.steps.assign_add(1)
        return self.get_metrics_result()

    def test_step(self, data: Any) -> dict[str, Any]:
        """The loss at the mean of z, without dropout."""
        self._track_loss(self._batch(data), training=False)
        return self.get_metrics_result()

    def predict_step(self, data: Any) -> tf.Tensor:
        """Logits of a batch."""
        return self(self._batch(data), training=False)

    def _batch(self, data: Any) -> tf.SparseTensor:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self._gather(x) if self._gather is not None else self._sparse(x)

    def _sparse(self, x: tf.SparseTensor | tf.Tensor) -> tf.SparseTensor:
        x = x if isinstance(x, tf.SparseTensor) else tf.sparse.from_dense(x)
        # Normalised in float32: squares of counts overflow in float16.
        return tf.cast(x, tf.float32)

    def _track_loss(self, x: tf.SparseTensor, training: bool) -> tf.Tensor:
        """The loss of a batch, also added to the metrics, weighted by the number of users."""
        hidden, kl_sum = self._hidden(x, training=training)
        batch = tf.cast(tf.shape(hidden)[0], tf.float32)
        users = tf.maximum(batch, 1.0)  # a rank's share of a small last batch may be empty
        nll = (
            multinomial_nll(
                hidden,
                tf.convert_to_tensor(self.item_kernel),
                tf.convert_to_tensor(self.item_bias),
                x,
                training=training,
                chunk_bytes=self.chunk_bytes,
            )
            / users
        )
        kl = kl_sum / users
        loss = nll + self.beta() * kl
        for penalty in self.losses:
            loss += tf.cast(penalty, tf.float32)
        self._loss_tracker.update_state(loss, sample_weight=batch)
        self.nll_tracker.update_state(nll, sample_weight=batch)
        self.kl_tracker.update_state(kl, sample_weight=batch)
        return loss

    def _hidden(self, x: tf.SparseTensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The decoder's last hidden layer ``[B, D]``, and the sum over users of the KL divergence, float32."""
        x = tf.SparseTensor(x.indices, x.values, tf.stack([x.dense_shape[0], tf.constant(self.num_items, tf.int64)]))
        rows = l2_normalize_rows(x)
        if training:
            rows = dropout_nonzeros(rows, self.dropout, self._noise(0))
        code: Any = self.encoder[0](rows, training=training)
        for layer in self.encoder[1:]:
            code = layer(code)
        kl = tf.constant(0.0)
        if self.variational:
            mean, log_variance = tf.split(tf.cast(code, tf.float32), 2, axis=1)
            kl = 0.5 * tf.reduce_sum(tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance)
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
