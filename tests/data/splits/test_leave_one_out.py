import numpy as np

from tests.data.splits.events import interactions
from tfrec.data import leave_one_out, load


def test_leave_one_out_takes_the_latest():
    #                         user 1: item 12 is latest; user 2: a tie at time 9, the later row wins; user 3 has one
    user = [1, 1, 1, 2, 2, 2, 3]
    item = [12, 10, 11, 10, 12, 11, 10]
    time = [30, 10, 20, 9, 9, 3, 1]
    split = leave_one_out(interactions(user, item, time=time))
    assert split.test_items.tolist() == [2, 2, -1]
    assert split.train.toarray().tolist() == [[1, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert (split.validation_items == -1).all()
    both = leave_one_out(interactions(user, item, time=time), validation=True, min_user_events=3)
    assert both.test_items.tolist() == [2, 2, -1]
    assert both.validation_items.tolist() == [1, 0, -1]
    assert both.train.toarray().tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]


def test_leave_one_out_counts_repeated_events_once():
    # Item 10 is heard first and last: it is the held-out one and must not stay in the training set.
    split = leave_one_out(interactions([1, 1, 1], [10, 11, 10], time=[1, 2, 3]))
    assert split.test_items.tolist() == [0]
    assert split.train.toarray().tolist() == [[0, 1]]


def test_leave_one_out_is_that_of_the_ncf_paper(real_data):
    """The paper's held-out file, whose ids are orders of first appearance."""
    root = real_data("ncf-ml-1m")
    events = load("ml-1m", root)
    _, first = np.unique(events.item_index, return_index=True)
    number = np.empty(events.num_items, np.int64)
    number[np.argsort(first)] = np.arange(events.num_items)
    published = np.loadtxt(root / "ncf-ml-1m" / "ml-1m.test.rating", dtype=np.int64)
    split = leave_one_out(events)
    mine = number[split.test_items]
    differ = np.flatnonzero(mine != published[:, 1])
    # Where they differ, both have the same timestamp: the paper does not say how it orders those.
    for user in differ:
        rows = events.user_index == user
        times = dict(zip(number[events.item_index[rows]], events.timestamps[rows], strict=True))
        assert times[mine[user]] == times[published[user, 1]] == max(times.values())


def test_leave_one_out_keeps_the_values_of_training():
    split = leave_one_out(interactions([1, 1, 1], [10, 11, 12], value=[4, 2, 5], time=[3, 1, 2]))
    assert split.test_items.tolist() == [0]
    assert split.train.toarray().tolist() == [[0, 2, 5]]
