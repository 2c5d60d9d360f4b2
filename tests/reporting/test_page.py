"""The page of a run: what is on it agrees with the run; whatever the data holds, there is a page, and it is safe."""

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.reporting.made import facts, report
from tests.reporting.reading import read
from tfrec.data import Interactions
from tfrec.errors import TfrecWarning
from tfrec.evaluation import Report
from tfrec.fitting import fit
from tfrec.reporting import DataFacts, Example, draw
from tfrec.runs.folder import RunFolder
from tfrec.runs.page import write_page

ALL = ["test", "training", "where", "coverage", "examples", "data", "settings"]
HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='x", "&amp; &lt;", "</bdi></li></ol>",
    "\u202egnp.exe", "مرحبا بالعالم", "x" * 10_000, "a b " * 2_500, "\x1b[2J\x00", "\ud800", "", "😀" * 99,
]  # fmt: skip


#: A file cannot hold half a character.
TITLES = [text for text in HOSTILE if text != "\ud800"]


def check_safe(page):
    """One file that loads nothing and runs nothing."""
    assert not page.tags & {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
    assert page.references == []
    assert page.handlers == []
    assert page.unclosed == []


def test_everything_is_on_the_page():
    run = facts()
    text = draw(run)
    page = read(text)
    check_safe(page)
    assert page.sections == ALL
    assert "http" not in re.sub(r"<meta [^>]*>", "", text)
    for found in run.test.values():
        assert set(found.metrics.values()) <= set(page.numbers["test"])
    gains = [run.test["model"].metrics[m] - run.test["popularity"].metrics[m] for m in run.test["model"].metrics]
    assert set(gains) <= set(page.numbers["test"])
    assert "Test, 54 users; 6 without targets left out" in page.texts["test"]
    assert "best epoch 3" in page.texts["training"]
    assert "1 of 2 held-out items" in page.texts["examples"]
    assert "dropped: no user id60" in page.texts["data"]
    assert "model.hidden_dims8, 4" in page.texts["settings"]


def test_groups_hold_every_target_and_every_user_once():
    run = facts(400)
    model = run.test["model"]
    rows = re.findall(r'"whole">.*?</tr>', draw(run))
    cells = [re.sub("<[^>]*>", "|", row) for row in rows]
    shares = [float(found[1]) for row in cells if (found := re.search(r"\|([\d.]+) %\|", row))]
    assert 3 < len(shares) <= 10
    assert sum(shares) == pytest.approx(100, abs=0.5)
    users = [int(re.findall(r"\|(\d+)\|", row)[0]) for row in cells if "%" not in row]
    assert sum(users) == model.users
    # Shares of groups, weighted by their targets, are the share of all.
    found = read(draw(run)).numbers["where"][: 2 * len(shares) : 2]
    assert np.dot(shares, found) / 100 == pytest.approx(model.details.found.mean(), abs=2e-3)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:12])
def test_text_of_others_stays_text(text):
    user = Example(text, 3, [text], [(text, True), (text, False)], 1)
    run = facts(examples=[user], place=text)
    m = run.metrics
    metrics = {**m, "data": {**m["data"], "name": text, "report": {**m["data"]["report"], "dropped": {text: 1}}}}
    drawn = draw(replace(run, metrics={**metrics, "config": {"path": text}, "made_from": text}))
    page = read(drawn)
    check_safe(page)
    assert page.sections == ALL
    assert len(drawn) < 100_000
    assert "\x1b" not in drawn
    assert "\u202e" not in drawn
    drawn.encode()


def changed(found, value):
    """A report whose numbers are all ``value``."""
    return replace(
        found,
        metrics=dict.fromkeys(found.metrics, value),
        per_user={name: np.full_like(values, value) for name, values in found.per_user.items()},
    )


def without_lists(found):
    return replace(found, details=replace(found.details, exposure={}))


def one_user(found):
    keep = found.details.users == 1
    details = replace(
        found.details, items=found.details.items[keep], users=np.zeros(1, np.int64), found=found.details.found[keep]
    )
    return replace(
        found, users=1, users_without_targets=0, details=details,
        per_user={name: values[1:2] for name, values in found.per_user.items()},
    )  # fmt: skip


def strange():
    """Name -> facts that a page must be drawn from."""
    run = facts()
    one = DataFacts(np.array([1]), np.array([1]))
    nan = {name: changed(found, float("nan")) for name, found in run.test.items()}
    users, items = np.array([3 * 10**9, 1]), np.array([10**9, 5, 1])
    return {
        "numbers that are none": replace(run, test=nan),
        "the same as popularity": replace(run, test=dict.fromkeys(run.test, run.test["model"])),
        "zeros": replace(run, test={name: changed(found, 0.0) for name, found in run.test.items()}),
        "one user": facts(2, history_lengths=np.array([1, 1])),
        "few users": facts(25),
        "one item": facts(items=1),
        "items that no user has": replace(run, popularity=np.where(np.arange(30) < 20, 0, run.popularity)),
        "one test user": facts(test={name: one_user(found) for name, found in run.test.items()}, users=1),
        "no details": facts(test={n: replace(report(seed=i), details=None) for i, n in enumerate(run.test)}),
        "sampled candidates": replace(run, test={name: without_lists(found) for name, found in run.test.items()}),
        "no times": replace(run, data=replace(run.data, time_edges=None, time_counts=None)),
        "one pair": replace(run, data=one),
        "times that are no dates": replace(run, data=replace(run.data, time_edges=np.linspace(0, 1e18, 41))),
        "an hour": replace(run, data=replace(run.data, time_edges=1e9 + np.linspace(0, 3600, 41))),
        "a month": replace(run, data=replace(run.data, time_edges=1e9 + np.linspace(0, 3e6, 41))),
        "milliseconds": replace(run, data=replace(run.data, time_edges=1e12 + np.linspace(0, 1e10, 41))),
        "huge counts": replace(run, data=DataFacts(users, items), popularity=run.popularity * 10**8),
        "no history": replace(run, history=()),
        "one epoch": replace(run, history=run.history[:1]),
        "no loss": replace(run, history=[{"iteration": 1.0 + i, "seconds": 0.0} for i in range(3)]),
        "the same loss": replace(run, history=[{"epoch": 1.0 + i, "loss": 0.0} for i in range(3)]),
        "a long training": replace(run, history=[{"epoch": 1.0 + i, "loss": 1 / (1 + i)} for i in range(5_000)]),
        "no validation": replace(run, metrics={k: v for k, v in run.metrics.items() if k != "validation"}),
        "no examples": replace(run, examples=(), no_examples="The split has no test user."),
        "metrics of the catalogue": facts(
            test={name: report(seed=3, metrics=("coverage@10",)) for name in run.test},
            metrics={"evaluation": {"metrics": ["coverage@10"], "monitor": "coverage@10", "protocol": "all"}},
        ),
    }


STRANGE = strange()


@pytest.mark.parametrize("name", STRANGE)
def test_strange_runs_have_a_page(name):
    text = draw(STRANGE[name])
    page = read(text)
    check_safe(page)
    assert len(text) < 120_000
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b", re.sub("<style>.*?</style>", "", text, flags=re.DOTALL))
    missing = {
        "no history": {"training"},
        "sampled candidates": {"coverage"},
        "no details": {"coverage"},
    }
    assert set(ALL) - set(page.sections) == missing.get(name, set())


def test_verdicts():
    low, high = changed(report(), 0.25), changed(report(), 0.5)
    for model, popularity, words in (
        (high, low, "0.2500 (0.2500 to 0.2500) above popularity, 0.2500"),
        (low, high, "0.2500 (0.2500 to 0.2500) below popularity, 0.5000"),
        (low, low, "The popularity baseline reaches the same"),
        (report(seed=1), report(seed=2), "includes 0"),
    ):
        assert words in read(draw(facts(test={"model": model, "popularity": popularity}))).texts["test"]
    assert isinstance(low, Report)


def test_a_page_that_cannot_be_drawn_loses_no_run(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.warns(TfrecWarning, match=r"(?s)report\.html could not be drawn; the rest .*ZeroDivisionError"):
        write_page(folder, lambda: 1 / 0)
    assert list(tmp_path.iterdir()) == []


# ---- pages of real runs ----------------------------------------------------------------------------------------------


def events(times, users=40, items=30):
    random = np.random.default_rng(0)
    pairs = random.permutation(users * items)[: users * 10]
    return Interactions(
        user_index=(pairs // items).astype(np.int32),
        item_index=(pairs % items).astype(np.int32),
        values=np.ones(len(pairs), np.float32),
        user_ids=np.array([f"{i} {HOSTILE[i % 5]}" for i in range(users)], object),
        item_ids=np.arange(items),
        timestamps=times(random, len(pairs)),
        item_titles=np.array([f"{TITLES[i % len(TITLES)]}{i}" for i in range(items)], object),
    )


@pytest.mark.parametrize(
    ("times", "order"),
    [
        (lambda random, n: None, "the order of the file"),
        (lambda random, n: np.full(n, 10**9, np.int64), "time"),
        (lambda random, n: random.permutation(n).astype(np.int64), "time"),
    ],
    ids=["no times", "equal times", "times"],
)
def test_a_run_on_hostile_data(times, order, tmp_path):
    log = events(times)
    run = fit("popularity", log, split="random_pairs", metrics=("ndcg@5",), monitor="ndcg@5", output_dir=tmp_path / "r")
    text = (run.folder / "report.html").read_text(encoding="utf-8")
    page = read(text)
    check_safe(page)
    assert page.sections == [name for name in ALL if name != "training"]
    assert run.metrics["test"]["model"]["ndcg@5"] in page.numbers["test"]
    assert f"the latest by {order}" in page.texts["examples"]
    assert page.texts["examples"].count("held-out item") == 10
    assert ("Pairs over time" in page.texts["data"]) == (log.timestamps is not None and np.ptp(log.timestamps) > 0)


def test_recommended_items_are_the_models(tmp_path):
    """All but the latest item is the history; the list is the one of `Recommender.recommend_to`, in its order."""
    log = events(lambda random, n: random.permutation(n).astype(np.int64))
    titles = [f"title {i}" for i in range(30)]
    log = replace(log, user_ids=np.arange(40), item_titles=np.array(titles, object))
    run = fit(
        "ease", log, split="latest_item", protocol="all", metrics=("ndcg@5",), monitor="ndcg@5",
        train_on_validation=True, output_dir=tmp_path / "r",
    )  # fmt: skip
    text = (run.folder / "report.html").read_text(encoding="utf-8")
    cards = re.findall(r"<article.*?<h3><bdi>(\d+)</bdi>.*?<ul>(.*?)</ul>.*?<ol>(.*?)</ol>", text, re.DOTALL)
    assert len(cards) == 10
    for user, latest, best in cards:
        rows = np.flatnonzero(log.user_index == int(user))
        *history, target = log.item_index[rows[np.argsort(log.timestamps[rows])]]
        assert re.findall(r"<bdi>(.*?)</bdi>", latest) == [titles[i] for i in history[:-6:-1]]
        wanted = run.recommender.recommend_to([history], k=10)["title"].to_pylist()
        assert re.findall(r"<bdi>(.*?)</bdi>", best) == wanted
        hits = re.findall(r'class="hit"><bdi>(.*?)</bdi>', best)
        assert hits == [title for title in wanted if title == titles[target]]
