"""Tensor-train rows, gradients and updates against the dense table in float64, on the native kernels and their twin."""

import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tfrec import ops
from tfrec.errors import InputError
from tfrec.ops import tt_embedding

#: What the fixture `kernels` makes forget the native library.
WRAPPER = tt_embedding

NATIVE = pytest.mark.skipif(
    ops.library() is None, reason="needs the native library: TFREC_BUILD_OPS=1 pip install -e ."
)
#: Relative to the largest number.
TOLERANCE = {"float32": 1e-5, "float16": 3e-3, "bfloat16": 2e-2}
SHAPES = [
    ops.TTShape(60, (5, 12), (4, 4), (8,)),
    ops.TTShape(100, (4, 5, 6), (2, 2, 4), (3, 5)),
    ops.TTShape(120, (4, 5, 6), (4, 4, 4), (32, 32)),
    ops.TTShape(7, (2, 2, 2), (1, 3, 5), (2, 1)),
    ops.TTShape(200, (3, 4, 5, 4), (2, 3, 1, 2), (4, 9, 6)),
    ops.TTShape(64, (2, 3, 2, 3, 2), (2, 1, 2, 3, 2), (2, 7, 16, 2)),
    ops.TTShape(20, (2, 10), (3, 40), (17,)),
    ops.TTShape(12, (2, 3, 3), (2, 2, 3), (4, 5), num_tables=3),
]


def random_cores(random, shape, dtype="float32"):
    return [tf.cast(random.normal(size=s) / math.sqrt(s[1]), dtype) for s in shape.core_shapes]


def dense(cores, shape):
    tables = [
        oracles.tt_table(
            [c[t * p : (t + 1) * p] for c, p in zip(cores, shape.row_factors, strict=True)], shape.num_rows
        )
        for t in range(shape.num_tables)
    ]
    return np.concatenate(tables)


def exact(cores):
    return [tf.cast(c, tf.float64).numpy() for c in cores]


def close(found, wanted, tolerance):
    found = tf.cast(found, tf.float64).numpy()
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max(initial=0) <= tolerance * np.abs(wanted).max(initial=1e-30)


def expected_gradients(cores, shape, ids, upstream):
    found = [np.zeros(c.shape) for c in cores]
    for t in range(shape.num_tables):
        mine = ids // shape.num_rows == t
        parts = [slice(t * p, (t + 1) * p) for p in shape.row_factors]
        of_table = oracles.tt_gradients(
            [c[part] for c, part in zip(cores, parts, strict=True)], ids[mine] % shape.num_rows, upstream[mine]
        )
        for whole, part, g in zip(found, parts, of_table, strict=True):
            whole[part] = g
    return found


def check(random, shape, ids, dtype, graph=False):
    cores = random_cores(random, shape, dtype)
    upstream = tf.cast(random.normal(size=(len(ids), shape.width)), dtype)

    def both(cores, upstream):
        with tf.GradientTape() as tape:
            tape.watch(cores)
            rows = ops.tt_lookup(tf.constant(ids), cores, shape)
        return rows, tape.gradient(rows, cores, upstream)

    rows, gradients = (tf.function(both) if graph else both)(cores, upstream)
    wide, up = exact(cores), tf.cast(upstream, tf.float64).numpy()
    assert rows.dtype == dtype
    close(rows, dense(wide, shape)[ids], TOLERANCE[dtype])
    for gradient, core, wanted in zip(gradients, cores, expected_gradients(wide, shape, ids, up), strict=True):
        assert gradient.dtype == core.dtype
        close(gradient, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_and_gradients_are_those_of_the_dense_table(random, kernels, shape, dtype):
    rows = shape.num_rows * shape.num_tables
    for n in (0, 1, 33, 150):
        ids = random.integers(rows, size=n)
        ids[: n // 3] = ids[0] if n else 0
        check(random, shape, ids, dtype, graph=n == 33)


@given(st.data(), st.integers(2, 5), st.integers(0, 200), st.sampled_from(list(TOLERANCE)))
@settings(max_examples=60, deadline=None)
def test_any_shape(data, num_cores, n, dtype):
    def numbers(count, high):
        return tuple(data.draw(st.lists(st.integers(1, high), min_size=count, max_size=count)))

    p, q, r = numbers(num_cores, 9), numbers(num_cores, 5), numbers(num_cores - 1, 20)
    shape = ops.TTShape(data.draw(st.integers(1, math.prod(p))), p, q, r)
    random = np.random.default_rng(n)
    skewed = random.integers(1 + random.integers(shape.num_rows), size=n)
    check(random, shape, skewed, dtype)


@NATIVE
def test_several_threads_and_long_runs_of_one_prefix(random):
    """One slice of the second core has nearly all ids, so threads share it; more ids than a block holds."""
    shape = ops.TTShape(30_000, (100, 3, 100), (2, 2, 2), (8, 8))
    ids = np.concatenate([random.integers(100, size=3_000) * 300 + 100 + random.integers(100, size=3_000), [0, 29_999]])
    check(random, shape, ids, "float32")


@NATIVE
def test_equal_calls_give_equal_bits(random):
    shape = ops.TTShape(10_000, (20, 20, 25), (4, 4, 4), (16, 16))
    cores = random_cores(random, shape)
    ids = tf.constant(random.zipf(1.3, size=4_000) % 10_000)
    upstream = tf.constant(random.normal(size=(4_000, 64)), tf.float32)
    first, second = (ops.tt_gradients(ids, upstream, cores, shape) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_ids_beyond_32_bits(random, kernels):
    shape = ops.TTShape(5_000_000_000, (1_700, 1_700, 1_740), (2, 2, 2), (2, 3))
    cores = random_cores(random, shape)
    ids = np.array([4_999_999_999, 0, 4_294_967_296, 4_999_999_999])
    found = ops.tt_lookup(tf.constant(ids), cores, shape).numpy()
    for id_, row in zip(ids, found, strict=True):
        digits = np.unravel_index(id_, shape.row_factors)
        one = [c.numpy()[i : i + 1] for c, i in zip(cores, digits, strict=True)]
        np.testing.assert_allclose(row, oracles.tt_table(one, 1)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bad", [-1, 100, 1 << 40])
def test_an_id_out_of_range_raises(random, kernels, bad):
    shape = SHAPES[1]
    with pytest.raises(tf.errors.InvalidArgumentError, match="`ids` must lie in 0 to 99. Received:"):
        ops.tt_lookup(tf.constant([3, bad]), random_cores(random, shape), shape)


KERAS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "adagrad": lambda: keras.optimizers.Adagrad(0.05),
    "adam": lambda: keras.optimizers.Adam(0.05),
}


@pytest.mark.parametrize("name", KERAS)
def test_fused_updates_are_those_of_keras(random, kernels, name):
    shape = SHAPES[2]
    start = random_cores(random, shape)
    theirs = [keras.Variable(c) for c in start]
    optimizer = KERAS[name]()
    cores = [tf.Variable(c) for c in start]
    first = 0.1 if name == "adagrad" else 0.0
    slots = [tf.Variable(tf.fill(c.shape, first)) for _ in range(tt_embedding.SLOTS[name]) for c in cores]
    for step in range(1, 5):
        ids = tf.constant(random.integers(shape.num_rows, size=50))
        upstream = tf.constant(random.normal(size=(50, shape.width)), tf.float32)
        gradients = ops.tt_gradients(ids, upstream, [tf.convert_to_tensor(c) for c in cores], shape)
        optimizer.apply(gradients, theirs)
        rate = 0.05 * (math.sqrt(1 - 0.999**step) / (1 - 0.9**step) if name == "adam" else 1.0)
        ops.tt_update(ids, upstream, cores, slots, rate, shape, name)
        for ours, their in zip(cores, theirs, strict=True):
            # Adam divides by a gradient's size: where that is near 0 its rounding is a share of a step of .05.
            np.testing.assert_allclose(ours.numpy(), their.numpy(), rtol=1e-5, atol=0.05 * 5e-4)


@pytest.mark.parametrize("name", ["adagrad", "adam"])
def test_epsilon_stands_where_keras_has_it(random, kernels, name):
    """Gradients so small that it decides the step: beside the root for Adam, under it for Adagrad."""
    shape = SHAPES[2]
    start = random_cores(random, shape)
    cores = [tf.Variable(c) for c in start]
    slots = [tf.Variable(tf.zeros(c.shape)) for _ in range(tt_embedding.SLOTS[name]) for c in cores]
    ids = tf.constant(random.integers(shape.num_rows, size=50))
    upstream = tf.constant(1e-5 * random.normal(size=(50, shape.width)), tf.float32)
    gradients = [g.numpy() for g in ops.tt_gradients(ids, upstream, start, shape)]
    ops.tt_update(ids, upstream, cores, slots, 0.01, shape, name, epsilon=1e-5)
    for core, before, g in zip(cores, start, gradients, strict=True):
        g = g.astype(np.float64)
        step = g / np.sqrt(g**2 + 1e-5) if name == "adagrad" else 0.1 * g / (np.sqrt(0.001 * g**2) + 1e-5)
        assert np.abs(step).max() > 1e-3
        np.testing.assert_allclose(before - core, 0.01 * step, atol=1e-6 * np.abs(before).max(), rtol=1e-3)


@pytest.mark.parametrize("optimizer", [None, *KERAS])
def test_every_row_of_every_core_moves(random, optimizer):
    """FBTT's benchmark table, where its fused updates leave 70 of 200 rows of the first core as they are."""
    shape = ops.TTShape(11_000_000, (200, 220, 250), (4, 4, 4), (32, 32))
    start = random_cores(random, shape)
    cores = [tf.Variable(c) for c in start]
    slots = [tf.Variable(tf.zeros(c.shape)) for _ in range(tt_embedding.SLOTS.get(optimizer, 0)) for c in cores]
    # All digits of each core.
    ids = tf.constant(
        np.ravel_multi_index([np.arange(250) % 200, np.arange(250) % 220, np.arange(250)], (200, 220, 250))
    )
    upstream = tf.constant(random.normal(size=(250, 64)), tf.float32)
    if optimizer is None:
        for core, g in zip(cores, ops.tt_gradients(ids, upstream, start, shape), strict=True):
            core.assign_sub(0.1 * g)
    else:
        ops.tt_update(ids, upstream, cores, slots, 0.1, shape, optimizer)
    for core, before in zip(cores, start, strict=True):
        moved = (core.numpy() != before.numpy()).reshape(len(before), -1)
        assert moved.any(axis=1).all()
        assert moved.mean() > 0.99


@NATIVE
def test_an_update_leaves_what_was_read_before(random):
    shape = SHAPES[0]
    cores = [tf.Variable(c) for c in random_cores(random, shape)]
    read = [c.read_value() for c in cores]
    kept = [r.numpy().copy() for r in read]
    ops.tt_update(tf.constant([1, 2]), tf.ones([2, 16]), cores, [], 0.1, shape, "sgd")
    for r, k, c in zip(read, kept, cores, strict=True):
        np.testing.assert_array_equal(r.numpy(), k)
        assert (c.numpy() != k).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_factors": (4, 5, 4)}, "`row_factors` must multiply to at least the number of rows"),
        ({"row_factors": (4,)}, "`row_factors` must have 2 to 5 numbers"),
        ({"column_factors": (2, 2)}, "`column_factors` must have as many numbers as `row_factors`, 3"),
        ({"ranks": (3, 0)}, "`ranks` must be whole numbers from 1 to 1024"),
        ({"ranks": (3, 5_000)}, "`ranks` must be whole numbers from 1 to 1024"),
        ({"num_rows": 0}, "`num_rows` and `num_tables` must be at least 1"),
        ({"column_factors": (64, 64, 2), "ranks": (4, 64)}, "must not exceed 65536"),
        ({"num_tables": 2**31}, "`num_tables` must be at most 2147483647"),
        ({"row_factors": (2**30, 2**20, 2), "num_tables": 2**11}, "must be below 2\\^62"),
        ({"row_factors": (2**55, 2, 2)}, "A core must have at most 72057594037927936 numbers"),
    ],
)
def test_a_shape_rejects(change, message):
    arguments = {"num_rows": 100, "row_factors": (4, 5, 6), "column_factors": (2, 2, 4), "ranks": (3, 5), **change}
    with pytest.raises(InputError, match=message):
        ops.TTShape(**arguments)


@NATIVE
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": [[0]]}, "`ids` must be [n]"),
        ({"upstream": np.zeros([2, 15])}, "`upstream` must be [2,16]"),
        ({"core": np.zeros([4, 1, 2, 2])}, "core 0 must be [4,1,2,3]"),
        ({"num_rows": 200}, "`row_factors` must multiply to at least `num_rows`"),
        ({"ranks": [3]}, "`ranks` one less"),
        ({"num_tables": 2**31}, "`num_tables` must be 1 to 2147483647. Received: num_tables=2147483648"),
        ({"num_tables": 2**63 - 1}, "`num_tables` must be 1 to 2147483647"),
        ({"num_tables": 2**31 - 1}, "core 0 must be [8589934588,1,2,3]"),
        ({"num_rows": 2**63 - 1}, "`row_factors` must multiply to at least `num_rows`"),
        ({"row_factors": [2**55, 2, 2]}, "core 0 must have at most 72057594037927936 elements"),
        ({"row_factors": [2**40, 2**40, 2]}, "to less than 2^62"),
        ({"row_factors": [2**63 - 1, 2**63 - 1, 2**63 - 1]}, "to less than 2^62"),
        ({"column_factors": [2**63 - 1, 2, 4]}, "`column_factors` and `ranks` 1 to 1024"),
        ({"column_factors": [1024, 1024, 1024]}, "must not exceed 65536"),
        ({"ids": [0, -(2**63)]}, "`ids` must lie in 0 to 99. Received: -9223372036854775808 at position 1"),
    ],
    ids=str,
)
def test_the_native_operation_rejects(random, change, message):
    shape = SHAPES[1]
    cores = random_cores(random, shape)
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)) as caught:
        ops.library().tfrec_tt_lookup_grad(
            ids=np.asarray(change.get("ids", [0, 1]), np.int64),
            upstream=tf.cast(change.get("upstream", np.zeros([2, 16])), tf.float32),
            cores=[tf.cast(change.get("core", cores[0]), tf.float32), *cores[1:]],
            **{**shape.attributes(), **{k: v for k, v in change.items() if k in shape.attributes()}},
        )
    assert message in str(caught.value)


@NATIVE
def test_one_row_more_than_the_factors_have(random):
    """2^60 and 2^60 + 1 are one number as a double; the row of the greater would lie behind the first core."""
    attributes = {
        "num_tables": 1,
        "row_factors": [4096] * 5,
        "column_factors": [1] * 5,
        "ranks": [1] * 4,
    }
    cores = [tf.constant(random.normal(size=(4096, 1, 1, 1)), tf.float32)] * 5
    last = np.array([2**60 - 1])
    found = ops.library().tfrec_tt_lookup(ids=last, cores=cores, num_rows=2**60, **attributes)
    np.testing.assert_allclose(found, np.prod([c[-1] for c in cores]).reshape(1, 1), rtol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="`row_factors` must multiply to at least `num_rows`"):
        ops.library().tfrec_tt_lookup(ids=last + 1, cores=cores, num_rows=2**60 + 1, **attributes)


@NATIVE
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": [0.1]}, "`rate` must be a scalar. Received shape: [1]"),
        ({"rate": []}, "`rate` must be a scalar"),
        ({"cores": "handles"}, "`cores` must be a variable. Received handles of shape: [1]"),
        ({"cores": "same"}, "`cores` and `slots` must be different variables"),
        ({"cores": "other"}, "core 0 must be [5,1,4,8]. Received shape: [3]"),
        ({"slots": "few"}, "`slots` must be 2 for adagrad. Received: 1"),
        ({"slots": "half"}, "`slots` float32"),
        ({"ids": [0, 60]}, "`ids` must lie in 0 to 59"),
        ({"upstream": np.zeros([3, 16])}, "`upstream` must be [2,16]"),
    ],
    ids=str,
)
def test_the_native_update_rejects(random, change, message):
    shape = SHAPES[0]
    cores = [tf.Variable(c) for c in random_cores(random, shape)]
    slots = [tf.Variable(tf.ones(c.shape, tf.float16 if change.get("slots") == "half" else tf.float32)) for c in cores]
    before = [c.numpy() for c in cores]
    handles = [c.handle for c in cores]
    other = tf.Variable(tf.zeros([3]))
    first = {"handles": tf.reshape(handles[0], [1]), "same": slots[0].handle, "other": other.handle}
    handles[0] = first.get(change.get("cores"), handles[0])
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ops.library().tfrec_tt_update(
            ids=np.array(change.get("ids", [0, 1]), np.int64),
            upstream=np.asarray(change.get("upstream", np.ones([2, 16])), np.float32),
            rate=np.asarray(change.get("rate", 0.1), np.float32),
            cores=handles,
            slots=[s.handle for s in slots][: 1 if change.get("slots") == "few" else 2],
            optimizer="adagrad",
            **shape.attributes(),
        )
    assert message in caught.value.message
    for core, old in zip(cores, before, strict=True):
        np.testing.assert_array_equal(core.numpy(), old)


CHILD = """
from tfrec import commands
commands.quiet_tensorflow()
import numpy as np
from tests.ops.test_tt_embedding import SHAPES, TOLERANCE, check
random = np.random.default_rng(0)
for shape in SHAPES:
    for dtype in TOLERANCE:
        check(random, shape, random.integers(shape.num_rows * shape.num_tables, size=70), dtype)
print("good")
"""


@NATIVE
@pytest.mark.parametrize("kernels", ["baseline", "avx2"])
def test_kernels_of_smaller_processors(kernels):
    """The copies for other instruction sets, which this machine would not choose. Not AVX-512 unless it has it."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env={**os.environ, "TFREC_CPU_KERNELS": kernels}, capture_output=True, text=True
    )
    assert done.stdout.endswith("good\n"), done.stderr


@NATIVE
def test_kernels_are_registered():
    from tensorflow.python.framework import kernels

    def devices(name):
        found = kernels.get_registered_kernels_for_op(name).kernel
        return {(k.device_type, t) for k in found for c in k.constraint for t in c.allowed_values.list.type}

    names = ("TfrecTtLookup", "TfrecTtLookupGrad", "TfrecTtUpdate")
    types = [tf.as_dtype(t).as_datatype_enum for t in TOLERANCE]
    for name in names:
        assert devices(name) >= {("CPU", t) for t in types}
    if not any(device == "GPU" for name in names for device, _ in devices(name)):
        pytest.skip("the library was built without CUDA: no nvcc, or TFREC_CUDA=0")
    for name in names:
        assert devices(name) == {(d, t) for d in ("CPU", "GPU") for t in types}


@NATIVE
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
def test_a_gpu_takes_the_same_steps(random, dtype, optimizer):
    shape = SHAPES[2]
    start = random_cores(random, shape, dtype)
    ids = np.append(random.integers(shape.num_rows, size=200), [0, 0])
    upstream = tf.cast(random.normal(size=(len(ids), shape.width)), dtype)
    found = []
    for device in ("CPU:0", "GPU:0"):
        with tf.device(device):
            cores = [tf.Variable(c) for c in start]
            zeros = [tf.zeros(c.shape) for c in start]
            slots = [tf.Variable(z) for z in zeros * tt_embedding.SLOTS[optimizer]]
            ops.tt_update(ids, upstream, cores, slots, tf.constant(0.01), shape, optimizer)
            found.append([ops.tt_lookup(tf.constant(ids), [c.value() for c in cores], shape), *cores, *slots])
    for on_cpu, on_gpu in zip(*found, strict=True):
        close(on_gpu, tf.cast(on_cpu, tf.float64).numpy(), TOLERANCE[dtype])


@NATIVE
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_gpu_reads_zeros_for_ids_out_of_range(random, dtype):
    shape = SHAPES[7]
    rows = shape.num_rows * shape.num_tables
    ids = np.array([3, -1, rows, 3, 2**62, rows - 1])
    inside = (ids >= 0) & (ids < rows)
    cores = random_cores(random, shape, dtype)
    upstream = tf.cast(random.normal(size=(len(ids), shape.width)), dtype)
    with tf.device("GPU:0"):
        found = ops.tt_lookup(tf.constant(ids), cores, shape)
        gradients = ops.tt_gradients(tf.constant(ids), upstream, cores, shape)
    close(found, np.where(inside[:, None], dense(exact(cores), shape)[np.where(inside, ids, 0)], 0), TOLERANCE[dtype])
    up = tf.cast(upstream, tf.float64).numpy()[inside]
    for g, wanted in zip(gradients, expected_gradients(exact(cores), shape, ids[inside], up), strict=True):
        close(g, wanted, TOLERANCE[dtype])


#: MiB that a lookup and then its gradient take at their highest above what was there, and the rows' own.
_MEMORY = """
import numpy as np, tensorflow as tf
from pathlib import Path
from tfrec import ops
from tfrec.benchmark.memory import resident_bytes

shape = ops.TTShape(1_000_000, (100, 100, 100), (2, 2, 2), (64, 64))
random = np.random.default_rng(0)
cores = [tf.constant(random.normal(size=s), tf.float32) for s in shape.core_shapes]
ids = tf.constant(random.integers(1_000_000, size=1_000_000))

def grown(run):
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    kept = run()
    print((resident_bytes("VmHWM") - before) / 2**20)
    return kept

for some in (ids[:10], ids):
    rows = grown(lambda: ops.tt_lookup(some, cores, shape))
    grown(lambda: [g.numpy().sum() for g in ops.tt_gradients(some, rows, cores, shape)])
"""


@NATIVE
def test_memory_does_not_grow_with_ids_times_rank():
    done = subprocess.run([sys.executable, "-c", _MEMORY], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    forward, backward = (float(line) for line in done.stdout.split()[-2:])
    ids, cores = 1_000_000, 4 * (100 * 2 * 64 + 100 * 64 * 2 * 64 + 100 * 64 * 2) / 2**20
    stated = ids * (48 + 8 * 3) / 2**20
    rows, slack = ids * 8 * 4 / 2**20, 16.0  # the allocator's
    # A tensor of ids x q x rank would be 488 MiB.
    threads = len(os.sched_getaffinity(0))
    assert forward < stated + rows + 2 * cores + slack
    assert backward < stated + (4 + threads) * cores + slack
