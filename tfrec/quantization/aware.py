"""Fine-tuning with rounding in the loop (quantization-aware training)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import keras
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.models import NeuMF
from tfrec.quantization.affine import Affine, limits
from tfrec.quantization.clipping import clip_range
from tfrec.quantization.config import QuantizationConfig
from tfrec.quantization.statistics import Statistics, fingerprint


@keras.saving.register_keras_serializable(package="tfrec")
class QuantizationAwareNeuMF(NeuMF):
    """NeuMF whose embeddings, weights and activations are rounded to what integers can hold, before they are used.

    Train it like any NeuMF, then `float_model` has the trained weights, to calibrate and quantize. Gradients pass
    straight through the rounding, and are 0 where an activation was clipped (Jacob et al., CVPR 2018, section 3). The
    ranges of activations are fixed, those of weights follow the weights.

    Args:
        quantization: a `QuantizationConfig`, or its fields as a dict; with a split final layer and float32 addition.
        ranges: name -> (low, high), the ranges of the activations, see `aware`.
        **network: of `tfrec.models.NeuMF`.
    """

    def __init__(
        self,
        *,
        quantization: QuantizationConfig | dict[str, Any],
        ranges: dict[str, Any],
        **network: Any,
    ) -> None:
        if isinstance(quantization, dict):
            quantization = QuantizationConfig(**quantization)
        quantization.check()
        if not quantization.split_final or quantization.final_addition != "float32":
            raise InputError(
                "Fine-tuning is for a split final layer with float32 addition.\n"
                f"Received: split_final={quantization.split_final}, final_addition={quantization.final_addition!r}."
            )
        super().__init__(**{**network, "split_final": True})
        self.quantization = quantization
        self.ranges = {name: (float(low), float(high)) for name, (low, high) in ranges.items()}

    def _fake_weight(self, weight: tf.Tensor, axis: int | None) -> tf.Tensor:
        """Weights rounded by their range of the moment. What comes out is watched: gradients belong to the weight."""
        low = tf.minimum(tf.reduce_min(weight, axis, keepdims=True), 0.0)
        high = tf.maximum(tf.reduce_max(weight, axis, keepdims=True), 0.0)
        least, greatest = limits(self.quantization.weight_mode, self.quantization.weights)
        if self.quantization.weight_mode == "symmetric":
            scale, zero = tf.maximum(-low, high) / greatest, 0.0
            scale = tf.where(scale > 0, scale, 1.0)
        else:
            scale = (high - low) / (greatest - least)
            scale = tf.where(scale > 0, scale, 1.0)
            zero = tf.clip_by_value(tf.round(least - low / scale), float(least), float(greatest))
        q = tf.clip_by_value(tf.round(weight / scale) + zero, float(least), float(greatest))
        return (q - zero) * scale

    def used_rows(self, rows: tf.Tensor) -> tf.Tensor:
        """Embeddings as integers would hold them."""
        # Per table: the range of the batch's rows stands for the table's.
        axis = 1 if self.quantization.per_row else None
        parts = [p for p in (rows[:, : self.gmf_width], rows[:, self.gmf_width :]) if p.shape[1]]
        return tf.concat([self._fake_weight(p, axis) for p in parts], axis=1)

    def early_weights(self) -> list[tf.Tensor]:
        """The kernel as integers would hold it, and the bias."""
        kernel_and_bias = super().early_weights()
        axis = 0 if self.quantization.per_channel else None
        return [self._fake_weight(kernel_and_bias[0], axis), kernel_and_bias[1]] if kernel_and_bias else []

    def late_weights(self) -> list[tf.Tensor]:
        """The kernels as integers would hold them, and the biases."""
        axis = 0 if self.quantization.per_channel else None
        found = []
        for weight in self.late_variables():
            value = tf.convert_to_tensor(weight)
            if value.shape.rank == 2:
                value = self._fake_weight(value, axis if value.shape[1] > 1 else None)
            found.append(tf.cast(value, self.compute_dtype))
        return found

    def used_activation(self, name: str, value: tf.Tensor) -> tf.Tensor:
        """An activation as integers would hold it, where its range is known."""
        if name not in self.ranges:
            return value
        q = self.quantization
        low, high = self.ranges[name]
        affine = Affine.of_range(low, high, q.mode, q.activations)
        return tf.cast(affine.fake(tf.cast(value, tf.float32)), value.dtype)

    def float_model(self) -> NeuMF:
        """A plain NeuMF, split, with these weights."""
        names = NeuMF.get_config(self)
        plain = NeuMF.from_config({k: v for k, v in names.items() if k not in ("name", "dtype")})
        plain.set_weights(self.get_weights())
        return plain

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {**super().get_config(), "quantization": asdict(self.quantization), "ranges": self.ranges}


def aware(model: NeuMF, statistics: Statistics, config: QuantizationConfig | None = None) -> QuantizationAwareNeuMF:
    """A trained model, ready to be fine-tuned for ``config``.

    Raises:
        InputError: the statistics are another model's, or the config does not suit.
    """
    config = config or QuantizationConfig()
    config.check()
    if statistics.model != fingerprint(model):
        raise InputError("The statistics belong to another model.\nCalibrate this model.")
    split = model.with_split_final(True) if model.branch == "neumf" else model
    names = [f"hidden_{i}" for i in range(1, len(model.layer_dims))] if model.branch != "gmf" else []
    names += ["product"] if model.branch != "mlp" and config.product == "quantized" else []
    ranges = {
        name: clip_range(
            statistics[name if config.relu_ranges or name == "product" else f"{name}_linear"],
            config.clipping,
            config.mode,
            config.activations,
            config.clip_std,
            config.clip_percentile,
        )
        for name in names
    }
    network = {k: v for k, v in split.get_config().items() if k not in ("name", "dtype", "trainable")}
    made = QuantizationAwareNeuMF(quantization=config, ranges=ranges, **network)
    made.set_weights(split.get_weights())
    return made
