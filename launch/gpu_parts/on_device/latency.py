"""How long one request to each model takes: from Python's call to the answer in host memory."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from script import parser, seconds, take_device, write

arguments = parser(__doc__).parse_args()
tf = take_device(arguments.rehearse)

import keras  # noqa: E402

from tfrec.models import ALS, VAECF, NeuMF  # noqa: E402

users, items, calls = (300, 200, 10) if arguments.rehearse else (138_493, 26_744, 200)
keras.utils.set_random_seed(1)
random = np.random.default_rng(0)
vae = VAECF(items)
neumf = NeuMF(users, items, layer_dims=(256, 256, 128, 64))
als = ALS(128, iterations=1, num_users=users, num_items=items)
rows = []


def histories(number: int) -> tf.SparseTensor:
    """Users with 60 items each."""
    picked = np.sort(np.stack([random.choice(items, 60, replace=False) for _ in range(number)]), axis=1)
    index = np.stack([np.repeat(np.arange(number), 60), picked.ravel()], axis=1)
    return tf.SparseTensor(index, np.ones(len(index), np.float32), [number, items])


@tf.function(input_signature=[tf.SparseTensorSpec([None, items], tf.float32)])
def best_of_vae(x: tf.SparseTensor) -> tf.Tensor:
    """The 10 best items."""
    return tf.math.top_k(vae(x), 10).indices


@tf.function(input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, None], tf.int64)])
def score(some: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
    """Scores of candidates."""
    return neumf.scores(some, candidates)


for number in (1, 64):
    x = histories(number)
    some = np.arange(number)
    who = tf.constant(some)
    candidates = tf.constant(random.integers(0, items, (number, min(items, 1_000))))
    seen = scipy.sparse.csr_matrix(
        (x.values.numpy(), (x.indices.numpy()[:, 0], x.indices.numpy()[:, 1])), shape=(number, items)
    )
    for name, call in (
        (f"VAE-CF, 10 best of {items:,}", lambda x=x: best_of_vae(x).numpy()),
        ("NeuMF, 1,000 candidates", lambda s=who, c=candidates: score(s, c).numpy()),
        (f"ALS, 10 best of {items:,}", lambda s=some, seen=seen: als.recommend(s, seen, k=10)),
        ("ALS, folding in", lambda s=some, seen=seen: als.recommend(s, seen, k=10, recalculate=True)),
    ):
        times = seconds(call, calls, warm_up=5, answers=True) * 1e3
        low, middle, high = np.percentile(times, [5, 50, 99])
        rows.append(
            {
                "what": f"{name}, {number} user{'s' * (number > 1)}",
                "value": float(middle),
                "low": float(low),
                "high": float(high),
                "unit": "ms",
            }
        )
write(arguments.json, {"rows": rows, "notes": [f"lowest and highest are the 5th and 99th of 100 of {calls} calls"]})
