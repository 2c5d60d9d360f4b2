"""What every task promises: parts that share nothing, that speak of the right users and items, and that add up."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from tests.tasks.made import in_parts, log, split_of
from tfrec.data import Interactions
from tfrec.errors import InputError
from tfrec.tasks import TASKS, EvaluationConfig
from tfrec.tasks.measure import Measure

USERS, ITEMS, EVENTS = 60, 30, 700
#: Above .7 of the scale of 5 (--data.min-rating auto).
LIKED_FROM = 4


@pytest.fixture(scope="module")
def events():
    """Ratings; the item of the highest number is in nobody's hands."""
    values = np.random.default_rng(3).integers(1, 6, EVENTS).astype(np.float32)
    made = log(USERS, ITEMS, EVENTS, values=values, kind="ratings")
    return replace(
        made,
        item_ids=np.append(made.item_ids, ITEMS * 100),
        item_titles=np.append(made.item_titles, f"title {ITEMS}"),
    )


def made_of(task, events, **options):
    return split_of(task, *(in_parts(events, 0.7, 0.1, 0.2) if task == "given" else [events]), **options)


@pytest.fixture(params=sorted(TASKS))
def split(request, events):
    return made_of(request.param, events)


def raw_pairs(matrix, users, items):
    """The pairs of a matrix as raw ids."""
    found = matrix.tocoo()
    return set(zip(users[found.row].tolist(), items[found.col].tolist(), strict=True))


def pairs_of(events, liked=True):
    chosen = events.values >= LIKED_FROM if liked else np.ones(len(events), bool)
    users, items = events.user_ids[events.user_index[chosen]], events.item_ids[events.item_index[chosen]]
    return set(zip(users.tolist(), items.tolist(), strict=True))


def in_reach(split, pairs):
    """Of parts that are given, users and items that training does not have are left out, and counted."""
    if split.task != "given":
        return pairs
    users, items = set(split.train.user_ids.tolist()), set(split.train.item_ids.tolist())
    return {pair for pair in pairs if pair[0] in users and pair[1] in items}


def parts_of(split):
    """Name -> pairs: training, and what is seen and to be predicted in validation and test."""
    ids = split.events.user_ids
    found = {"train": raw_pairs(split.train.matrix, split.train.user_ids, split.train.item_ids)}
    for name in ("validation", "test"):
        part = split.part(name)
        for what in ("seen", "targets"):
            found[f"{name} {what}"] = raw_pairs(getattr(part, what), ids[part.event_users], split.train.item_ids)
    return found


def test_every_pair_is_somebodys_who_likes_it(split, events):
    for name, pairs in parts_of(split).items():
        assert pairs, name
        assert pairs <= pairs_of(events), name


def test_what_is_to_be_predicted_is_in_no_other_part(split):
    found = parts_of(split)
    train, validation, test = found["train"], found["validation targets"], found["test targets"]
    assert not train & (validation | test)
    assert not validation & test
    assert not found["test seen"] & test
    assert not found["validation seen"] & (validation | test)


def test_what_is_seen_before_each_part(split):
    found, users = parts_of(split), split.events.user_ids
    if split.test.users is None:
        for part in (split.validation, split.test):
            assert not set(users[part.event_users].tolist()) & set(split.train.user_ids.tolist())
        return
    for name, before in (("validation", found["train"]), ("test", found["train"] | found["validation targets"])):
        part = split.part(name)
        of = users[part.event_users].tolist()
        assert of == split.train.user_ids[part.users].tolist()
        assert found[f"{name} seen"] == {pair for pair in before if pair[0] in set(of)}
        # Nobody is asked about without an answer.
        assert (np.diff(part.targets.indptr) > 0).all()


def test_the_numbers_add_up(split):
    found = parts_of(split)
    report = split.report.summary()
    kept = len(set().union(*found.values()))
    assert report["kept"] == kept
    assert report["rows"] == EVENTS == kept + report["merged"] + sum(report["dropped"].values())
    summary = split.summary()
    assert summary["train_events"] == len(found["train"])
    assert summary["test_targets"] == len(found["test targets"])


def test_columns_ids_titles_and_popularity_are_in_one_order(split):
    train = split.train
    assert [f"title {i // 100}" for i in train.item_ids] == train.item_titles.tolist()
    pairs = parts_of(split)["train"]
    for item, popularity in zip(train.item_ids.tolist(), train.popularity.tolist(), strict=True):
        assert popularity == sum(pair[1] == item for pair in pairs)


def test_training_on_validation(split):
    """The same items; everything but the test, and what test users show where they are others."""
    found, both = parts_of(split), split.with_validation()
    assert both.item_ids.tolist() == split.train.item_ids.tolist()
    pairs = raw_pairs(both.matrix, both.user_ids, both.item_ids)
    assert pairs == found["train"] | found["validation targets"] | (
        found["validation seen"] if split.test.users is None else set()
    )
    # Users that were known keep their numbers.
    assert both.user_ids[: len(split.train.users)].tolist() == split.train.user_ids.tolist()


def test_everything(split, events):
    """All that anybody likes, known users and items first, as a refit takes it."""
    all_of_it = split.everything()
    assert raw_pairs(all_of_it.matrix, all_of_it.user_ids, all_of_it.item_ids) == in_reach(split, pairs_of(events))
    for mine, before in ((all_of_it.user_ids, split.train.user_ids), (all_of_it.item_ids, split.train.item_ids)):
        assert mine[: len(before)].tolist() == before.tolist()
        assert len(set(mine.tolist())) == len(mine)


@pytest.mark.parametrize("fitted", ["train", "everything"])
def test_what_everybody_has(split, events, fitted):
    """Above 0 what is liked, a 0 for what was met and not liked: nothing of either is recommended."""
    fitted = split.train if fitted == "train" else split.everything()
    users, histories = split.histories(fitted)
    ids = split.events.user_ids[users]
    assert ids[: len(fitted.users)].tolist() == fitted.user_ids.tolist()
    known = set(fitted.item_ids.tolist())
    liked = in_reach(split, {pair for pair in pairs_of(events) if pair[1] in known})
    # Of parts that are given the training events alone say what was met.
    met = liked | {pair for pair in pairs_of(split.events, liked=False) if pair[1] in known}
    assert set(ids.tolist()) == {user for user, _ in pairs_of(split.events, liked=False)}
    assert raw_pairs(histories, ids, fitted.item_ids) == met
    assert len(met) > len(liked)
    histories_of_likes = histories.copy()
    histories_of_likes.eliminate_zeros()
    assert raw_pairs(histories_of_likes, ids, fitted.item_ids) == liked
    assert (histories.data >= 0).all()


def test_the_checksum_tells_the_questions(split, events):
    """The same for other titles and for what was disliked, another one where anything else is asked."""
    task = split.task
    assert made_of(task, events).checksum == split.checksum
    titles = np.array([title.upper() for title in events.item_titles], dtype=object)
    assert made_of(task, replace(events, item_titles=titles)).checksum == split.checksum
    disliked = np.where(events.values < LIKED_FROM, 1, events.values).astype(np.float32)
    assert made_of(task, replace(events, values=disliked)).checksum == split.checksum
    if task in ("held_out_users", "random_pairs"):
        assert made_of(task, events, split_seed=5).checksum != split.checksum
    # One target is another item.
    part = split.test
    column = next(c for c in range(part.targets.shape[1]) if not (part.targets[0, c] or part.seen[0, c]))
    targets = part.targets.tolil()
    targets[0, targets.rows[0][0]] = 0
    targets[0, column] = 1
    assert replace(split, test=replace(part, targets=targets.tocsr())).checksum != split.checksum
    # And what training alone has does not count.
    assert replace(split, validation=split.test).checksum == split.checksum
    negatives = np.zeros((part.targets.shape[0], 2), np.int32)
    assert replace(split, test=replace(part, negatives=negatives)).checksum != split.checksum


def measured(split):
    config = TASKS[split.task].resolve_evaluation(EvaluationConfig(metrics=("mrr",), protocol="all"))
    return Measure(split, config).references("test")["popularity"]


@pytest.mark.parametrize("task", sorted(TASKS))
def test_too_little_is_told(task):
    """Whatever is too little for a task is a message; whatever is enough can be measured."""
    for users, items in ((1, 1), (1, 12), (12, 1), (2, 3)):
        events = log(users, items, users * items)
        with contextlib.suppress(InputError):
            assert 0 < measured(made_of(task, events)).metrics["mrr"] <= 1


def test_one_user():
    split = split_of("latest_item", log(1, 12, 12))
    assert (split.train.matrix.nnz, split.validation.targets.nnz, split.test.targets.nnz) == (10, 1, 1)
    assert measured(split).users == 1
    assert split_of("random_pairs", log(1, 12, 12)).train.matrix.shape == (1, 12)
    with pytest.raises(InputError, match="At least 3 users are needed"):
        split_of("held_out_users", log(1, 12, 12))


def test_no_validation():
    """Shares of 0: a part of nobody."""
    for task in ("by_time", "given"):
        events = log(40, 20, 400)
        parts = [events] if task == "by_time" else [(p := in_parts(events, 0.8, 0.2))[0], None, p[1]]
        split = split_of(task, *parts, validation_share=0.0)
        assert split.validation.targets.shape == (0, 20)
        assert measured(split).users == split.test.targets.shape[0]
        assert split.with_validation().matrix.nnz == split.train.matrix.nnz


def test_users_and_items_that_training_does_not_have_are_counted():
    train = log(20, 10, 120)
    test = log(25, 12, 200, seed=1)
    split = split_of("given", train, None, test)
    dropped = split.report.dropped
    unknown = (test.user_index >= 20) | (test.item_index >= 10)
    assert sum(n for reason, n in dropped.items() if "unknown" in reason) == unknown.sum() > 0
    assert any("users" in reason for reason in dropped)
    assert any("items" in reason for reason in dropped)
    # By time: somebody who comes at the end.
    events = log(20, 10, 150)
    late = np.append(events.user_index, [20, 20]).astype(np.int32)
    more = Interactions(
        late,
        np.append(events.item_index, [3, 4]).astype(np.int32),
        np.ones(152, np.float32),
        np.arange(21) * 10,
        events.item_ids,
        timestamps=np.append(events.timestamps, [900, 901]),
    )
    assert {reason: n for reason, n in split_of("by_time", more).report.dropped.items() if "user" in reason} == {
        "of users unknown to training": 2
    }


def test_settings_that_a_task_does_not_read_are_refused():
    events = log(40, 20, 400)
    with pytest.raises(InputError, match="--data.heldout-users means nothing with --data.split by_time"):
        split_of("by_time", events, heldout_users=3)
    with pytest.raises(InputError, match="--data.test-from means nothing with --data.split held_out_users"):
        split_of("held_out_users", events, test_from="2020-01-01")
    with pytest.raises(InputError, match="Dates go together"):
        split_of("by_time", events, test_from="350")
    with pytest.raises(InputError, match="needs the test pairs too"):
        split_of("given", events)
