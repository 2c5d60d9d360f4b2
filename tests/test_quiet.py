"""TensorFlow's start-up notices are held back where tfrec loads it, and nothing else."""

import os
import subprocess
import sys

import pytest

from tfrec import quiet


@pytest.mark.parametrize("first", ["import tfrec; tfrec.ALS", "from tfrec.recommender import Recommender"])
def test_a_script_prints_what_it_prints(first):
    """Whatever level is asked for: the notices come past it."""
    code = f"import sys; {first}; print('mine'); print('mine too', file=sys.stderr)"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == ("mine\n", "mine too\n")


def test_other_lines_are_passed_on(capfd):
    with quiet.without_notices():
        os.write(2, b"I0000 00:00 port.cc:153] oneDNN custom operations are on. You may\n")
        os.write(2, b"E0000 out of memory\n")
    assert capfd.readouterr().err == "E0000 out of memory\n"


def test_a_program_that_loaded_tensorflow_keeps_its_level(monkeypatch):
    import tensorflow  # noqa: F401

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    quiet.load_tensorflow(whatever_level=True)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"
