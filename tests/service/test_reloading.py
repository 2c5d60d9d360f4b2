"""A run that changes is loaded again; one that breaks is not."""

import shutil

from tests.service.conftest import serving


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
