"""Counts, ratings and votes from a table to the report of a run."""

import json
import time

import numpy as np
import pytest
import scipy.sparse

from tests.oracles import ndcg_of_ranking
from tfrec.data import Interactions, leave_one_out, random_holdout, strong_generalization
from tfrec.errors import InputError
from tfrec.evaluation import evaluate_full_ranking
from tfrec.metrics import Metric, tied_ranks
from tfrec.models import ALS, Popularity
from tfrec.train import parse, train

ROWS, PAIRS = 50_500, 33_126


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A log of purchases: quantities of 1 to 5, pairs that repeat."""
    random = np.random.default_rng(3)
    chosen = random.choice(2_000 * 300, PAIRS, replace=False)
    pair = np.concatenate([chosen, random.choice(chosen, ROWS - PAIRS)])
    random.shuffle(pair)
    path = tmp_path_factory.mktemp("shop") / "log.csv"
    lines = (f"{p // 300},{p % 300},{q}" for p, q in zip(pair, random.integers(1, 6, ROWS), strict=True))
    path.write_text("customer,sku,qty\n" + "\n".join(lines) + "\n")
    return path


def run(tmp_path, path, *more):
    options = ["--data.path", str(path), "--data.user", "customer", "--data.item", "sku", "--data.value", "qty"]
    recipe, config = parse([*more[:1], *options, *more[1:], "--output-dir", str(tmp_path / "run")])
    train(recipe, config, time.perf_counter())
    return json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_counts_are_never_dropped_for_being_small(shop, tmp_path, capsys):
    found = run(tmp_path, shop, "popularity", "--data.min-user-events", "0")
    out = capsys.readouterr().out
    assert f"{ROWS:,} rows: {PAIRS:,} pairs kept; {ROWS - PAIRS:,} rows merged" in out
    assert (
        "Values are counts (column `qty`, values from 1 to 5); a pair is positive above 0 (--data.min-rating auto)"
        in out
    )
    report = found["data"]["report"]
    assert report == {"rows": ROWS, "kept": PAIRS, "merged": ROWS - PAIRS, "dropped": {}}
    assert found["data"]["values"] == "counts"


def test_ratings_are_compared_with_a_threshold_that_is_printed(shop, tmp_path, capsys):
    found = run(tmp_path, shop, "popularity", "--data.value-kind", "ratings", "--data.min-user-events", "2")
    report = found["data"]["report"]
    assert report["kept"] + report["merged"] + sum(report["dropped"].values()) == report["rows"] == ROWS
    assert set(report["dropped"]) <= {
        "below the threshold 3.5 (ratings)",
        "of users with fewer than 2",
        "of items unknown to training",
    }
    assert (
        f"{report['dropped']['below the threshold 3.5 (ratings)']:,} below the threshold 3.5 (ratings)"
        in capsys.readouterr().out
    )


def test_options_of_tables_need_a_table(tmp_path):
    recipe, config = parse(["popularity", "--data.value", "stars", "--output-dir", str(tmp_path / "run")])
    with pytest.raises(InputError, match=r"(?s)--data.value is for a table of your own.*--data.path"):
        train(recipe, config, time.perf_counter())


# --- votes


def votes(random, users=80, items=60, share=0.3):
    """Likes in one half of the catalogue, dislikes in the other, by the user's parity."""
    matrix = scipy.sparse.random(users, items, share, random_state=random, format="coo")
    like = (matrix.row % 2) == (matrix.col * 2 // items)
    return Interactions(
        matrix.row.astype(np.int32), matrix.col.astype(np.int32), np.where(like, 1, -1).astype(np.float32),
        np.arange(users), np.arange(items), kind="votes",
    )  # fmt: skip


def test_targets_are_positive_entries():
    events = votes(np.random.default_rng(1))
    split = random_holdout(events, target_share=0.3, seed=5)
    train_matrix, test = split.train, split.test
    assert (train_matrix.data < 0).any()
    assert (test.data > 0).all()
    model = ALS(factors=8, iterations=5, alpha=5.0, factor_dtype="float32")
    model.fit(train_matrix, verbose=0)
    both = events.to_csr()
    heldout = both - both.multiply(train_matrix != 0)  # with the dislikes that were held out
    assert (heldout.data < 0).any()

    def score(rows, seen):
        return model.user_factors[rows] @ model.item_factors.T

    metrics = ["recall@10", "ndcg@10"]
    alone = evaluate_full_ranking(score, train_matrix, test, metrics).metrics
    assert evaluate_full_ranking(score, train_matrix, heldout, metrics).metrics == alone
    zeros = test.copy()
    zeros.data[:1] = 0
    explicit = evaluate_full_ranking(score, train_matrix, zeros, metrics).metrics
    zeros.eliminate_zeros()
    assert explicit == evaluate_full_ranking(score, train_matrix, zeros, metrics).metrics


def test_dislikes_and_zeros_count_for_nobodys_popularity():
    model = Popularity(3)
    model.adapt(scipy.sparse.csr_matrix(np.array([[1.0, -1, 0], [2, -1, 0], [0, 3, 0]])))
    assert np.asarray(model.counts).tolist() == [2, 1, 0]


def test_no_split_holds_out_a_dislike_or_a_zero():
    random = np.random.default_rng(2)
    events = votes(random)
    events.values[::7] = 0
    liked = events.to_csr().toarray() > 0
    split = strong_generalization(events, 10, min_user_events=1)
    users = [*split.train_users, *split.validation_users, *split.test_users]
    parts = [split.train, split.validation_in + split.validation_out, split.test_in + split.test_out]
    assert (scipy.sparse.vstack(parts).toarray().astype(bool) == liked[users][:, split.items]).all()
    left = leave_one_out(events)
    users = np.flatnonzero(left.test_items >= 0)
    assert liked[users, left.test_items[users]].all()
    assert (left.train.data > 0).all()
    assert left.report.kept == liked.sum()


# --- gains


def test_targets_of_different_values_need_gains():
    targets = scipy.sparse.csr_matrix([[3.0, 0, 1, 2, 0]])
    scores = np.array([[1.0, 5, 4, 3, 2]])
    seen = scipy.sparse.csr_matrix(targets.shape)

    def ndcg(**gains):
        return evaluate_full_ranking(lambda *_: scores, seen, targets, ["ndcg@5"], **gains).metrics["ndcg@5"]

    with pytest.raises(InputError, match=r"(?s)different values.*from 1 to 3.*gains='binary'"):
        ndcg()
    log = np.log2
    # Ranked: item 1 (none), 2 (value 1), 3 (value 2), 4 (none), 0 (value 3).
    linear = (1 / log(3) + 2 / log(4) + 3 / log(6)) / (3 / log(2) + 2 / log(3) + 1 / log(4))
    exponential = (1 / log(3) + 3 / log(4) + 7 / log(6)) / (7 / log(2) + 3 / log(3) + 1 / log(4))
    binary = (1 / log(3) + 1 / log(4) + 1 / log(6)) / (1 / log(2) + 1 / log(3) + 1 / log(4))
    assert ndcg(gains="linear") == pytest.approx(linear)
    assert ndcg(gains="exponential") == pytest.approx(exponential)
    assert ndcg(gains="binary") == pytest.approx(binary)
    with pytest.raises(InputError, match="must be one of"):
        ndcg(gains="cubic")


@pytest.mark.parametrize("ties", ["expected", "pessimistic", "optimistic"])
@pytest.mark.parametrize("seed", range(5))
def test_gains_with_ties_are_those_of_all_orders(ties, seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 3, 6).astype(float)
    values = random.integers(0, 4, 6).astype(float)
    values[0] = 2
    targets = scipy.sparse.csr_matrix(values[None])
    ranks = tied_ranks(scores[None], targets)
    import dataclasses

    ranks = dataclasses.replace(ranks, gain=targets.data.astype(np.float64)).resolve(ties)
    found = Metric.parse("ndcg@4")(ranks)[0]
    assert found == pytest.approx(ndcg_of_ranking(scores, values, 4, ties))


# --- what is printed


def test_interactions_print_in_a_few_lines(shop):
    events = Interactions.from_table(shop, "customer", "sku", "qty")
    assert len(repr(events)) < 200
    assert f"{ROWS:,} events" in repr(events)
    assert "counts" in repr(events)
