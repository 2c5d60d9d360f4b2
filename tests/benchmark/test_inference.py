"""The benchmark of exports, on runs of seconds."""

import json

import pytest

import tfrec
from tfrec.benchmark import inference
from tfrec.errors import InputError


@pytest.mark.parametrize("name", ["ease", pytest.param("als", marks=pytest.mark.slow)])
def test_an_export_and_a_service(name, tmp_path, monkeypatch):
    """By history, and by user."""
    monkeypatch.setattr(inference, "BATCHES", (1, 3))
    data = tfrec.Interactions.from_frame(
        {"user": [f"ü{n % 50}" for n in range(900)], "item": [n * n % 467 for n in range(900)]},
        user="user",
        item="item",
    )
    run = tfrec.fit(name, data, output_dir=tmp_path / name).folder
    found = inference.benchmark_inference([run], rounds=1, seconds=0.2, load_seconds=0.5)["runs"]
    assert json.loads(json.dumps(found)) == found
    said = found[str(run)]
    assert set(said["batch"]) == {"1", "3"}
    assert all(b["requests"] >= 20 and b["p50_ms"] <= b["p99_ms"] for b in said["batch"].values())
    service = said["service"]
    assert set(service["batch"]) == {"1", "3"}
    assert all(b["requests"] >= 3 and b["part_of_the_export"]["median"] > 0 for b in service["batch"].values())
    assert service["load"]["failed"] == 0
    assert service["load"]["requests"] > 0
    assert said["peak_mib"]["median"] > said["loaded_mib"]["median"] > 0


def test_no_run():
    with pytest.raises(InputError, match="Received: none"):
        inference.benchmark_inference([], 1)


def test_the_client_knows_nothing_of_tfrec():
    text = inference._CLIENT.read_text()
    assert "import tfrec" not in text
    assert "from tfrec" not in text
