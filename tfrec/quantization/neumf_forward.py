"""The forward pass of an integer NeuMF in plain TensorFlow: the same integers as the native operation's, multiplied as
floats where these are exact. See `tfrec.quantization.neumf` for the formulas."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

#: Sums of products below this are exact in float32.
_EXACT = 1 << 24


def pair_terms(model: Any, user_ids: tf.Tensor, item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
    """What a pair needs of its user and of its item."""
    terms = {}
    for side, ids in (("user", user_ids), ("item", item_ids)):
        if model.gmf_width:
            terms[f"{side}_gmf"] = model.centered(f"{side}_gmf", ids)
            terms[f"{side}_scale"] = model.row_scale(f"{side}_gmf", ids)
        if model.mlp_width:
            kernel = model.centered("kernel_1")
            half = kernel[: model.mlp_width] if side == "user" else kernel[model.mlp_width :]
            total = tf.cast(_multiply(model.centered(f"{side}_mlp", ids), half), tf.float32)
            term = total * (model.row_scale(f"{side}_mlp", ids) * model.scale("kernel_1"))
            terms[f"{side}_hidden"] = (term + model.value("bias_1") if side == "user" else term) / model.scale(
                "hidden_1"
            )
    return terms


def simulate(
    model: Any, terms: dict[str, tf.Tensor], user_index: tf.Tensor, item_index: tf.Tensor | None
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
    if model.gmf_width:
        product = of_user("gmf") * of_item("gmf")
        scale = of_user("scale") * of_item("scale")
        shape = tf.shape(product)[:2]
        product, scale = tf.reshape(product, [-1, model.gmf_width]), tf.reshape(scale, [-1, 1])
        if model.quantization.product == "exact":
            total = _multiply(product, model.centered("gmf_kernel"), exact_bound=1 << 60)
            logits["gmf"] = tf.cast(total, tf.float32) * (scale * model.scale("gmf_kernel"))
        else:
            found["product"] = _round(model, product * (scale / model.scale("product")), "product")
            if model.split_final:
                logits["gmf"] = _last_layer(model, found["product"], "product", "gmf")
    if model.mlp_width:
        first = of_user("hidden") + of_item("hidden")
        shape = tf.shape(first)[:2]
        hidden = _round(model, tf.reshape(first, [-1, model.hidden_dims[0]]), "hidden_1", relu=True)
        found["hidden_1"] = hidden
        for i in range(2, len(model.hidden_dims) + 1):
            before, name = f"hidden_{i - 1}", f"hidden_{i}"
            total = _multiply(hidden - model.zero(before), model.centered(f"kernel_{i}")) + model.value(f"bias_{i}")
            multiplier = model.scale(before) * model.scale(f"kernel_{i}") / model.scale(name)
            hidden = _round(model, tf.cast(total, tf.float32) * multiplier, name, relu=True)
            found[name] = hidden
        if model.split_final:
            logits["mlp"] = _last_layer(model, hidden, f"hidden_{len(model.hidden_dims)}", "mlp")
    if not model.split_final:
        last = f"hidden_{len(model.hidden_dims)}"
        both = [_rescale(model, found["product"], "product"), _rescale(model, hidden, last)]
        found["final_input"] = tf.concat(both, axis=1)
        logits["final"] = _last_layer(model, found["final_input"], "final_input", "final")
    assert shape is not None
    found["logit"] = tf.reshape(_add(model, logits, found), shape)
    return found


def _round(model: Any, x: tf.Tensor, name: str, relu: bool = False) -> tf.Tensor:
    """Integers of an activation whose numbers were divided by its scale already."""
    low, high = model.limits(name)
    zero = model.zero(name)
    return tf.minimum(tf.maximum(tf.round(x) + zero, zero if relu else float(low)), float(high))


def _rescale(model: Any, q: tf.Tensor, name: str) -> tf.Tensor:
    """From an activation's own scale to that of the joint final layer's input."""
    return _round(model, (q - model.zero(name)) * (model.scale(name) / model.scale("final_input")), "final_input")


def _last_layer(model: Any, q: tf.Tensor, activation: str, name: str) -> tf.Tensor:
    total = _multiply(q - model.zero(activation), model.centered(f"{name}_kernel"))
    return tf.cast(total, tf.float32) * (model.scale(activation) * model.scale(f"{name}_kernel"))


def _add(model: Any, logits: dict[str, tf.Tensor], found: dict[str, tf.Tensor]) -> tf.Tensor:
    if model.quantization.final_addition == "float32":
        total = logits["gmf"] + logits["mlp"] if len(logits) == 2 else next(iter(logits.values()))
        return total + tf.add_n([model.value(f"{n}_bias") for n in logits])
    parts = []
    for name, logit in logits.items():
        biased = logit + model.value(f"{name}_bias")
        parts.append(biased if name == "final" else _store(model, biased, f"{name}_logit", found))
    total = parts[0] + parts[1] if len(parts) == 2 else parts[0]
    return _store(model, total, "logit", found) if model.branch == "neumf" else total


def _store(model: Any, x: tf.Tensor, name: str, found: dict[str, tf.Tensor]) -> tf.Tensor:
    """A float as an integer and back."""
    q = _round(model, x / model.scale(name), name)
    found[f"{name}_integer"] = q
    return (q - model.zero(name)) * model.scale(name)


def _multiply(a: tf.Tensor, b: tf.Tensor, exact_bound: int | None = None) -> tf.Tensor:
    """int32 product of integers that are held as floats; through float64 where float32 could round."""
    bound = exact_bound or int(b.shape[0]) * 255 * 255
    if bound < _EXACT:
        return tf.cast(tf.matmul(a, b), tf.int32)
    return tf.cast(tf.matmul(tf.cast(a, tf.float64), tf.cast(b, tf.float64)), tf.int32)
