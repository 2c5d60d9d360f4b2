"""What the command answers, and how it is shown."""

import numpy as np
import pytest
import scipy.sparse

from tests.models.test_als import checkerboard
from tfrec.errors import InputError
from tfrec.models import ALS
from tfrec.recommend import Arguments, read_users, recommend
from tfrec.recommender import Recommender
from tfrec.runs.vocabulary import Vocabulary

ITEMS = 40


@pytest.fixture(scope="module")
def recommender():
    """Even users have even items, odd ones odd ones; the last user has nothing."""
    model = ALS(factors=2, regularization=0.1, iterations=10, alpha=20.0, seed=1)
    model.fit(checkerboard(), verbose=0)
    nobody = scipy.sparse.csr_matrix((1, ITEMS), dtype=np.float32)
    histories = scipy.sparse.csr_matrix(scipy.sparse.vstack([checkerboard(), nobody]), dtype=np.float32)
    labels = np.array([f"Title {i}" for i in range(ITEMS)], dtype=object)
    return Recommender(model, Vocabulary(np.arange(ITEMS), labels, np.arange(ITEMS), np.arange(41), histories))


@pytest.fixture
def shown(recommender, tmp_path, monkeypatch, capsys):
    """What is printed for these arguments."""
    monkeypatch.setattr("tfrec.fitting.load_recommender", lambda folder: recommender)
    monkeypatch.setattr("tfrec.runs.folder.RunFolder.existing", lambda path: None)

    def ask(**arguments):
        recommend(Arguments(tmp_path, **arguments))
        return capsys.readouterr().out.splitlines()

    return ask


def ids(lines):
    return [int(line.rsplit("[", 1)[1].rstrip("]")) for line in lines if line.endswith("]")]


@pytest.mark.parametrize("liked", [("1", "3", "5", "8"), ("8", "1", "3", "5"), ("8", "1", "8", "3", "5")])
def test_the_reason_is_what_speaks_for_the_item_wherever_it_stands(shown, liked):
    first, *reasons = shown(items=liked, explain="Title 10", k=1)
    assert first.startswith("Title 10  [10]: score ")
    assert ids(reasons) == [8]
    assert set(ids(shown(items=liked, explain="9", k=3)[1:])) == {1, 3, 5}


def test_reasons_of_a_user_are_what_the_user_has(shown):
    _, *reasons = shown(user=("3",), explain="3", k=4)
    assert len(reasons) == 4
    assert all(item % 2 == 1 and item != 3 for item in ids(reasons))
    parts = [float(line.split()[0]) for line in reasons]
    assert parts == sorted(parts, reverse=True)
    assert min(parts) > 0


def test_no_reason_where_there_is_none(shown):
    assert shown(user=("40",), explain="3")[1:] == ["nothing: no item of this history is known and liked."]


def test_users_and_items_are_answered_once_each(shown):
    lines = shown(user=("3", "3", "4"), k=1)
    assert lines[0] == "3 has 19 items: Title 1, Title 5, Title 7"
    assert ids(lines) == [3, 4]
    lines = shown(similar_to=("Title 3", "Title 3", "4"), k=2)
    assert [line for line in lines if line.endswith(":")] == ["Similar to Title 3:", "Similar to Title 4:"]
    assert len(lines) == 6


def test_fewer_than_asked_for(shown):
    assert shown(user=("3",), k=3, among=("4",))[-1] == "Only 1 item to recommend."
    assert shown(items=("3",), k=3, among=("3",)) == ["No item is left."]


def test_users_from_a_file(shown, tmp_path):
    (tmp_path / "them.txt").write_text("\ufeff3\n\n 4 \n", encoding="utf-8")
    assert shown(users_from=tmp_path / "them.txt", k=1) == shown(user=("3", "4"), k=1)
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("käufer".encode("latin-1"))
    for name, message in (("empty.txt", "has no user"), ("latin.txt", "in UTF-8"), ("none.txt", "No such file")):
        with pytest.raises(InputError, match=message):
            read_users(tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Exactly one question must be asked"),
        ({"user": ("3",), "items": ("4",)}, "Exactly one question must be asked"),
        ({"user": ("3", "4"), "explain": "5"}, "--explain needs one --user"),
        ({"similar_to": ("3",), "explain": "5"}, "--explain needs one --user"),
        ({"user": ("3", "99")}, "must be one of the data's"),
        ({"similar_to": ("3", "Title 99")}, "must be the title or id of one of the model's items"),
    ],
    ids=str,
)
def test_questions_that_cannot_be_answered(shown, capsys, arguments, message):
    with pytest.raises(InputError, match=message):
        shown(**arguments)
    assert capsys.readouterr().out == ""
