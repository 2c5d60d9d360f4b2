"""From Python: a recipe and data in, a run and its recommender out."""

import json
from dataclasses import replace

import numpy as np
import pytest

import tfrec
from tests.tasks.made import in_parts, log
from tfrec.data import Interactions
from tfrec.errors import InputError
from tfrec.evaluate import Arguments as Evaluate
from tfrec.evaluate import evaluate
from tfrec.families import RECIPES
from tfrec.families.als import ALSConfig, ALSRun
from tfrec.fitting import fit, named, with_options

#: A small and quick ALS, measured by one metric.
ONE_METRIC = {"metrics": ["ndcg@10"], "monitor": "ndcg@10"}
QUICK = {"factors": 4, "iterations": 3, **ONE_METRIC}


@pytest.fixture(scope="module")
def data():
    """Text ids with letters of all kinds, and titles."""
    events = log(60, 30, 700)
    return replace(
        events,
        user_ids=np.array([f"käufer {u:02}" for u in range(60)], dtype=object),
        item_ids=np.array([f"sku-{i:02} 🎬" for i in range(30)], dtype=object),
    )


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return fit("als", data, **QUICK, output_dir=tmp_path_factory.mktemp("fit") / "run")


def test_it_is_the_run_that_the_command_makes(run, data):
    assert run.metrics == json.loads((run.folder / "metrics.json").read_text())
    assert run.metrics["config"]["model"]["factors"] == 4
    assert run.metrics["config"]["data"]["name"] == "in-memory"
    assert 0 < run.metrics["test"]["model"]["ndcg@10"] < 1
    table = run.recommender.recommend(["käufer 07"], k=3)
    assert set(table["item"].to_pylist()) <= set(data.item_ids.tolist())
    assert tfrec.Recommender.load(run.folder).recommend(["käufer 07"], k=3).equals(table)
    assert tfrec.fit is fit


def test_the_same_again_trains_nothing_and_other_data_is_told(run, data, capsys):
    again = fit("als", data, **QUICK, output_dir=run.folder)
    assert "has this run already" in capsys.readouterr().out
    assert again.metrics == run.metrics
    other = replace(data, values=data.values + 1)
    with pytest.raises(InputError, match="(?s)has a run with another config.*--no-resume"):
        fit("als", other, **QUICK, output_dir=run.folder)
    replaced = fit("als", data, **QUICK, output_dir=run.folder, resume=False)
    assert replaced.metrics["test"] == run.metrics["test"]


def test_data_in_memory_cannot_be_read_again(run):
    with pytest.raises(InputError, match="(?s)handed over in Python.*Recommender.load"):
        evaluate(Evaluate(run.folder))


def test_a_folder_for_each_data_and_configuration(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {
        fit("popularity", data, **ONE_METRIC).folder,
        fit("popularity", replace(data, values=data.values * 2), **ONE_METRIC).folder,
        fit("popularity", data, **ONE_METRIC, split="random_pairs").folder,
    }
    assert len(folders) == 3
    assert all(folder.parent.name == "runs" and folder.name.startswith("popularity-") for folder in folders)


def test_options_by_their_names():
    _, config = named("als")
    changed = with_options(config, {"factors": 64, "split": "by_time", "seed": 5, "evaluation.seed": 3})
    assert (changed.model.factors, changed.data.split, changed.seed, changed.evaluation.seed) == (64, "by_time", 5, 3)
    changed = with_options(config, {"synthetic.num_users": 7, "data.synthetic.num_items": 8, "metrics": ["mrr"]})
    assert (changed.data.synthetic.num_users, changed.data.synthetic.num_items) == (7, 8)
    assert changed.evaluation.metrics == ("mrr",)
    assert with_options(config, {}) == config
    assert with_options(config, {"output_dir": "x/y", "test_path": "z.csv"}).output_dir.name == "y"
    assert with_options(config, {"seed": np.int64(3)}).seed == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 64}, "(?s)An option must be one of the recipe's.\nReceived: factor=64.\nDid you mean .*factors"),
        ({"zzzzzz": 1}, "Options: .*factors"),
        ({"num_users": 9}, "(?s)An option must name one setting.*data.synthetic.num_users, data.catalog.num_users"),
        ({"model.seed": 9}, "An option must be one of the recipe's"),
        ({"factors": 0, **ONE_METRIC}, "`factors` must be a whole number from 1"),
        ({"factors": "many"}, "`model.factors` must be a whole number. Received: 'many'"),
        ({"refit": 1}, "`training.refit` must be true or false. Received: 1"),
        ({"metrics": "ndcg@10"}, "(?s)`evaluation.metrics` must be .*Received: 'ndcg@10'"),
        ({"alpha": float("nan")}, "`model.alpha` must be a finite number"),
        ({"metrics": ["ndgc@5"]}, "ndgc"),
        ({"metrics": ["ndcg@10"], "monitor": "ndcg@5"}, "must be one of the metrics"),
        ({"split": "by_day"}, "`data.split` must be 'held_out_users' or .*Received: 'by_day'"),
    ],
    ids=str,
)
def test_options_that_there_are_not(data, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        fit("als", data, output_dir=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_recipes():
    assert named("als-lastfm")[1] == RECIPES["als-lastfm"]()
    mine = ALSRun(model=ALSConfig(factors=3))
    assert named(mine) == ("als", mine)
    with pytest.raises(
        InputError, match="(?s)must be one of those that exist.\nReceived: 'vae_cf'.\nDid you mean 'vae-cf'?"
    ):
        named("vae_cf")


def test_parts_that_are_given(data, tmp_path):
    train, validation, test = in_parts(data, 0.7, 0.1, 0.2)
    run = fit("als", (train, validation, test), **QUICK, output_dir=tmp_path / "three")
    assert run.metrics["split"]["name"] == "given"
    # One source, cut in three: nothing is in two of them.
    assert [run.metrics["split"][n] for n in ("train_events", "validation_targets", "test_targets")] == [
        len(train), len(validation), len(test)
    ]  # fmt: skip
    run = fit("als", (train, None, test), **QUICK, output_dir=tmp_path / "two")
    split = run.metrics["split"]
    assert split["train_events"] + split["validation_targets"] == len(train)
    assert split["test_targets"] == len(test)
    # Somebody whom training does not have is left out, and counted.
    more = Interactions(
        np.append(test.user_index, 60).astype(np.int32), np.append(test.item_index, 3).astype(np.int32),
        np.ones(len(test) + 1, np.float32), np.append(test.user_ids, "zz"), test.item_ids,
    )  # fmt: skip
    run = fit("als", (train, None, more), **QUICK, output_dir=tmp_path / "unknown")
    assert run.metrics["data"]["report"]["dropped"] == {"of users unknown to training (test)": 1}


def test_refit_ships_everybody(data, tmp_path):
    """Held-out users and all they have are in the model that is shipped; what was measured is the one before."""
    options = {**QUICK, "split": "held_out_users"}
    plain = fit("als", data, **options, output_dir=tmp_path / "plain")
    run = fit("als", data, **options, refit=True, output_dir=tmp_path / "run")
    assert run.metrics["test"] == plain.metrics["test"]
    assert run.recommender.model.num_users == 60 > plain.recommender.model.num_users
    assert run.metrics["shipped"]["trained_on"] == "everything"
    assert "measured" in run.metrics["shipped"]["words"].lower()


def test_the_config_is_that_of_the_run_and_no_other(run, data, tmp_path):
    """What is written says all that is needed to make the run again."""
    saved = json.loads((run.folder / "config.json").read_text())
    assert saved["family"] == "als"
    assert saved["format"] == 2
    assert saved["data"]["in_memory"] == saved["data_sha256"]


def test_a_wrong_setting_is_told_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("tfrec.fitting.read_source", lambda *_: pytest.fail("read"))
    for options in ({"epochs": 0}, {"learning_rate": -1.0}, {"heldout_users": 3, "split": "by_time"}):
        with pytest.raises(InputError):
            fit("vae-cf", **options, output_dir=tmp_path / "run")


def votes(num_users=40, num_items=20):
    """Users like the items of their own parity, and dislike others."""
    random = np.random.default_rng(3)
    users, items = np.nonzero(random.random((num_users, num_items)) < 0.6)
    return Interactions(
        user_index=users.astype(np.int32),
        item_index=items.astype(np.int32),
        values=np.where(users % 2 == items % 2, 1.0, -1.0).astype(np.float32),
        user_ids=np.arange(num_users),
        item_ids=np.arange(num_items),
        kind="votes",
    )


@pytest.mark.parametrize(("recipe", "least"), [("ease", 0), ("popularity", 0), ("als", -1)])
def test_dislikes_are_met_and_given_only_to_a_model_that_takes_them(tmp_path, recipe, least):
    events = votes()
    run = fit(recipe, events, split="random_pairs", metrics=("ndcg@5",), output_dir=tmp_path / "run")
    recommender = run.recommender
    histories = recommender.vocabulary.histories
    assert histories.nnz == len(events)  # all that was met, so that none of it is recommended
    assert histories.data.min() == least
    place = {user: row for row, user in enumerate(recommender.vocabulary.user_ids.tolist())}
    liked = np.bincount(events.user_index[events.values > 0], minlength=events.num_users)
    assert [int((histories[place[u]].data > 0).sum()) for u in range(5)] == liked[:5].tolist()
    assert f"0 has {liked[0]} items" in recommender.describe(0)


def test_no_validation_is_told_before_work_starts(tmp_path):
    with pytest.raises(
        InputError, match=r"(?s)The validation part must have something to predict.*--data.validation-share 0.0"
    ):
        fit("popularity", votes(), split="random_pairs", validation_share=0.0, output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
