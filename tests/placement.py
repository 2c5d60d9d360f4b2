"""Where TensorFlow would put each operation and tensor on a GPU machine, found out without a GPU.

TensorFlow's wheel registers its GPU kernels on machines without a GPU too, and so does tfrec's library when it is built
with nvcc. `Placement` collects the graphs that are traced and the operations that run outside of graphs; for each of
them the registry says whether a GPU kernel takes its types, and which of its inputs and outputs lie in host memory
(most of int32: TensorFlow keeps it for shapes). A large tensor that lies there, or that passes between host and device
memory, is what makes a GPU wait.

What is followed: TensorFlow's rules for one GPU. A kernel of the highest priority whose type constraints hold (of the
device GPU, else of DEFAULT) is taken; without one the operation runs on the CPU (soft placement). int32, strings and
resources that enter or leave a function lie in host memory, everything else on the device. Sizes are the static ones of
the traced graphs; a dimension that is not known is taken for large. Not followed: what Grappler rewrites, and the
placer's moving of tiny operations to the host.
"""

from __future__ import annotations

import functools
import math
import re
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.python.framework import kernels, op_callbacks, op_def_registry

DEVICE, HOST = "device", "host"
#: Calls of other graphs, whose operations are looked at by themselves.
CALLS = {
    "PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf", "Case",
    "StatelessCase", "SymbolicGradient", "RemoteCall",
}  # fmt: skip
#: No kernel at run time, or none that matters: where values enter and leave, and what nothing is computed by.
BOUNDARIES = {"Placeholder", "PlaceholderWithDefault", "NoOp", "_Arg", "_Retval", "Assert"}
#: Results with as many numbers as a tensor has axes, or a list of tensors has members; nothing of the data's size.
FEW = {"BroadcastGradientArgs": (0, 1), "TensorListConcatV2": (1,), "Shape": (0,), "ShapeN": range(1000)}
#: Handles to something that lies elsewhere.
HANDLES = {tf.resource, tf.variant}


@dataclass(frozen=True)
class Finding:
    """A tensor or an operation in the wrong place."""

    graph: str
    op: str
    what: str
    bytes: float
    source: str = ""

    def __str__(self) -> str:
        size = "of unknown size" if math.isinf(self.bytes) else f"{self.bytes / 1024:,.0f} KiB"
        return f"{self.source}: {self.op} ({self.graph}): {self.what}, {size}"


@dataclass
class Placement:
    """Collects what is traced and run inside of its ``with`` block.

    Args:
        small_bytes: how large a tensor in host memory may be.
    """

    small_bytes: int = 4096
    graphs: dict[int, Any] = field(default_factory=dict)
    eager: list[Any] = field(default_factory=list)

    def __enter__(self) -> Placement:
        op_callbacks.add_op_callback(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        op_callbacks.remove_op_callback(self._seen)

    def _seen(self, op_type, inputs, attrs, outputs, op_name=None, graph=None):
        if graph is not None:
            self.graphs[id(graph)] = graph
            return
        name = op_type.decode() if isinstance(op_type, bytes) else op_type
        definition = op_def_registry.get(name)
        if definition is None or name in CALLS:  # a function, whose graph is looked at
            return
        node = node_def_pb2.NodeDef(op=name)
        given = {(k.decode() if isinstance(k, bytes) else k): v for k, v in zip(attrs[::2], attrs[1::2], strict=True)}
        for attr in definition.attr:
            value = given.get(attr.name)
            if attr.type == "type" and value is not None:
                node.attr[attr.name].type = tf.as_dtype(value).as_datatype_enum
            elif attr.type == "list(type)" and value is not None:
                node.attr[attr.name].list.type.extend(tf.as_dtype(v).as_datatype_enum for v in value)
            elif attr.type == "int" and value is not None:
                node.attr[attr.name].i = value
        self.eager.append((name, node, list(inputs), list(outputs), _source_here()))

    def findings(self) -> list[Finding]:
        """What is large and in host memory, passes between the two, or has no GPU kernel."""
        found = [f for graph in self._computing() for f in self._of_graph(graph)]
        found += [f for one in self.eager for f in self._of_eager(*one)]
        return sorted({str(f): f for f in found}.values(), key=str)

    def copies(self, function: str) -> list[Finding]:
        """Each tensor that passes between host and device memory in a traced function and in what it calls, small ones
        too; the body of a loop counts once."""
        by_name = {g.name: g for g in self._computing()}
        waiting, seen = [g for name, g in by_name.items() if name == function], {}
        while waiting:
            graph = waiting.pop()
            if graph.name in seen:
                continue
            seen[graph.name] = graph
            for op in graph.get_operations():
                for attr in op.node_def.attr.values():
                    named = [attr.func.name, *(f.name for f in attr.list.func)]
                    for name in filter(None, named):
                        short = re.sub(r"^__inference_(.*)_\d+$", r"\1", name)
                        waiting += [by_name[n] for n in (name, short) if n in by_name]
        return [f for graph in seen.values() for f in self._copies(graph)]

    def _computing(self) -> list[Any]:
        """The graphs that are not part of an input pipeline, which runs on the host."""
        return [g for g in self.graphs.values() if "Dataset_" not in g.name]

    def _of_graph(self, graph: Any) -> list[Finding]:
        found = []
        for op in graph.get_operations():
            if op.type in CALLS or op.type in BOUNDARIES or op.type == "Const":
                continue
            kernel = gpu_kernel(op.node_def)
            size = max((_bytes(t) for t in (*op.inputs, *op.outputs)), default=0)
            if kernel is None and size > self.small_bytes:
                types = ", ".join(t.dtype.name for t in op.inputs)
                found.append(Finding(graph.name, op.type, f"no GPU kernel ({types})", size, _source(op)))
            if kernel is None or _on_cpu(op) or all(any(t is o for o in graph.outputs) for t in op.outputs):
                continue  # what leaves a function is asked for by the caller
            for t, where in zip(op.outputs, _places(op)[1], strict=True):
                if where == HOST and t.dtype != tf.string and _bytes(t) > self.small_bytes:
                    what = f"its {t.dtype.name} result is in host memory"
                    found.append(Finding(graph.name, op.type, what, _bytes(t), _source(op)))
        return found + [c for c in self._copies(graph) if c.bytes > self.small_bytes]

    def _copies(self, graph: Any) -> Iterator[Finding]:
        places = {op.name: _places(op) for op in graph.get_operations()}
        outputs = {id(t) for t in graph.outputs}
        for op in graph.get_operations():
            for t, where in zip(op.outputs, places[op.name][1], strict=True):
                if t.dtype in HANDLES or t.dtype == tf.string:
                    continue
                taken: dict[str, Any] = {}
                for user in t.consumers():
                    if all(id(o) in outputs for o in user.outputs) and user.type == "Identity":
                        continue
                    for slot, given in enumerate(user.inputs):
                        if given is t:
                            taken.setdefault(places[user.name][0][slot], user)
                other = DEVICE if where == HOST else HOST
                if other in taken:
                    way = "from host to device" if other == DEVICE else "from device to host"
                    what = f"{t.dtype.name} goes {way} (from {op.type})"
                    yield Finding(graph.name, taken[other].type, what, _bytes(t), _source(taken[other]))

    def _of_eager(
        self, op_type: str, node: Any, inputs: list[Any], outputs: list[Any], source: str
    ) -> Iterator[Finding]:
        where = "outside of graphs"
        kernel = gpu_kernel(node)
        if op_type in BOUNDARIES:
            return
        if kernel is None:
            size = max((_bytes(t) for t in (*inputs, *outputs)), default=0)
            if size > self.small_bytes:
                types = ", ".join(t.dtype.name for t in inputs)
                yield Finding(where, op_type, f"no GPU kernel ({types})", size, source)
            return
        into, out = _places_of(node, [t.dtype for t in inputs], [t.dtype for t in outputs], kernel)
        for t, place in zip(inputs, into, strict=True):
            if place == HOST and _bytes(t) > self.small_bytes:
                yield Finding(where, op_type, f"{t.dtype.name} is taken in host memory", _bytes(t), source)
        for t, place in zip(outputs, out, strict=True):
            if place == HOST and _bytes(t) > self.small_bytes:
                yield Finding(where, op_type, f"its {t.dtype.name} result is in host memory", _bytes(t), source)


@functools.cache
def registered(op_type: str) -> list[Any]:
    """The kernels of an operation."""
    return list(kernels.get_registered_kernels_for_op(op_type).kernel)


def gpu_kernel(node: Any) -> Any | None:
    """The kernel that a GPU would run for a node, or None."""
    label = node.attr["_kernel"].s.decode() if "_kernel" in node.attr else ""
    for device in ("GPU", "DEFAULT"):
        fitting = [
            k
            for k in registered(node.op)
            if k.device_type == device and k.label == label and all(_holds(c, node) for c in k.constraint)
        ]
        if fitting:
            return max(fitting, key=lambda k: k.priority)
    return None


def _holds(constraint: Any, node: Any) -> bool:
    attr = node.attr[constraint.name]
    if constraint.allowed_values.list.s:
        return attr.WhichOneof("value") is None or attr.s in set(constraint.allowed_values.list.s)
    allowed = set(constraint.allowed_values.list.type)
    given = list(attr.list.type) if attr.WhichOneof("value") == "list" else [attr.type]
    return all(g in allowed for g in given)


def _on_cpu(op: Any) -> bool:
    """Whether the program puts the operation there."""
    return "CPU" in op.device


def _places(op: Any) -> tuple[list[str], list[str]]:
    """Where an operation takes its inputs and leaves its outputs."""
    into, out = [t.dtype for t in op.inputs], [t.dtype for t in op.outputs]
    if op.type in CALLS or op.type in BOUNDARIES:
        return [_of_function(d) for d in into], [_of_function(d) for d in out]
    kernel = gpu_kernel(op.node_def)
    if kernel is None or _on_cpu(op):
        return [HOST] * len(into), [HOST] * len(out)
    return _places_of(op.node_def, into, out, kernel)


def _places_of(node: Any, into: list[Any], out: list[Any], kernel: Any) -> tuple[list[str], list[str]]:
    definition = op_def_registry.get(node.op)
    host = set(kernel.host_memory_arg)
    given = _spread(definition.input_arg, node, host, len(into))
    made = _spread(definition.output_arg, node, host, len(out))
    # Strings never lie on a device.
    return (
        [HOST if d == tf.string else p for p, d in zip(given, into, strict=True)],
        [HOST if d == tf.string else p for p, d in zip(made, out, strict=True)],
    )


def _spread(arguments: Iterable[Any], node: Any, host: set[str], count: int) -> list[str]:
    """An argument may stand for several tensors."""
    places: list[str] = []
    for a in arguments:
        if a.number_attr:
            times = node.attr[a.number_attr].i
        elif a.type_list_attr:
            times = len(node.attr[a.type_list_attr].list.type)
        else:
            times = 1
        places += [HOST if a.name in host else DEVICE] * times
    # An operation outside of graphs has its counts in its inputs alone.
    return places if len(places) == count else (places + [places[-1] if places else DEVICE] * count)[:count]


def _of_function(dtype: Any) -> str:
    return HOST if dtype in (tf.int32, tf.string) else DEVICE


def _bytes(t: Any) -> float:
    if t.dtype in HANDLES:
        return 0
    op = None if tf.is_tensor(t) and hasattr(t, "numpy") else t.op
    if op is not None and t.value_index in FEW.get(op.type, ()):
        return 8
    if t.shape.rank is None or not t.shape.is_fully_defined():
        return math.inf
    return int(t.shape.num_elements()) * (t.dtype.size or 8)


def _source(op: Any) -> str:
    return _line(op.traceback or ())


def _source_here() -> str:
    return _line(traceback.extract_stack())


def _line(frames: Iterable[Any]) -> str:
    """The line of tfrec that asked for it."""
    ours = [f for f in frames if "/tfrec/" in f.filename and "site-packages" not in f.filename]
    return f"{ours[-1].filename.rsplit('/tfrec/')[-1]}:{ours[-1].lineno}" if ours else "elsewhere"
