"""Sampled candidates: which they are, how ties and repetitions count, and known figures."""

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import tensorflow as tf

from tests import oracles
from tfrec.data import leave_one_out, load
from tfrec.data.ncf import load_ncf_ml1m
from tfrec.errors import InputError
from tfrec.evaluation import Candidates, evaluate_candidates
from tfrec.ranks import Ranks

METRICS = ["hit_rate@3", "ndcg@3", "mrr@3", "mrr", "auc"]


def data(users=30, items=40, density=0.3, seed=0):
    random = np.random.default_rng(seed)
    dense = random.random((users, items)) < density
    dense[:, -1] = False
    positives = np.array([random.choice(np.flatnonzero(~row)) for row in dense])
    positives[3] = -1
    return scipy.sparse.csr_matrix(dense.astype(np.float32)), positives


def scores_of(table):
    values = tf.constant(table, tf.float32)

    def score(users, items):
        rows = tf.gather(values, users)
        return rows if items is None else tf.gather(rows, items, batch_dims=1)

    return score


def test_exact_candidates_are_different_unseen_and_not_the_positive():
    seen, positives = data()
    candidates = Candidates(seen, positives, 15, seed=4)
    block = candidates.block(tf.constant(candidates.users)).numpy()
    for user, row in zip(candidates.users, block, strict=True):
        assert row[0] == positives[user]
        assert len(set(row)) == 16
        assert not set(row) & set(seen[user].indices)
    # A function of (seed, user): other blocks, the same candidates.
    np.testing.assert_array_equal(candidates.block(tf.constant(candidates.users[5:7])).numpy(), block[5:7])
    other = Candidates(seen, positives, 15, seed=5).block(tf.constant(candidates.users)).numpy()
    assert (other[:, 1:] != block[:, 1:]).mean() > 0.8


def test_all_that_is_left_can_be_asked_for():
    seen, positives = data(density=0.5)
    left = int((seen.shape[1] - np.diff(seen.indptr))[positives >= 0].min()) - 1
    candidates = Candidates(seen, positives, left)
    assert candidates.block(tf.constant(candidates.users)).shape == (29, left + 1)
    with pytest.raises(InputError, match=f"num_negatives={left + 1}, and user number"):
        Candidates(seen, positives, left + 1)


def test_exact_candidates_are_uniform():
    seen = scipy.sparse.csr_matrix((3_000, 50), dtype=np.float32)
    candidates = Candidates(seen, np.zeros(3_000, int), 20)
    counts = np.bincount(candidates.block(tf.range(3_000, dtype=tf.int64)).numpy()[:, 1:].ravel(), minlength=50)
    assert counts[0] == 0
    # Without replacement the counts vary less than a multinomial's: chi-square on the smaller variance.
    expected = 3_000 * 20 / 49
    statistic = ((counts[1:] - expected) ** 2).sum() / (expected * (1 - 20 / 49)) * 48 / 49
    assert 1e-6 < scipy.stats.chi2.sf(statistic, 48) < 1 - 1e-6


@pytest.mark.parametrize("ties", ["expected", "pessimistic", "optimistic"])
@pytest.mark.parametrize("protocol", ["exact", "all", "file"])
def test_metrics_against_all_orders(ties, protocol):
    """Scores with many ties, so that the rule decides much."""
    seen, positives = data(users=12, items=9, density=0.3)
    table = np.random.default_rng(1).integers(0, 4, (12, 9)).astype(float)
    negatives = None
    if protocol == "file":
        negatives = np.array([np.random.default_rng(u).permutation(np.setdiff1d(np.arange(9), [p]))[:4]
                              for u, p in enumerate(positives)])  # fmt: skip
    candidates = Candidates(seen, positives, 3, protocol, negatives=negatives)
    report = evaluate_candidates(scores_of(table), candidates, METRICS, ties=ties, block_pairs=20)
    assert report.users == 11
    assert report.users_without_targets == 1
    for user in candidates.users:
        if protocol == "all":
            items = np.setdiff1d(np.arange(9), seen[user].indices)
        else:
            items = np.unique(candidates.block(tf.constant([user])).numpy())
        hidden = set(range(9)) - set(items.tolist())
        for name in METRICS:
            kind, _, k = name.partition("@")
            wanted = oracles.metric(table[user], {positives[user]}, hidden, int(k or 9), kind,
                                    "expected" if kind == "auc" else ties)  # fmt: skip
            if kind != "auc" or ties == "expected":
                assert report.per_user[name][user] == pytest.approx(wanted), (name, user)
    assert np.isnan(report.per_user["mrr"][3])


def test_reference_protocols():
    """What repeats, and what the held-out item's own copy does."""
    seen = scipy.sparse.csr_matrix((2_000, 12), dtype=np.float32)
    positives = np.full(2_000, 5)
    users = tf.range(2_000, dtype=tf.int64)
    table = np.tile(np.arange(12.0), (2_000, 1))
    table[:, 5] = 20.0  # the held-out item is best: every loss is one to its own copies
    for protocol, ties, expected in (
        ("nvidia", "pessimistic", 1.0),
        ("mlperf", "optimistic", 1.0),
        ("mlperf", "pessimistic", (11 / 12) ** 10),  # no copy among ten draws
    ):
        candidates = Candidates(seen, positives, 10, protocol)
        block = candidates.block(users).numpy()
        assert (block[:, 1:] == 5).any(axis=1).mean() == pytest.approx(1 - (11 / 12) ** 10, abs=0.04)
        assert scipy.stats.chisquare(np.bincount(block[:, 1:].ravel(), minlength=12)).pvalue > 1e-6
        found = evaluate_candidates(scores_of(table), candidates, ["hit_rate@1"], ties=ties)
        assert found.metrics["hit_rate@1"] == pytest.approx(expected, abs=0.04)
    # With nvidia an item drawn twice counts once: of 12 items at most 11 are above the worst.
    table[:, 5] = -1.0
    candidates = Candidates(seen, positives, 60, "nvidia")
    assert evaluate_candidates(scores_of(table), candidates, ["hit_rate@12"]).metrics["hit_rate@12"] == 1.0
    candidates = Candidates(seen, positives, 60, "mlperf")
    assert evaluate_candidates(scores_of(table), candidates, ["hit_rate@12"]).metrics["hit_rate@12"] == 0.0


def test_ranks_share_the_users():
    seen, positives = data()
    table = np.random.default_rng(2).random(seen.shape)
    whole = evaluate_candidates(scores_of(table), Candidates(seen, positives, 9), METRICS).metrics
    parts = []
    total = np.zeros(0)

    class Recorded(Ranks):
        def sum(self, values):
            parts.append(values)
            return values

    class Summed(Ranks):
        def sum(self, values):
            return total if values.shape == total.shape else values

    for rank in range(3):
        parts.clear()
        evaluate_candidates(
            scores_of(table), Candidates(seen, positives, 9), METRICS, block_pairs=40, ranks=Recorded(rank, 3)
        )
        total = parts[1] + total if total.size else parts[1]
    summed = evaluate_candidates(
        scores_of(table), Candidates(seen, positives, 9), METRICS, block_pairs=40, ranks=Summed(0, 3)
    )
    assert summed.metrics == whole


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"protocol": "some"}, "`protocol` must be one of"),
        ({"num_negatives": 0}, "at least 1"),
        ({"seed": -1}, "at least 0"),
        ({"positives": np.full(30, -1)}, "`positives` must have an item"),
        ({"positives": np.full(30, 40)}, "below 40"),
        ({"positives": np.zeros(4, int)}, "shape \\(4,\\)"),
        ({"negatives": np.zeros((30, 2), int)}, "belong to protocol='file'"),
        ({"protocol": "file"}, "belong to protocol='file'"),
        ({"protocol": "file", "negatives": np.full((30, 2), 40)}, "below 40"),
        ({"num_negatives": 39}, "Draw fewer"),
    ],
)
def test_rejects(options, match):
    seen, positives = data()
    with pytest.raises(InputError, match=match):
        Candidates(**{"seen": seen, "positives": positives, "num_negatives": 5, **options})


def test_rejects_a_seen_positive_and_bad_scores():
    seen, positives = data()
    wrong = positives.copy()
    wrong[0] = seen[0].indices[0]
    with pytest.raises(InputError, match="must not be one that the user has seen"):
        Candidates(seen, wrong, 5)
    candidates = Candidates(seen, positives, 5)
    for metrics, options, match in (
        (["coverage@3"], {}, "not defined"),
        (["ndcg@7"], {}, "for 6 candidates"),
        (["ndcg@3"], {"ties": "some"}, "ties"),
    ):
        with pytest.raises(InputError, match=match):
            evaluate_candidates(scores_of(np.zeros(seen.shape)), candidates, metrics, **options)
    for value in (np.nan, np.inf):
        with pytest.raises(InputError, match="finite"):
            evaluate_candidates(scores_of(np.full(seen.shape, value)), candidates, ["ndcg@3"])


def test_an_item_of_a_file_counts_once():
    """As in the paper's evaluation, which keeps one score for each item: repetitions and the item's own copy."""
    seen = scipy.sparse.csr_matrix((2, 8), dtype=np.float32)
    negatives = np.array([[5, 1, 1, 2], [4, 4, 4, 4]])
    candidates = Candidates(seen, np.array([5, 6]), protocol="file", negatives=negatives)
    scores = np.array([[0, 9, 1, 0, 0, 3, 0, 0], [0, 0, 0, 0, 9, 0, 3, 0]], float)
    for ties in ("pessimistic", "expected", "optimistic"):
        found = evaluate_candidates(scores_of(scores), candidates, ["mrr", "auc", "hit_rate@1"], ties=ties)
        assert found.per_user["mrr"].tolist() == [1 / 2, 1 / 2]
        assert found.per_user["auc"].tolist() == [1 / 2, 0]  # of two others one is below, of one none


def test_popularity_on_the_papers_files(real_data):
    """Counted by hand on the raw files, without anything of tfrec, ties against and for the held-out item."""
    root = real_data("ncf-ml-1m")
    events = [line.split(b"::") for line in (root / "ml-1m" / "ratings.dat").read_bytes().splitlines()]
    number, count = {}, {}
    for e in events:
        number.setdefault(e[1], len(number))
    held = {}
    for line in (root / "ncf-ml-1m" / "ml-1m.test.rating").read_text().splitlines():
        user, item = line.split("\t")[:2]
        held[int(user)] = int(item)
    for e in events:
        item = number[e[1]]
        if held[int(e[0]) - 1] != item:
            count[item] = count.get(item, 0) + 1
    worst = best = gain = 0.0
    for line in (root / "ncf-ml-1m" / "ml-1m.test.negative").read_text().splitlines():
        head, *rest = line.split("\t")
        own = int(head.strip("()").split(",")[1])
        mine = count.get(own, 0)
        others = [count.get(r, 0) for r in {int(r) for r in rest} - {own}]
        place = sum(o >= mine for o in others)
        worst += place < 10
        gain += 1 / np.log2(place + 2) if place < 10 else 0
        best += sum(o > mine for o in others) < 10
    ncf = load_ncf_ml1m(root)
    train = ncf.train.to_csr(binary=True)
    candidates = Candidates(train, ncf.test_items, protocol="file", negatives=ncf.test_negatives)
    counts = np.asarray(train.sum(axis=0)).ravel()
    table = tf.constant(counts, tf.float32)

    def score(users, items):
        return tf.gather(table, items)

    metrics = ["hit_rate@10", "ndcg@10"]
    found = {t: evaluate_candidates(score, candidates, metrics, ties=t) for t in ("pessimistic", "optimistic")}
    assert found["pessimistic"].metrics["hit_rate@10"] == pytest.approx(worst / 6_040, abs=1e-12)
    assert found["pessimistic"].metrics["ndcg@10"] == pytest.approx(gain / 6_040, abs=1e-12)
    assert found["optimistic"].metrics["hit_rate@10"] == pytest.approx(best / 6_040, abs=1e-12)
    assert round(worst / 6_040, 4) == 0.4531
    assert round(gain / 6_040, 4) == 0.2541
    assert round(best / 6_040, 4) == 0.4538


def test_leave_one_out_candidates_of_a_data_set():
    events = load("synthetic", num_users=60, num_items=300, seed=1)
    split = leave_one_out(events, min_user_events=3, validation=True)
    candidates = Candidates(split.train, split.validation_items, 99)
    block = candidates.block(tf.constant(candidates.users)).numpy()
    assert not (split.train.toarray()[candidates.users[:, None], block] > 0).any()


@pytest.mark.parametrize("ties", ["expected", "pessimistic", "optimistic"])
def test_details_agree_with_the_metrics(ties):
    seen, positives = data()
    table = np.random.default_rng(1).integers(0, 9, (30, 40))
    report = evaluate_candidates(
        scores_of(table), Candidates(seen, positives, 15), ["hit_rate@3"], ties=ties, details_at=3
    )
    there = np.flatnonzero(positives >= 0)
    np.testing.assert_array_equal(report.details.users, there)
    np.testing.assert_array_equal(report.details.items, positives[there])
    np.testing.assert_allclose(report.details.found, report.per_user["hit_rate@3"][there], atol=1e-12)
    assert report.details.exposure == {}
