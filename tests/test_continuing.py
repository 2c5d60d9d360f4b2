"""A run that starts from an earlier one, on newer data."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.starting import SMALL_DATA, run
from tests.tasks.made import log
from tfrec.data import Interactions, Synthetic
from tfrec.errors import InputError
from tfrec.fitting import fit
from tfrec.runs.checkpoint import _variables

ONE = {"metrics": ["ndcg@10"], "monitor": "ndcg@10"}
FAMILIES = {
    "als": {"factors": 8, "iterations": 4},
    "vae-cf": {"hidden_dims": [16], "latent_dim": 8, "epochs": 2, "split": "random_pairs", "global_batch_size": 40},
    "neumf": {"mf_dim": 8, "layer_dims": [8, 4], "epochs": 2, "evaluation.protocol": "all", "split": "random_pairs"},
}


def text_ids(events):
    return replace(
        events,
        user_ids=np.array([f"u{u:04}" for u in events.user_ids], dtype=object),
        item_ids=np.array([f"i{i:04}" for i in events.item_ids], dtype=object),
    )


@pytest.fixture(scope="module")
def days():
    """Yesterday's events, and today's: all of those, 20 users more, and 5 items more."""
    today = log(120, 60, 3_000)
    known = (today.user_index < 100) & (today.item_index < 55)
    yesterday = Interactions(
        today.user_index[known], today.item_index[known], today.values[known], today.user_ids[:100],
        today.item_ids[:55], today.timestamps[known], today.item_titles[:55],
    )  # fmt: skip
    return yesterday, today


@pytest.fixture(scope="module")
def before(days, tmp_path_factory):
    """A run of yesterday for each family."""
    folder = tmp_path_factory.mktemp("yesterday")
    return {
        family: fit(family, days[0], **options, **ONE, output_dir=folder / family)
        for family, options in FAMILIES.items()
    }


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_is_known_carries_over_bit_by_bit(days, before, family, tmp_path, monkeypatch, capsys):
    """Looked at before the first round."""
    from tfrec.families import FAMILIES as FOUND

    begun = {}
    make = FOUND[family].trainer

    def watched(config, data):
        trainer = make(config, data)
        real = trainer.fit

        def fitted(*arguments):
            begun["weights"] = {name: np.array(v) for name, v in _variables(trainer.model, False).items()}
            begun["users"], begun["items"] = data.user_ids, data.item_ids
            return real(*arguments)

        trainer.fit = fitted
        return trainer

    monkeypatch.setattr(FOUND[family], "trainer", watched)
    options = {**FAMILIES[family], **ONE, "continue_run": before[family].folder}
    fit(family, days[1], **options, output_dir=tmp_path / "today")
    assert "100 of 120 users" in capsys.readouterr().out or family == "vae-cf"
    old = before[family].recommender
    ids = {"users": old.vocabulary.user_ids, "items": old.vocabulary.item_ids}
    place = {
        side: [ids[side].tolist().index(raw) if raw in set(ids[side].tolist()) else -1 for raw in begun[side].tolist()]
        for side in ids
    }
    compared = 0
    for name, variable in _variables(old.model, False).items():
        was, now = np.asarray(variable), begun["weights"][name]
        if was.shape == now.shape:
            continue
        (axis,) = (a for a in range(was.ndim) if was.shape[a] != now.shape[a])
        side = "users" if was.shape[axis] == 100 else "items"
        known = np.array(place[side]) >= 0
        np.testing.assert_array_equal(
            np.compress(known, now, axis), np.take(was, np.array(place[side])[known], axis), err_msg=name
        )
        # The rows of new ones are the model's own, not somebody else's.
        assert np.isfinite(now).all()
        compared += 1
    assert compared >= 2


def test_the_next_day_needs_fewer_rounds(tmp_path):
    """Against a threshold that both reach: the model that starts from yesterday's is there sooner."""
    planted = Synthetic(num_users=500, num_items=120, popularity=0.5)
    events = planted.interactions()
    yesterday = np.random.default_rng(1).random(len(events)) < 0.97
    first = Interactions(
        events.user_index[yesterday], events.item_index[yesterday], events.values[yesterday], events.user_ids,
        events.item_ids,
    )  # fmt: skip
    options = {
        **ONE, "hidden_dims": (), "latent_dim": 16, "epochs": 30, "learning_rate": 0.01, "global_batch_size": 50,
        "split": "random_pairs",
    }  # fmt: skip
    before = fit("vae-cf", first, **options, patience=5, output_dir=tmp_path / "yesterday")
    threshold = 0.9 * before.metrics["validation"]["model"]["ndcg@10"]
    rounds = [
        fit("vae-cf", events, **options, threshold=threshold, output_dir=tmp_path / name, **more).metrics["training"][
            "epochs"
        ]
        for name, more in (("cold", {}), ("warm", {"continue_run": before.folder}))
    ]
    assert rounds[1] < rounds[0] < 30


def test_what_cannot_be_continued(days, before, tmp_path):
    yesterday, today = days
    options = {**FAMILIES["als"], **ONE, "output_dir": tmp_path / "today"}
    als = before["als"].folder
    fewer = replace(
        yesterday, item_index=np.minimum(yesterday.item_index, 40), item_ids=yesterday.item_ids[:41], item_titles=None
    )
    with pytest.raises(InputError, match="(?s)must have all items of the run.*14 of 55 are missing, such as"):
        fit("als", fewer, **options, continue_run=als)
    with pytest.raises(InputError, match="(?s)user ids of the run are numbers, those of the data text.*--continue"):
        fit("als", text_ids(today), **options, continue_run=als)
    with pytest.raises(InputError, match="(?s)continued by its own family only.*which is of vae-cf, for als"):
        fit("als", today, **options, continue_run=before["vae-cf"].folder)
    with pytest.raises(InputError, match="not the folder of a finished run"):
        fit("als", today, **options, continue_run=tmp_path / "nowhere")
    with pytest.raises(InputError, match="(?s)must have the form of this model; expected .*120, 4.*100, 8"):
        fit("als", today, **{**options, "factors": 4}, continue_run=als)
    assert not (tmp_path / "today").exists()


def test_text_ids_carry_over(days, tmp_path, capsys):
    options = {**FAMILIES["als"], **ONE}
    first = fit("als", text_ids(days[0]), **options, output_dir=tmp_path / "yesterday")
    fit("als", text_ids(days[1]), **options, continue_run=first.folder, output_dir=tmp_path / "today")
    assert "100 of 120 users and 55 of 60 items carry over" in capsys.readouterr().out


@pytest.mark.parametrize(("version", "words"), [(None, "an earlier"), (1, "another"), (3, "another")])
def test_runs_of_other_versions_are_refused_by_every_command(before, tmp_path, version, words):
    """In a line, before anything is written."""
    shutil.copytree(before["als"].folder, tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    path = tmp_path / "run" / "config.json"
    saved = json.loads(path.read_text())
    saved.pop("format")
    path.write_text(json.dumps(saved if version is None else {**saved, "format": version}))
    for command, arguments in (
        ("evaluate", ["run"]),
        ("recommend", ["run", "--user", "10"]),
        ("export", ["run", "out"]),
        ("train", ["als", *SMALL_DATA, "--output-dir", "run"]),
        ("train", ["als", *SMALL_DATA, "--continue", "run", "--output-dir", "new"]),
    ):
        _, err = run(command, *arguments, cwd=tmp_path, code=2)
        line, _ = err.strip().splitlines()
        assert line.startswith("error: ")
        assert f"is a run of {words} version of tfrec, which this one does not read" in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_a_family_that_there_is_not(before, tmp_path):
    shutil.copytree(before["als"].folder, tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "family": "sasrec"}))
    for command, arguments in (
        ("evaluate", ["run"]),
        ("recommend", ["run", "--user", "10"]),
        ("export", ["run", "out"]),
    ):
        _, err = run(command, *arguments, cwd=tmp_path, code=2)
        assert "The family must be one of those that exist.\nReceived: sasrec.\nFamilies: vae-cf, neumf, als" in err
