"""From a split to what is measured: which candidates, in which order, counted over whom."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tests.tasks.made import log, split_of
from tfrec.data import Interactions
from tfrec.errors import InputError
from tfrec.models import Popularity
from tfrec.tasks import TASKS, DataConfig, EvaluationConfig, Part, Split, TrainingSet, read_source
from tfrec.tasks.measure import Measure
from tfrec.tasks.split import positives, without_gaps

USERS, ITEMS = 40, 30


def resolved(task="latest_item", **options):
    """Settings of an evaluation by one metric, which is the monitor too."""
    metric = options.pop("metric", "mrr")
    return TASKS[task].resolve_evaluation(EvaluationConfig(metrics=(metric,), monitor=metric, **options))


class ByItem:
    """Scores are what a function makes of the item's column."""

    takes_histories, num_users = False, USERS

    def __init__(self, of_item, num_items=ITEMS):
        self.of_item, self.num_items = of_item, num_items

    def scores(self, queries, items=None):
        if items is None:
            items = tf.tile(tf.range(self.num_items)[None], [tf.shape(queries)[0], 1])
        return self.of_item(tf.cast(items, tf.float32))


@pytest.mark.parametrize("task", ["held_out_users", "latest_item", "random_pairs"])
def test_the_oracle_scores_the_models_columns(task):
    """With the item of the highest number as everybody's target the truth ranks it first."""
    split = split_of(task, log(USERS, ITEMS, 500))
    if task == "held_out_users":
        assert (np.diff(split.train.items) < 0).any()  # columns are not in the order of the ids
    numbers = np.arange(ITEMS)

    class TruthById:
        def scores(self, users, items=None):
            scores = np.tile(numbers.astype(np.float64), (len(users), 1))
            return scores if items is None else np.take_along_axis(scores, items, axis=1)

    # The generated data's ids are numbers from 0.
    events = replace(split.events, item_ids=numbers)
    best = int(split.train.items.argmax())

    def asked(part):
        whole = (part.seen + part.targets).toarray() > 0
        target = np.zeros_like(whole)
        target[:, best] = True
        seen, targets = (scipy.sparse.csr_matrix(m.astype(np.float32)) for m in (whole & ~target, target))
        return replace(part, seen=seen, targets=targets)

    split = replace(
        split, train=replace(split.train, events=events), validation=asked(split.validation), test=asked(split.test),
        oracle=TruthById(),
    )  # fmt: skip
    for protocol in ("all", "exact") if task == "latest_item" else ("all",):
        measure = Measure(split, resolved(task, protocol=protocol, negatives=5, metric="mrr@5"))
        for part in ("validation", "test"):
            found = measure.references(part)
            assert set(found) == {"popularity", "oracle"}
            assert found["oracle"].metrics["mrr@5"] == 1
            assert found["popularity"].metrics["mrr@5"] < 1


def of_items(train, validation, test, **changes):
    """A split of each user's one item for validation and for test; -1: none."""
    train = scipy.sparse.csr_matrix(np.array(train, np.float32))
    events = Interactions(
        np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1, np.float32), np.arange(train.shape[0]),
        np.arange(train.shape[1]),
    )  # fmt: skip

    def part(items, seen):
        rows = np.flatnonzero(np.array(items) >= 0)
        targets = scipy.sparse.csr_matrix(
            (np.ones(len(rows), np.float32), (np.arange(len(rows)), np.array(items)[rows])),
            shape=(len(rows), train.shape[1]),
        )
        return Part(scipy.sparse.csr_matrix(seen)[rows], targets, rows, rows)

    known = train.toarray()
    for user, item in enumerate(validation):
        if item >= 0:
            known[user, item] = 1
    training = TrainingSet(events, train, np.arange(train.shape[0]), np.arange(train.shape[1]))
    return Split("latest_item", training, part(validation, train), part(test, known), events, events.report, "")


def test_what_is_seen_before_each_part():
    """Users with items 0 and 1 to train on, item 2 for validation, item 3 for test; user 2 has item 4 and no more."""
    user_index = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    item_index = np.array([0, 1, 2, 3, 1, 0, 2, 3, 4])
    events = Interactions(
        user_index.astype(np.int32), item_index.astype(np.int32), np.ones(9, np.float32), np.array([5, 6, 7]),
        np.arange(6), timestamps=np.arange(9),
    )  # fmt: skip
    split = split_of("latest_item", events)
    assert split.train.matrix.toarray()[:, :5].tolist() == [[1, 1, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 1]]
    assert split.validation.target_items.tolist() == [2, 2]
    assert split.test.target_items.tolist() == [3, 3]
    assert split.test.users.tolist() == [0, 1]
    assert split.validation.seen.toarray()[0].tolist() == [1, 1, 0, 0, 0, 0]
    assert split.test.seen.toarray()[0].tolist() == [1, 1, 1, 0, 0, 0]
    # Popularity counts training users alone; what is served leaves out everything that any user has.
    assert split.train.popularity.tolist() == [2, 2, 0, 0, 1, 0]
    _, histories = split.histories(split.train)
    assert histories.toarray()[0].tolist() == [1, 1, 1, 1, 0, 0]
    assert histories.toarray()[2].tolist() == [0, 0, 0, 0, 1, 0]


def test_popularity_counts_users_and_not_events():
    events = Interactions(
        np.array([0, 0, 1, 1, 2], np.int32), np.array([0, 1, 0, 1, 1], np.int32),
        np.array([5, 1, 2, 3, 9], np.float32), np.array([5, 6, 7]), np.arange(2), kind="counts",
    )  # fmt: skip
    assert TrainingSet(events, events.to_csr(), np.arange(3), np.arange(2)).popularity.tolist() == [2, 3]


def candidates(split, part, **options):
    return Measure(split, resolved(**options))._candidates[part]


def test_candidates_are_those_of_the_settings(random):
    train = np.pad(random.random((50, 298)) < 0.1, [[0, 0], [0, 2]]).astype(np.float32)
    split = of_items(train, [298] * 50, [299] * 50)
    settings = {"negatives": 20, "validation_negatives": 7, "seed": 3}

    def block(part, **changes):
        found = candidates(split, part, **{**settings, **changes})
        return found.block(tf.constant(found.users)).numpy()

    assert block("validation").shape == (50, 8)
    assert block("test").shape == (50, 21)
    assert (block("test")[:, 0] == 299).all()
    assert not (block("test") == 298).any()  # the validation item is known then
    assert block("validation", validation_negatives=None).shape == (50, 21)
    assert (block("test") != block("test", seed=4)).mean() > 0.8
    published = replace(split, test=replace(split.test, negatives=np.tile(np.arange(5, dtype=np.int32), (50, 1))))
    found = candidates(published, "test", **settings)
    assert found.protocol == "file"
    assert found.block(tf.constant([3], tf.int64)).numpy().tolist() == [[299, 0, 1, 2, 3, 4]]
    assert candidates(published, "validation", **settings).protocol == "exact"
    assert Measure(published, resolved(protocol="all"))._candidates == {}


@pytest.mark.parametrize(("ties", "expected"), [("pessimistic", 0.0), ("optimistic", 1.0), ("expected", 1 / 4)])
@pytest.mark.parametrize("protocol", ["exact", "all"])
def test_the_tie_rule_is_that_of_the_settings(protocol, ties, expected):
    split = of_items([[1, 1, 0, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 1, 0]], [2, 2, -1], [3, 3, -1])
    config = resolved(negatives=2, validation_negatives=3, ties=ties, protocol=protocol, metric="hit_rate@1")
    report = Measure(split, config).model(ByItem(tf.zeros_like, 6), "validation", lambda rows: rows)
    assert report.ties == ties
    assert report.users == 2
    assert report.metrics["hit_rate@1"] == pytest.approx(expected)


def test_popularity_is_measured_by_training_users():
    """Among items 2 to 5 of users 0 and 1 the popular one is item 4, which user 2 has."""
    split = of_items([[1, 1, 0, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 1, 0]], [4, 2, -1], [5, 3, -1])
    measure = Measure(split, resolved(negatives=2, validation_negatives=3, metric="hit_rate@1"))
    assert measure.references("validation")["popularity"].per_user["hit_rate@1"].tolist() == [1, 0]
    found = measure.model(ByItem(tf.identity), "validation", lambda rows: rows)
    assert found.per_user["hit_rate@1"].tolist() == [0, 0]


def test_popularity_counts_what_the_model_was_fitted_to():
    """User 1's test item 3 is behind item 4 in training alone, and before it where validation counts, too."""
    items = np.array([[0, 3, 2], [0, 1, 3], [4, 3, 0]], np.int32)
    events = Interactions(
        np.repeat(np.arange(3, dtype=np.int32), 3), items.ravel(), np.ones(9, np.float32), np.arange(3), np.arange(5),
        timestamps=np.tile(np.arange(3), 3),
    )  # fmt: skip
    split = split_of("latest_item", events)
    measure = Measure(split, resolved(protocol="all", metric="hit_rate@1"))
    before, after = (
        measure.references("test", fitted)["popularity"].per_user["hit_rate@1"].tolist()
        for fitted in (None, split.with_validation())
    )
    assert before == [0, 0, 1]
    assert after == [0, 1, 1]


def test_a_model_is_asked_by_number_where_it_knows_the_user_else_by_history():
    asked = []

    class Both(Popularity):
        num_users = USERS

        def scores(self, queries, items=None):
            asked.append("history" if isinstance(queries, tf.SparseTensor) else "number")
            return tf.zeros([tf.shape(queries)[0], ITEMS])

    config = {"metric": "mrr"}
    for task, way in (("held_out_users", "history"), ("random_pairs", "number"), ("by_time", "number")):
        asked.clear()
        split = split_of(task, log(USERS, ITEMS, 500))
        Measure(split, resolved(task, **config)).model(Both(ITEMS), "test", lambda rows: rows)
        assert set(asked) == {way}
    with pytest.raises(InputError, match="(?s)ByItem answers for its training users only.*--data.split"):
        split = split_of("held_out_users", log(USERS, ITEMS, 500))
        Measure(split, resolved("held_out_users")).model(ByItem(tf.identity), "test", lambda rows: rows)


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
    found, users, items = without_gaps(positives(events, 3.0)[0])
    assert users.tolist() == [0, 2]
    assert items.tolist() == [1, 2]
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
    found, _, items = without_gaps(positives(events, "auto")[0])
    assert found.num_items == 5
    assert items.tolist() == [0, 1, 2, 3, 4]
    assert found.item_index.tolist() == [1, 3, 1]


def test_leave_one_out_of_a_table(tmp_path):
    """The latest for test, the one before for validation, the others to train on, as ones."""
    (tmp_path / "my.csv").write_text("user_id,item_id,t\n1,10,4\n1,11,9\n1,12,6\n1,13,1\n2,10,5\n2,13,7\n")
    task = TASKS["latest_item"]
    config = task.resolve_data(DataConfig(path=tmp_path / "my.csv", time="t", split="latest_item"))
    split = task.split(config, read_source(config))
    assert split.train.matrix.toarray().tolist() == [[1, 0, 0, 1], [1, 0, 0, 1]]
    assert split.validation.target_items.tolist() == [2]
    assert split.test.target_items.tolist() == [1]
    assert split.test.users.tolist() == [0]
