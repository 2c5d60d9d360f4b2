"""From prepared data to what is measured, reported and served: which items, in which order, counted over whom."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from tfrec.configs import (
    CandidateConfig,
    DataConfig,
    EvaluationConfig,
    LeaveOneOutConfig,
    SourceConfig,
    VAECFRun,
)
from tfrec.training.prepare import Prepared
from tfrec.training.prepare_entries import PreparedEntries
from tfrec.training.prepare_items import PreparedItems, positives, prepare_items
from tfrec.training.report import measure_all
from tfrec.training.report_items import make_candidates, measure_all_items, measure_items
from tfrec.training.run_folder import RunFolder
from tfrec.training.vocabulary import Vocabulary

from tfrec.data import Interactions, strong_generalization
from tfrec.models import Popularity
from tfrec.recommend import history

USERS, ITEMS = 40, 30


@pytest.fixture
def log(random):
    """Events in random order; item ids and titles tell their number."""
    pairs = random.permutation(USERS * ITEMS)[:500]
    return Interactions(
        user_index=(pairs // ITEMS).astype(np.int32),
        item_index=(pairs % ITEMS).astype(np.int32),
        values=np.ones(500, np.float32),
        user_ids=np.arange(USERS) * 10,
        item_ids=np.arange(ITEMS) * 100,
        item_titles=np.array([f"title {i}" for i in range(ITEMS)], dtype=object),
    )


class Truth:
    """Scores that are the item's number."""

    def scores(self, users):
        return np.tile(np.arange(ITEMS, dtype=np.float64), (len(users), 1))


def test_columns_ids_titles_and_popularity_are_in_one_order(log):
    prepared = Prepared(log, strong_generalization(log, 8, None), None)
    assert (np.diff(prepared.split.items) < 0).any()  # not the order of the ids
    vocabulary = prepared.vocabulary()
    train = prepared.split.train.toarray()
    for column, number in enumerate(prepared.split.items):
        assert vocabulary.item_ids[column] == number * 100
        assert vocabulary.labels[column] == f"title {number}"
        having = set(log.user_index[log.item_index == number].tolist()) & set(prepared.split.train_users.tolist())
        assert vocabulary.popularity[column] == len(having) == train[:, column].sum()


def test_the_parts_are_of_their_own_users(log):
    split = strong_generalization(log, 8, None)
    prepared = Prepared(log, split, None)
    for part, users, targets in (
        ("validation", split.validation_users, split.validation_out),
        ("test", split.test_users, split.test_out),
    ):
        seen, found, of = prepared.heldout(part)
        assert of is users
        assert found is targets
        dense = seen.toarray() + found.toarray()
        for row, user in enumerate(users):
            mine = set(log.item_index[log.user_index == user].tolist()) & set(split.items.tolist())
            assert set(split.items[dense[row] > 0].tolist()) == mine


def test_the_oracle_scores_the_models_columns(log):
    """With the item of the highest number as everybody's target the truth ranks it first."""
    split = strong_generalization(log, 8, None)
    parts = {}
    for name in ("validation", "test"):
        whole = (getattr(split, f"{name}_in") + getattr(split, f"{name}_out")).toarray() > 0
        best = np.zeros_like(whole)
        best[:, split.items.argmax()] = True
        parts |= {f"{name}_in": scipy.sparse.csr_matrix((whole & ~best).astype(np.float32))}
        parts |= {f"{name}_out": scipy.sparse.csr_matrix(best.astype(np.float32))}
    prepared = Prepared(log, replace(split, **parts), Truth())
    config = EvaluationConfig(metrics=("mrr",), monitor="mrr")
    popularity = Popularity(len(split.items))
    found = measure_all(popularity, prepared, config)
    for part in ("validation", "test"):
        assert found[part]["oracle"].metrics["mrr"] == 1
        assert found[part]["model"].metrics["mrr"] < 1


@pytest.fixture
def items():
    """Users with items 0 and 1 to train on, item 2 for validation, item 3 for test; user 2 has item 4 and no more."""
    train = scipy.sparse.csr_matrix(np.array([[1, 1, 0, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 1, 0]], np.float32))
    events = Interactions(
        user_index=np.array([0], np.int32), item_index=np.array([0], np.int32), values=np.ones(1, np.float32),
        user_ids=np.array([5, 6, 7]), item_ids=np.arange(6),
    )  # fmt: skip
    return PreparedItems(events, train, np.array([2, 2, -1]), np.array([3, 3, -1]), None, None)


def test_what_is_seen_before_each_part(items):
    assert items.seen("validation").toarray().tolist() == items.train.toarray().tolist()
    assert items.seen("test").toarray()[0].tolist() == [1, 1, 1, 0, 0, 0]
    assert items.seen("everything").toarray()[0].tolist() == [1, 1, 1, 1, 0, 0]
    assert items.seen("everything").toarray()[2].tolist() == [0, 0, 0, 0, 1, 0]
    assert items.heldout("validation").tolist() == [2, 2, -1]
    assert items.heldout("test").tolist() == [3, 3, -1]


def test_popularity_counts_training_users_alone(items):
    assert items.popularity().tolist() == [2, 2, 0, 0, 1, 0]
    vocabulary = items.vocabulary()
    assert vocabulary.popularity.tolist() == [2, 2, 0, 0, 1, 0]
    assert vocabulary.seen.toarray()[1].tolist() == [1, 1, 1, 1, 0, 0]
    train, test = (scipy.sparse.csr_matrix(np.array(a, np.float32)) for a in ([[5, 1], [2, 0]], [[0, 0], [0, 3]]))
    events = Interactions(
        user_index=np.array([0, 0, 1, 1], np.int32), item_index=np.array([0, 1, 0, 1], np.int32),
        values=np.array([5, 1, 2, 3], np.float32), user_ids=np.array([5, 6]), item_ids=np.arange(2), kind="counts",
    )  # fmt: skip
    vocabulary = PreparedEntries(events, train, test).vocabulary()
    assert vocabulary.popularity.tolist() == [2, 1]
    assert vocabulary.seen.toarray().tolist() == [[1, 1], [1, 1]]


def test_candidates_are_those_of_the_settings(random):
    train = scipy.sparse.csr_matrix(np.pad(random.random((50, 298)) < 0.1, [[0, 0], [0, 2]]).astype(np.float32))
    data = PreparedItems(None, train, np.full(50, 298), np.full(50, 299), None, None)
    config = CandidateConfig(negatives=20, validation_negatives=7, seed=3)

    def block(part, config):
        found = make_candidates(data, part, config)
        return found.block(tf.constant(found.users)).numpy()

    assert block("validation", config).shape == (50, 8)
    assert block("test", config).shape == (50, 21)
    assert (block("test", config)[:, 0] == 299).all()
    assert not (block("test", config) == 298).any()  # the validation item is known then
    assert block("validation", replace(config, validation_negatives=None)).shape == (50, 21)
    assert (block("test", config) != block("test", replace(config, seed=4))).mean() > 0.8
    negatives = np.tile(np.arange(5), (50, 1))
    published = replace(data, test_negatives=negatives)
    found = make_candidates(published, "test", config)
    assert found.protocol == "file"
    assert found.block(tf.constant([3], tf.int64)).numpy().tolist() == [[299, 0, 1, 2, 3, 4]]
    assert make_candidates(published, "validation", config).protocol == "exact"
    assert make_candidates(published, "test", replace(config, protocol="all")).protocol == "all"


@pytest.mark.parametrize(("ties", "expected"), [("pessimistic", 0.0), ("optimistic", 1.0), ("expected", 1 / 4)])
def test_the_tie_rule_is_that_of_the_settings(items, ties, expected):
    config = CandidateConfig(negatives=3, ties=ties, metrics=("hit_rate@1",), monitor="hit_rate@1")
    candidates = make_candidates(items, "validation", config)
    report = measure_items(lambda users, items: tf.zeros(tf.shape(items)), candidates, config)
    assert report.ties == ties
    assert report.metrics["hit_rate@1"] == pytest.approx(expected)


def test_popularity_is_measured_by_training_users(items):
    """Among items 2 to 5 of users 0 and 1 the popular one is item 4, which user 2 has."""

    class Model:
        def score(self, users, items):
            return tf.cast(items, tf.float32)

    data = replace(items, validation_items=np.array([4, 2, -1]), test_items=np.array([5, 3, -1]))
    config = CandidateConfig(negatives=3, metrics=("hit_rate@1",), monitor="hit_rate@1")
    found = measure_all_items(Model(), data, make_candidates(data, "validation", config), config)
    assert set(found) == {"model", "popularity"}
    assert found["popularity"].per_user["hit_rate@1"][:2].tolist() == [1, 0]
    assert found["model"].per_user["hit_rate@1"][:2].tolist() == [0, 0]


def test_a_threshold_is_exceeded_and_users_and_items_are_numbered_anew():
    events = Interactions(
        user_index=np.array([0, 0, 1, 2], np.int32),
        item_index=np.array([0, 1, 1, 2], np.int32),
        values=np.array([3.0, 4.0, 3.0, 5.0], np.float32),
        user_ids=np.array([5, 6, 7]),
        item_ids=np.array([10, 20, 30]),
        timestamps=np.array([1, 2, 3, 4]),
        item_titles=np.array(["a", "b", "c"], dtype=object),
        kind="ratings",
    )
    found = positives(events, SourceConfig(min_rating=3.0))
    assert found.user_ids.tolist() == [5, 7]
    assert found.item_ids.tolist() == [20, 30]
    assert found.item_titles.tolist() == ["b", "c"]
    assert found.user_index.tolist() == found.item_index.tolist() == [0, 1]
    assert found.values.tolist() == [4, 5]
    assert found.timestamps.tolist() == [2, 4]


def test_a_catalogue_keeps_items_that_nobody_has():
    """Where nothing is left out, items are not numbered anew: near ids stay near."""
    events = Interactions(
        np.array([0, 0, 1], np.int32), np.array([1, 3, 1], np.int32), np.ones(3, np.float32), np.arange(2), np.arange(5)
    )
    found = positives(events, SourceConfig())
    assert found.num_items == 5
    assert found.item_index.tolist() == [1, 3, 1]


def test_leave_one_out_of_a_table(tmp_path):
    """The latest for test, the one before for validation, the others to train on, as ones."""
    (tmp_path / "my.csv").write_text("user_id,item_id,t\n1,10,4\n1,11,9\n1,12,6\n1,13,1\n2,10,5\n2,13,7\n")
    data = prepare_items(LeaveOneOutConfig(path=tmp_path / "my.csv", timestamp="t"))
    assert data.test_items.tolist() == [1, -1]
    assert data.validation_items.tolist() == [2, -1]
    assert data.train.toarray().tolist() == [[1, 0, 0, 1], [1, 0, 0, 1]]


def test_a_users_history_is_what_was_liked_and_what_was_seen(log, random, monkeypatch, tmp_path):
    """By raw ids, in the model's numbers; items unknown to the model are left out of both."""
    events = replace(log, values=np.where(log.item_index % 2 == 0, 5.0, 3.0).astype(np.float32), kind="ratings")
    monkeypatch.setattr("tfrec.training.prepare.load_interactions", lambda config: events)
    monkeypatch.setattr(RunFolder, "check_data", lambda self, sha256: None)
    known = random.permutation(ITEMS)[:20] * 100  # the model's items, in its order
    labels = np.array([f"title {i}" for i in known // 100], dtype=object)
    vocabulary = Vocabulary(known, labels, np.ones(len(known)))
    config = VAECFRun(data=DataConfig(min_rating=3.0))
    user = int(log.user_ids[np.bincount(log.user_index).argmax()])
    liked, seen = history(RunFolder(tmp_path), config, str(user), vocabulary)
    mine = set((log.item_index[log.user_index == user // 10] * 100).tolist()) & set(known.tolist())
    assert len(mine) > 3
    assert sorted(known[seen].tolist()) == sorted(mine)
    assert sorted(known[liked].tolist()) == sorted(i for i in mine if i // 100 % 2 == 0)
