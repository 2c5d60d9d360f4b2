"""Everything of the data's size is where the GPU is: proven from TensorFlow's registry, without a GPU."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tests.placement import Placement, registered
from tfrec.data.device_integers import DeviceIntegers
from tfrec.models import VAECF, NeuMF
from tfrec.ops import als
from tfrec.ops.native import library
from tfrec.quantization import QuantizationConfig, calibrate, quantize
from tfrec.recommender import Recommender
from tfrec.train import parse, train

DATA = ["--data.synthetic.num-users", "400", "--data.synthetic.num-items", "2500"]
NEUMF = ["neumf", *DATA, "--model.mf-dim", "8", "--model.layer-dims", "16", "8", "--training.epochs", "1",
         "--training.global-batch-size", "5000", "--evaluation.negatives", "50"]  # fmt: skip
VAE = ["vae-cf", *DATA, "--model.hidden-dims", "16", "--model.latent-dim", "8", "--training.epochs", "1"]
FLOAT16 = ["--training.precision", "mixed_float16"]

#: File, operations and tensors of what passes between host and device all the same, and why it may.
EXPECTED = {
    ("data/csr.py", "GatherV2|AddV2", "int64 goes"): "row offsets are looked up on the host: a batch's size",
    ("data/csr.py", "Shape|Sub", "int64 goes"): "the offsets of a batch's users go to the device, 24 bytes a user",
    ("layers/multinomial.py", "Range|Mul|Minimum|Cast|Reshape", ""): "where chunks begin: a number per chunk",
    ("tasks/measure.py", "PyFunc|EnsureShape", ""): "the planted scores, for the oracle's line, are NumPy's",
    ("serving/ids.py", "LookupTable.*|GreaterEqual", ""): "ids are looked up in TensorFlow's hash table, on the host",
    ("ops/als.py", "TfrecAlsHalfSweepInPlace", ""): "the CPU's operation; test_als_on_a_gpu looks at the GPU's",
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def has_cuda_kernels(op):
    """Whether the library was built with nvcc."""
    return library() is not None and any(k.device_type == "GPU" for k in registered(op))


def unexpected(placement):
    return [
        f
        for f in placement.findings()
        if not any(
            f.source.startswith(file) and re.fullmatch(ops, f.op) and what in f.what for file, ops, what in EXPECTED
        )
    ]


def check(placement):
    found = unexpected(placement)
    assert not found, "\n".join(map(str, found))


def trained_and_served(arguments):
    """A run of the command, with its evaluations, and what its export would answer with."""
    with Placement() as placement:
        train(*parse([*arguments, "--output-dir", "run"]), time.perf_counter())
        for function in Recommender.load(Path("run")).served().signatures.values():
            function.get_concrete_function()
    return placement


#: Tensors that pass between host and device memory in one training step, by direction: all of them a few numbers
#: (counters, shapes, seeds, bounds of chunks) but for those in EXPECTED. The body of a loop counts once. What
#: docs/gpu.md says. A change that raises them is to be looked at, and one that lowers them is to be written down.
COPIES_PER_STEP = {"vae-cf": (21, 20), "neumf": (9, 16)}


@pytest.mark.parametrize(
    "arguments",
    [
        VAE,
        [*VAE, *FLOAT16],
        NEUMF,
        [*NEUMF, *FLOAT16, "--evaluation.protocol", "all"],
        ["als", *DATA, "--model.factors", "8", "--data.split", "held_out_users"],
        ["popularity", *DATA],
    ],
    ids=["vae-cf", "vae-cf float16", "neumf", "neumf float16 all", "als", "popularity"],
)
def test_training_evaluation_and_serving(arguments):
    placement = trained_and_served(arguments)
    check(placement)
    name = arguments[0]
    if name in COPIES_PER_STEP and len(arguments) in (len(VAE), len(NEUMF)):
        found = placement.copies("one_step_on_data")
        down = sum("from device to host" in f.what for f in found)
        assert (down, len(found) - down) == COPIES_PER_STEP[name], "\n".join(map(str, found))


def test_tensor_train_embeddings():
    if not has_cuda_kernels("TfrecTtLookup"):
        pytest.skip("needs the native library with CUDA kernels, which is built where nvcc is")
    check(trained_and_served([*NEUMF, "--model.item-embedding", "tt", "--model.embedding-ranks", "4"]))


@pytest.mark.parametrize("factor_dtype", ["float16", "float32"])
@pytest.mark.parametrize("solver", als.SOLVERS)
def test_als_on_a_gpu(random, solver, factor_dtype):
    """Where the tables are on a GPU the operation that returns its rows is used."""
    if not has_cuda_kernels("TfrecAlsHalfSweep"):
        pytest.skip("needs the native library with CUDA kernels, which is built where nvcc is")
    matrix = scipy.sparse.random(300, 200, 0.2, format="csr", random_state=1, dtype=np.float32)
    fixed, start = (tf.constant(random.normal(size=(n, 32)).astype(factor_dtype)) for n in (200, 300))
    with Placement() as placement:
        gram = als.gramian(fixed)
        als.half_sweep(als.Entries(matrix), fixed, gram, start, als.Sweep(solver=solver), 0, 300)
    assert any(op == "TfrecAlsHalfSweep" for op, *_ in placement.eager)
    check(placement)


FORMS = {
    "split": {},
    "one": {"split_final": False, "product": "quantized"},
    "int8 logit": {"final_addition": "int8", "product": "quantized"},
}


@pytest.mark.parametrize("form", FORMS)
def test_int8_scores(form):
    """On a GPU the integers are simulated in TensorFlow; the native operation is the CPU's."""
    model = NeuMF(40, 1500, mf_dim=8, layer_dims=(16, 8))
    positives = scipy.sparse.random(40, 1500, 0.02, format="csr", random_state=1, dtype=np.float32)
    positives.data[:] = 1
    made = quantize(model, calibrate(model, positives, fraction=1.0), QuantizationConfig(**FORMS[form]))
    made.reference = True
    with Placement() as placement:
        score = tf.function(made.scores)
        score.get_concrete_function(tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, None], tf.int64))
        score.get_concrete_function(tf.TensorSpec([None], tf.int64))
    check(placement)


def test_plain_fit():
    """Without tfrec's pipelines: a sparse batch and arrays, by Keras."""
    matrix = scipy.sparse.random(300, 2500, 0.02, format="csr", random_state=1, dtype=np.float32)
    matrix.data[:] = 1
    vae = VAECF(2500, hidden_dims=(16,), latent_dim=8)
    vae.compile("adam")
    neumf = NeuMF(300, 2500, mf_dim=8, layer_dims=(16, 8))
    neumf.compile("adam")
    users, items = np.arange(300), np.arange(300)[:, None] % 2500
    with Placement() as placement:
        vae.fit(matrix, epochs=1, batch_size=150, verbose=0)
        neumf.fit((users, items), np.ones((300, 1), np.float32), batch_size=150, verbose=0)
    # The batches come from the host, and a variable's first value is made once.
    steps = [f for f in unexpected(placement) if f.graph == "one_step_on_data" and f.op != "If"]
    assert not steps, "\n".join(map(str, steps))


class TestThatItIsSeen:
    """What stood in the code before: each is found."""

    def found(self, function, *specs):
        with Placement() as placement:
            tf.function(function, autograph=False).get_concrete_function(*specs)
        return [f"{f.op}: {f.what}" for f in placement.findings()]

    def test_a_table_of_int32(self):
        table = tf.constant(np.arange(5000, dtype=np.int32))
        found = self.found(lambda i: tf.cast(tf.gather(table, i), tf.int64) + 1, tf.TensorSpec([9], tf.int64))
        assert found == ["GatherV2: int32 goes from host to device (from Placeholder)"]
        bits = DeviceIntegers(table.numpy())
        assert self.found(lambda i: bits.gather(i) + 1, tf.TensorSpec([9], tf.int64)) == []

    def test_a_sum_of_int32(self):
        spec = tf.TensorSpec([None, 2000], tf.float32)
        found = self.found(lambda x: tf.reduce_sum(tf.cast(x > 0, tf.int32), axis=1) + 1, spec)
        assert "Sum: int32 goes from device to host (from Cast)" in found
        assert "Sum: its int32 result is in host memory" in found
        assert self.found(lambda x: tf.reduce_sum(tf.cast(x > 0, tf.int64), axis=1) + 1, spec) == []

    def test_places_of_int32(self):
        spec, table = tf.TensorSpec([None], tf.int64), tf.zeros([5000, 4])

        def rows(ids, **options):
            index = tf.unique(ids, **options)[1]
            return tf.gather(table, tf.reshape(index, [-1, 2]))

        assert "Reshape: int32 goes from device to host (from Unique)" in self.found(rows, spec)
        assert self.found(lambda ids: rows(ids, out_idx=tf.int64), spec) == []

    def test_no_kernel_for_the_type(self):
        spec = tf.TensorSpec([None], tf.int64)
        found = self.found(lambda x: tf.math.unsorted_segment_sum(x, x, 5) + 1, spec)
        assert any(f.startswith("UnsortedSegmentSum: no GPU kernel (int64, int64") for f in found)

    def test_in_the_body_of_a_loop(self):
        table = tf.constant(np.arange(5000, dtype=np.int32))

        def loop(i):
            step = lambda j, s: (j + 1, s + tf.gather(table, i))  # noqa: E731
            return tf.while_loop(lambda j, _: j < 3, step, (0, tf.zeros([9], tf.int32)))[1]

        assert any(
            f.startswith("GatherV2: int32 goes from host") for f in self.found(loop, tf.TensorSpec([9], tf.int64))
        )

    def test_outside_of_graphs(self):
        with Placement() as placement:
            tf.reduce_sum(tf.ones([64, 64], tf.int32))
        assert any("Sum" in f.op and "int32 is taken in host memory" in f.what for f in placement.findings())
