"""ALS's commands, as a person starts them."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from tfrec.training.load_run import load_model
from tfrec.training.run_folder import RunFolder
from tfrec.training.vocabulary import Vocabulary

from tests.training.test_commands import command, run
from tfrec.data import confidence
from tfrec.errors import InputError
from tfrec.recommend import Arguments, recommend
from tfrec.train import parse, train

SMALL = ["als", "--data.synthetic.num-users", "300", "--data.synthetic.num-items", "150", "--model.factors", "8"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    out, _ = run("train", *SMALL, "--model.training-loss", "--output-dir", "run", cwd=folder)
    return folder, out


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folded")
    run("train", *SMALL, "--data.split", "users", "--output-dir", "run", cwd=folder)
    return folder


def test_everything_is_written(finished):
    folder, out = finished
    names = {p.name for p in (folder / "run").iterdir() if not p.name.startswith(".")}
    assert names == {"config.json", "history.csv", "checkpoint", "model.keras", "vocabulary.npz", "metrics.json"}
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["test"]["model"]["ndcg@100"] > metrics["test"]["popularity"]["ndcg@100"]
    assert metrics["training"]["factor_bytes"] == (300 + 150) * 8 * 2
    split = metrics["data"]["split"]
    assert split["train_events"] + split["test_events"] == metrics["data"]["events"]
    losses = [float(line.split(",")[2]) for line in (folder / "run" / "history.csv").read_text().splitlines()[1:]]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert "iteration 10/10" in out
    assert out.strip().splitlines()[-1].endswith("are in run")


def test_a_second_start_trains_nothing(finished):
    folder, _ = finished
    out, _ = run("train", *SMALL, "--model.training-loss", "--output-dir", "run", cwd=folder)
    assert "has this run already" in out


@pytest.mark.parametrize("kind", ["finished", "folded"])
def test_evaluate(request, kind):
    made = request.getfixturevalue(kind)
    folder = made[0] if kind == "finished" else made
    reported = json.loads((folder / "run" / "metrics.json").read_text())["test"]
    run("evaluate", "run", "--json", "same.json", cwd=folder)
    assert json.loads((folder / "same.json").read_text())["test"] == reported
    if kind == "finished":
        _, err = run("evaluate", "run", "--part", "validation", cwd=folder, code=2)
        assert "holds out entries for test only" in err
    else:
        _, err = run("evaluate", "run", "--negatives", "9", cwd=folder, code=2)
        assert "Leave out --protocol, --negatives" in err


def test_recommend(finished):
    folder, _ = finished
    out, _ = run("recommend", "run", "--similar-to", "Item 00003", "-k", "4", cwd=folder)
    assert out.startswith("Similar to Item 00003:")
    assert len(out.strip().splitlines()) == 5
    assert "[3]" not in out
    out, _ = run("recommend", "run", "--user", "12", "-k", "5", cwd=folder)
    assert len(out.strip().splitlines()) == 6
    _, err = run("recommend", "run", "--similar-to", "Item 9999", cwd=folder, code=2)
    assert "no item with that title" in err
    _, err = run("recommend", "run", "--similar-to", "Item 00003", "--user", "1", cwd=folder, code=2)
    assert "Give one of" in err


def test_lists(finished):
    folder, _ = finished
    files = ["--write-similar", "s.tsv", "--write-recommendations", "r.tsv"]
    # What a killed process has left of writing one.
    (folder / ".s.abcd1234.part.tsv").write_text("half")
    out, _ = run("recommend", "run", *files, "-k", "3", cwd=folder)
    assert not list(folder.glob(".*.part*"))
    assert "Wrote 450 lines to s.tsv" in out
    head, *lines = [line.split("\t") for line in (folder / "s.tsv").read_text().splitlines()]
    assert head == ["item_id", "title", "rank", "similar_id", "similar_title", "score"]
    assert len(lines) == 450
    assert lines[0][:5] == ["0", "Item 00000", "1", "0", "Item 00000"]
    assert float(lines[0][5]) == pytest.approx(1, abs=1e-3)
    head, *lines = [line.split("\t") for line in (folder / "r.tsv").read_text().splitlines()]
    assert head == ["user_id", "rank", "item_id", "title", "score"]
    assert [line[0] for line in lines[::3]] == [str(user) for user in range(300)]
    assert all(line[3] == f"Item {int(line[2]):05}" for line in lines)
    _, err = run("recommend", "run", "--write-similar", "nowhere/s.tsv", cwd=folder, code=2)
    assert "nowhere/s.tsv cannot be written" in err
    for path, message in (
        ("/proc/s.tsv", "cannot be written"),
        (f"{'n' * 300}.tsv", "File name too long"),
        ("run/history.csv", "is a file of the run"),
        ("s.txt", "is written as .parquet, .csv or .tsv"),
    ):
        with pytest.raises(InputError, match=message):
            recommend(Arguments(folder / "run", write_similar=folder / path))
    with pytest.raises(InputError, match="Two tables cannot be written to one file"):
        recommend(Arguments(folder / "run", write_similar=folder / "t.csv", write_recommendations=folder / "t.csv"))


def test_new_users_of_a_folded_run(folded):
    out, _ = run("recommend", "run", "--items", "Item 00003", "7", "-k", "5", cwd=folded)
    assert len(out.strip().splitlines()) == 6
    _, err = run("recommend", "run", "--write-recommendations", "r.tsv", cwd=folded, code=2)
    assert "Train with --data.split entries" in err


@pytest.mark.parametrize("kind", ["finished", "folded"])
def test_export_answers_as_the_model_with_tensorflow_alone(request, kind):
    made = request.getfixturevalue(kind)
    folder = made[0] if kind == "finished" else made
    run("export", "run", "served/1", cwd=folder)
    code = (
        "import tensorflow as tf, numpy as np\n"
        "m = tf.saved_model.load('served/1')\n"
        "f = m.signatures['serving_default']\n"
        + (
            "a = f(user_ids=tf.constant([12], tf.int64), k=tf.constant(5))\n"
            if kind == "finished"
            else "a = f(item_ids=tf.constant([3, 7, 20], tf.int64), row_splits=tf.constant([0, 3], tf.int64), "
            "k=tf.constant(5))\n"
        )
        + "np.savez('answer.npz', **{k: v.numpy() for k, v in a.items()})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "answer.npz") as found:
        ids, scores = found["ids"][0], found["scores"][0]
    model = load_model(RunFolder.existing(folder / "run"))
    if kind == "finished":
        wanted = model.scores(tf.constant([12]), tf.constant(ids[None])).numpy()[0]
        np.testing.assert_allclose(scores, wanted, atol=1e-4)
    else:
        # Columns are in another order than ids; a new user with these three, solved for exactly.
        raw = Vocabulary.load(folder / "run" / "vocabulary.npz").item_ids
        row = scipy.sparse.csr_matrix(np.isin(raw, [3, 7, 20])[None].astype(np.float32))
        wanted_ids, wanted = model.recommend(0, row, k=5, recalculate=True)
        assert ids.tolist() == raw[wanted_ids].tolist()
        np.testing.assert_allclose(scores, wanted, rtol=1e-3)
    assert (np.diff(scores) <= 0).all()


def test_killed_and_started_again(tmp_path):
    arguments = [*SMALL, "--model.iterations", "400", "--checkpoint-seconds", "0"]
    run("train", *arguments, "--output-dir", "whole", cwd=tmp_path)
    process = command("train", *arguments, "--output-dir", "killed", cwd=tmp_path)
    deadline = time.monotonic() + 120
    for line in process.stdout:
        if line.startswith("iteration 5") or time.monotonic() > deadline:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "metrics.json").exists()
    out, _ = run("train", *arguments, "--output-dir", "killed", cwd=tmp_path)
    assert "Resuming after iteration" in out
    whole, killed = (json.loads((tmp_path / n / "metrics.json").read_text())["test"] for n in ("whole", "killed"))
    assert whole == killed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.factors", "0"], "`factors` must be a whole number from 1 to 1024"),
        (["--model.regularization", "-1"], "`regularization` must be at least 0"),
        (["--model.alpha", "nan"], "`alpha` must be above 0"),
        (["--data.test-share", "1.5"], "`target_share` must lie between 0 and 1"),
        (["--data.split", "users", "--model.confidence", "bm25"], "would differ from those in training"),
        (["--model.confidence", "bm25", "--model.bm25-b", "2"], "`k1` must be above 0 and `b` in"),
    ],
)
def test_wrong_settings_stop_before_anything_is_written(tmp_path, options, message):
    recipe, config = parse([*SMALL, *options, "--output-dir", str(tmp_path / "run")])
    with pytest.raises(InputError) as caught:
        train(recipe, config, time.perf_counter())
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_table_with_odd_rows(tmp_path):
    """Unicode titles, a user and an item that occur once."""
    rows = ["u,i,plays,name", *(f"{u},{i},{1 + (u * i) % 5},Sigur Rós {i} ✓" for u in range(9) for i in range(u % 7))]
    rows.append("99,77,3,日本")
    (tmp_path / "my.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    arguments = ["als", "--data.path", "my.csv", "--data.user", "u", "--data.item", "i", "--data.rating", "plays",
                 "--data.title", "name", "--data.min-rating", "all", "--model.factors", "2", "--evaluation.metrics",
                 "ndcg@3", "--evaluation.monitor", "ndcg@3", "--output-dir", "run"]  # fmt: skip
    run("train", *arguments, cwd=tmp_path)
    out, _ = run("recommend", "run", "--similar-to", "sigur rós 1 ✓", "-k", "2", cwd=tmp_path)
    assert out.startswith("Similar to Sigur Rós 1 ✓:")


def test_confidence_weights():
    """Against the formulas, one entry at a time."""
    dense = np.array([[5, 0, 1, 0], [0, 2, 3, 0], [1, 1, 0, 4.0]])
    matrix = scipy.sparse.csr_matrix(dense)
    users, items = dense.shape
    per_item = dense.sum(0)
    for u in range(users):
        count = (dense[u] > 0).sum()
        idf = np.log(items) - np.log(1 + count)
        for i in range(items):
            v = dense[u, i]
            if not v:
                continue
            norm = 1 - 0.8 + 0.8 * per_item[i] / per_item.mean()
            bm25 = idf * v * (100 + 1) / (100 * norm + v)
            assert confidence.bm25(matrix)[u, i] == pytest.approx(max(bm25, 0), rel=1e-5)
            assert confidence.tf_idf(matrix)[u, i] == pytest.approx(max(np.sqrt(v) * idf, 0), rel=1e-5)
            assert confidence.log(matrix, 2.0)[u, i] == pytest.approx(np.log(1 + v / 2), rel=1e-5)
    with pytest.raises(InputError, match="values from 0"):
        confidence.bm25(-matrix)
    with pytest.raises(InputError, match="`epsilon` must be above 0"):
        confidence.log(matrix, 0.0)
