"""From a trained NeuMF and the statistics of its activations to the same network in integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfrec.errors import InputError
from tfrec.models import NeuMF
from tfrec.quantization.affine import Affine, weight_affine
from tfrec.quantization.clipping import clip_range
from tfrec.quantization.config import QuantizationConfig
from tfrec.quantization.neumf import QuantizedNeuMF
from tfrec.quantization.statistics import Statistics, fingerprint


def quantize(model: Any, statistics: Statistics, config: QuantizationConfig | None = None) -> QuantizedNeuMF:
    """A trained NeuMF in integers.

    Args:
        model: a `tfrec.models.NeuMF`, with or without split final layer.
        statistics: of this model, from `tfrec.quantization.calibrate`.
        config: default: the best found.

    Raises:
        InputError: the model is quantized already or no NeuMF, the statistics are another model's or miss an
            activation, or the config makes no sense.
    """
    config = config or QuantizationConfig()
    config.check()
    if isinstance(model, QuantizedNeuMF):
        raise InputError("The model is quantized already.\nQuantize the float model it was made from.")
    if not isinstance(model, NeuMF):
        raise InputError(f"`quantize` expects a tfrec.models.NeuMF.\nReceived: {type(model).__name__}.")
    not_dense = [f"{side}_embedding" for side, kind in model.embedding_kinds.items() if kind != "dense"]
    if not_dense:
        raise InputError(
            f"A tensor train or a sharded table cannot be quantized: {', '.join(not_dense)}.\n"
            "Quantize the dense model, or keep the compressed one in float; model.with_dense_embeddings() makes "
            "sharded tables whole."
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
        made.store(name, affine.quantize(value).astype(affine.storage))

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
            made.store("bias_1", bias)
        else:
            scale = made.affine(f"hidden_{i - 1}").scale * made.affine(f"kernel_{i}").scale[0]
            limit = np.float64(np.iinfo(np.int32).max // 2)
            rounded = np.clip(np.rint(bias.astype(np.float64) / scale), -limit, limit)
            made.store(f"bias_{i}", rounded.astype(np.int32))
    for name in made.final_widths():
        source = name if f"{name}_kernel" in values else "final"
        weight(f"{name}_kernel", values[f"{source}_kernel"], None)
        made.store(f"{name}_bias", values[f"{source}_bias"][0])
    for name in made.other_activations():
        activation(name, name)
