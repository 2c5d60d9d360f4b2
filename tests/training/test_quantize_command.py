"""python -m tfrec.quantize, from the command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tfrec.errors import InputError
from tfrec.quantize import Arguments, run_quantize


def tfrec(command, *arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", f"tfrec.{command}", *map(str, arguments)], cwd=cwd, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantize")
    done = tfrec("train", "neumf", "--training.epochs", "1", "--output-dir", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_writes_a_run_that_can_be_used(run, tmp_path):
    (tmp_path / ".int8.abcd1234.part").mkdir()  # a killed process has left it
    done = tfrec("quantize", run, tmp_path / "int8", "--fine-tune", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["int8"]
    assert done.stdout.splitlines()[-1].endswith(f"are in {tmp_path / 'int8'}")
    assert {p.name for p in (tmp_path / "int8").iterdir()} == {
        *("model.keras", "config.json", "vocabulary.npz", "metrics.json"),
        *("quantization.json", "statistics.yaml", "ranges.png"),
    }
    report = json.loads((tmp_path / "int8" / "quantization.json").read_text())
    exact, rounded = (report["test"][name]["hit_rate@10"] for name in ("float", "quantized"))
    assert rounded == pytest.approx(exact, abs=0.03)  # an epoch of fine-tuning lies between them
    assert report["layers"]["hidden_1"]["signal_to_noise_db"] > 20
    assert report["fine_tuning"]["epochs"] == 1
    done = tfrec("evaluate", tmp_path / "int8", "--json", "again.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "again.json").read_text())["test"]["model"]
    assert again["hit_rate@10"] == report["test"]["quantized"]["hit_rate@10"]
    done = tfrec("quantize", tmp_path / "int8", cwd=tmp_path)
    assert done.returncode == 2
    assert "quantized already" in done.stderr
    done = tfrec("compress", tmp_path / "int8", tmp_path / "small", cwd=tmp_path)
    assert done.returncode == 2
    assert "is quantized" in done.stderr
    edited = tmp_path / "edited.yaml"
    shutil.copy(tmp_path / "int8" / "statistics.yaml", edited)
    done = tfrec("quantize", run, tmp_path / "other", "--statistics", edited, cwd=tmp_path)
    assert done.returncode == 2  # the fine-tuned model's, not the run's
    assert "belong to another model" in done.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"weights": 9}, "2 to 8 bits"),
        ({"split_final": False}, "must be quantized"),
        ({"statistics": Path("nowhere.yaml")}, "is not a file of statistics"),
        ({"fraction": 0.0}, "`fraction` must lie in"),
        ({"fine_tune": -1}, "`fine_tune` must be at least 0"),
    ],
)
def test_rejects(run, tmp_path, options, match):
    with pytest.raises(InputError, match=match):
        run_quantize(Arguments(run, tmp_path / "out", **options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["/proc/out", "n" * 300, "file/out", "file"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(run, tmp_path, monkeypatch, out):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("tfrec.training.quantizing.load_known_model", lambda *_: pytest.fail("work began"))
    with pytest.raises(InputError, match="cannot be written|there already"):
        run_quantize(Arguments(run, tmp_path / out))
    assert (tmp_path / "file").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_refusal_is_a_message_and_no_traceback(run, tmp_path):
    done = tfrec("quantize", run, tmp_path / "out", "--weights", "9", cwd=tmp_path)
    assert done.returncode == 2
    assert "2 to 8 bits" in done.stderr
    assert "Traceback" not in done.stderr


def test_runs_of_other_models(tmp_path):
    assert tfrec("train", "popularity", "--output-dir", "run", cwd=tmp_path).returncode == 0
    done = tfrec("quantize", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "Popularity has nothing to quantize" in done.stderr


@pytest.mark.parametrize("recipe", ["als", "vae-cf"])
def test_item_vectors(tmp_path, recipe):
    short = ["--training.epochs", "3"] if recipe == "vae-cf" else ["--model.iterations", "3"]
    done = tfrec("train", recipe, *short, "--output-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = tfrec("quantize", "run", "int8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "int8" / "quantization.json").read_text())
    with pytest.raises(InputError, match="options that are NeuMF's"):
        run_quantize(Arguments(tmp_path / "run", tmp_path / "four", weights=4))
    exact, rounded = (report["test"][name]["ndcg@100"] for name in ("float", "int8"))
    trained = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["model"]["ndcg@100"]
    assert exact == pytest.approx(trained, abs=2e-4)  # ALS: folded in by the exact solver, in float32
    assert rounded == pytest.approx(exact, abs=5e-3)
    assert {p.name for p in (tmp_path / "int8").iterdir()} == {"items.int8.npz", "quantization.json", "vocabulary.npz"}
