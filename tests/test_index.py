"""tfrec index, on a run."""

import shutil
from pathlib import Path

import pytest

from tests.service.conftest import runs  # noqa: F401
from tfrec.errors import InputError
from tfrec.fitting import load_recommender
from tfrec.index import Arguments, index
from tfrec.runs.folder import RunFolder


@pytest.fixture
def run(runs, tmp_path):  # noqa: F811
    return Path(shutil.copytree(runs / "als", tmp_path / "a run"))


def test_builds_answers_and_removes(run, capsys):
    folder = RunFolder.existing(run)
    plain = load_recommender(folder)
    users = plain.vocabulary.user_ids[:20].tolist()
    index(Arguments(run, recall=1.0))
    said = capsys.readouterr().out
    assert "Index hnsw of 120 items in float16" in said
    assert "Wrote index.faiss, index.json to" in said
    found = load_recommender(folder)
    assert found.indexed.recall == 1.0
    assert found.recommend(users)["item"] == plain.recommend(users)["item"]
    index(Arguments(run, "ivf", "int8", recall=0.5))
    assert load_recommender(folder).indexed.kind == "ivf"
    index(Arguments(run, "exact"))
    assert load_recommender(folder).indexed is None
    index(Arguments(run, "exact"))
    assert capsys.readouterr().out.endswith(f"Removed the index of {run}.\nThere was no index in {run}.\n")


def test_a_damaged_one_can_be_built_again_or_removed(run):
    index(Arguments(run, "ivf"))
    (run / "index.faiss").write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        load_recommender(RunFolder.existing(run))
    index(Arguments(run, "ivf"))
    (run / "index.json").write_text("")
    index(Arguments(run, "exact"))
    assert load_recommender(RunFolder.existing(run)).indexed is None


def test_one_at_a_time_and_no_other_file_takes_its_place(run):
    folder = RunFolder.existing(run)
    with folder.locked(), pytest.raises(InputError, match="Another process is writing"):
        index(Arguments(run))
    index(Arguments(run))
    with pytest.raises(InputError, match="is a file of the run"):
        folder.check_not_inside(run / "index.faiss")


def test_training_anew_removes_it(run):
    folder = RunFolder.existing(run)
    index(Arguments(run))
    identity = {k: v for k, v in folder.read_config().items() if k not in ("data_sha256", "format")}
    folder.claim(identity, None, resume=False)
    folder.release()
    assert not (run / "index.json").exists()
    assert not (run / "index.faiss").exists()
