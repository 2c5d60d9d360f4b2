import numpy as np
import pytest
import scipy.sparse

from tests import oracles
from tfrec.data import load, strong_generalization
from tfrec.errors import InputError
from tfrec.evaluation import evaluate_full_ranking
from tfrec.metrics import Metric, tied_ranks
from tfrec.ranks import Ranks

METRICS = ["recall@3", "recall_relevant@7", "precision@3", "hit_rate@2", "ndcg@10", "map@5", "mrr@10"]


@pytest.fixture
def case(random):
    """Scores with many ties, and disjoint seen and target items; some users have no targets."""
    users, items = 37, 60
    scores = random.integers(0, 8, (users, items)).astype(np.float32)
    state = random.choice(3, (users, items), p=[0.7, 0.2, 0.1])
    state[::9][state[::9] == 2] = 0
    return (
        scores,
        scipy.sparse.csr_matrix(state == 1, dtype=np.float32),
        scipy.sparse.csr_matrix(state == 2, dtype=np.float32),
    )


@pytest.mark.parametrize("ties", ["expected", "pessimistic", "optimistic"])
def test_equals_sorting_everything(case, ties):
    scores, seen, targets = case
    report = evaluate_full_ranking(
        lambda rows, _: scores[rows], seen, targets, [*METRICS, "auc", "mrr"], ties=ties, block_users=10
    )
    ranks = tied_ranks(scores, targets, seen).resolve(ties)
    for name in [*METRICS, "auc", "mrr"]:
        np.testing.assert_allclose(report.metrics[name], np.nanmean(Metric.parse(name)(ranks)), atol=1e-12)
    # Without metrics that need all ranks only the first places are looked at; nothing may change.
    short = evaluate_full_ranking(lambda rows, _: scores[rows], seen, targets, METRICS, ties=ties)
    for name in METRICS:
        np.testing.assert_allclose(short.metrics[name], report.metrics[name], atol=1e-12)
    assert report.users_without_targets == int((np.diff(targets.indptr) == 0).sum()) > 0


@pytest.mark.parametrize("block_users", [1, 7, 37, 100])
def test_block_size_does_not_matter(case, block_users):
    scores, seen, targets = case
    metrics = [*METRICS, "coverage@3", "novelty@5", "gini@3"]
    whole, blocks = (
        evaluate_full_ranking(lambda rows, _: scores[rows], seen, targets, metrics, train=seen, block_users=size)
        for size in (64, block_users)
    )
    assert blocks.metrics == whole.metrics


def test_ranks_together_equal_one(case):
    """Three ranks, each with its blocks; what they would sum is summed here."""
    scores, seen, targets = case
    metrics = [*METRICS, "coverage@3", "novelty@5", "gini@3"]
    sums: list[list[np.ndarray]] = []

    class Recorded(Ranks):
        def sum(self, values):
            sums[-1].append(values.copy())
            return values

    class Summed(Ranks):
        def sum(self, values):
            return next(totals)

    for rank in range(3):
        sums.append([])
        evaluate_full_ranking(
            lambda rows, _: scores[rows], seen, targets, metrics, train=seen,
            block_users=5, ranks=Recorded(rank, 3),
        )  # fmt: skip
    totals = iter([sum(parts) for parts in zip(*sums, strict=True)])
    together = evaluate_full_ranking(
        lambda rows, _: scores[rows], seen, targets, metrics, train=seen,
        block_users=5, ranks=Summed(0, 3),
    )  # fmt: skip
    alone = evaluate_full_ranking(lambda rows, _: scores[rows], seen, targets, metrics, train=seen, block_users=5)
    assert together.metrics == alone.metrics


def test_metrics_of_the_catalogue(case, random):
    scores, seen, targets = case
    train = scipy.sparse.csr_matrix(random.choice([0, 1, 5, -1], (90, 60), p=[0.6, 0.2, 0.1, 0.1]).astype(np.float32))
    train.data[:10] = 0  # a stored zero is nobody's item, as a dislike is
    popularity = (train.toarray() > 0).sum(axis=0)
    names = ["coverage@2", "novelty@2", "gini@2", "novelty@7", "gini@7", "ndcg@3"]
    report = evaluate_full_ranking(lambda rows, _: scores[rows], seen, targets, names, train=train, block_users=10)
    assert list(report.metrics) == names
    assert list(report.per_user) == ["ndcg@3"]
    had = [set(row.indices.tolist()) for row in seen]
    for name in names[:-1]:
        kind, k = name.split("@")
        expected = oracles.catalogue_metric(scores, had, int(k), kind, popularity, 90)
        np.testing.assert_allclose(report.metrics[name], expected, rtol=1e-12)


def test_fewer_candidates_than_the_cutoff():
    scores = np.array([[3.0, 2.0, 1.0]], np.float32)
    seen, targets = scipy.sparse.csr_matrix([[1.0, 1.0, 0]]), scipy.sparse.csr_matrix([[0, 0, 1.0]])
    report = evaluate_full_ranking(lambda rows, _: scores[rows], seen, targets, ["ndcg@3", "coverage@3"])
    assert report.metrics == {"ndcg@3": 1.0, "coverage@3": 1 / 3}


def test_each_coverage_counts_its_own_first_places():
    scores = np.array([[4, 3, 2, 1], [4, 1, 3, 2]], np.float32)
    nothing, targets = scipy.sparse.csr_matrix((2, 4)), scipy.sparse.csr_matrix(np.eye(2, 4))
    report = evaluate_full_ranking(
        lambda rows, _: scores[rows], nothing, targets, ["coverage@1", "coverage@2", "coverage@3"]
    )
    # First places: 0 and 0; then 1 and 2; then 2 and 3.
    assert report.metrics == {"coverage@1": 1 / 4, "coverage@2": 3 / 4, "coverage@3": 4 / 4}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"metrics": ["ndcg@61"]}, "exceed the number of items"),
        ({"ties": "first"}, "ties"),
        ({"metrics": ["novelty@3"]}, "(?s)novelty@3 needs `train`, to count how popular.*train=None"),
        ({"train": scipy.sparse.csr_matrix((9, 61))}, "(?s)`train` must have.*60 items"),
        ({"block_users": 0}, "block_users"),
        ({"targets": scipy.sparse.csr_matrix((37, 60))}, "`targets` must have an item"),
        ({"targets": scipy.sparse.csr_matrix((36, 60))}, "same shape"),
        ({"score": lambda rows, _: np.full((len(rows), 60), np.nan, np.float32)}, "finite"),
    ],
)
def test_rejects(case, change, match):
    scores, seen, targets = case
    arguments = {"score": lambda rows, _: scores[rows], "seen": seen, "targets": targets, "metrics": METRICS} | change
    with pytest.raises(InputError, match=match):
        evaluate_full_ranking(**arguments)


def test_rejects_a_target_that_is_seen(case):
    scores, seen, targets = case
    with pytest.raises(InputError, match="both seen and a target"):
        evaluate_full_ranking(lambda rows, _: scores[rows], seen, targets + seen, ["ndcg@3"])


def test_popularity_on_movielens_1m(real_data):
    """Known figures, ties in order of index; and ours, the expectation over tie orders, beside them."""
    split = strong_generalization(load("ml-1m", real_data("ml-1m")), 600)
    counts = np.asarray(split.train.sum(axis=0)).ravel()
    place = np.empty(len(counts), np.float32)
    place[np.argsort(-counts, kind="stable")] = -np.arange(len(counts))
    figures = {}
    for name, scores in (("index order", place), ("expected", counts)):
        report = evaluate_full_ranking(
            lambda rows, _, s=scores: np.tile(s.astype(np.float32), (len(rows), 1)), split.test_in, split.test_out
        )
        figures[name] = [round(report.metrics[m], 4) for m in ("recall@20", "recall@50", "ndcg@100")]
    assert figures["index order"] == [0.1759, 0.2372, 0.2235]
    np.testing.assert_allclose(figures["expected"], figures["index order"], atol=1e-4)


def test_ease_on_movielens_1m(real_data):
    """A closed-form model (Steck, 2019) reaches its known figures, which leaves no doubt about split and metrics."""
    split = strong_generalization(load("ml-1m", real_data("ml-1m")), 600)
    weights = oracles.ease_weights(split.train, 800)
    report = evaluate_full_ranking(lambda _, seen: seen @ weights, split.test_in, split.test_out)
    figures = [round(report.metrics[m], 4) for m in ("recall@20", "recall@50", "ndcg@100")]
    assert figures == [0.3557, 0.4777, 0.4252]


@pytest.mark.parametrize("ties", ["expected", "pessimistic", "optimistic"])
def test_details_agree_with_the_metrics(case, ties):
    """Where hits and lists fall adds up to what the metrics count, and changes none of them."""
    scores, seen, targets = case
    metrics = ["precision@5", "hit_rate@20", "coverage@5", "coverage@20"]
    options = {"ties": ties, "block_users": 10}
    plain, report = (
        evaluate_full_ranking(lambda rows, _: scores[rows], seen, targets, metrics, details_at=k, **options)
        for k in (None, 5)
    )
    assert plain.details is None
    assert plain.metrics == report.metrics
    details = report.details
    assert details.k == 5
    assert set(details.exposure) == {5, 10, 20}  # as deep as the metrics look
    np.testing.assert_array_equal(np.c_[details.users, details.items], np.argwhere(targets.toarray()))
    hits = np.bincount(details.users, details.found, minlength=len(scores))
    there = np.diff(targets.indptr) > 0
    np.testing.assert_allclose(hits[there] / 5, report.per_user["precision@5"][there], atol=1e-12)
    for k in (5, 20):
        assert report.metrics[f"coverage@{k}"] == (details.exposure[k].shown > 0).mean()
    assert details.exposure[10].shown.sum() == 10 * len(scores)


def test_details_deeper_than_the_metrics(case):
    scores, seen, targets = case
    report = evaluate_full_ranking(lambda rows, _: scores[rows], seen, targets, ["mrr@2"], details_at=1_000)
    assert report.details.k == 60
    assert report.details.found.min() == 1.0
