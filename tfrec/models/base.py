"""What tfrec's models have in common as Keras models."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrec.errors import InputError
from tfrec.layers.reference import plain_operations

#: The greatest finite number.
FLOAT_MAX = float(np.finfo(np.float32).max)
#: What may be computed in; weights, losses and outputs are float32.
_COMPUTE = ("float32", "float16", "bfloat16")


class Model(keras.Model):
    """A Keras model whose outputs are float32 in every precision, and that can be exported without a first call."""

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> keras.KerasTensor:
        """The shape of what ``call`` gives, float32."""
        return keras.KerasTensor(super().compute_output_spec(*args, **kwargs).shape, dtype="float32")

    def save(self, filepath: str | Path, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
        """As `keras.Model.save`, in the format ``.keras``.

        Raises:
            InputError: the name ends in .h5 or .hdf5: Keras's old format keeps no model whose class is its own.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise InputError(
                f"A {type(self).__name__} is saved as a .keras file.\nReceived: {filepath}.\n"
                "Name it MODEL.keras; for the weights alone use save_weights('NAME.weights.h5')."
            )
        super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def served(self) -> tuple[Callable[[Any], tf.Tensor], list[Any]]:
        """What an export answers: a function of one argument, and the types of argument that it is traced for, that of
        the signature first."""
        raise NotImplementedError

    def export(
        self,
        filepath: str | Path,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.export`, also for a model that was never called.

        The SavedModel has the endpoint ``serve``, which gives what calling the model gives, and needs TensorFlow alone.
        For recommendations with ids and titles see `tfrec.serving`.

        Args:
            filepath: the folder to write.
            format: as in Keras.
            verbose: whether to print the endpoints.
            input_signature: other shapes or types than the model's own, as in Keras.
            **kwargs: as in Keras.
        """
        with plain_operations(list(self._flatten_layers())):
            function, specs = self.served()
            if format != "tf_saved_model" or input_signature is not None:
                signature = specs[:1] if input_signature is None else input_signature
                super().export(str(filepath), format, verbose=verbose, input_signature=signature, **kwargs)
                return
            serve = tf.function(function, autograph=False)
            for spec in specs:
                serve.get_concrete_function(spec)
            archive = keras.export.ExportArchive()
            archive.track(self)
            archive.add_endpoint("serve", serve, **kwargs)
            archive.write_out(str(filepath), verbose=verbose is not False)

    def check_policy(self) -> None:
        """Raise InputError for a precision in which weights or losses would not be float32."""
        if self.variable_dtype != "float32" or self.compute_dtype not in _COMPUTE:
            raise InputError(
                f"{type(self).__name__} keeps weights and losses in float32: `dtype` must be float32, mixed_float16 or "
                f"mixed_bfloat16.\nReceived: {self.dtype_policy.name}."
            )


def bind(method: Any, model: keras.Model, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of one of Keras's methods, by name."""
    given = inspect.signature(method).bind(model, *args, **kwargs).arguments
    given |= given.pop("kwargs", {})
    del given["self"]
    return given


def check_within(values: tf.Tensor, low: float, high: float, message: str) -> Any:
    """An error, in a graph too, unless all ``values`` lie in ``[low, high]``; NaN does not."""
    wrong = tf.boolean_mask(values, ~((values >= low) & (values <= high)))
    return tf.debugging.Assert(tf.equal(tf.size(wrong), 0), [message, "Received:", wrong[:3]])
