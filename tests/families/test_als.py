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

from tests.starting import SMALL_DATA, report_of, run, start
from tfrec.errors import InputError
from tfrec.recommend import Arguments, recommend
from tfrec.recommender import Recommender
from tfrec.train import parse, train

SMALL = ["als", *SMALL_DATA, "--model.factors", "8"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    out, _ = run("train", *SMALL, "--training.training-loss", "--output-dir", "run", cwd=folder)
    return folder, out


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folded")
    out, _ = run("train", *SMALL, "--data.split", "held_out_users", "--output-dir", "run", cwd=folder)
    return folder, out


def test_everything_is_written(finished):
    folder, out = finished
    names = {p.name for p in (folder / "run").iterdir() if not p.name.startswith(".")}
    assert names == {"config.json", "history.csv", "checkpoint", "model.keras", "items.arrow", "users.arrow",
                     "test_users.arrow", "report.html", "metrics.json"}  # fmt: skip
    metrics = report_of(folder / "run")
    assert metrics["test"]["model"]["ndcg@100"] > metrics["test"]["popularity"]["ndcg@100"]
    assert metrics["training"]["factor_bytes"] == (300 + 150) * 8 * 2
    split = metrics["split"]
    parts = [split[name] for name in ("train_events", "validation_targets", "test_targets")]
    assert sum(parts) == metrics["data"]["report"]["kept"] == metrics["data"]["events"]
    assert [p / sum(parts) for p in parts] == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    losses = [float(line.split(",")[2]) for line in (folder / "run" / "history.csv").read_text().splitlines()[1:]]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert "iteration 10/10" in out
    assert out.strip().splitlines()[-1].endswith("are in run")


def test_a_second_start_trains_nothing(finished):
    folder, _ = finished
    out, _ = run("train", *SMALL, "--training.training-loss", "--output-dir", "run", cwd=folder)
    assert "has this run already" in out


@pytest.mark.parametrize("kind", ["finished", "folded"])
def test_evaluate(request, kind):
    folder, _ = request.getfixturevalue(kind)
    reported = report_of(folder / "run")
    for part in ("test", "validation"):
        run("evaluate", "run", "--part", part, "--json", "same.json", cwd=folder)
        assert json.loads((folder / "same.json").read_text())[part] == reported[part]
    _, err = run("evaluate", "run", "--negatives", "9", cwd=folder, code=2)
    assert "Leave out --negatives" in err
    _, err = run("evaluate", "run", "--protocol", "exact", cwd=folder, code=2)
    assert "Only --data.split latest_item has one target" in err


def test_recommend(finished):
    folder, _ = finished
    out, _ = run("recommend", "run", "--similar-to", "Item 00003", "-k", "4", cwd=folder)
    assert out.startswith("Similar to Item 00003:")
    assert len(out.strip().splitlines()) == 5
    assert "[3]" not in out
    out, _ = run("recommend", "run", "--user", "12", "-k", "5", cwd=folder)
    assert len(out.strip().splitlines()) == 6
    _, err = run("recommend", "run", "--similar-to", "Item 9999", cwd=folder, code=2)
    assert "must be the title or id of one of the model's items" in err
    _, err = run("recommend", "run", "--similar-to", "Item 00003", "--user", "1", cwd=folder, code=2)
    assert "Exactly one question" in err


def test_lists(finished):
    folder, _ = finished
    files = ["--write-similar", "s.tsv", "--write-recommendations", "r.tsv"]
    # What a killed process has left of writing one.
    (folder / ".s.abcd1234.part.tsv").write_text("half")
    out, _ = run("recommend", "run", *files, "-k", "3", cwd=folder)
    assert not list(folder.glob(".*.part*"))
    assert "Wrote 450 lines to s.tsv" in out
    head, *lines = [line.split("\t") for line in (folder / "s.tsv").read_text().splitlines()]
    assert head == ["item", "title", "rank", "similar_item", "similar_title", "score"]
    assert len(lines) == 450
    assert lines[0][:3] == ["0", "Item 00000", "1"]
    assert not any(line[0] == line[3] for line in lines)  # an item is not among those similar to it
    assert all(0 < float(line[5]) <= 1.001 for line in lines[::3])
    head, *lines = [line.split("\t") for line in (folder / "r.tsv").read_text().splitlines()]
    assert head == ["user", "rank", "item", "title", "score"]
    assert [line[0] for line in lines[::3]] == [str(user) for user in range(300)]
    assert all(line[3] == f"Item {int(line[2]):05}" for line in lines)
    _, err = run("recommend", "run", "--write-similar", "nowhere/s.tsv", cwd=folder, code=2)
    assert "nowhere/s.tsv cannot be written" in err
    for path, message in (
        ("/proc/s.tsv", "cannot be written"),
        (f"{'n' * 300}.tsv", "File name too long"),
        ("run/history.csv", "is a file of the run"),
        ("s.txt", "must end in .parquet, .csv or .tsv"),
    ):
        with pytest.raises(InputError, match=message):
            recommend(Arguments(folder / "run", write_similar=folder / path))
    with pytest.raises(InputError, match="Two tables cannot be written to one file"):
        recommend(Arguments(folder / "run", write_similar=folder / "t.csv", write_recommendations=folder / "t.csv"))


def test_choices(finished):
    folder, _ = finished

    def shown(*arguments):
        out, _ = run("recommend", "run", *arguments, cwd=folder)
        return [int(line.rsplit("[", 1)[1].rstrip("]")) for line in out.splitlines() if "[" in line]

    best = shown("--user", "12", "-k", "5")
    assert shown("--user", "12", "-k", "4", "--exclude", str(best[1])) == [best[0], *best[2:]]
    assert shown("--user", "12", "-k", "2", "--among", str(best[3]), str(best[0])) == [best[0], best[3]]
    similar = shown("--similar-to", "3", "-k", "3")
    assert shown("--similar-to", "3", "-k", "2", "--exclude", str(similar[0])) == similar[1:]
    out, _ = run("recommend", "run", "--user", "12", "--explain", str(best[0]), "-k", "3", cwd=folder)
    first, *reasons = out.splitlines()
    assert f"[{best[0]}]: score " in first
    assert len(reasons) == 3
    _, err = run("recommend", "run", "--user", "12", "13", "--explain", "7", cwd=folder, code=2)
    assert "--explain needs one --user" in err
    _, err = run("recommend", "run", "--similar-to", "3", "--explain", "7", cwd=folder, code=2)
    assert "--explain needs one --user" in err


def test_everybody_of_a_run_that_held_out_users(folded):
    """Held-out users are answered by their items."""
    folder, _ = folded
    out, _ = run("recommend", "run", "--items", "Item 00003", "7", "-k", "5", cwd=folder)
    assert len(out.strip().splitlines()) == 5
    run("recommend", "run", "--write-recommendations", "r.tsv", "-k", "2", cwd=folder)
    lines = [line.split("\t") for line in (folder / "r.tsv").read_text().splitlines()[1:]]
    assert {line[0] for line in lines} == {str(user) for user in range(300)}


@pytest.mark.parametrize("kind", ["finished", "folded"])
def test_export_answers_as_the_model_with_tensorflow_alone(request, kind):
    folder, _ = request.getfixturevalue(kind)
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
    recommender = Recommender.load(folder / "run")
    table = recommender.recommend([12], k=5) if kind == "finished" else recommender.recommend_to([[3, 7, 20]], k=5)
    assert ids.tolist() == table["item"].to_pylist()
    np.testing.assert_allclose(scores, table["score"].to_numpy(), rtol=1e-3, atol=1e-4)
    # And as the model itself: of a new user, solved for exactly.
    model, raw = recommender.model, recommender.vocabulary.item_ids
    number = {item: n for n, item in enumerate(raw.tolist())}
    if kind == "finished":
        wanted = model.scores(tf.constant([12]), tf.constant([[number[i] for i in ids]])).numpy()[0]
    else:
        row = scipy.sparse.csr_matrix(np.isin(raw, [3, 7, 20])[None].astype(np.float32))
        wanted = model.scores(row).numpy()[0, [number[i] for i in ids]]
    np.testing.assert_allclose(scores, wanted, rtol=1e-3, atol=1e-4)
    assert (np.diff(scores) <= 0).all()


def test_killed_and_started_again(tmp_path):
    arguments = [*SMALL, "--model.iterations", "150", "--training.checkpoint-seconds", "0"]
    run("train", *arguments, "--output-dir", "whole", cwd=tmp_path)
    process = start("train", *arguments, "--output-dir", "killed", cwd=tmp_path)
    deadline = time.monotonic() + 120
    for line in process.stdout:
        if line.startswith("iteration 5") or time.monotonic() > deadline:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "metrics.json").exists()
    out, _ = run("train", *arguments, "--output-dir", "killed", cwd=tmp_path)
    assert "Resuming after iteration" in out
    whole, killed = (report_of(tmp_path / name)["test"] for name in ("whole", "killed"))
    assert whole == killed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.factors", "0"], "`factors` must be a whole number from 1 to 1024"),
        (["--model.regularization", "-1"], "`regularization` must be at least 0"),
        (["--model.alpha", "0"], "`alpha` must be above 0"),
        (["--model.alpha", "nan"], "`alpha` must be finite.\nReceived: --model.alpha nan."),
        (["--data.test-share", "1.5"], "--data.test-share must lie between 0 and 1"),
        (["--data.split", "held_out_users", "--model.confidence", "bm25"], "would differ from those in training"),
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
    arguments = ["als", "--data.path", "my.csv", "--data.user", "u", "--data.item", "i", "--data.value", "plays",
                 "--data.title", "name", "--data.min-rating", "all", "--model.factors", "2", "--evaluation.metrics",
                 "ndcg@3", "--evaluation.monitor", "ndcg@3", "--output-dir", "run"]  # fmt: skip
    run("train", *arguments, cwd=tmp_path)
    out, _ = run("recommend", "run", "--similar-to", "sigur rós 1 ✓", "-k", "2", cwd=tmp_path)
    assert out.startswith("Similar to Sigur Rós 1 ✓:")
