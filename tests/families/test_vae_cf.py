"""VAE-CF's commands, as a person starts them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.starting import report_of, run, run_apart, start

SMALL = [
    "--data.synthetic.num-users", "400", "--data.synthetic.num-items", "150", "--model.hidden-dims", "16",
    "--model.latent-dim", "8", "--training.global-batch-size", "60",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small finished run, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    out, _ = run("train", "vae-cf", *SMALL, "--training.epochs", "4", "--output-dir", "run", cwd=folder)
    return folder, out


def test_everything_is_written(finished):
    folder, out = finished
    run_folder = folder / "run"
    names = {p.name for p in run_folder.iterdir() if not p.name.startswith(".")}
    assert names == {
        "config.json", "history.csv", "report.html", "logs", "checkpoint", "model.keras", "items.arrow",
        "users.arrow", "test_users.arrow", "metrics.json",
    }  # fmt: skip
    assert not [p for p in run_folder.rglob("*.part*")]
    metrics = json.loads((run_folder / "metrics.json").read_text())
    for part in ("validation", "test"):
        assert set(metrics[part]) == {"model", "popularity", "oracle"}
        assert {"recall@20", "recall@50", "ndcg@100", "users"} <= set(metrics[part]["model"])
        assert metrics[part]["oracle"]["ndcg@100"] > metrics[part]["popularity"]["ndcg@100"]
    split = metrics["split"]
    assert (split["name"], split["users"], split["validation_users"], split["test_users"]) == (
        "held_out_users", 320, 40, 40
    )  # fmt: skip
    assert metrics["family"] == "vae-cf"
    assert metrics["shipped"] == {"measured_on": "training", "trained_on": "training"}
    assert metrics["config"]["training"]["epochs"] == 4
    assert {"tensorflow", "keras", "tfrec"} <= set(metrics["versions"])
    assert len(metrics["training"]["users_per_second"]) == 4
    lines = (run_folder / "history.csv").read_text().splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("epoch,")
    assert "validation_ndcg@100" in lines[0]
    last = out.strip().splitlines()[-1]
    assert last.startswith("Test ndcg@100: model ")
    assert last.endswith("are in run")
    assert list((run_folder / "logs").glob("events*"))


def test_same_command_again_says_so(finished):
    folder, out = finished
    again, _ = run("train", "vae-cf", *SMALL, "--training.epochs", "4", "--output-dir", "run", cwd=folder)
    assert "has this run already" in again
    assert again.strip().splitlines()[-1] == out.strip().splitlines()[-1]


def test_another_config_in_the_same_folder_is_an_error(finished):
    folder, _ = finished
    _, err = run("train", "vae-cf", *SMALL, "--training.epochs", "5", "--output-dir", "run", cwd=folder, code=2)
    assert "training.epochs: 4 -> 5" in err
    assert "--no-resume" in err


def test_a_mistake_touches_nothing(finished):
    """Whatever is wrong is said before the folder is claimed, let alone cleared."""
    folder, _ = finished
    before = {p: p.read_bytes() for p in (folder / "run").rglob("*") if p.is_file()}
    for wrong in (["--data.heldout-users", "3000"], ["--training.global-batch-size", "9999"], ["--seed", "-1"]):
        run("train", "vae-cf", *SMALL, *wrong, "--no-resume", "--output-dir", "run", cwd=folder, code=2)
    assert {p: p.read_bytes() for p in (folder / "run").rglob("*") if p.is_file()} == before
    run("train", "vae-cf", *SMALL, "--seed", "-1", "--output-dir", "new", cwd=folder, code=2)
    assert not (folder / "new").exists()


def test_other_peoples_files_are_never_removed(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "config.json").write_text('{"mine": 1}')
    (theirs / "history.csv").write_text("precious")
    _, err = run("train", "vae-cf", *SMALL, "--no-resume", "--output-dir", "theirs", cwd=tmp_path, code=2)
    assert "not the folder of a run" in err
    assert (theirs / "history.csv").read_text() == "precious"


def test_changed_data_is_noticed(tmp_path):
    def table(shift):
        return "user_id,item_id\n" + "".join(f"{u},{(u + i * i + shift) % 40}\n" for u in range(50) for i in range(9))

    (tmp_path / "my.csv").write_text(table(0))
    arguments = ["--data.path", "my.csv", "--training.epochs", "1", "--model.hidden-dims", "8", "--evaluation.metrics",
                 "ndcg@10", "--evaluation.monitor", "ndcg@10", "--output-dir", "run"]  # fmt: skip
    run("train", *arguments, cwd=tmp_path)
    (tmp_path / "my.csv").write_text(table(1))
    for name, rest in (("train", arguments), ("evaluate", ["run"])):
        _, err = run(name, *rest, cwd=tmp_path, code=2)
        assert "the file has changed" in err
    (tmp_path / "my.csv").unlink()
    # A run knows what its users have: no training file is needed to recommend.
    out, _ = run("recommend", "run", "--user", "3", "-k", "2", cwd=tmp_path)
    assert out.startswith("3 has 8 items: ")


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "checkpoint/last.npz"])
def test_damaged_files_are_told(finished, tmp_path, name):
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(b"")
    if name == "checkpoint/last.npz":
        (tmp_path / "run" / "metrics.json").unlink()
    arguments = ["vae-cf", *SMALL, "--training.epochs", "4", "--output-dir", "run"]
    _, err = run("train", *arguments, cwd=tmp_path, code=2)
    assert "error: " in err


def test_evaluate(finished):
    folder, _ = finished
    out, _ = run("evaluate", "run", "--metrics", "ndcg@100", "auc", "--json", "e.json", cwd=folder)
    reported = json.loads((folder / "run" / "metrics.json").read_text())["test"]["model"]["ndcg@100"]
    found = json.loads((folder / "e.json").read_text())["test"]
    assert found["model"]["ndcg@100"] == pytest.approx(reported, abs=1e-9)
    assert 0.5 < found["popularity"]["auc"] < 1
    assert "oracle" in out


def test_recommend(finished):
    folder, _ = finished
    out, _ = run("recommend", "run", "--items", "Item 00003", "7", "-k", "5", cwd=folder)
    lines = out.strip().splitlines()
    assert len(lines) == 5
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "5"]
    assert not any("[3]" in line or "[7]" in line for line in lines)
    out, _ = run("recommend", "run", "--user", "12", "-k", "150", cwd=folder)
    about, *lines, left = out.strip().splitlines()
    assert about.startswith("12 has ")
    has = int(about.split()[2])
    assert len(lines) == 150 - has
    assert left == f"Only {150 - has} items to recommend."
    _, err = run("recommend", "run", "--items", "item 0000", cwd=folder, code=2)
    assert "Did you mean" in err
    _, err = run("recommend", "run", "--user", "4000", cwd=folder, code=2)
    assert "must be one of the data's" in err
    _, err = run("recommend", "run", "--user", "1", "-k", "151", cwd=folder, code=2)
    assert "must lie in [1, 150]" in err


def test_export(finished):
    folder, _ = finished
    (folder / "served" / ".1.abcd1234.part").mkdir(parents=True)  # a killed process has left it
    out, _ = run("export", "run", "served/1", cwd=folder)
    assert sorted(os.listdir(folder / "served")) == ["1", "config.pbtxt", "models.config"]
    assert "150 items" in out
    assert (folder / "served" / "1" / "saved_model.pb").is_file()
    _, err = run("export", "run", "served/1", cwd=folder, code=2)
    assert "exists already" in err
    _, err = run("export", "nowhere", "out", cwd=folder, code=2)
    assert "not the folder of a finished run" in err


def test_killed_in_mid_epoch_and_started_again(tmp_path):
    """kill -9, the same command again, and the same bits as a run that nobody killed."""
    arguments = [
        "vae-cf",
        *SMALL,
        "--training.deterministic",
        "--training.epochs",
        "6",
        "--training.validate-every",
        "2",
        "--model.kl-anneal-steps",
        "20",
    ]
    run_apart("train", *arguments, "--output-dir", "whole", cwd=tmp_path)
    process = start("train", *arguments, "--output-dir", "killed", cwd=tmp_path)
    for line in process.stdout:
        if line.startswith("epoch 3/"):
            break
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "metrics.json").exists()
    out, _ = run_apart("train", *arguments, "--output-dir", "killed", cwd=tmp_path)
    assert "Resuming" in out
    whole, killed = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("whole", "killed"))
    assert killed["test"] == whole["test"]
    assert killed["validation"] == whole["validation"]
    with np.load(tmp_path / "whole/checkpoint/last.npz") as a, np.load(tmp_path / "killed/checkpoint/last.npz") as b:
        for name in a.files:
            if name != "progress":  # which holds seconds
                np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_interrupted(tmp_path):
    process = start("train", "vae-cf", *SMALL, "--training.epochs", "500", "--output-dir", "run", cwd=tmp_path)
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command continues" in err
    assert "Traceback" not in err


def test_own_table(tmp_path):
    random = np.random.default_rng(0)
    lines = ["who,what,stars,name"]
    lines += [f"ü{u},{i},{random.integers(1, 6)},Films 🎬 {i}" for u in range(60) for i in random.permutation(40)[:20]]
    (tmp_path / "my.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "them.txt").write_text("ü7\n\nü8\n", encoding="utf-8")
    out, _ = run(
        "train", "--data.path", "my.csv", "--data.user", "who", "--data.item", "what", "--data.value", "stars",
        "--data.title", "name", "--training.epochs", "2", "--training.global-batch-size", "10",
        "--model.hidden-dims", "8", "--model.latent-dim", "4", "--output-dir", "run",
        "--evaluation.metrics", "recall@5", "ndcg@10", "--evaluation.monitor", "ndcg@10", cwd=tmp_path,
    )  # fmt: skip
    assert "Test ndcg@10: model" in out
    out, _ = run("recommend", "run", "--user", "ü7", "ü8", "-k", "3", cwd=tmp_path)
    assert out.count("Films 🎬") == 12  # three of what each has, and three for each
    assert run("recommend", "run", "--users-from", "them.txt", "-k", "3", cwd=tmp_path)[0] == out


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--data.path", "none.csv"], "No such file"),
        (["--data.path", "bad.csv"], "no column `user_id`"),
        (["--data.heldout-users", "3000"], "leave some for training"),
        (["--training.global-batch-size", "100000"], "must not exceed the number of training users"),
        (["--evaluation.metrics", "ndcg@5000", "--evaluation.monitor", "ndcg@5000"], "must not exceed the number"),
        (["--evaluation.metrics", "ndgc@5"], "A metric must be one of"),
        (["--evaluation.monitor", "ndcg@7"], "must be one of the metrics"),
        (["--training.epochs", "0"], "at least 1"),
        (["--training.learning-rate", "0"], "must be positive"),
        (["--model.dropout", "1"], "dropout"),
        (["--data.name", "ml-1m", "--data.dir", "nowhere"], "does not exist"),
        (["--output-dir", "file/run"], "cannot be written"),
        (["--output-dir", "other"], "is not empty and not the folder of a run"),
        (["--training.epoch", "3"], "nrecognized"),
        (["vae-fc"], "vae-cf"),
        (["--data.split", "latest-item"], "latest_item"),
        (["--data.test-share", "0.3"], "--data.test-share means nothing with --data.split held_out_users"),
        (["--evaluation.protocol", "exact"], "Only --data.split latest_item has one target"),
        (["--data.name", "in-memory"], "handed over in Python"),
    ],
)
def test_rejects(tmp_path, arguments, match):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    if "--output-dir" not in arguments and arguments[0] != "vae-fc":
        arguments = [*arguments, "--output-dir", "run"]
    out, err = run("train", *arguments, cwd=tmp_path, code=2)
    assert match in err + out


def test_popularity_recipe(tmp_path):
    run("train", "popularity", "--output-dir", "run", *SMALL[:4], cwd=tmp_path)
    metrics = report_of(tmp_path / "run")["test"]
    assert metrics["model"] == metrics["popularity"]
    run("export", "run", "served", cwd=tmp_path)


def test_help_loads_no_tensorflow():
    code = (
        "import sys, tfrec.train as t\ntry: t.parse(['--help'])\nexcept SystemExit: pass\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == "False"


def test_two_ranks(tmp_path):
    import importlib.util
    from pathlib import Path

    if importlib.util.find_spec("horovod") is None:
        pytest.skip("needs Horovod, which launch/setup builds")
    arguments = ["-m", "tfrec.train", "vae-cf", *SMALL, "--training.deterministic", "--training.epochs", "3",
                 "--model.dropout", "0", "--model.no-variational"]  # fmt: skip
    results = []
    for ranks in (1, 2):
        start = [str(Path(sys.executable).with_name("horovodrun")), "-np", "2"] if ranks == 2 else []
        done = subprocess.run(
            [*start, sys.executable, *arguments, "--output-dir", f"run{ranks}"],
            capture_output=True, text=True, cwd=tmp_path, timeout=300,
            env={k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        # Nothing but what went wrong belongs there (horovodrun's own notices: see launch/train).
        assert (ranks == 2) or done.stderr == ""
        assert "<stderr>" not in done.stderr
        results.append(json.loads((tmp_path / f"run{ranks}" / "metrics.json").read_text()))
    assert results[1]["hardware"]["ranks"] == 2
    for name, value in results[0]["test"]["model"].items():
        assert results[1]["test"]["model"][name] == (
            pytest.approx(value, abs=2e-3) if isinstance(value, float) else value
        )
