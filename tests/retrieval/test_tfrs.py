"""To and from TensorFlow Recommenders, and what is told where it cannot be loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from tests.retrieval import tfrs_checks
from tfrec.errors import InputError
from tfrec.retrieval.legacy_keras import load_tfrs

ROOT = Path(__file__).parents[2]
VARIABLE = "TF_USE_LEGACY_KERAS"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Name of each check -> what went wrong, from one process for all of them."""
    file = tmp_path_factory.mktemp("tfrs") / "results.json"
    command = [sys.executable, "-m", "tests.retrieval.tfrs_checks", str(file)]
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", tfrs_checks.checks())
def test_with_tfrs(results, name):
    assert results[name] == "", results[name]


def test_too_late_and_not_before_it_is_asked_for():
    """tfrec does not load it, nor decide which Keras there is; a program that did gets an error."""
    code = (
        "import os, sys, tfrec.retrieval, tensorflow as tf\n"
        "tfrec.Recommender, tfrec.retrieval.to_tfrs, tfrec.retrieval.from_tfrs\n"
        "print('tensorflow_recommenders' in sys.modules, tf.keras)\n"
        "tf.keras.layers\n"
        "try: tfrec.retrieval.load_tfrs()\n"
        "except tfrec.errors.InputError as error: print(error)\n"
        f"print(os.environ.get('{VARIABLE}'))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    first, *error, last = done.stdout.splitlines()
    assert first == "False <KerasLazyLoader>"
    assert error[0].startswith("TensorFlow Recommenders must be loaded before anything uses tf.keras")
    assert error[1].startswith("Received: tf.keras is Keras 3.")
    assert last == "None"


@pytest.fixture
def undecided(monkeypatch):
    """A process that has not used tf.keras, as far as can be seen."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(tf, "keras", SimpleNamespace())


@pytest.mark.usefixtures("undecided")
def test_a_scann_that_does_not_load(monkeypatch, tmp_path):
    """As scann 1.4.2 with TensorFlow 2.21: TFRS expects ImportError alone."""
    (tmp_path / "scann.py").write_text(
        "import tensorflow as tf\nraise tf.errors.NotFoundError(None, None, 'undefined symbol: _ZN4absl\\nmore')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        InputError, match=r"(?s)scann.*Received: NotFoundError: undefined symbol: _ZN4absl\..*uninstall"
    ):
        load_tfrs()
    assert VARIABLE not in os.environ


@pytest.mark.usefixtures("undecided")
def test_packages_that_are_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(InputError, match=r"Received: no tf-keras\.\n.*'tfrec\[retrieval\]'"):
        load_tfrs()
    monkeypatch.setitem(sys.modules, "tensorflow_recommenders", None)
    with pytest.raises(InputError, match="Received: no tensorflow-recommenders and no tf-keras"):
        load_tfrs()
    assert VARIABLE not in os.environ


@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize("given", ["0", "false"])
def test_keras_3_was_asked_for(monkeypatch, given):
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(InputError, match=f"Received: {VARIABLE}={given}."):
        load_tfrs()
    assert os.environ[VARIABLE] == given
