"""Settings as they are saved, and as they are read back."""

import json

import pytest
from tfrec.configs import from_json, identity
from tfrec.recipes import RECIPES, named
from tfrec.training.run_folder import RunFolder


@pytest.mark.parametrize("recipe", RECIPES)
def test_read_back(recipe):
    saved = json.loads(json.dumps(identity(recipe, named(recipe))))
    assert from_json(named(recipe), saved) == named(recipe)


def test_a_run_that_is_older_than_a_setting(tmp_path):
    config = named("neumf-ncf-ml1m")
    saved = json.loads(json.dumps(identity("neumf-ncf-ml1m", config)))
    del saved["model"]["embedding_group"]
    assert from_json(config, saved) == config
    (tmp_path / "config.json").write_text(json.dumps({**saved, "data_sha256": None}))
    folder = RunFolder(tmp_path)
    assert folder.look("neumf-ncf-ml1m", config) is False  # the same run, and not complete


def test_a_setting_that_nobody_knows():
    config = named("neumf")
    saved = json.loads(json.dumps(identity("neumf", config)))
    with pytest.raises(KeyError, match="colour"):
        from_json(config, {**saved, "colour": "red"})
    del saved["data"]
    with pytest.raises(KeyError, match="data"):
        from_json(config, saved)
