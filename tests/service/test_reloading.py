"""A run that changes is loaded again; one that breaks is not."""

import gc
import json
import os
import shutil
import threading
import time
import urllib.request
import weakref

import pytest

import tfrec
from tests.service.conftest import PLAYS, listening, serving
from tfrec.benchmark.load import closed_loop, get, post


def test_a_changed_run_is_loaded_and_a_broken_one_is_not(copied, runs):
    with serving({"ease": copied}) as client:
        model = client.models.by_name["ease"]
        old = model.current
        model.look()
        assert model.current is old
        shutil.rmtree(copied)
        shutil.copytree(runs / "ease", copied)
        model.look()
        assert model.current is old  # once more, as its files may still be written
        model.look()
        assert model.current.version == 2
        assert client.get("/recommend?user=ada1").json()["version"] == 2

        (copied / "model.keras").write_bytes(b"no model")
        model.look()
        model.look()
        model.look()
        health = client.get("/healthz").json()
        assert health["status"] == "stale"
        assert str(copied) not in str(health)
        assert client.get("/recommend?user=ada1").json()["version"] == 2

        shutil.rmtree(copied)
        model.look()
        assert client.get("/healthz").json()["status"] == "stale"
        shutil.copytree(runs / "ease", copied)
        model.look()
        model.look()
        assert client.get("/healthz").json()["status"] == "ok"
        assert client.get("/recommend?user=ada1").json()["version"] == 3


def test_the_old_model_is_not_kept(copied, runs):
    with serving({"ease": copied}) as client:
        model = client.models.by_name["ease"]
        assert gc.get_freeze_count() > 100_000
        old = weakref.ref(model.current.engine.recommender.model)
        shutil.rmtree(copied)
        shutil.copytree(runs / "ease", copied)
        for _ in range(3):
            model.look()
        assert model.current.version == 2
        assert old() is None


def test_questions_end_on_the_model_they_began_with(copied, runs):
    with serving({"ease": copied}) as client:
        model = client.models.by_name["ease"]
        old = model.current
        model.current = model._load(2)
        answers = client.portal.call(old.lists.ask, _question())
        assert len(answers.items) == 2


def _question():
    from tfrec.service.engine import ListQuestion

    return ListQuestion(2, user=0)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another model of the same data."""
    folder = tmp_path_factory.mktemp("other") / "ease"
    data = tfrec.Interactions.from_table(PLAYS, user="listener", item="track", title="name")
    tfrec.fit("ease", data, regularization=5_000.0, output_dir=folder)
    return folder


def test_no_request_fails_while_the_run_changes_again_and_again(copied, runs, other):
    body = {"signature_name": "recommend", "instances": [["t001", "t087"], ["t002"]]}
    asked = [get("/recommend?user=ada1"), post("/v1/models/ease:predict", json.dumps(body).encode())]
    with listening({"ease": copied}, reload_s=0.05) as address:
        port = int(address.rsplit(":", 1)[1].strip("/"))
        found, enough = [], threading.Event()

        def ask():
            while not enough.is_set():
                found.append(closed_loop(port, asked, 8, 0.5))

        load = threading.Thread(target=ask)
        load.start()
        versions, scores, end = set(), set(), time.monotonic() + 120
        while len(versions) < 4 and time.monotonic() < end:
            with urllib.request.urlopen(f"{address}recommend?user=ada1&k=1") as answer:
                said = json.load(answer)
            scores.add(said["items"][0]["score"])
            if said["version"] not in versions:
                versions.add(said["version"])
                # File by file, as a training or a copy writes them.
                for path in ((other, runs / "ease")[len(versions) % 2]).iterdir():
                    if path.is_file():
                        shutil.copy(path, copied / "new")
                        os.replace(copied / "new", copied / path.name)
        enough.set()
        load.join()
    assert [failed for answers in found for failed in answers.failed] == []
    assert sum(len(answers.seconds) for answers in found) > 100
    assert len(versions) == 4
    assert len(scores) == 2
