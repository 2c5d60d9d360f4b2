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

from tfrec.errors import InputError
from tfrec.models import NeuMF
from tfrec.models.base import Model
from tfrec.models.pairs import in_chunks, pairs, serve_pairs
from tfrec.models.queries import user_tensor
from tfrec.models.recommends import Recommends
from tfrec.ops import int8_score, library
from tfrec.quantization.affine import Affine, weight_affine
from tfrec.quantization.clipping import clip_range
from tfrec.quantization.config import QuantizationConfig
from tfrec.quantization.statistics import Statistics, fingerprint

#: Pairs whose activations are held at once.
_CHUNK_PAIRS = 16_384
#: Sums of products below this are exact in float32.
_EXACT = 1 << 24


@keras.saving.register_keras_serializable(package="tfrec")
class QuantizedNeuMF(Recommends, Model):
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
        self._storage: dict[str, str] = {}
        self._maps: dict[str, tuple[Any, Any, int, int]] = {}
        self.built = False
        self.build()

    # ---- weights

    def build(self, input_shape: Any = None) -> None:
        """Create all weights, zeros until `quantize` or a file fills them."""
        if self.built:
            return
        q = self.quantization
        for side, rows in (("user", self.num_users), ("item", self.num_items)):
            for part, width in self.parts().items():
                self._add_map(f"{side}_{part}", (rows if q.per_row else 1, 1), weight=True)
                self._add_integers(f"{side}_{part}", (rows, width))
        before = 2 * self.mlp_width
        for i, width in enumerate(self.hidden_dims, start=1):
            self._add_map(f"kernel_{i}", (1, width if q.per_channel else 1), weight=True)
            self._add_integers(f"kernel_{i}", (before, width))
            self._add_weight(f"bias_{i}", (width,), "float32" if i == 1 else "int32")
            self._add_map(f"hidden_{i}", ())
            before = width
        for name, width in self._final_widths().items():
            self._add_map(f"{name}_kernel", (1, 1), weight=True)
            self._add_integers(f"{name}_kernel", (width, 1))
            self._add_weight(f"{name}_bias", (), "float32")
        for name in self._other_activations():
            self._add_map(name, ())
        self.built = True

    def parts(self) -> dict[str, int]:
        """The branches and the widths of their embeddings."""
        return {n: w for n, w in (("gmf", self.gmf_width), ("mlp", self.mlp_width)) if w}

    def _final_widths(self) -> dict[str, int]:
        last = {"gmf": self.gmf_width, "mlp": self.hidden_dims[-1] if self.hidden_dims else 0}
        if self.split_final:
            return {n: last[n] for n in self.parts()}
        return {"final": last["gmf"] + last["mlp"]}

    def _other_activations(self) -> list[str]:
        """Activations beside the hidden layers' that are held in integers."""
        names = ["product"] if self.gmf_width and self.quantization.product == "quantized" else []
        if not self.split_final:
            names.append("final_input")
        if self.quantization.final_addition == "int8":
            names += [f"{n}_logit" for n in self._final_widths() if n != "final"]
            names += ["logit"] if self.branch == "neumf" else []
        return names

    def _add_weight(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        weight = self.add_weight(
            name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False, autocast=False
        )
        setattr(self, f"_{name}", weight)

    def _add_integers(self, name: str, shape: tuple[int, int]) -> None:
        self._add_weight(name, shape, "uint8" if self._maps[name][2] >= 0 else "int8")

    def _add_map(self, name: str, shape: tuple[int, ...], weight: bool = False) -> None:
        """Scale and, if the mode has one, zero point."""
        q = self.quantization
        probe = Affine.of_range(-1.0, 1.0, q.weight_mode if weight else q.mode, q.weights if weight else q.activations)
        self._add_weight(f"{name}_scale", shape, "float32")
        symmetric = probe.low == -probe.high
        if not symmetric:
            self._add_weight(f"{name}_zero_point", shape, "int32")
        zero_point = None if symmetric else getattr(self, f"_{name}_zero_point")
        self._maps[name] = (getattr(self, f"_{name}_scale"), zero_point, probe.low, probe.high)

    def affine(self, name: str) -> Affine:
        """How an activation or a weight becomes integers."""
        scale, zero_point, low, high = self._maps[name]
        zero = np.zeros(scale.shape, np.int32) if zero_point is None else zero_point.numpy()
        return Affine(scale.numpy(), zero, low, high)

    def set_affine(self, name: str, affine: Affine) -> None:
        """The reverse of `affine`."""
        scale, zero_point, _, _ = self._maps[name]
        scale.assign(np.broadcast_to(affine.scale, scale.shape))
        if zero_point is not None:
            zero_point.assign(np.broadcast_to(affine.zero_point, zero_point.shape))

    def _value(self, name: str) -> tf.Tensor:
        return tf.convert_to_tensor(getattr(self, f"_{name}"))

    def _scale(self, name: str) -> tf.Tensor:
        return tf.convert_to_tensor(self._maps[name][0])

    def _zero(self, name: str) -> tf.Tensor:
        zero_point = self._maps[name][1]
        return tf.constant(0.0) if zero_point is None else tf.cast(tf.convert_to_tensor(zero_point), tf.float32)

    def _centered(self, name: str, rows: tf.Tensor | None = None) -> tf.Tensor:
        """Integers without their zero point, as exact float32; of a table, these rows."""
        zero = self._zero(name)
        if rows is None:
            values = self._value(name)
        else:
            # From the variable, not from its value: TensorFlow has no other gather of int8 on a GPU.
            values = tf.gather(getattr(self, f"_{name}").value, rows)
            zero = zero if zero.shape.num_elements() == 1 else tf.gather(zero, rows)
        return tf.cast(values, tf.float32) - zero

    def _row_scale(self, name: str, rows: tf.Tensor) -> tf.Tensor:
        scale = self._scale(name)
        return tf.gather(scale, rows) if self.quantization.per_row else tf.broadcast_to(scale, [tf.size(rows), 1])

    # ---- scoring

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """Logits float32 ``[B, C]``, see `tfrec.models.NeuMF`."""
        return self.scores(*pairs(inputs))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int | None]:
        """``[B, C]``."""
        shape = tuple(input_shape["item"] if isinstance(input_shape, dict) else input_shape[1])
        return (shape[0], shape[1] if len(shape) == 2 else 1)

    def link(self, best: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """The probability that a user takes an item. Rank by `scores`: here different ones may round to one number."""
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
        terms = self._terms(user_ids, item_ids)
        if self.runs_natively:
            if item_index is None:
                item_index = tf.broadcast_to(tf.range(self.num_items, dtype=tf.int64), [tf.size(users), self.num_items])
            found = self._native_logits(terms, user_ids, item_ids, user_index, item_index)
            return tf.ensure_shape(found, [None, self.num_items if items is None else items.shape[1]])

        def chunk(first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
            of_items = None if item_index is None else item_index[first:last]
            return self._logits(terms, user_index[first:last], of_items)["logit"]

        step = tf.maximum(_CHUNK_PAIRS // tf.maximum(width, 1), 1)
        found = in_chunks(tf.size(users), step, width, chunk)
        return tf.ensure_shape(found, [None, self.num_items if items is None else items.shape[1]])

    @property
    def runs_natively(self) -> bool:
        """Whether `scores` is one native operation on int8; else it is a simulation with the same result."""
        q = self.quantization
        # Then zero points are known without looking at the variables: 0, or the least integer.
        known = q.relu_ranges or q.mode == "symmetric"
        form = q.product == "exact" and q.final_addition == "float32" and q.weight_mode == "symmetric" and known
        return form and not self.reference and library() is not None and not tf.config.list_logical_devices("GPU")

    def _native_logits(
        self,
        terms: dict[str, tf.Tensor],
        user_ids: tf.Tensor,
        item_ids: tf.Tensor,
        user_index: tf.Tensor,
        item_index: tf.Tensor,
    ) -> tf.Tensor:
        _, _, least, greatest = self._maps["hidden_1"] if self.mlp_width else (0, 0, 0, 0)
        zero = 0 if self.quantization.mode == "symmetric" else least
        mlp: dict[str, Any] = dict.fromkeys(("user_terms", "item_terms", "first", "layers", "final_kernel"))
        mlp["final_scale"] = None
        if self.mlp_width:
            layers = []
            for i in range(2, len(self.hidden_dims) + 1):
                kernel, bias = self._value(f"kernel_{i}"), self._value(f"bias_{i}")
                bias -= zero * tf.reduce_sum(tf.cast(kernel, tf.int32), axis=0)
                scales = [self._scale(n) for n in (f"hidden_{i - 1}", f"kernel_{i}", f"hidden_{i}")]
                multiplier = tf.broadcast_to(scales[0] * scales[1] / scales[2], [1, self.hidden_dims[i - 1]])[0]
                layers.append((kernel, bias, multiplier, zero, zero, greatest))
            last = self._value("mlp_kernel")[:, 0]
            mlp = {
                "user_terms": terms["user_hidden"],
                "item_terms": terms["item_hidden"],
                "first": (zero, zero, greatest),
                "layers": layers,
                "final_kernel": (last, -zero * tf.reduce_sum(tf.cast(last, tf.int32))),
                "final_scale": (self._scale(f"hidden_{len(self.hidden_dims)}") * self._scale("mlp_kernel"))[0, 0],
            }
        gmf = None
        if self.gmf_width:
            gmf = (
                tf.gather(self._value("user_gmf"), user_ids),
                tf.gather(self._value("item_gmf"), item_ids),
                terms["user_scale"][:, 0],
                terms["item_scale"][:, 0],
                self._value("gmf_kernel")[:, 0],
                self._scale("gmf_kernel")[0, 0],
            )
        bias = tf.add_n([self._value(f"{n}_bias") for n in self.parts()])
        user_index, item_index = tf.cast(user_index, tf.int32), tf.cast(item_index, tf.int32)
        return int8_score(user_index=user_index, item_index=item_index, gmf=gmf, bias=bias, **mlp)

    def integers(self, users: np.ndarray, items: np.ndarray) -> dict[str, np.ndarray]:
        """Every activation of pairs as integers ``[B * C, width]``, and the logits; what tests and reports look at."""
        user_ids, user_index = tf.unique(tf.constant(users))
        item_ids, item_index = tf.unique(tf.reshape(tf.constant(items), [-1]))
        found = self._logits(self._terms(user_ids, item_ids), user_index, tf.reshape(item_index, items.shape))
        return {name: value.numpy() for name, value in found.items()}

    def _terms(self, user_ids: tf.Tensor, item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """What a pair needs of its user and of its item."""
        terms = {}
        for side, ids in (("user", user_ids), ("item", item_ids)):
            if self.gmf_width:
                terms[f"{side}_gmf"] = self._centered(f"{side}_gmf", ids)
                terms[f"{side}_scale"] = self._row_scale(f"{side}_gmf", ids)
            if self.mlp_width:
                kernel = self._centered("kernel_1")
                half = kernel[: self.mlp_width] if side == "user" else kernel[self.mlp_width :]
                total = tf.cast(_multiply(self._centered(f"{side}_mlp", ids), half), tf.float32)
                term = total * (self._row_scale(f"{side}_mlp", ids) * self._scale("kernel_1"))
                terms[f"{side}_hidden"] = (term + self._value("bias_1") if side == "user" else term) / self._scale(
                    "hidden_1"
                )
        return terms

    def _logits(
        self, terms: dict[str, tf.Tensor], user_index: tf.Tensor, item_index: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        """All activations of users ``[p]`` with items ``[p, C]`` (None: all): integers flat ``[p * C, width]``,
        ``logit`` float32 ``[p, C]``."""

        def of_user(name: str) -> tf.Tensor:
            return tf.gather(terms[f"user_{name}"], user_index)[:, None]

        def of_item(name: str) -> tf.Tensor:
            term = terms[f"item_{name}"]
            return term[None] if item_index is None else tf.gather(term, item_index)

        found: dict[str, tf.Tensor] = {}
        logits: dict[str, tf.Tensor] = {}
        shape = None
        if self.gmf_width:
            product = of_user("gmf") * of_item("gmf")
            scale = of_user("scale") * of_item("scale")
            shape = tf.shape(product)[:2]
            product, scale = tf.reshape(product, [-1, self.gmf_width]), tf.reshape(scale, [-1, 1])
            if self.quantization.product == "exact":
                total = _multiply(product, self._centered("gmf_kernel"), exact_bound=1 << 60)
                logits["gmf"] = tf.cast(total, tf.float32) * (scale * self._scale("gmf_kernel"))
            else:
                found["product"] = self._round(product * (scale / self._scale("product")), "product")
                if self.split_final:
                    logits["gmf"] = self._last_layer(found["product"], "product", "gmf")
        if self.mlp_width:
            first = of_user("hidden") + of_item("hidden")
            shape = tf.shape(first)[:2]
            hidden = self._round(tf.reshape(first, [-1, self.hidden_dims[0]]), "hidden_1", relu=True)
            found["hidden_1"] = hidden
            for i in range(2, len(self.hidden_dims) + 1):
                before, name = f"hidden_{i - 1}", f"hidden_{i}"
                total = _multiply(hidden - self._zero(before), self._centered(f"kernel_{i}")) + self._value(f"bias_{i}")
                multiplier = self._scale(before) * self._scale(f"kernel_{i}") / self._scale(name)
                hidden = self._round(tf.cast(total, tf.float32) * multiplier, name, relu=True)
                found[name] = hidden
            if self.split_final:
                logits["mlp"] = self._last_layer(hidden, f"hidden_{len(self.hidden_dims)}", "mlp")
        if not self.split_final:
            last = f"hidden_{len(self.hidden_dims)}"
            both = [self._rescale(found["product"], "product"), self._rescale(hidden, last)]
            found["final_input"] = tf.concat(both, axis=1)
            logits["final"] = self._last_layer(found["final_input"], "final_input", "final")
        assert shape is not None
        found["logit"] = tf.reshape(self._add(logits, found), shape)
        return found

    def _round(self, x: tf.Tensor, name: str, relu: bool = False) -> tf.Tensor:
        """Integers of an activation whose numbers were divided by its scale already."""
        _, _, low, high = self._maps[name]
        zero = self._zero(name)
        return tf.minimum(tf.maximum(tf.round(x) + zero, zero if relu else float(low)), float(high))

    def _rescale(self, q: tf.Tensor, name: str) -> tf.Tensor:
        """From an activation's own scale to that of the joint final layer's input."""
        return self._round((q - self._zero(name)) * (self._scale(name) / self._scale("final_input")), "final_input")

    def _last_layer(self, q: tf.Tensor, activation: str, name: str) -> tf.Tensor:
        total = _multiply(q - self._zero(activation), self._centered(f"{name}_kernel"))
        return tf.cast(total, tf.float32) * (self._scale(activation) * self._scale(f"{name}_kernel"))

    def _add(self, logits: dict[str, tf.Tensor], found: dict[str, tf.Tensor]) -> tf.Tensor:
        if self.quantization.final_addition == "float32":
            total = logits["gmf"] + logits["mlp"] if len(logits) == 2 else next(iter(logits.values()))
            return total + tf.add_n([self._value(f"{n}_bias") for n in logits])
        parts = []
        for name, logit in logits.items():
            biased = logit + self._value(f"{name}_bias")
            parts.append(biased if name == "final" else self._store(biased, f"{name}_logit", found))
        total = parts[0] + parts[1] if len(parts) == 2 else parts[0]
        return self._store(total, "logit", found) if self.branch == "neumf" else total

    def _store(self, x: tf.Tensor, name: str, found: dict[str, tf.Tensor]) -> tf.Tensor:
        """A float as an integer and back."""
        q = self._round(x / self._scale(name), name)
        found[f"{name}_integer"] = q
        return (q - self._zero(name)) * self._scale(name)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        config = {**super().get_config(), "network": self.network, "reference": self.reference}
        return {**config, "quantization": asdict(self.quantization)}


def _multiply(a: tf.Tensor, b: tf.Tensor, exact_bound: int | None = None) -> tf.Tensor:
    """int32 product of integers that are held as floats; through float64 where float32 could round."""
    bound = exact_bound or int(b.shape[0]) * 255 * 255
    if bound < _EXACT:
        return tf.cast(tf.matmul(a, b), tf.int32)
    return tf.cast(tf.matmul(tf.cast(a, tf.float64), tf.cast(b, tf.float64)), tf.int32)


def quantize(model: Any, statistics: Statistics, config: QuantizationConfig | None = None) -> QuantizedNeuMF:
    """A trained NeuMF in integers.

    Args:
        model: a `tfrec.models.NeuMF`, with or without split final layer.
        statistics: of this model, from `tfrec.quantization.calibrate`.
        config: default: the best found.

    Raises:
        InputError: the model is quantized already or no NeuMF, the statistics are another model's or lack an
            activation, or the config makes no sense.
    """
    config = config or QuantizationConfig()
    config.check()
    if isinstance(model, QuantizedNeuMF):
        raise InputError("The model is quantized already.\nQuantize the float model it was made from.")
    if not isinstance(model, NeuMF):
        raise InputError(f"`quantize` takes a tfrec.models.NeuMF.\nReceived: {type(model).__name__}.")
    tensor_trains = [f"{side}_embedding" for side, kind in model.embedding_kinds.items() if kind == "tt"]
    if tensor_trains:
        raise InputError(
            f"A tensor train cannot be quantized: {', '.join(tensor_trains)}.\n"
            "Quantize the dense model, or keep the compressed one in float."
        )
    found = fingerprint(model)
    if statistics.model != found:
        raise InputError(
            f"The statistics belong to another model.\nReceived: those of {statistics.model}, for {found}.\n"
            "Calibrate this model."
        )
    if model.branch == "neumf":
        model = model.with_split_final(config.split_final)
    made = QuantizedNeuMF({k: v for k, v in model.get_config().items() if k in _NETWORK}, config)
    values = {v.path.split("/")[-1]: v.numpy() for v in model.weights}
    _fill(made, values, statistics)
    return made


_NETWORK = ("num_users", "num_items", "mf_dim", "layer_dims", "branch")


def _fill(made: QuantizedNeuMF, values: dict[str, np.ndarray], statistics: Statistics) -> None:
    q = made.quantization

    def weight(name: str, value: np.ndarray, axis: int | None) -> None:
        affine = weight_affine(value, q.weight_mode, q.weights, axis)
        made.set_affine(name, affine)
        getattr(made, f"_{name}").assign(affine.quantize(value).astype(affine.storage))

    def activation(name: str, source: str) -> None:
        low, high = clip_range(statistics[source], q.clipping, q.mode, q.activations, q.clip_std, q.clip_percentile)
        made.set_affine(name, Affine.of_range(low, high, q.mode, q.activations))

    for side in ("user", "item"):
        table = values[f"{side}_embedding"]
        for part in made.parts():
            own = table[:, : made.gmf_width] if part == "gmf" else table[:, made.gmf_width :]
            weight(f"{side}_{part}", own, 1 if q.per_row else None)
    for i in range(1, len(made.hidden_dims) + 1):
        weight(f"kernel_{i}", values[f"kernel_{i}"], 0 if q.per_channel else None)
        activation(f"hidden_{i}", f"hidden_{i}" if q.relu_ranges else f"hidden_{i}_linear")
        bias = values[f"bias_{i}"]
        if i == 1:
            made._bias_1.assign(bias)
        else:
            scale = made.affine(f"hidden_{i - 1}").scale * made.affine(f"kernel_{i}").scale[0]
            limit = np.float64(np.iinfo(np.int32).max // 2)
            rounded = np.clip(np.rint(bias.astype(np.float64) / scale), -limit, limit)
            getattr(made, f"_bias_{i}").assign(np.broadcast_to(rounded, bias.shape).astype(np.int32))
    for name in made._final_widths():
        source = name if f"{name}_kernel" in values else "final"
        weight(f"{name}_kernel", values[f"{source}_kernel"], None)
        getattr(made, f"_{name}_bias").assign(values[f"{source}_bias"][0])
    for name in made._other_activations():
        activation(name, name)
