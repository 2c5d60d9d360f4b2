import numpy as np
import pytest

from tests.data.splits.events import interactions
from tfrec.data import by_time, load
from tfrec.errors import InputError

#: Ten pairs at times 0 ... 9. All users and items are there before time 6.
USER = np.array([1, 2, 1, 2, 1, 2, 2, 1, 1, 2])
ITEM = np.array([10, 10, 11, 12, 13, 14, 11, 12, 14, 13])
#: The second of 2001-09-09 01:46:40 UTC.
BILLION = 1_000_000_000


def raw(split, events):
    """Per part the set of (user, item, value), by raw ids."""
    parts = []
    for matrix in (split.train, split.validation, split.test):
        coo = matrix.tocoo()
        users, items = events.user_ids[split.users][coo.row], events.item_ids[split.items][coo.col]
        parts.append(set(zip(users.tolist(), items.tolist(), coo.data.tolist(), strict=True)))
    return parts


def pairs(places, value=1.0):
    return {(int(USER[i]), int(ITEM[i]), value) for i in places}


def test_shares_take_the_latest_pairs_whatever_the_order_of_the_file(random):
    order = random.permutation(10)
    events = interactions(USER[order], ITEM[order], time=order)
    split = by_time(events, validation_share=0.2, test_share=0.2)
    assert raw(split, events) == [pairs(range(6)), pairs((6, 7)), pairs((8, 9))]
    assert (split.validation_from, split.test_from) == (6, 8)
    assert split.report.kept == 6 + 2 + 2
    none = by_time(events, validation_share=0, test_share=0.2)
    assert raw(none, events) == [pairs(range(8)), set(), pairs((8, 9))]
    assert none.validation_from == none.test_from == 8


def test_equal_times_go_to_the_later_part():
    #       place 0  1  2  3  4  5  6  7  8  9
    time = np.array([0, 1, 2, 3, 4, 5, 7, 7, 9, 9])
    events = interactions(USER, ITEM, time=time)
    # One pair each was asked for; those at 9, and those at 7, stay together.
    split = by_time(events, validation_share=0.1, test_share=0.1)
    assert raw(split, events) == [pairs(range(6)), pairs((6, 7)), pairs((8, 9))]
    with pytest.raises(InputError, match="No pair is left for training"):
        by_time(interactions(USER, ITEM, time=np.full(10, 5)))


def test_moments_begin_their_part():
    events = interactions(USER, ITEM, time=np.arange(10))
    split = by_time(events, validation_from=6, test_from=8)
    assert raw(split, events) == [pairs(range(6)), pairs((6, 7)), pairs((8, 9))]
    # A moment between two times; and a moment beside a share: 1 of 10 before it.
    split = by_time(events, test_from=7.5, validation_share=0.1)
    assert raw(split, events) == [pairs(range(7)), pairs((7,)), pairs((8, 9))]
    # Digits are a number, as they come from a command line.
    assert by_time(events, test_from="8").test_from == 8


@pytest.mark.parametrize("per_second", [1, 10**3, 10**6, 10**9])
def test_dates(per_second):
    events = interactions(USER, ITEM, time=(BILLION + np.arange(10)) * per_second)
    split = by_time(events, validation_from="2001-09-09 01:46:46", test_from="2001-09-09T03:46:48+02:00")
    assert raw(split, events) == [pairs(range(6)), pairs((6, 7)), pairs((8, 9))]
    assert split.test_from == (BILLION + 8) * per_second
    # Half a second later than the pair at 8.
    later = by_time(events, test_from="2001-09-09 01:46:48.5", validation_share=0)
    assert raw(later, events) == [pairs(range(9)), set(), pairs((9,))]


def test_a_pair_counts_where_its_first_event_is():
    # Pair (1, 10) again at 8 and 9, once before its first row in the file: no target, and training does not know.
    user, item = np.append([1, 1], USER), np.append([10, 10], ITEM)
    time = np.append([9, 8], np.arange(10))
    value = np.append([5, 4], np.full(10, 2))
    events = interactions(user, item, value=value, time=time, kind="counts")
    split = by_time(events, validation_from=6, test_from=8)
    assert raw(split, events) == [pairs(range(6), 2.0), pairs((6, 7), 2.0), pairs((8, 9), 2.0)]
    assert (split.report.rows, split.report.kept, split.report.merged) == (12, 10, 2)
    # Within a part they are merged: counts are added, of ratings the latest counts.
    for kind, expected in (("counts", 2 + 4), ("ratings", 4)):
        events = interactions(np.append(USER, 1), np.append(ITEM, 10), np.append(np.full(10, 2), 4),
                              np.append(np.arange(10), 3), kind)  # fmt: skip
        train = by_time(events, validation_from=6, test_from=8, min_rating=None).train
        assert train[0, 0] == expected


def test_what_training_does_not_have_is_counted():
    user, item = USER.copy(), ITEM.copy()
    user[7], item[8] = 3, 99
    events = interactions(user, item, time=np.arange(10))
    split = by_time(events, validation_from=6, test_from=8)
    assert raw(split, events) == [pairs(range(6)), pairs((6,)), pairs((9,))]
    assert split.report.dropped == {"of users unknown to training": 1, "of items unknown to training": 1}
    assert events.user_ids[split.users].tolist() == [1, 2]
    assert events.item_ids[split.items].tolist() == [10, 11, 12, 13, 14]


def test_ratings_and_dislikes():
    value = np.full(10, 5.0)
    value[[0, 7]] = 1
    events = interactions(USER, ITEM, value, np.arange(10))
    split = by_time(events, validation_from=6, test_from=8)
    assert raw(split, events)[1] == pairs((6,), 5.0)
    assert split.report.dropped == {"below the threshold 3.5 (ratings)": 2}
    votes = interactions(USER, ITEM, np.where(value > 3, 1, -1), np.arange(10), "votes")
    split = by_time(votes, validation_from=6, test_from=8, dislikes=True)
    train, validation, test = raw(split, votes)
    assert train == pairs(range(1, 6)) | pairs((0,), -1.0)
    assert (validation, test) == (pairs((6,)), pairs((8, 9)))
    assert split.report.dropped == {"disliked and held out, so no targets": 1}


def test_one_user():
    events = interactions([1] * 6, [10, 11, 12, 13, 14, 15], time=range(6))
    with pytest.raises(InputError, match=r"(?s)left for validation.*2 of items unknown to training"):
        by_time(events, validation_share=0.2, test_share=0.2)


def test_one_item():
    with pytest.raises(InputError, match="2 items are needed"):
        by_time(interactions(range(10), [4] * 10, time=range(10)))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"test_share": 0}, "`test_share` must lie between 0 and 1"),
        ({"test_share": 1}, "`test_share` must lie between 0 and 1"),
        ({"test_share": 0.6, "validation_share": 0.4}, "Their sum must be below 1"),
        ({"validation_share": -0.1}, "`validation_share` must be from 0"),
        ({"validation_from": 8, "test_from": 6}, "(?s)before test.*Received: validation from 8, test from 6"),
        ({"validation_from": 8, "test_from": 8}, "before test"),
        ({"test_from": 0}, "(?s)`test_from` must lie after the first.*0 to 9.*Received: 0"),
        ({"test_from": 10}, "`test_from` must lie after the first"),
        ({"validation_from": -1, "test_from": 5}, "`validation_from` must lie after the first"),
        ({"test_from": "2024-01-01"}, "do not count from 1970"),
        ({"test_from": "yesterday"}, "(?s)or a date such as.*Received: 'yesterday'"),
        ({"test_from": float("nan")}, "finite number"),
        ({"min_rating": "some"}, "threshold"),
    ],
    ids=str,
)
def test_rejected(options, match):
    with pytest.raises(InputError, match=match):
        by_time(interactions(USER, ITEM, np.full(10, 2.0), np.arange(10)), **{"min_rating": None, **options})


def test_a_date_outside_the_data_is_told_with_its_range():
    events = interactions(USER, ITEM, time=BILLION + np.arange(10))
    with pytest.raises(InputError, match=r"(?s)1000000000 \(2001-09-09 01:46:40 UTC\) to 1000000009.*2024-01-01"):
        by_time(events, test_from="2024-01-01")


def test_no_times():
    with pytest.raises(InputError, match="(?s)needs times.*--data.time"):
        by_time(interactions(USER, ITEM))


def test_movielens_1m(real_data):
    events = load("ml-1m", real_data("ml-1m"))
    split = by_time(events)
    positive = int((events.values > 3.5).sum())
    first, rest = split.test_from, events.timestamps[events.values > 3.5]
    assert abs((rest >= first).sum() - 0.1 * positive) < 100
    assert split.report.rows == 1_000_209
    assert split.report.kept == split.train.nnz + split.validation.nnz + split.test.nnz
    assert split.train.multiply(split.test).nnz == 0
