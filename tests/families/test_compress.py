"""python -m tfrec.compress: tables replaced by tensor trains."""

import json

import pytest

from tfrec import compress, evaluate, export
from tfrec.errors import InputError
from tfrec.families import CompressSettings
from tfrec.fitting import fit

SMALL = {
    "data.synthetic.num_users": 300, "data.synthetic.num_items": 400, "mf_dim": 8, "layer_dims": (16, 8),
    "global_batch_size": 2000, "learning_rate": 0.005, "epochs": 2, "evaluation.negatives": 50,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit("neumf", output_dir=tmp_path_factory.mktemp("compress") / "run", **SMALL).folder


def make(run, out, **settings):
    compress.compress(compress.Arguments(run, out, CompressSettings(**settings)))
    return json.loads((out / "compression.json").read_text()) if out.is_dir() else None


def measured_again(folder, tmp_path):
    evaluate.evaluate(evaluate.Arguments(folder, json=tmp_path / "again.json"))
    return json.loads((tmp_path / "again.json").read_text())["test"]["model"]


def test_full_ranks_lose_nothing(run, tmp_path, capsys):
    # 8 + 8 numbers a row: with ranks of 40 the tables are exact.
    report = make(run, tmp_path / "full", ranks=1000)
    assert "times smaller" in capsys.readouterr().out
    before = json.loads((run / "metrics.json").read_text())
    for part in ("before", "after"):
        for metric in ("hit_rate@10", "ndcg@10"):
            assert report["test"][part][metric] == pytest.approx(before["test"]["model"][metric], abs=0.02)
    assert all(e < 1e-4 for e in report["relative_error"].values())


def test_the_result_is_a_run_like_any_other(run, tmp_path):
    (tmp_path / ".small.abcd1234.part").mkdir()  # a killed process has left it
    report = make(run, tmp_path / "small", ranks=4, tables=("item",))
    assert not list(tmp_path.glob(".*.part"))
    assert report["ratio"] > 4
    before, after = (json.loads((f / "metrics.json").read_text()) for f in (run, tmp_path / "small"))
    assert set(after) == {*before, "made_from"}
    assert after["config"]["model"]["item_embedding"] == "tt"
    assert measured_again(tmp_path / "small", tmp_path)["hit_rate@10"] == report["test"]["after"]["hit_rate@10"]
    export.run_export(export.Arguments(tmp_path / "small", tmp_path / "served"))
    # It needs TensorFlow only.
    assert b"TfrecTt" not in (tmp_path / "served" / "saved_model.pb").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        make(run, tmp_path / "small")
    with pytest.raises(InputError, match="must be dense to become a tensor train"):
        make(tmp_path / "small", tmp_path / "other", tables=("item",))


def test_fine_tuning_gains_back_what_the_decomposition_lost(run, tmp_path, capsys):
    report = make(run, tmp_path / "tuned", ranks=3, group=1, fine_tune=2)
    assert "fine-tuning, epoch 2/2" in capsys.readouterr().out
    assert report["test"]["after"]["ndcg@10"] > report["test"]["decomposed"]["ndcg@10"]
    assert measured_again(tmp_path / "tuned", tmp_path)["hit_rate@10"] == report["test"]["after"]["hit_rate@10"]


def test_what_was_trained_as_tensor_trains_is_exported_without_native_operations(tmp_path):
    tables = {"user_embedding": "tt", "item_embedding": "tt", "embedding_ranks": 8}
    run = fit("neumf", output_dir=tmp_path / "run", **SMALL, **tables)
    assert run.metrics["config"]["model"]["item_embedding"] == "tt"
    assert measured_again(run.folder, tmp_path) == run.metrics["test"]["model"]
    export.run_export(export.Arguments(run.folder, tmp_path / "served"))
    assert b"TfrecTt" not in (tmp_path / "served" / "saved_model.pb").read_bytes()


def test_refused(run, tmp_path):
    with pytest.raises(InputError, match="`fine_tune_rate` positive"):
        make(run, tmp_path / "other", fine_tune_rate=0.0)
    with pytest.raises(InputError, match="at least one table"):
        make(run, tmp_path / "other", tables=())
    other = fit("popularity", output_dir=tmp_path / "popularity").folder
    with pytest.raises(InputError, match="a run of popularity.\nThese can: neumf"):
        make(other, tmp_path / "other")
    assert not (tmp_path / "other").exists()
