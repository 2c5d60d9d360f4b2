"""NeuMF of the reference sizes and item vectors, in int8 against float32, and that int8 gives what it gives on a CPU.

The weights are those a model starts with: speed does not depend on them. What int8 costs in quality is measured by
``python -m tfrec.benchmark quantization``, which trains for many minutes.
"""

from __future__ import annotations

import numpy as np
from script import parser, row, seconds, take_device, write

arguments = parser(__doc__).parse_args()
tf = take_device(arguments.rehearse)

import keras  # noqa: E402

from tfrec.data import load  # noqa: E402
from tfrec.models import NeuMF  # noqa: E402
from tfrec.ops import dot_top_k  # noqa: E402
from tfrec.quantization import Int8Rows, calibrate, quantize  # noqa: E402

users, items, asked, candidates = (400, 300, 32, 50) if arguments.rehearse else (6_040, 3_706, 256, 1_000)
rounds = 3 if arguments.rehearse else 20
keras.utils.set_random_seed(1)
train = load("synthetic", num_users=users, num_items=items).to_csr()
model = NeuMF(users, items, layer_dims=(256, 256, 128, 64))
made = quantize(model, calibrate(model, train, 0.05))
random = np.random.default_rng(0)
some = tf.range(asked, dtype=tf.int64)
chosen = tf.constant(random.integers(0, items, (asked, candidates)))
rows, notes = [], []
for name, way in (("float32", model), ("int8", made)):
    score = tf.function(way.scores)
    speeds = asked * candidates / seconds(lambda score=score: score(some, chosen).numpy(), rounds)
    rows.append(row(f"NeuMF, {asked} users x {candidates:,} candidates, {name}", speeds, "pairs/s"))
where = (
    "in one native operation"
    if made.runs_natively and not tf.config.list_physical_devices("GPU")
    else "simulated, on the GPU"
)
notes.append(f"int8 NeuMF: {where}")
on_device = made.scores(some, chosen).numpy()
with tf.device("CPU:0"):
    on_cpu = made.scores(some, chosen).numpy()
apart = float(np.abs(on_device - on_cpu).max() / max(np.abs(on_cpu).max(), 1e-9))
notes.append(f"int8 scores on this device and on the CPU: at most {apart:.1e} of the largest apart")
if not apart < 1e-5:
    raise SystemExit(notes[-1])
table = random.normal(size=(items, 128)).astype(np.float32)
queries = table[:asked]
int8 = Int8Rows.of(table)
for name, call in (
    ("float32", lambda: dot_top_k(tf.constant(queries), tf.constant(table), 10)[0]),
    ("int8", lambda: int8.top_k(queries, 10)[0]),
):
    times = seconds(lambda call=call: np.asarray(call()), rounds)
    rows.append(row(f"10 best of {items:,} item vectors for {asked} queries, {name} (on the CPU)", times * 1e3, "ms"))
write(arguments.json, {"rows": rows, "notes": notes})
