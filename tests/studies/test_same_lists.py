"""One list, however it is asked for: Python, a SavedModel without tfrec, HTTP alone and in batches, and TFRS.

All users of MovieLens-100K, k = 10, every family. Minutes: pytest -m slow
"""

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tfrec
from tfrec.benchmark.inference_service import serving
from tfrec.errors import InputError

pytestmark = pytest.mark.slow

#: Family and its options.
FAMILIES = {
    "als": ("als", {}),
    "als in float32": ("als", {"factor_dtype": "float32"}),
    "vae-cf": ("vae-cf", {"epochs": 3}),
    "ease": ("ease", {}),
    "neumf": ("neumf", {"epochs": 2}),
    "popularity": ("popularity", {}),
}
K = 10
#: Asks an export in a process that cannot import tfrec; prints items and scores.
WITHOUT_TFREC = """
import json, sys
sys.modules["tfrec"] = None
import numpy as np, tensorflow as tf
signatures = tf.saved_model.load(sys.argv[1]).signatures
found = []
for inputs in json.load(open(sys.argv[2])):
    ask = signatures["recommend" if "user_ids" in inputs else "recommend_filtered"]
    answer = ask(**{name: tf.constant(rows, tf.int64) for name, rows in inputs.items()})
    for ids, scores, count in zip(*(answer[n].numpy().tolist() for n in ("ids", "scores", "counts"))):
        found.append([ids[:count], scores[:count]])
print(json.dumps(found))
"""
#: The same of a layer of TensorFlow Recommenders.
WITH_TFRS = """
import json, sys
from pathlib import Path
from tfrec.fitting import load_recommender
from tfrec.retrieval import load_tfrs, to_tfrs
from tfrec.runs.folder import RunFolder
load_tfrs()
import tensorflow as tf
recommender = load_recommender(RunFolder.existing(Path(sys.argv[1])))
index = to_tfrs(recommender, k=int(sys.argv[2]))
found = []
for user in recommender.vocabulary.user_ids.tolist():
    scores, ids = index.query_with_exclusions(tf.constant([user], tf.int64), index.query_model.exclusions([user]))
    found.append([ids.numpy()[0].tolist(), scores.numpy()[0].tolist()])
print(json.dumps(found))
"""


@pytest.fixture(params=FAMILIES)
def run(request, real_data, tmp_path):
    name, options = FAMILIES[request.param]
    data = tfrec.load("ml-100k", data_dir=real_data("ml-100k"))
    return tfrec.fit(name, data, output_dir=tmp_path / "run", **options)


def printed(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def same(python, other):
    """How many places differ; there, scores must be as good as equal."""
    different = 0
    for user, (wanted, found) in enumerate(zip(python, other, strict=True)):
        assert len(wanted[0]) == len(found[0]), user
        for place, (one, two) in enumerate(zip(wanted[0], found[0], strict=True)):
            if one != two:
                different += 1
                assert wanted[1][place] == pytest.approx(found[1][place], rel=1e-4, abs=1e-6), (user, place)
    return different


def new(recommender, user):
    v, row = recommender.vocabulary, recommender.vocabulary.histories[user]
    liked, met = (v.item_ids[row.indices[chosen]].tolist() for chosen in (row.data > 0, row.data == 0))
    return recommender.recommend_to([liked], K, exclude=met).to_pylist()


def padded(rows):
    width = max(1, *map(len, rows))
    return [np.pad(row, (0, width - len(row)), constant_values=-1).tolist() for row in rows]


def lists(rows, users):
    found = {user: ([], []) for user in users}
    for row in rows:
        found[row["user"]][0].append(row["item"])
        found[row["user"]][1].append(row["score"])
    return list(found.values())


def test_every_way_gives_the_list_of_python(run, tmp_path):
    recommender = run.recommender
    users = recommender.vocabulary.user_ids.tolist()
    python = lists(recommender.recommend(users, K).to_pylist(), users)

    # Users by number where the model has all of them, else by what they like, without what they have met besides.
    export = recommender.export(tmp_path / "export")
    v = recommender.vocabulary
    inputs = json.loads((export / "signatures.json").read_text())["signatures"]["recommend"]["inputs"]
    asked = []
    for first in range(0, len(users), 100):
        block = range(first, min(first + 100, len(users)))
        if "user_ids" in inputs:
            asked.append({"user_ids": users[first : first + 100]})
        else:
            rows = [v.histories[user] for user in block]
            liked = [v.item_ids[row.indices[row.data > 0]] for row in rows]
            met = [v.item_ids[row.indices[row.data == 0]] for row in rows]
            asked.append({"item_ids": padded(liked), "exclude_ids": padded(met), "among_ids": [[-1]] * len(rows)})
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    # An export by history is asked as a new user is; of ALS that is another list than that of the factors.
    alone = python if "user_ids" in inputs else [lists(new(recommender, user), [0])[0] for user in range(len(users))]
    found = {"SavedModel": same(alone, printed(WITHOUT_TFREC, export, tmp_path / "asked.json"))}

    with serving(run.folder) as port:

        def ask(user):
            query = urllib.parse.urlencode({"user": user, "k": K})
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/recommend?{query}", timeout=60) as answer:
                items = json.load(answer)["items"]
            return [i["item"] for i in items], [i["score"] for i in items]

        found["HTTP, one at a time"] = same(python, [ask(user) for user in users])
        with ThreadPoolExecutor(32) as pool:
            found["HTTP, in batches"] = same(python, list(pool.map(ask, users)))

    try:
        recommender.item_vectors()
    except InputError:
        pass
    else:
        layer = printed(WITH_TFRS, run.folder, K)
        # VAE-CF shows probabilities, the layer has logits: only their order is the same.
        logits = np.allclose(layer[0][1], python[0][1], rtol=1e-2)
        if not logits:
            layer = [[ids, scores] for (ids, _), (_, scores) in zip(layer, python, strict=True)]
        found["TFRS"] = same(python, layer)
    print({way: f"{count} of {len(users) * K} places differ" for way, count in found.items()})
    assert max(found.values()) <= len(users) * K / 1_000
