"""Scores of pairs by a NeuMF in int8: activations and sums are integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from tfrec.errors import InputError
from tfrec.ops.native import library

#: Zero point, lowest and highest activation.
Bounds: TypeAlias = tuple[int, int, int]
#: Kernel int8 ``[K, N]``, bias int32 ``[N]``, multiplier float32 ``[N]``, zero point, lowest and highest activation.
Int8Layer: TypeAlias = tuple[Any, Any, Any, int, int, int]

#: As in ``custom_ops/int8_score/int8_score.h``.
_LOWEST, _HIGHEST, _LARGEST_ZERO_POINT = -128, 255, 16384
#: Pairs that the twin holds at once.
_PAIRS = 5_120


def int8_score(
    user_terms: tf.Tensor | None,
    item_terms: tf.Tensor | None,
    user_index: tf.Tensor,
    item_index: tf.Tensor,
    first: Bounds | None,
    layers: Sequence[Int8Layer] | None,
    final_kernel: tuple[Any, Any] | None,
    final_scale: Any,
    gmf: tuple[Any, Any, Any, Any, Any, Any] | None,
    bias: Any,
) -> tf.Tensor:
    """Logits of pairs (p, c) of the user row ``user_index[p]`` and the item row ``item_index[p, c]``.

    ::

        h_1   = clamp(round(user_term + item_term) + zero_point, low, high)
        h_k   = clamp(round(float(h_{k-1} @ kernel + bias) * multiplier) + zero_point, low, high)
        mlp   = float(h_last @ final_kernel + final_bias) * final_scale
        gmf   = float(sum_g user_g * item_g * kernel_g) * ((user_scale * item_scale) * kernel_scale)
        logit = (gmf + mlp) + bias

    Products of integers and their sums are exact, in int32. Rounding is half to even, and NaN becomes ``low``. Steps
    with real numbers are in float32, one rounding each, in the order written: the native operation on any processor
    and its twin give the same bits. There is no gradient.

    Works in a `tf.function` and in a SavedModel, which the native operation needs loaded before it is read.

    Args:
        user_terms: float32 ``[Bu, N1]``, the user's half of the first layer in steps of its activation (divided by
            their scale), with the bias. N1 from 1 to 4096. None, with the next, ``first``, ``layers``,
            ``final_kernel`` and ``final_scale``: GMF alone.
        item_terms: float32 ``[Bi, N1]``, the item's half.
        user_index: int32 ``[P]``, in ``[0, Bu)``.
        item_index: int32 ``[P, C]``, in ``[0, Bi)``.
        first: zero point, low and high of ``h_1``, with ``-128 <= low <= high <= 255``. A ReLU has its zero point as
            ``low``.
        layers: for each further layer kernel int8 ``[K, N]``, bias int32 ``[N]`` (which includes what the zero point
            of the layer's input adds), multiplier float32 ``[N]``, zero point, low, high. K and N from 1 to 4096.
        final_kernel: int8 ``[K]`` and the int32 bias, a scalar.
        final_scale: float32 scalar.
        gmf: user int8 ``[Bu, G]``, item int8 ``[Bi, G]``, user scale float32 ``[Bu]``, item scale float32 ``[Bi]``,
            kernel int8 ``[G]``, kernel scale float32 scalar; G from 1 to 1024. None: the MLP alone.
        bias: float32 scalar.

    Returns:
        float32 ``[P, C]``.

    Raises:
        InputError: both branches missing, one half given, or a zero point or bound out of range.
        tf.errors.InvalidArgumentError: an index out of range (the twin on a GPU reads zeros instead), or shapes that
            do not fit.
    """
    mlp = _check(user_terms, item_terms, first, layers, final_kernel, final_scale, gmf)
    layers = list(layers or [])
    bounds = [first, *(layer[3:] for layer in layers)] if mlp else [(0, 0, 0)]
    number = tf.convert_to_tensor
    # Tables of an absent branch are empty.
    terms = [number(t if mlp else tf.zeros([0, 0]), tf.float32) for t in (user_terms, item_terms)]
    kernel, kernel_bias = final_kernel if final_kernel is not None else (tf.zeros([0], tf.int8), 0)
    kinds = (tf.int8, tf.int8, tf.float32, tf.float32, tf.int8, tf.float32)
    rows, row = tf.zeros([0, 0], tf.int8), tf.zeros([0])
    none = rows, rows, row, row, tf.zeros([0], tf.int8), 0.0
    of_gmf = [number(t, kind) for t, kind in zip(none if gmf is None else gmf, kinds, strict=True)]
    given: dict[str, Any] = {
        "user_terms": terms[0],
        "item_terms": terms[1],
        "user_index": number(user_index, tf.int32),
        "item_index": number(item_index, tf.int32),
        "bounds": tf.constant(bounds, tf.int32),
        "kernels": [number(layer[0], tf.int8) for layer in layers],
        "biases": [number(layer[1], tf.int32) for layer in layers],
        "multipliers": [number(layer[2], tf.float32) for layer in layers],
        "final_kernel": number(kernel, tf.int8),
        "final_bias": number(kernel_bias, tf.int32),
        "final_scale": number(final_scale if mlp else 0.0, tf.float32),
        "gmf_user": of_gmf[0],
        "gmf_item": of_gmf[1],
        "gmf_user_scale": of_gmf[2],
        "gmf_item_scale": of_gmf[3],
        "gmf_kernel": of_gmf[4],
        "gmf_kernel_scale": of_gmf[5],
        "bias": number(bias, tf.float32),
    }
    native = library()
    if native is not None:
        with tf.device("CPU"):
            return native.tfrec_int8_score(**given)
    return _reference(given, bounds, mlp, gmf is not None)


def _reference(given: dict[str, Any], bounds: list[Any], mlp: bool, gmf: bool) -> tf.Tensor:
    """The twin. Integers are held as floats wide enough for their sums; see `_product`."""
    users, items = given["user_index"], given["item_index"]
    candidates = tf.shape(items)[1]
    flat = tf.reshape(items, [-1])

    def chunk(begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        user = tf.gather(users, tf.range(begin, end) // candidates)
        item = flat[begin:end]
        logits = []
        if gmf:
            weighted = tf.cast(given["gmf_user"], tf.float64) * tf.cast(given["gmf_kernel"], tf.float64)
            sums = tf.reduce_sum(
                tf.gather(weighted, user) * tf.cast(tf.gather(given["gmf_item"], item), tf.float64), axis=1
            )
            scale = tf.gather(given["gmf_user_scale"], user) * tf.gather(given["gmf_item_scale"], item)
            logits.append(tf.cast(sums, tf.float32) * (scale * given["gmf_kernel_scale"]))
        if mlp:
            terms = tf.gather(given["user_terms"], user) + tf.gather(given["item_terms"], item)
            hidden = _quantize(terms, *bounds[0])
            of_layers = zip(given["kernels"], given["biases"], given["multipliers"], bounds[1:], strict=True)
            for kernel, bias, multiplier, (zero_point, low, high) in of_layers:
                sums = _product(hidden, kernel) + bias
                hidden = _quantize(tf.cast(sums, tf.float32) * multiplier, zero_point, low, high)
            sums = _product(hidden, given["final_kernel"][:, None])[:, 0] + given["final_bias"]
            logits.append(tf.cast(sums, tf.float32) * given["final_scale"])
        return (logits[0] + logits[1] if gmf and mlp else logits[0]) + given["bias"]

    count = (tf.size(flat) + _PAIRS - 1) // _PAIRS
    parts = tf.TensorArray(tf.float32, count, infer_shape=False, element_shape=tf.TensorShape([None]))
    _, parts = tf.while_loop(
        lambda i, _: i < count,
        lambda i, parts: (i + 1, parts.write(i, chunk(i * _PAIRS, tf.minimum((i + 1) * _PAIRS, tf.size(flat))))),
        (tf.constant(0), parts),
        parallel_iterations=1,
    )
    found = tf.cond(count > 0, parts.concat, lambda: tf.zeros([0]))
    return tf.ensure_shape(tf.reshape(found, tf.shape(items)), items.shape)


def _quantize(values: tf.Tensor, zero_point: int, low: int, high: int) -> tf.Tensor:
    """Whole numbers, as float32."""
    rounded = tf.round(values)
    least, most = float(low - zero_point), float(high - zero_point)
    # A comparison with NaN is false.
    return tf.where(rounded > least, tf.minimum(rounded, most), least) + float(zero_point)


def _product(activations: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Exactly, int32: each partial sum is a whole number that the float type holds."""
    dtype = tf.float32 if kernel.shape[0] is not None and kernel.shape[0] * 255 * 128 < 1 << 24 else tf.float64
    return tf.cast(tf.matmul(tf.cast(activations, dtype), tf.cast(kernel, dtype)), tf.int32)


def _check(
    user_terms: Any,
    item_terms: Any,
    first: Bounds | None,
    layers: Sequence[Int8Layer] | None,
    final_kernel: Any,
    final_scale: Any,
    gmf: Any,
) -> bool:
    """Whether there is an MLP, or an error."""
    of_mlp = {
        "user_terms": user_terms,
        "item_terms": item_terms,
        "first": first,
        "final_kernel": final_kernel,
        "final_scale": final_scale,
    }
    missing = [name for name, value in of_mlp.items() if value is None]
    mlp = user_terms is not None
    if mlp and missing:
        raise InputError(f"The MLP needs {', '.join(of_mlp)}.\nReceived: None as {', '.join(missing)}.")
    if not mlp and (item_terms is not None or layers or final_kernel is not None):
        raise InputError(
            "`item_terms`, `layers` and `final_kernel` belong to the MLP, which `user_terms` is part of.\n"
            "Received: None as user_terms."
        )
    if not mlp and gmf is None:
        raise InputError("A score needs `user_terms` or `gmf`, or both.\nReceived: neither.")
    if mlp:
        for number, (zero_point, low, high) in enumerate([first, *(layer[3:] for layer in layers or [])]):  # type: ignore[misc]
            if not (_LOWEST <= low <= high <= _HIGHEST and abs(zero_point) <= _LARGEST_ZERO_POINT):
                raise InputError(
                    f"Activations need {_LOWEST} <= low <= high <= {_HIGHEST} and a zero point in "
                    f"[{-_LARGEST_ZERO_POINT}, {_LARGEST_ZERO_POINT}].\n"
                    f"Received: hidden layer {number} with zero_point={zero_point}, low={low}, high={high}."
                )
    return mlp
