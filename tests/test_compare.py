"""The command: what it prints and writes, without TensorFlow."""

import csv
import json
import subprocess
import sys

import pytest

from tests.runs.fake_runs import per_user, write_run
from tfrec.compare import Arguments, compare
from tfrec.errors import InputError


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "a", per_user(1))
    write_run(tmp_path / "b", per_user(2, lead=-0.1), recipe="als-ml1m")
    return (tmp_path / "a", tmp_path / "b")


def test_what_is_printed(runs, capsys):
    compare(Arguments(runs, samples=500))
    lines = capsys.readouterr().out.splitlines()
    test = json.loads((runs[0] / "metrics.json").read_text())["test"]["model"]
    assert lines[0] == "Test of by_time, 392 users (8 without a value left out), ties expected. *: the best run."
    assert lines[2].split() == ["run", "recipe", "hit_rate@10", "ndcg@10", "coverage@10"]
    # Both have the same coverage.
    assert lines[3].split() == [
        "a", "ease-ml1m", f"{test['hit_rate@10']:.4f}*", f"{test['ndcg@10']:.4f}*", "0.2500*",
    ]  # fmt: skip
    assert lines[4].split()[:2] == ["b", "als-ml1m"]
    assert lines[5].split() == ["popularity", "0.1250", "0.1250", "0.1250"]
    assert "Differences from a, the best by hit_rate@10, over the same 392 users," in lines
    differences = [line.split() for line in lines[lines.index("ndcg@10") :]]
    assert differences[1][0] == "b"
    assert differences[1][1].startswith("-0.")
    assert differences[1][-2:] == ["p", "0.002"]


def test_files(runs, tmp_path, capsys):
    compare(
        Arguments(
            runs, metrics=("ndcg@10", "coverage@10"), samples=100, json=tmp_path / "c.json", csv=tmp_path / "c.csv",
            picture=tmp_path / "c.png",
        )
    )  # fmt: skip
    assert capsys.readouterr().out.count("\nWrote ") == 3
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["baseline"], found["users"], found["samples"]) == ("a", 392, 100)
    (difference,) = found["differences"]
    with (tmp_path / "c.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["run"], r["metric"]) for r in rows] == [
        ("a", "ndcg@10"), ("a", "coverage@10"), ("b", "ndcg@10"), ("b", "coverage@10"),
    ]  # fmt: skip
    assert rows[0]["difference"] == rows[1]["difference"] == rows[3]["difference"] == ""
    for name in ("difference", "low", "high", "p_value", "p_holm"):
        assert float(rows[2][name]) == difference[name]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_written_unasked(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compare(Arguments(runs, samples=10))
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_places_that_cannot_be_written(runs, tmp_path):
    for options, message in (
        ({"json": tmp_path / "no" / "c.json"}, "cannot be written"),
        ({"picture": tmp_path / "c.jpg"}, "is a PNG"),
        ({"csv": runs[0] / "metrics.json"}, "is in the folder of a run"),
        ({"csv": tmp_path / "c", "json": tmp_path / "c"}, "to one file"),
    ):
        with pytest.raises(InputError, match=message):
            compare(Arguments(runs, samples=10, **options))


def test_from_the_shell(runs):
    code = (
        "import sys; from tfrec.compare import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "sys.exit(9 * ('tensorflow' in sys.modules or 'keras' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, runs), "--samples", "50", "--metrics", "ndcg@10"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Differences from a, the best by ndcg@10" in done.stdout
    done = subprocess.run([sys.executable, "-m", "tfrec.compare", str(runs[0])], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: A comparison needs at least two runs.")
