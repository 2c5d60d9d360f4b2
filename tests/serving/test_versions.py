"""Numbered versions: the next one, the ones that go, and the one that may not come."""

import json

import pytest

import tfrec
from tfrec.errors import InputError
from tfrec.export import Arguments, run_export
from tfrec.serving.versions import check_not_worse, model_folder, next_version, prune, versions


def write(folder, number, metrics=None):
    version = folder / str(number)
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"")
    if metrics is not None:
        (version / "signatures.json").write_text(json.dumps({"about": {"metrics": metrics}}))
    return version


def test_next_version(tmp_path):
    model = tmp_path / "plays"
    assert next_version(model) == model / "1"
    write(model, 9)
    write(model, 10)
    # Numbers that cannot be counted on: a name of text, a file, digits of another script.
    (model / "latest").mkdir()
    (model / "models.config").write_text("")
    (model / "٣").mkdir()
    assert versions(model) == [9, 10]
    assert next_version(model) == model / "11"
    (model / "20").mkdir()  # half written by something else: its number is taken
    assert next_version(model) == model / "21"
    with pytest.raises(InputError, match="a file"):
        next_version(model / "models.config")


def test_prune(tmp_path):
    for number in (1, 2, 9, 10):
        write(tmp_path, number)
    assert [p.name for p in prune(tmp_path, 2)] == ["1", "2"]
    assert versions(tmp_path) == [9, 10]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "9"]
    assert prune(tmp_path, 5) == []
    with pytest.raises(InputError, match="at least 1"):
        prune(tmp_path, 0)


def test_model_folder(tmp_path, monkeypatch):
    assert model_folder(tmp_path / "plays" / "1") == tmp_path / "plays"
    assert model_folder(tmp_path / "plays") is None
    monkeypatch.chdir(tmp_path)
    assert model_folder("1") == tmp_path


def test_guard(tmp_path):
    assert check_not_worse(tmp_path, {"ndcg@10": 0.3}, "ndcg@10", 0.0) is None
    write(tmp_path, 3, {"ndcg@10": 0.4})
    assert "version 3" in check_not_worse(tmp_path, {"ndcg@10": 0.392}, "ndcg@10", 0.02)
    for worse in (0.3919, float("nan")):
        with pytest.raises(InputError, match=r"(?s)worse than version 3.*before 0\.4000"):
            check_not_worse(tmp_path, {"ndcg@10": worse}, "ndcg@10", 0.02)
    with pytest.raises(InputError, match=r"'auc'.\nUse one of ndcg@10"):
        check_not_worse(tmp_path, {"ndcg@10": 1.0}, "auc", 0.02)
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="from 0 to 1"):
            check_not_worse(tmp_path, {"ndcg@10": 1.0}, "ndcg@10", share)
    write(tmp_path, 4)
    with pytest.raises(InputError, match="does not say its ndcg@10"):
        check_not_worse(tmp_path, {"ndcg@10": 1.0}, "ndcg@10", 0.02)


def test_a_new_version_every_day(tmp_path, capsys):
    data = tfrec.load("synthetic", num_users=200, num_items=120)
    good = tfrec.fit("ease", data, output_dir=tmp_path / "good")
    bad = tfrec.fit("popularity", data, output_dir=tmp_path / "bad")
    metric = "ndcg@100"
    assert bad.metrics["test"]["model"][metric] < 0.98 * good.metrics["test"]["model"][metric]
    out = tmp_path / "served" / "songs"
    daily = {"version": "auto", "keep": 2, "guard": (metric, 0.02), "k": (5, 20)}
    for _ in range(3):
        run_export(Arguments(good.folder, out, **daily))
    printed = capsys.readouterr().out
    assert "Guard: no earlier version" in printed
    assert "Removed" in printed
    assert versions(out) == [2, 3]
    with pytest.raises(InputError, match="worse than version 3, so it was not exported"):
        run_export(Arguments(bad.folder, out, **daily))
    assert versions(out) == [2, 3]
    assert sorted(p.name for p in out.iterdir()) == ["2", "3", "config.pbtxt", "models.config"]
    said = json.loads((out / "3" / "signatures.json").read_text())
    assert said["about"]["metrics"][metric] == good.metrics["test"]["model"][metric]
    assert {"top_5", "top_20_filtered"} <= set(said["signatures"])
    with pytest.raises(InputError, match="Add --version auto"):
        run_export(Arguments(good.folder, tmp_path / "x", keep=2))
    with pytest.raises(InputError, match="a number or `auto`"):
        run_export(Arguments(good.folder, out, version="newest"))
