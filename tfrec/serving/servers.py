"""Files by which TensorFlow Serving and Triton know what to do with an export.

In the folder of a version: warm-up requests in ``assets.extra/tf_serving_warmup_requests`` and
``batching_params.pbtxt``, both of TensorFlow Serving. In the folder of the model, where versions have numbers:
``models.config`` of TensorFlow Serving, and ``config.pbtxt`` of Triton's TensorFlow backend.

Formats: TensorFlow Serving, "SavedModel Warmup" and "Serving configuration"; Triton, "Model configuration".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrec.data.files import atomic_write
from tfrec.serving.served import Served
from tfrec.serving.signatures import batched, example_inputs, input_specs

#: Where a server finds warm-up requests, in the folder of a version.
WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"

#: Sizes of batches that a server makes; others are filled up to the next.
BATCHES = (1, 8, 32, 64)


def write_warmup(served: Served, name: str, folder: Path) -> int:
    """Write a request of each batch size for each signature that can be batched, so that a server answers its first
    request as fast as the next ones.

    Returns:
        how many; TensorFlow Serving reads 1,000 at most.
    """
    path = folder / WARMUP
    path.parent.mkdir(exist_ok=True)
    requests = [(signature, batch) for signature in batched(served) for batch in BATCHES]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, batch in requests:
            inputs = example_inputs(served, signature, batch)
            types = input_specs(served, signature)
            tensors = {n: tf.make_tensor_proto(v, types[n].dtype).SerializeToString() for n, v in inputs.items()}
            writer.write(_prediction_log(name, signature, tensors))
    return len(requests)


def batching_parameters() -> str:
    """TensorFlow Serving's BatchingParameters, for ``--enable_batching --enable_per_model_batching_parameters``.

    Rows of unequal length are put together by ``pad_variable_length_inputs``, which repeats the first id of a request:
    as a history and a filter are sets, that changes nothing.
    """
    sizes = "\n".join(f"allowed_batch_sizes: {size}" for size in BATCHES)
    return (
        f"max_batch_size {{ value: {BATCHES[-1]} }}\n"
        "batch_timeout_micros { value: 1000 }\n"
        "max_enqueued_batches { value: 100 }\n"
        f"pad_variable_length_inputs: true\n{sizes}\n"
    )


def models_config(name: str) -> str:
    """TensorFlow Serving's ModelServerConfig, with the folder that its container has models in."""
    return (
        "model_config_list {\n"
        "  config {\n"
        f"    name: {json.dumps(name)}\n"
        f"    base_path: {json.dumps(f'/models/{name}')}\n"
        '    model_platform: "tensorflow"\n'
        "    model_version_policy { latest { num_versions: 1 } }\n"
        "  }\n"
        "}\n"
    )


def triton_config(served: Served, name: str, signature: str = "recommend") -> str:
    """Triton's ModelConfig for one signature: Triton serves one of each model, in batches."""
    structure = served.signatures[signature].get_concrete_function().structured_outputs
    takes = "".join(_triton_tensor("input", n, s) for n, s in input_specs(served, signature).items())
    gives = "".join(_triton_tensor("output", n, s) for n, s in structure.items())
    return (
        f"name: {json.dumps(name)}\n"
        'platform: "tensorflow_savedmodel"\n'
        f"max_batch_size: {BATCHES[-1]}\n"
        f"{takes}{gives}"
        f"dynamic_batching {{ preferred_batch_size: [ {', '.join(map(str, BATCHES[1:]))} ] "
        "max_queue_delay_microseconds: 1000 }\n"
        f'parameters {{ key: "TF_SIGNATURE_DEF" value {{ string_value: {json.dumps(signature)} }} }}\n'
    )


def write_model_files(served: Served, folder: Path) -> list[Path]:
    """Write ``models.config`` and ``config.pbtxt`` into the folder of a model, whose name is the model's."""
    name = folder.name
    texts = {"models.config": models_config(name), "config.pbtxt": triton_config(served, name)}
    for file, text in texts.items():
        with atomic_write(folder / file) as stream:
            stream.write(text.encode())
    return [folder / file for file in texts]


_TRITON_TYPES = {tf.int64: "TYPE_INT64", tf.int32: "TYPE_INT32", tf.float32: "TYPE_FP32", tf.bool: "TYPE_BOOL"}


def _triton_tensor(kind: str, name: str, spec: Any) -> str:
    # Without the batch; a tensor of one number per query has no further dimension, which Triton writes as a reshape.
    rest = [-1 if d is None else d for d in spec.shape.as_list()[1:]]
    dims = ", ".join(map(str, rest or [1]))
    reshape = "" if rest else " reshape { shape: [ ] }"
    dtype = _TRITON_TYPES.get(spec.dtype, "TYPE_STRING")
    return f"{kind} {{ name: {json.dumps(name)} data_type: {dtype} dims: [ {dims} ]{reshape} }}\n"


def _prediction_log(name: str, signature: str, tensors: dict[str, bytes]) -> bytes:
    """A serialized tensorflow.serving.PredictionLog with a PredictRequest.

    Written by hand, as its classes come with a package of servers that an export does not otherwise need. Fields:
    PredictionLog.predict_log 6, PredictLog.request 1, PredictRequest.model_spec 1 and inputs 2 (a map: key 1, value 2),
    ModelSpec.name 1 and signature_name 3.
    """
    spec = _field(1, name.encode()) + _field(3, signature.encode())
    inputs = b"".join(_field(2, _field(1, n.encode()) + _field(2, value)) for n, value in tensors.items())
    return _field(6, _field(1, _field(1, spec) + inputs))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])
