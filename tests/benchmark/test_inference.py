"""The benchmark of exports, on runs of seconds."""

import json

import pytest

import tfrec
from tfrec.benchmark import inference
from tfrec.errors import InputError


def test_exports_by_user_and_by_history(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "BATCHES", (1, 3))
    data = tfrec.Interactions.from_frame(
        {"user": [f"ü{n % 50}" for n in range(900)], "item": [n * n % 467 for n in range(900)]},
        user="user",
        item="item",
    )
    runs = [tfrec.fit(name, data, output_dir=tmp_path / name).folder for name in ("als", "ease")]
    found = inference.benchmark_inference(runs, rounds=1, seconds=0)["runs"]
    assert json.loads(json.dumps(found)) == found
    for run in runs:
        said = found[str(run)]
        assert set(said["batch"]) == {"1", "3"}
        assert all(b["requests"] >= 20 and b["p50_ms"] <= b["p99_ms"] for b in said["batch"].values())
        assert said["peak_mib"]["median"] > said["loaded_mib"]["median"] > 0


def test_no_run():
    with pytest.raises(InputError, match="Received: none"):
        inference.benchmark_inference([], 1)


def test_the_client_knows_nothing_of_tfrec():
    text = inference._CLIENT.read_text()
    assert "import tfrec" not in text
    assert "from tfrec" not in text
