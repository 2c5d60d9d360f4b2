"""python -m tfrec.quantize: which families can, what it writes, and that the other commands take it."""

import contextlib
import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import keras
import numpy as np
import pytest

from tests.reporting.reading import read
from tfrec import evaluate, export, quantize
from tfrec.errors import InputError
from tfrec.families import FAMILIES, QuantizeSettings
from tfrec.fitting import fit
from tfrec.quantization import PRESETS, QuantizationConfig
from tfrec.recommender import Recommender

DATA = {"data.synthetic.num_users": 300, "data.synthetic.num_items": 200}
#: What trains a small run of a family.
SMALL = {
    "neumf": {**DATA, "mf_dim": 8, "layer_dims": (16, 8), "epochs": 2, "evaluation.negatives": 20},
    "als": {**DATA, "iterations": 3},
    "vae-cf": {**DATA, "epochs": 3},
    "popularity": DATA,
    "ease": DATA,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of each family, made when it is asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(family, **options):
        name = "-".join([family, *map(str, options.values())])
        if name not in made:
            options = {
                ("evaluation.negatives" if n == "negatives" else n): v for n, v in SMALL[family].items()
            } | options
            with contextlib.redirect_stdout(io.StringIO()):
                made[name] = fit(family, output_dir=folder / name, **options).folder
        return made[name]

    return run


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def report_of(folder):
    return json.loads((folder / "quantization.json").read_text())


def make(run, out, **settings):
    quantize.quantize(quantize.Arguments(run, out, QuantizeSettings(**settings)))
    return out


def test_a_preset_is_named_where_it_is_chosen():
    choices = get_args(get_type_hints(QuantizeSettings)["preset"])
    assert choices == tuple(PRESETS)
    assert PRESETS[QuantizeSettings().preset] == QuantizationConfig()


@pytest.mark.parametrize("family", ["als", "vae-cf", "neumf"])
def test_the_result_is_a_run_like_any_other(runs, family, tmp_path, capsys):
    run, out = runs(family), tmp_path / "out" / "int8"
    out.parent.mkdir()
    (out.parent / ".int8.abcd1234.part").mkdir()  # a killed process has left it
    make(run, out)
    assert [p.name for p in out.parent.iterdir()] == ["int8"]
    assert f"are in {out}" in capsys.readouterr().out.splitlines()[-1]
    before, after = metrics_of(run), metrics_of(out)
    assert set(after) == {*before, "made_from"}
    assert set(after["test"]) == set(before["test"])
    assert set(after["validation"]) == set(before["validation"])
    assert after["test"]["popularity"] == before["test"]["popularity"]
    monitor = before["evaluation"]["monitor"]
    report = report_of(out)
    assert report["test"]["before"] == before["test"]["model"]
    assert report["test"]["after"] == after["test"]["model"]
    assert after["test"]["model"][monitor] == pytest.approx(before["test"]["model"][monitor], abs=0.02)
    assert (out / "model.keras").stat().st_size < (run / "model.keras").stat().st_size
    for name in ("items.arrow", "users.arrow"):
        assert (out / name).read_bytes() == (run / name).read_bytes()
    page = read(out / "report.html")
    assert {found[monitor] for found in after["test"].values()} <= set(page.numbers["test"])
    assert f"made from {run}" in page.texts["opening"]
    # Measured again by the command, and by each user's number.
    evaluate.evaluate(evaluate.Arguments(out, json=tmp_path / "again.json"))
    again = json.loads((tmp_path / "again.json").read_text())["test"]["model"]
    assert again == after["test"]["model"]
    assert (out / "test_users.arrow").stat().st_size == (run / "test_users.arrow").stat().st_size
    # And it answers as the float run does.
    small, large = Recommender.load(out), Recommender.load(run)
    users = [int(u) for u in small.vocabulary.user_ids[:20]]
    lists = [r.recommend(users, k=20)["item"].to_pylist() for r in (small, large)]
    assert len(set(lists[0]) & set(lists[1])) > 0.8 * len(set(lists[1]))
    export.run_export(export.Arguments(out, tmp_path / "served"))
    assert b"Tfrec" not in (tmp_path / "served" / "saved_model.pb").read_bytes()  # it needs TensorFlow only
    with pytest.raises(InputError, match="quantized already"):
        make(out, tmp_path / "twice")


@pytest.mark.parametrize("split", ["held_out_users", "random_pairs"])
def test_als_folds_in_against_the_integers(runs, split, tmp_path):
    run = runs("als", split=split)
    made = keras.saving.load_model(make(run, tmp_path / "int8") / "model.keras")
    rows = Recommender.load(run).vocabulary.histories[:5]
    table = made.item_vectors()[0].numpy()
    sweep = made.side.sweep
    # The fold-in's normal equations, in float64.
    for row, found in zip(rows, made.query_vectors(rows).numpy(), strict=True):
        y, c = table[row.indices].astype(np.float64), sweep.alpha * row.data
        regularization = sweep.regularization * (row.nnz + sweep.unobserved_weight * len(table)) ** (
            sweep.frequency_exponent
        )
        a = sweep.unobserved_weight * table.T.astype(np.float64) @ table + regularization * np.eye(table.shape[1])
        a += (y * (c - sweep.unobserved_weight)[:, None]).T @ y
        np.testing.assert_allclose(found, np.linalg.solve(a, y.T @ c), rtol=1e-3, atol=1e-4)


def test_neumf_writes_what_it_went_by(runs, tmp_path):
    run = runs("neumf")
    out = make(run, tmp_path / "int8", fine_tune=1)
    report = report_of(out)
    assert report["layers"]["hidden_1"]["signal_to_noise_db"] > 20
    assert report["layers"]["user_embedding"]["signal_to_noise_db"] > 20
    assert report["fine_tuning"]["epochs"] == 1
    assert (out / "ranges.png").read_bytes().startswith(b"\x89PNG")
    edited = tmp_path / "edited.yaml"
    shutil.copy(out / "statistics.yaml", edited)
    with pytest.raises(InputError, match="belong to another model"):  # the fine-tuned one's, not the run's
        make(run, tmp_path / "other", statistics=edited)
    assert not (tmp_path / "other").exists()


def test_statistics_are_taken_back(runs, tmp_path):
    run = runs("neumf")
    first = make(run, tmp_path / "first", preset="study-split", bits=6)
    second = make(run, tmp_path / "second", preset="study-split", bits=6, statistics=first / "statistics.yaml")
    assert report_of(first)["quantization"]["weights"] == report_of(first)["quantization"]["activations"] == 6
    assert report_of(second)["test"]["after"] == report_of(first)["test"]["after"]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"bits": 9}, "from 2 to 8"),
        ({"statistics": Path("nowhere.yaml")}, "is not a file of statistics"),
        ({"fraction": 0.0}, "`fraction` must lie in"),
        ({"fine_tune": -1}, "`fine_tune` must be at least 0"),
        ({"fine_tune_rate": 0.0}, "`fine_tune_rate` positive"),
    ],
)
def test_settings_are_looked_at_before_the_work(runs, tmp_path, monkeypatch, settings, match):
    monkeypatch.setattr("tfrec.deriving.read_split", lambda *_: pytest.fail("work began"))
    with pytest.raises(InputError, match=match):
        make(runs("neumf"), tmp_path / "out", **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["/proc/out", "n" * 300, "file/out", "file"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(runs, tmp_path, monkeypatch, out):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("tfrec.deriving.read_split", lambda *_: pytest.fail("work began"))
    with pytest.raises(InputError, match="cannot be written|exists already"):
        make(runs("neumf"), tmp_path / out)
    assert (tmp_path / "file").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("family", ["als", "vae-cf"])
def test_options_of_neumf(runs, family, tmp_path):
    for settings in ({"bits": 4}, {"preset": "study-split"}, {"fine_tune": 1}):
        with pytest.raises(InputError, match="options of NeuMF"):
            make(runs(family), tmp_path / "out", **settings)


def test_families_that_cannot_name_those_that_can(runs, tmp_path):
    for family in ("popularity", "ease"):
        with pytest.raises(InputError, match=f"a run of {family}.\nThese can: .*neumf, als"):
            make(runs(family), tmp_path / "out")
    assert "popularity" in FAMILIES


def test_a_model_that_was_trained_on_everything(runs, tmp_path):
    with pytest.raises(InputError, match=r"trained on everything, .*\n.*without --training.refit"):
        make(runs("als", refit=True), tmp_path / "out")


def test_the_command_line(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("tfrec.quantize.quantize", seen.append)
    monkeypatch.setattr("tfrec.commands.run", lambda main: main())
    monkeypatch.setattr(sys, "argv", ["quantize", "run", "--bits", "4", "--preset", "study-one-final"])
    quantize.main()
    settings = replace(QuantizeSettings(), bits=4, preset="study-one-final")
    assert seen == [quantize.Arguments(Path("run"), settings=settings)]


def test_the_default_place(runs, monkeypatch):
    run, places = runs("neumf"), []
    monkeypatch.setattr("tfrec.deriving.derive", lambda run, out, how, data_dir: places.append(out))
    quantize.quantize(quantize.Arguments(run, settings=QuantizeSettings(bits=4)))
    quantize.quantize(quantize.Arguments(run))
    assert places == [run.parent / f"{run.name}-int4", run.parent / f"{run.name}-int8"]
