"""Positives with their negatives: what is drawn, by whom, and how often."""

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import tensorflow as tf

from tfrec.data.complement import Complement
from tfrec.data.pointwise import PointwiseSampler
from tfrec.errors import InputError
from tfrec.ranks import Ranks


def matrix(users=50, items=40, density=0.2, seed=0):
    found = scipy.sparse.random(users, items, density=density, format="csr", random_state=seed, dtype=np.float32)
    found.sort_indices()
    return found


def epoch(train, number=0, size=1, **options):
    """All samples of an epoch, per step and rank."""
    found = []
    for rank in range(size):
        source = PointwiseSampler(train, **options, ranks=Ranks(rank, size))
        draw = tf.function(source.batch)
        counts = [int(c) for c in source.steps()]
        first = number * source.steps_per_epoch
        batches = [draw(tf.constant(first + s, tf.int64)) for s in range(source.steps_per_epoch)]
        assert counts == [len(u) for u, _ in batches]
        found.append([np.concatenate([u.numpy()[:, None], i.numpy()], axis=1) for u, i in batches])
    return found


@pytest.mark.parametrize("lengths", [[0, 1, 5, 9, 10], [0], [10], [3, 3]])
def test_complement(lengths, random):
    rows = [np.sort(random.permutation(10)[:n]) for n in lengths]
    dense = np.zeros((len(rows), 10), np.float32)
    for row, items in zip(dense, rows, strict=True):
        row[items] = 1
    others = Complement(scipy.sparse.csr_matrix(dense))
    for user, row in enumerate(dense):
        wanted = np.flatnonzero(row == 0)
        assert int(others.count(tf.constant([user], tf.int64))[0]) == len(wanted)
        if len(wanted):
            number = tf.range(len(wanted), dtype=tf.int64)[None]
            assert others.pick(tf.constant([user], tf.int64), number)[0].numpy().tolist() == wanted.tolist()


def test_complement_rejects_unsorted():
    bad = scipy.sparse.csr_matrix((np.ones(2, np.float32), [3, 1], [0, 2]), shape=(1, 4))
    with pytest.raises(InputError, match="ascending"):
        Complement(bad)


def test_an_epoch_has_every_positive_once():
    train = matrix()
    (batches,) = epoch(train, global_batch_size=90, num_negatives=4)
    samples = np.concatenate(batches)
    assert {len(b) for b in batches[:-1]} == {18}
    pairs = sorted(map(tuple, samples[:, :2].tolist()))
    assert pairs == sorted(zip(*(a.tolist() for a in train.nonzero()), strict=True))


def test_epochs_and_seeds_differ():
    train = matrix()
    first, second, other = (
        np.concatenate(epoch(train, number, global_batch_size=90, seed=seed)[0])
        for number, seed in ((0, 1), (1, 1), (0, 2))
    )
    for another in (second, other):
        assert (first[:, :2] == another[:, :2]).all(axis=1).mean() < 0.05  # another order
        as_dict = {tuple(r[:2]): tuple(r[2:]) for r in another}
        assert np.mean([as_dict[tuple(r[:2])] == tuple(r[2:]) for r in first]) < 0.01  # other negatives


@pytest.mark.parametrize("sampling", ["exact", "approximate"])
def test_negatives_of_places_epochs_and_seeds_are_unrelated(sampling):
    """One user, so that equal draws are equal items: by chance one in 1,500 or 2,000."""
    train = scipy.sparse.csr_matrix(np.arange(2_000)[None] < 500, dtype=np.float32)
    options = {"global_batch_size": 2_500, "sampling": sampling}
    first, second, other = (
        np.concatenate(epoch(train, number, seed=seed, **options)[0])[:, 2:]
        for number, seed in ((0, 0), (1, 0), (0, 1))
    )
    for number in range(1, 4):
        assert (first[:-1, number:] == first[1:, :-number]).mean() < 0.01  # a neighbour's, shifted
    assert (first[:-1] == first[1:]).mean() < 0.01
    assert (first[:, 1:] == first[:, :-1]).mean() < 0.01
    assert (first == second).mean() < 0.01
    assert (first == other).mean() < 0.01


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("sampling", ["exact", "approximate"])
def test_ranks_share_an_epoch(size, sampling):
    """Together the ranks draw, step by step, what one rank draws alone: the same samples, none twice."""
    train = matrix(users=30)
    options = {"global_batch_size": 95, "num_negatives": 4, "seed": 3, "sampling": sampling}
    (alone,) = epoch(train, 2, **options)
    shared = epoch(train, 2, size=size, **options)
    for step, batch in enumerate(alone):
        np.testing.assert_array_equal(np.concatenate([rank[step] for rank in shared]), batch)
        lengths = [len(rank[step]) for rank in shared]
        assert max(lengths) - min(lengths) <= 1


def test_exact_never_draws_a_positive_in_ten_million():
    """And is uniform over what is left, for each user."""
    train = matrix(users=40, items=60, density=0.5, seed=4)
    source = PointwiseSampler(train, train.nnz * 51, num_negatives=50, seed=1)
    draw = tf.function(source.batch)
    counts = np.zeros(train.shape, np.int64)
    step = 0
    while counts.sum() < 10_000_000:
        users, items = (a.numpy() for a in draw(tf.constant(step, tf.int64)))
        np.add.at(counts, (users[:, None], items[:, 1:]), 1)
        step += 1
    has = train.toarray() > 0
    assert counts[has].sum() == 0
    statistic = freedom = 0.0
    for user in range(40):
        free = counts[user, ~has[user]]
        statistic += ((free - free.mean()) ** 2 / free.mean()).sum()
        freedom += len(free) - 1
    assert 1e-6 < scipy.stats.chi2.sf(statistic, freedom) < 1 - 1e-6


def test_approximate_is_uniform_over_all_items():
    train = matrix(users=40, items=60, density=0.5, seed=4)
    source = PointwiseSampler(train, train.nnz * 51, num_negatives=50, seed=1, sampling="approximate")
    draw = tf.function(source.batch)
    counts = sum(np.bincount(draw(tf.constant(s, tf.int64))[1].numpy()[:, 1:].ravel(), minlength=60) for s in range(20))
    assert scipy.stats.chisquare(counts).pvalue > 1e-6


def test_no_negatives_and_one_positive():
    (batches,) = epoch(matrix(), global_batch_size=50, num_negatives=0)
    assert batches[0].shape == (50, 2)
    one = scipy.sparse.csr_matrix(([1.0], ([0], [2])), shape=(1, 3))
    (batches,) = epoch(one, global_batch_size=5, num_negatives=4)
    assert batches[0].shape == (1, 6)
    assert batches[0][0, :2].tolist() == [0, 2]
    assert set(batches[0][0, 2:].tolist()) <= {0, 1}


FULL = scipy.sparse.csr_matrix(np.array([[1, 0, 0], [1, 1, 1]], np.float32))


@pytest.mark.parametrize(
    ("train", "options", "match"),
    [
        (FULL, {}, "every one of the 3 items.*\nReceived: 1 such users, the first is number 1"),
        (scipy.sparse.csr_matrix((2, 3), dtype=np.float32), {}, "no interaction to train on"),
        (matrix(), {"global_batch_size": 4}, "at least 5"),
        (matrix(), {"global_batch_size": 1 << 20}, "at most an epoch, 2,000 samples"),
        (matrix(), {"num_negatives": -1}, "num_negatives"),
        (matrix(), {"seed": -1}, "seed"),
        (matrix(), {"sampling": "some"}, "sampling"),
    ],
)
def test_rejects(train, options, match):
    with pytest.raises(InputError, match=match):
        PointwiseSampler(train, **{"global_batch_size": 10, **options})


def test_a_full_user_is_no_problem_for_approximate_sampling():
    PointwiseSampler(FULL, 10, sampling="approximate")
