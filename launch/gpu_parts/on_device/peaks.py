"""What the device reaches in a matrix product and in a copy: what shares in other tables are shares of.

The product of two square matrices, several in a row so that starting them costs nothing, in float32 on tensor cores
(TF32, TensorFlow's default), in float32 without them, and in float16. A copy reads and writes each byte once; both
count.
"""

from __future__ import annotations

import shutil
import subprocess
import threading

import numpy as np
from script import parser, row, seconds, take_device, write

arguments = parser(__doc__).parse_args()
tf = take_device(arguments.rehearse)
size, repeats, numbers = (512, 2, 1 << 20) if arguments.rehearse else (8_192, 10, 1 << 28)
rounds = 3 if arguments.rehearse else 7
clocks: list[str] = []
end = threading.Event()


def watch_clocks() -> None:
    """Note the clocks each half second while the products run."""
    command = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,power.draw", "--format=csv,noheader"]
    while not end.wait(0.5):
        done = subprocess.run(command, capture_output=True, text=True)
        clocks.extend(done.stdout.splitlines()[:1])


def product(a: object, b: object) -> object:
    """Chained, so that none can be left out."""
    for _ in range(repeats):
        a = tf.matmul(a, b)
    return tf.reduce_sum(tf.cast(a[0], tf.float32))


peaks, rows = {}, []
watcher = threading.Thread(target=watch_clocks, daemon=True)
if shutil.which("nvidia-smi") and not arguments.rehearse:
    watcher.start()
for name, dtype, tf32 in (
    ("float32 with TF32", tf.float32, True),
    ("float32 without TF32", tf.float32, False),
    ("float16", tf.float16, True),
):
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    # Traced anew for each: a function keeps what was set when it was traced.
    several = tf.function(product)
    # The columns of b have sums of about 1, so that the products neither grow nor vanish.
    a, b = (
        tf.cast(tf.random.stateless_uniform([size, size], [1, n], maxval=most), dtype)
        for n, most in ((1, 1.0), (2, 2.0 / size))
    )
    times = seconds(lambda several=several, a=a, b=b: several(a, b).numpy(), rounds)
    speeds = 2.0 * size**3 * repeats / times / 1e12
    peaks[name] = float(speeds.max())
    rows.append(row(f"product of {size:,} x {size:,}, {name}", speeds, "TFLOPS"))
end.set()

source = tf.Variable(tf.zeros([numbers]))
target = tf.Variable(tf.zeros([numbers]))


@tf.function
def copies() -> tf.Tensor:
    """The target is written from the source, and back, several times."""
    for _ in range(repeats):
        target.assign(-source)
        source.assign(-target)
    return source[0]


times = seconds(lambda: copies().numpy(), rounds)
speeds = 2.0 * repeats * 2 * numbers * 4 / times / 1e9
peaks["copy"] = float(speeds.max())
rows.append(row(f"copy of {numbers * 4 / 2**20:,.0f} MiB, read and written", speeds, "GB/s"))
host = np.zeros(numbers // 4, np.float32)


def upload() -> None:
    """From ordinary host memory, as tfrec hands arrays over."""
    with tf.device("CPU:0" if arguments.rehearse else "GPU:0"):
        tf.identity(tf.constant(host))[0].numpy()


rows.append(row(f"host to device, {host.nbytes / 2**20:,.0f} MiB", host.nbytes / seconds(upload, rounds) / 1e9, "GB/s"))
write(arguments.json, {"peaks": peaks, "rows": rows, "clocks": clocks[-3:] or ["not read"]})
