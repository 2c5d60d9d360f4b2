"""NeuMF's commands, as a person starts them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.starting import report_of, run, run_apart, start
from tfrec.errors import InputError
from tfrec.runs.vocabulary import Vocabulary
from tfrec.train import parse, train

SMALL = [
    "neumf", "--data.synthetic.num-users", "300", "--data.synthetic.num-items", "400", "--model.mf-dim", "8",
    "--model.layer-dims", "16", "8", "--training.global-batch-size", "2000",
    "--training.learning-rate", "0.005", "--evaluation.negatives", "50",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    out, err = run("train", *SMALL, "--training.epochs", "4", "--output-dir", "run", cwd=folder)
    return folder, out, err


def test_everything_is_written(finished):
    folder, out, err = finished
    names = {p.name for p in (folder / "run").iterdir() if not p.name.startswith(".")}
    assert names == {
        "config.json", "history.csv", "report.html", "logs", "checkpoint", "model.keras", "items.arrow",
        "users.arrow", "test_users.arrow", "metrics.json",
    }  # fmt: skip
    metrics = report_of(folder / "run")
    for part in ("validation", "test"):
        assert set(metrics[part]) == {"model", "popularity", "oracle"}
        hits = {name: report["hit_rate@10"] for name, report in metrics[part].items()}
        assert hits["popularity"] < hits["oracle"]
        assert metrics[part]["model"]["users"] == 300
    assert metrics["split"]["train_events"] + 600 == metrics["data"]["events"]
    assert metrics["split"]["name"] == "latest_item"
    assert metrics["training"]["gradient_bytes_per_step"] > 0
    assert "gradients per step" in out
    assert out.strip().splitlines()[-1].endswith("are in run")
    assert "WARNING:tensorflow" not in out + err


def test_evaluate(finished):
    folder, _, _ = finished
    reported = report_of(folder / "run")["test"]
    run("evaluate", "run", "--json", "same.json", cwd=folder)
    assert json.loads((folder / "same.json").read_text())["test"] == reported
    run("evaluate", "run", "--protocol", "all", "--metrics", "hit_rate@10", "auc", "--json", "all.json", cwd=folder)
    found = json.loads((folder / "all.json").read_text())["test"]["model"]
    assert 0 < found["hit_rate@10"] < 1
    _, err = run("evaluate", "run", "--negatives", "399", cwd=folder, code=2)
    assert "Draw fewer" in err
    _, err = run("evaluate", "run", "--metrics", "hit_rate@52", cwd=folder, code=2)
    assert "cutoff must not exceed" in err


def test_recommend(finished):
    folder, _, _ = finished
    out, _ = run("recommend", "run", "--user", "12", "-k", "5", cwd=folder)
    assert len(out.strip().splitlines()) == 6
    _, err = run("recommend", "run", "--user", "300", cwd=folder, code=2)
    assert "must be one of the data's" in err
    _, err = run("recommend", "run", "--items", "7", cwd=folder, code=2)
    assert "Ask for users of the data, or train vae-cf, als or ease" in err


def test_export_serves(finished):
    folder, _, _ = finished
    out, _ = run("export", "run", "served/1", cwd=folder)
    assert "Signature score: user_ids [B], item_ids [B, C]" in out
    served = tf.saved_model.load(str(folder / "served/1"))
    answer = served.signatures["serving_default"](user_ids=tf.constant([3, 999], tf.int64), k=tf.constant(400))
    vocabulary = Vocabulary.load(folder / "run" / "items.arrow", folder / "run" / "users.arrow")
    has = vocabulary.item_ids[vocabulary.histories[3].indices]
    most_popular = int(vocabulary.item_ids[vocabulary.popularity.argmax()])
    count = int(answer["counts"][0])
    ids = answer["ids"].numpy()
    assert count == 400 - len(has)
    assert set(ids[0, :count]) == set(range(400)) - set(has.tolist())
    assert (ids[0, count:] == -1).all()
    assert answer["known"].numpy().tolist() == [True, False]
    assert ids[1, 0] == most_popular
    scores = served.signatures["score"](
        user_ids=tf.constant([3, 999], tf.int64), item_ids=tf.constant([[ids[0, 0], 999], [1, 2]], tf.int64)
    )
    assert scores["known"].numpy().tolist() == [[True, False], [False, False]]
    assert scores["scores"][0, 0].numpy() == pytest.approx(answer["scores"][0, 0].numpy(), abs=1e-6)


def test_killed_in_mid_epoch_and_started_again(tmp_path):
    """kill -9, the same command again, and the same bits as a run that nobody killed."""
    arguments = [*SMALL, "--training.epochs", "5", "--training.embedding-update", "lazy", "--training.deterministic"]
    run_apart("train", *arguments, "--output-dir", "whole", cwd=tmp_path)
    process = start("train", *arguments, "--output-dir", "killed", cwd=tmp_path)
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    out, _ = run_apart("train", *arguments, "--output-dir", "killed", cwd=tmp_path)
    assert "Resuming" in out
    whole, killed = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("whole", "killed"))
    assert killed["test"] == whole["test"]
    with np.load(tmp_path / "whole/checkpoint/last.npz") as a, np.load(tmp_path / "killed/checkpoint/last.npz") as b:
        for name in a.files:
            if name != "progress":  # which holds seconds
                np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_threshold_stops(tmp_path):
    arguments = [*SMALL, "--training.epochs", "50", "--training.threshold", "0.3", "--output-dir", "run"]
    run("train", *arguments, cwd=tmp_path)
    metrics = report_of(tmp_path / "run")
    assert metrics["training"]["epochs"] < 50
    assert metrics["validation"]["model"]["hit_rate@10"] >= 0.3


def test_ncf_files(tmp_path):
    """The format of the NCF paper, from files to test on its negatives."""
    random = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    train, test, negative = [], [], []
    for user in range(40):
        items = random.permutation(60)
        train += [f"{user}\t{i}\t5\t{100 + n}" for n, i in enumerate(items[:12])]
        test.append(f"{user}\t{items[12]}\t4\t999")
        negative.append("\t".join([f"({user},{items[12]})", *map(str, items[20:40])]))
    train.append("39\t59\t5\t1" if 59 not in items[:13] else "39\t58\t5\t1")
    for name, lines in (("train.rating", train), ("test.rating", test), ("test.negative", negative)):
        (folder / f"x.{name}").write_text("\n".join(lines) + "\n")
    arguments = ["neumf", "--data.path", "data", "--data.format", "ncf", "--training.epochs", "1",
                 "--evaluation.negatives", "20", "--output-dir", "run"]  # fmt: skip
    run("train", *arguments, cwd=tmp_path)
    metrics = report_of(tmp_path / "run")
    assert metrics["split"]["negatives_per_user"] == 20
    assert metrics["test"]["model"]["users"] == 40
    (folder / "x.test.negative").write_text("\n".join(negative[:-1]) + "\n")
    for name, rest in (("train", arguments), ("evaluate", ["run"])):
        _, err = run(name, *rest, cwd=tmp_path, code=2)
        assert "has changed" in err or "ends too early" in err


def test_train_on_validation(tmp_path):
    options = ["--training.epochs", "2", "--training.train-on-validation", "--output-dir", "run"]
    out, _ = run("train", *SMALL, *options, cwd=tmp_path)
    metrics = report_of(tmp_path / "run")
    assert f"for {metrics['training']['best_epoch']} epochs." in out
    assert metrics["shipped"] == {"measured_on": "training and validation", "trained_on": "training and validation"}
    _, err = run("evaluate", "run", "--part", "validation", cwd=tmp_path, code=2)
    assert "trained on the validation part too" in err
    run("evaluate", "run", "--json", "e.json", cwd=tmp_path)
    assert json.loads((tmp_path / "e.json").read_text())["test"] == metrics["test"]


def test_refit(tmp_path):
    """Measured without the test items, shipped with them: the report says both, and nothing is measured on it again."""
    out, _ = run("train", *SMALL, "--training.epochs", "2", "--output-dir", "plain", cwd=tmp_path)
    out, _ = run("train", *SMALL, "--training.epochs", "2", "--training.refit", "--output-dir", "run", cwd=tmp_path)
    metrics = report_of(tmp_path / "run")
    assert metrics["test"]["model"] == report_of(tmp_path / "plain")["test"]["model"]
    assert {k: metrics["shipped"][k] for k in ("measured_on", "trained_on")} == {
        "measured_on": "training", "trained_on": "everything"
    }  # fmt: skip
    assert "the model in the folder was trained on everything" in out
    _, err = run("evaluate", "run", cwd=tmp_path, code=2)
    assert "nothing is left to measure it on" in err
    items, users = tmp_path / "run" / "items.arrow", tmp_path / "run" / "users.arrow"
    assert Vocabulary.load(items, users).popularity.sum() == metrics["data"]["events"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--training.global-batch-size", "100000000"], "at most an epoch"),
        (["--training.global-batch-size", "4"], "at least 5"),
        (["--training.negatives", "-1"], "`negatives` must be at least 0"),
        (["--training.epochs", "0"], "at least 1"),
        (["--training.steps-per-call", "0"], "steps_per_call"),
        (["--training.epsilon", "0"], "epsilon"),
        (["--training.embedding-update", "lazy", "--training.backward-passes-per-step", "2"], "updated lazily"),
        (["--evaluation.negatives", "400"], "Draw fewer"),
        (["--evaluation.monitor", "recall@3"], "must be one of the metrics"),
        (["--evaluation.metrics", "hit_rate@200", "--evaluation.monitor", "hit_rate@200"], "cutoff"),
        (["--evaluation.metrics", "coverage@5", "--evaluation.monitor", "coverage@5"], "not defined"),
        (["--evaluation.block-pairs", "0"], "block_pairs"),
        (["--model.layer-dims", "7", "3"], "first even"),
        (["--model.dropout", "1.5"], "dropout"),
        (["--data.min-user-events", "2"], "at least 3"),
        (["--data.path", ".", "--data.format", "ncf"], "exactly one"),
        (["--data.path", "."], "empty.csv is empty"),  # a folder of parts
        (["--data.format", "ncf"], "--data.path"),
        (["--data.path", "one.csv"], "No user has 3 different items"),
        (["--data.path", "empty.csv"], "empty"),
    ],
)
def test_rejects(tmp_path, monkeypatch, arguments, match):
    """In this process, which is quicker; that commands print such errors is tested with VAE-CF."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.csv").write_text("user_id,item_id\n1,2\n")
    (tmp_path / "empty.csv").write_text("")
    small = SMALL if "--data.path" not in arguments else ["neumf"]
    recipe, config = parse([*small, *arguments, "--output-dir", "run"])
    with pytest.raises(InputError, match=match):
        train(recipe, config, 0.0)
    assert not (tmp_path / "run").exists()


def test_two_ranks_equal_one(tmp_path):
    """Without dropout the ranks together do what one does; and both stop at the threshold."""
    import importlib.util

    if importlib.util.find_spec("horovod") is None:
        pytest.skip("needs Horovod, which launch/setup builds")
    results = []
    arguments = [*SMALL, "--model.dropout", "0", "--training.epochs", "30", "--training.threshold", "0.3"]
    for ranks in (1, 2):
        start = [str(Path(sys.executable).with_name("horovodrun")), "-np", "2"] if ranks == 2 else []
        done = subprocess.run(
            [*start, sys.executable, "-m", "tfrec.train", *arguments, "--output-dir", f"run{ranks}"],
            capture_output=True, text=True, cwd=tmp_path, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        results.append(json.loads((tmp_path / f"run{ranks}" / "metrics.json").read_text()))
    one, two = results
    assert two["hardware"]["ranks"] == 2
    assert two["training"]["epochs"] == one["training"]["epochs"] < 30
    assert two["test"]["popularity"] == one["test"]["popularity"]
    for name, value in one["test"]["model"].items():
        assert two["test"]["model"][name] == (pytest.approx(value, abs=0.02) if isinstance(value, float) else value)


def test_a_catalogue_with_a_tensor_train(tmp_path):
    """The recipe of ten million items, with fewer: it learns what neighbouring ids share, and can be served."""
    catalog = {"users": "600", "items": "8000"}
    options = [f for name, n in catalog.items() for f in (f"--data.catalog.num-{name}", n)]
    options += ["--data.catalog.category-size", "400"]  # 20 x 20, the last two digits of 8,000
    options += ["--training.global-batch-size", "2000", "--training.epochs", "4", "--output-dir", "run"]
    run("train", "neumf-tt-10m", *options, cwd=tmp_path)
    test = report_of(tmp_path / "run")["test"]
    oracle, model, popularity = (test[name]["hit_rate@10"] for name in ("oracle", "model", "popularity"))
    assert oracle > popularity + 0.1
    assert oracle + 0.02 > model > popularity
    out, _ = run("recommend", "run", "--user", "3", "-k", "2", cwd=tmp_path)
    assert out
