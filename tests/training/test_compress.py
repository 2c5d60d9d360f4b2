"""The command that replaces tables by tensor trains, as a person starts it."""

import json

from tests.training.test_commands import run
from tests.training.test_neumf_commands import SMALL


def test_compress(tmp_path):
    run("train", *SMALL, "--training.epochs", "2", "--output-dir", "run", cwd=tmp_path)
    # 8 + 8 numbers a row: with ranks of 40 the tables are exact.
    out, _ = run("compress", "run", "full", "--ranks", "1000", cwd=tmp_path)
    assert "times smaller" in out
    before = json.loads((tmp_path / "run" / "metrics.json").read_text())
    full = json.loads((tmp_path / "full" / "metrics.json").read_text())
    for part in ("before", "after"):
        for metric in ("hit_rate@10", "ndcg@10"):
            assert abs(full["compression"][part][metric] - before["test"]["model"][metric]) < 0.02
    assert all(e < 1e-4 for e in full["compression"]["relative_error"].values())
    (tmp_path / ".small.abcd1234.part").mkdir()  # a killed process has left it
    run("compress", "run", "small", "--ranks", "4", "--tables", "item", cwd=tmp_path)
    assert not list(tmp_path.glob(".*.part"))
    small = json.loads((tmp_path / "small" / "metrics.json").read_text())
    assert small["compression"]["ratio"] > 4
    run("evaluate", "small", "--json", "again.json", cwd=tmp_path)
    again = json.loads((tmp_path / "again.json").read_text())["test"]["model"]
    assert again["hit_rate@10"] == small["compression"]["after"]["hit_rate@10"]
    out, _ = run("compress", "run", "tuned", "--ranks", "3", "--group", "1", "--fine-tune", "2", cwd=tmp_path)
    assert "fine-tuning, epoch 2/2" in out
    tuned = json.loads((tmp_path / "tuned" / "metrics.json").read_text())["compression"]
    assert tuned["after"]["ndcg@10"] > tuned["decomposed"]["ndcg@10"]
    run("evaluate", "tuned", "--json", "again.json", cwd=tmp_path)
    again = json.loads((tmp_path / "again.json").read_text())["test"]["model"]
    assert again["hit_rate@10"] == tuned["after"]["hit_rate@10"]
    _, err = run("compress", "run", "other", "--fine-tune-rate", "0", cwd=tmp_path, code=2)
    assert "`fine_tune_rate` positive" in err
    _, err = run("compress", "run", "small", cwd=tmp_path, code=2)
    assert "is there already" in err
    _, err = run("compress", "small", "other", "--tables", "item", cwd=tmp_path, code=2)
    assert "a tensor train already" in err


def test_train_with_tensor_train_tables(tmp_path):
    tables = ("--model.user-embedding", "tt", "--model.item-embedding", "tt", "--model.embedding-ranks", "8")
    run("train", *SMALL, *tables, "--training.epochs", "2", "--output-dir", "run", cwd=tmp_path)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["config"]["model"]["item_embedding"] == "tt"
    run("evaluate", "run", "--json", "again.json", cwd=tmp_path)
    assert json.loads((tmp_path / "again.json").read_text())["test"]["model"] == metrics["test"]["model"]
    run("export", "run", "served", cwd=tmp_path)
    # It needs TensorFlow only.
    assert b"TfrecTt" not in (tmp_path / "served" / "saved_model.pb").read_bytes()
