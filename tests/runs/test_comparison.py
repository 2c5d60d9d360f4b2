"""Runs side by side: what is compared, with what, and what cannot be."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from tests import oracles
from tests.runs.fake_runs import per_user, write_run
from tfrec.errors import InputError
from tfrec.runs.comparison import compare_runs
from tfrec.runs.comparison_shown import as_text, write_picture


@pytest.fixture
def three(tmp_path):
    """Two runs of about the same quality, and one that is clearly worse, by both metrics."""
    write_run(tmp_path / "a", per_user(1))
    write_run(tmp_path / "b", per_user(2, lead=0.001))
    write_run(tmp_path / "c", per_user(3, lead=-0.1), recipe="als-ml1m")
    return [tmp_path / name for name in "abc"]


def test_the_others_are_compared_with_the_best(three):
    found = compare_runs(three, metrics=["ndcg@10", "hit_rate@10"], samples=2_000)
    means = {p.name: np.nanmean(per_user(i, lead=lead)["ndcg@10"])
             for p, i, lead in zip(three, (1, 2, 3), (0.0, 0.001, -0.1), strict=True)}  # fmt: skip
    best = max(means, key=means.get)
    assert (found.baseline, found.best_by) == (best, "ndcg@10")
    assert [(p.metric, p.run) for p in found.paired] == [
        (metric, run) for metric in ("ndcg@10", "hit_rate@10") for run in "abc" if run != best
    ]
    for paired in found.paired[:2]:
        assert paired.value == pytest.approx(means[paired.run])
        assert paired.difference == pytest.approx(means[paired.run] - means[best])
        assert paired.low < paired.difference < paired.high
    assert (found.users, found.users_left_out) == (392, 8)
    worse = [p for p in found.paired if p.run == "c"]
    assert all(p.p_holm < 0.01 and p.high < 0 for p in worse)
    near = next(p for p in found.paired if p.metric == "ndcg@10" and p.run != "c")
    assert near.p_value > 0.05
    assert near.low < 0 < near.high


def test_a_baseline_of_ones_own(three, monkeypatch):
    monkeypatch.chdir(three[0].parent)
    found = compare_runs(three, three[2], samples=200)
    assert (found.baseline, found.best_by) == ("c", None)
    assert {p.run for p in found.paired} == {"a", "b"}
    assert all(p.difference > 0 for p in found.paired)
    assert compare_runs(three, Path(os.path.relpath(three[2])), samples=200).baseline == "c"
    with pytest.raises(InputError, match="baseline must be one of the runs"):
        compare_runs(three[:2], three[2])


def test_few_users_are_compared_exactly(tmp_path):
    a = np.array([0.5, 1.0, 0.25, np.nan, 0.0, 0.75, 0.5, 0.5])
    b = np.array([0.0, 0.5, 0.50, np.nan, 0.0, 0.50, 0.0, np.nan])
    c = np.array([0.5, 0.0, 0.00, np.nan, 0.0, 0.00, 0.0, 0.00])
    ids = np.array(list("stuvwxyz"))
    paths = [write_run(tmp_path / n, {"ndcg@10": v}, ids=ids) for n, v in zip("abc", (a, b, c), strict=True)]
    found = compare_runs(paths, metrics=["ndcg@10"])
    both = np.isfinite(a + b + c)
    wanted = [oracles.sign_flip_p((v - a)[both]) for v in (b, c)]
    assert [p.p_value for p in found.paired] == pytest.approx(wanted)
    assert [p.p_holm for p in found.paired] == pytest.approx(oracles.holm(wanted))
    assert [p.difference for p in found.paired] == pytest.approx([np.mean((v - a)[both]) for v in (b, c)])
    assert (found.users, found.users_left_out) == (6, 2)


def test_what_the_runs_monitored_comes_first(three):
    found = compare_runs(three, samples=50)
    assert found.metrics == ["hit_rate@10", "ndcg@10", "coverage@10"]
    assert found.best_by == "hit_rate@10"
    # Coverage is a number of all users together.
    assert {p.metric for p in found.paired} == {"hit_rate@10", "ndcg@10"}


def test_equal_runs(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    found = compare_runs([tmp_path / "a", tmp_path / "b"], samples=50)
    assert all((p.difference, p.low, p.high, p.p_value) == (0, 0, 0, 1) for p in found.paired)
    assert found.best("ndcg@10") == ["a", "b"]


def test_the_same_seed_gives_the_same_numbers(three):
    one, two, other = (compare_runs(three, samples=200, seed=seed).to_json() for seed in (5, 5, 6))
    assert one == two
    assert one["differences"] != other["differences"]
    assert one == json.loads(json.dumps(one, allow_nan=False))


def test_two_folders_of_one_name(tmp_path):
    paths = [write_run(tmp_path / place / "run", per_user(i)) for i, place in enumerate(("x", "y"))]
    assert [run.name for run in compare_runs(paths, samples=50).runs] == [str(path) for path in paths]


def test_names_are_printed_safely(tmp_path):
    paths = [
        write_run(tmp_path / "a\x1b[2J", per_user(1), recipe="r\n0.9999*"),
        write_run(tmp_path / "$b_{1", per_user(2), others={"oracle\x07": {"ndcg@10": 0.9}}),
    ]
    found = compare_runs(paths, samples=50)
    text = as_text(found)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert r"a\x1b[2J" in text
    assert r"r\n0.9999*" in text
    write_picture(tmp_path / "p.png", found)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_references_are_shown_once_where_runs_agree(tmp_path):
    write_run(tmp_path / "a", per_user(1), others={"oracle": {"ndcg@10": 0.75, "hit_rate@10": None}})
    write_run(tmp_path / "b", per_user(2), others={"popularity": {"ndcg@10": 0.5, "hit_rate@10": 0.5}})
    found = compare_runs([tmp_path / "a", tmp_path / "b"], metrics=["ndcg@10", "hit_rate@10"], samples=50)
    assert list(found.references) == ["popularity", "oracle", "popularity of b"]
    assert found.references["popularity"] == {"ndcg@10": 0.125, "hit_rate@10": 0.125}
    assert math.isnan(found.references["oracle"]["hit_rate@10"])
    assert found.to_json()["references"]["oracle"] == {"ndcg@10": 0.75, "hit_rate@10": None}


def refused(tmp_path, message="Received: ", *, values=None, **changes):
    a, b = write_run(tmp_path / "a", values), write_run(tmp_path / "b", values, **changes)
    with pytest.raises(InputError, match=message) as raised:
        compare_runs([a, b])
    return str(raised.value)


def test_another_split(tmp_path):
    message = refused(
        tmp_path, "only where the test asks the same",
        split={"sha256": "cd" * 32, "name": "random_pairs", "users": 7}, data={"min_user_events": 5},
    )  # fmt: skip
    assert "a and b, which differ in" in message
    assert "data.min_user_events: 0 -> 5" in message
    assert 'split.name: "by_time" -> "random_pairs"' in message
    assert "split.users: 400 -> 7" in message
    assert "sha256" not in message
    assert "data.dir" not in message


def test_another_split_of_which_nothing_else_is_noted(tmp_path):
    assert "split.sha256: " in refused(tmp_path, "asks the same", split={"sha256": "cd" * 32})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": {"ties": "optimistic"}}, 'evaluation.ties: "expected" -> "optimistic"'),
        ({"evaluation": {"protocol": "exact"}}, 'evaluation.protocol: "all" -> "exact"'),
        ({"evaluation": {"gains": "linear"}}, 'evaluation.gains: "binary" -> "linear"'),
        ({"ids": np.arange(400)}, "the users in test_users.arrow"),
        ({"ids": np.arange(400)[::-1] * 3}, "the users in test_users.arrow"),
        ({"ids": np.arange(0, 1200, 3).astype(str)}, "the users in test_users.arrow"),
        ({"test": {"ndcg@10": 0.123}}, "metrics.json and test_users.arrow of"),
    ],
)
def test_what_was_measured_in_another_way(tmp_path, changes, message):
    assert message in refused(tmp_path, **changes)


def test_other_candidates(tmp_path):
    a = write_run(tmp_path / "a", evaluation={"protocol": "exact"})
    b = write_run(tmp_path / "b", evaluation={"protocol": "exact", "negatives": 50, "seed": 1})
    with pytest.raises(InputError, match=r"evaluation.negatives: 99 -> 50\n  evaluation.seed: 0 -> 1"):
        compare_runs([a, b])


def test_what_does_not_matter(tmp_path):
    a = write_run(tmp_path / "a")
    b = write_run(tmp_path / "b", evaluation={"block_users": 7, "negatives": 5, "monitor": "ndcg@10"})
    assert compare_runs([a, b], samples=50).metrics == ["ndcg@10", "hit_rate@10", "coverage@10"]


def test_folders_that_are_no_runs(tmp_path):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    with pytest.raises(InputError, match="at least two runs"):
        compare_runs([a])
    with pytest.raises(InputError, match="at least two runs"):
        compare_runs([])
    (tmp_path / "link").symlink_to(a)
    for again in (a, tmp_path / "b" / ".." / "a", tmp_path / "link"):
        with pytest.raises(InputError, match="compared once"):
            compare_runs([a, b, again])
    for path in (tmp_path / "nowhere", a / "metrics.json"):
        with pytest.raises(InputError, match="A run must be a folder"):
            compare_runs([a, path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="with a metrics.json"):
        compare_runs([a, tmp_path / "empty"])
    (b / "test_users.arrow").unlink()
    with pytest.raises(InputError, match="test_users.arrow.*\n.*\n?.*older version"):
        compare_runs([a, b])


@pytest.mark.parametrize("name", ["metrics.json", "test_users.arrow"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"ARROW1\0\0", None])
def test_damage(tmp_path, name, damage):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    file = b / name
    file.write_bytes(file.read_bytes()[:-300] if damage is None else damage)
    with pytest.raises(InputError, match=f"{name} is damaged"):
        compare_runs([a, b])


def test_metrics(three, tmp_path):
    with pytest.raises(InputError, match="recall@5, which a has not.\nAll have ndcg@10"):
        compare_runs(three, metrics=["recall@5"])
    with pytest.raises(InputError, match="each metric once"):
        compare_runs(three, metrics=["ndcg@10", "ndcg@10"])
    with pytest.raises(InputError, match="measured for each user.\nReceived: coverage@10"):
        compare_runs(three, metrics=["coverage@10"])
    with pytest.raises(InputError, match="`samples`"):
        compare_runs(three, samples=0)
    other = write_run(tmp_path / "other", {"mrr@10": per_user()["ndcg@10"]}, test={"coverage@10": None})
    assert compare_runs([*three[:2]], metrics=["coverage@10", "ndcg@10"], samples=50).best_by == "coverage@10"
    with pytest.raises(InputError, match="measured for each user"):
        compare_runs([three[0], other])
