"""An integer NeuMF in one native operation on bytes (`tfrec.ops.int8_score`)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrec.ops import int8_score, library


def can_run(model: Any) -> bool:
    """Whether a `tfrec.quantization.QuantizedNeuMF` has the form that the operation computes, and the operation is
    there."""
    q = model.quantization
    # Then zero points are known without looking at the variables: 0, or the least integer.
    known = q.relu_ranges or q.mode == "symmetric"
    form = q.product == "exact" and q.final_addition == "float32" and q.weight_mode == "symmetric" and known
    return form and library() is not None and not tf.config.list_logical_devices("GPU")


def native_scores(
    model: Any,
    terms: dict[str, tf.Tensor],
    user_ids: tf.Tensor,
    item_ids: tf.Tensor,
    user_index: tf.Tensor,
    item_index: tf.Tensor,
) -> tf.Tensor:
    """Logits of pairs.

    Args:
        model: for which `can_run`.
        terms: of `tfrec.quantization.neumf_forward.pair_terms`.
        user_ids: int64 ``[Bu]``, and
        item_ids: int64 ``[Bi]``: whom the terms belong to.
        user_index: ``[P]``, places among ``user_ids``.
        item_index: ``[P, C]``, places among ``item_ids``.

    Returns:
        float32 ``[P, C]``.
    """
    least, greatest = model.limits("hidden_1") if model.mlp_width else (0, 0)
    zero = 0 if model.quantization.mode == "symmetric" else least
    mlp: dict[str, Any] = dict.fromkeys(("user_terms", "item_terms", "first", "layers", "final_kernel"))
    mlp["final_scale"] = None
    if model.mlp_width:
        layers = []
        for i in range(2, len(model.hidden_dims) + 1):
            kernel, bias = model.value(f"kernel_{i}"), model.value(f"bias_{i}")
            bias -= zero * tf.reduce_sum(tf.cast(kernel, tf.int32), axis=0)
            scales = [model.scale(n) for n in (f"hidden_{i - 1}", f"kernel_{i}", f"hidden_{i}")]
            multiplier = tf.broadcast_to(scales[0] * scales[1] / scales[2], [1, model.hidden_dims[i - 1]])[0]
            layers.append((kernel, bias, multiplier, zero, zero, greatest))
        last = model.value("mlp_kernel")[:, 0]
        mlp = {
            "user_terms": terms["user_hidden"],
            "item_terms": terms["item_hidden"],
            "first": (zero, zero, greatest),
            "layers": layers,
            "final_kernel": (last, -zero * tf.reduce_sum(tf.cast(last, tf.int32))),
            "final_scale": (model.scale(f"hidden_{len(model.hidden_dims)}") * model.scale("mlp_kernel"))[0, 0],
        }
    gmf = None
    if model.gmf_width:
        gmf = (
            tf.gather(model.value("user_gmf"), user_ids),
            tf.gather(model.value("item_gmf"), item_ids),
            terms["user_scale"][:, 0],
            terms["item_scale"][:, 0],
            model.value("gmf_kernel")[:, 0],
            model.scale("gmf_kernel")[0, 0],
        )
    bias = tf.add_n([model.value(f"{n}_bias") for n in model.parts()])
    user_index, item_index = tf.cast(user_index, tf.int32), tf.cast(item_index, tf.int32)
    return int8_score(user_index=user_index, item_index=item_index, gmf=gmf, bias=bias, **mlp)
