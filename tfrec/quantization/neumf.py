"""NeuMF in integers.

Embeddings, weights and activations are integers of 2 to 8 bits, products are summed in int32, and only the change from
one scale to the next is float32. With h the integers of an activation, z their zero point and s their scale:

    first layer   h_1 = clamp(round((A a_u s_u + c) / s_1 + B b_i s_i / s_1) + z_1)   (s: row's times channel's scale)
    others        h_k = clamp(round((W_k (h - z) + c_k) M_k) + z_k),   M_k = s_{k-1} s_W / s_k,  c_k in int32
    ReLU          the lower end of the clamp is z_k
    GMF           sum_d p_ud q_id w_d in int32, or the product as an activation of its own
    logit         s_g (sum) + s_h (sum) + c in float32, or everything in 8 bits

The first layer is done once per user and item, as in `tfrec.models.NeuMF`. On a CPU a model of the default form runs
in one native operation on int8 (`tfrec.ops.int8_score`); any other is simulated: the same integers, multiplied as
floats where these are exact. Source: Jacob et al., CVPR 2018; split final layer: IntelLabs Distiller's study of NCF.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec.models.base import Model
from tfrec.models.pairs import in_chunks, pairs, serve_pairs
from tfrec.models.queries import user_tensor
from tfrec.models.recommends import Recommends
from tfrec.quantization.config import QuantizationConfig
from tfrec.quantization.integer_weights import IntegerWeights
from tfrec.quantization.neumf_forward import pair_terms, simulate
from tfrec.quantization.neumf_native import can_run, native_scores

#: Pairs whose activations are held at once.
_CHUNK_PAIRS = 16_384


@keras.saving.register_keras_serializable(package="tfrec")
class QuantizedNeuMF(IntegerWeights, Recommends, Model):
    """An integer NeuMF, made by `quantize`.

    Args:
        network: the config of the float `tfrec.models.NeuMF`.
        quantization: a `QuantizationConfig`, or its fields as a dict.
        reference: always simulate, in plain TensorFlow, also where there is a native operation.

    Input and output as those of `tfrec.models.NeuMF`.
    """

    def __init__(
        self,
        network: dict[str, Any],
        quantization: QuantizationConfig | dict[str, Any],
        reference: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"trainable": False, **kwargs})
        if isinstance(quantization, dict):
            quantization = QuantizationConfig(**quantization)
        quantization.check()
        self.network = dict(network)
        self.quantization = quantization
        self.reference = reference
        self.supports_jit = False
        self.num_users, self.num_items = int(network["num_users"]), int(network["num_items"])
        self.branch = network["branch"]
        self.gmf_width = 0 if self.branch == "mlp" else int(network["mf_dim"])
        dims = tuple(network["layer_dims"]) if self.branch != "gmf" else ()
        self.mlp_width, self.hidden_dims = (dims[0] // 2 if dims else 0), dims[1:]
        self.split_final = self.branch != "neumf" or quantization.split_final
        self.built = False
        self.build()

    # ---- weights

    def build(self, input_shape: Any = None) -> None:
        """Create all weights, zeros until `quantize` or a file fills them."""
        if self.built:
            return
        q = self.quantization
        self.begin_weights()
        for side, rows in (("user", self.num_users), ("item", self.num_items)):
            for part, width in self.parts().items():
                self.add_integers(f"{side}_{part}", (rows, width), (rows if q.per_row else 1, 1))
        before = 2 * self.mlp_width
        for i, width in enumerate(self.hidden_dims, start=1):
            self.add_integers(f"kernel_{i}", (before, width), (1, width if q.per_channel else 1))
            self.add_value(f"bias_{i}", (width,), "float32" if i == 1 else "int32")
            self.add_map(f"hidden_{i}", ())
            before = width
        for name, width in self.final_widths().items():
            self.add_integers(f"{name}_kernel", (width, 1), (1, 1))
            self.add_value(f"{name}_bias", (), "float32")
        for name in self.other_activations():
            self.add_map(name, ())
        self.built = True

    def parts(self) -> dict[str, int]:
        """The branches and the widths of their embeddings."""
        return {n: w for n, w in (("gmf", self.gmf_width), ("mlp", self.mlp_width)) if w}

    def final_widths(self) -> dict[str, int]:
        """The output layers and the widths of their inputs."""
        last = {"gmf": self.gmf_width, "mlp": self.hidden_dims[-1] if self.hidden_dims else 0}
        if self.split_final:
            return {n: last[n] for n in self.parts()}
        return {"final": last["gmf"] + last["mlp"]}

    def other_activations(self) -> list[str]:
        """Activations other than the hidden layers' that are held in integers."""
        names = ["product"] if self.gmf_width and self.quantization.product == "quantized" else []
        if not self.split_final:
            names.append("final_input")
        if self.quantization.final_addition == "int8":
            names += [f"{n}_logit" for n in self.final_widths() if n != "final"]
            names += ["logit"] if self.branch == "neumf" else []
        return names

    # ---- scoring

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Logits float32 ``[B, C]``, see `tfrec.models.NeuMF`."""
        return self.scores(*pairs(inputs))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int | None]:
        """``[B, C]``."""
        shape = tuple(input_shape["item"] if isinstance(input_shape, dict) else input_shape[1])
        return (shape[0], shape[1] if len(shape) == 2 else 1)

    def link(self, best: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """The probability that a user chooses an item. Rank by `scores`: different ones may round to one here."""
        return tf.sigmoid(best)

    def carry_over(self, old: Any, users: Any, items: Any) -> None:
        """Refused: integers have the ranges of their model's weights.

        Raises:
            InputError: always.
        """
        raise self.cannot("cannot start from an earlier model", "Carry over the float NeuMF, train it, and quantize it")

    def served(self) -> tuple[Callable[[Any], tf.Tensor], list[Any]]:
        """See `Model.served`."""
        return serve_pairs(self)

    def scores(self, queries: Any, items: Any = None) -> tf.Tensor:
        """Logits of candidates.

        Args:
            queries: numbers of users, int ``[B]``.
            items: int ``[B, C]``, or None for all items in order (C = I).

        Returns:
            float32 ``[B, C]``.

        Raises:
            InputError: histories.
        """
        users = user_tensor(queries)
        user_ids, user_index = tf.unique(tf.reshape(users, [-1]), out_idx=tf.int64)
        if items is None:
            item_ids, item_index = tf.range(self.num_items, dtype=tf.int64), None
            width = tf.constant(self.num_items)
        else:
            item_ids, item_index = tf.unique(tf.reshape(items, [-1]), out_idx=tf.int64)
            item_index, width = tf.reshape(item_index, tf.shape(items)), tf.shape(items)[1]
        terms = pair_terms(self, user_ids, item_ids)
        if self.runs_natively:
            if item_index is None:
                item_index = tf.broadcast_to(tf.range(self.num_items, dtype=tf.int64), [tf.size(users), self.num_items])
            found = native_scores(self, terms, user_ids, item_ids, user_index, item_index)
            return tf.ensure_shape(found, [None, self.num_items if items is None else items.shape[1]])

        def chunk(first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
            of_items = None if item_index is None else item_index[first:last]
            return simulate(self, terms, user_index[first:last], of_items)["logit"]

        step = tf.maximum(_CHUNK_PAIRS // tf.maximum(width, 1), 1)
        found = in_chunks(tf.size(users), step, width, chunk)
        return tf.ensure_shape(found, [None, self.num_items if items is None else items.shape[1]])

    @property
    def runs_natively(self) -> bool:
        """Whether `scores` is one native operation on int8; else it is a simulation with the same result."""
        return not self.reference and can_run(self)

    def integers(self, users: np.ndarray, items: np.ndarray) -> dict[str, np.ndarray]:
        """Every activation of pairs as integers ``[B * C, width]``, and the logits; what tests and reports look at."""
        user_ids, user_index = tf.unique(tf.constant(users))
        item_ids, item_index = tf.unique(tf.reshape(tf.constant(items), [-1]))
        found = simulate(self, pair_terms(self, user_ids, item_ids), user_index, tf.reshape(item_index, items.shape))
        return {name: value.numpy() for name, value in found.items()}

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        config = {**super().get_config(), "network": self.network, "reference": self.reference}
        return {**config, "quantization": asdict(self.quantization)}
