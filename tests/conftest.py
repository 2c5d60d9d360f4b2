"""What all tests share."""

import os
from pathlib import Path

import numpy as np
import pytest

from tfrec import commands

commands.quiet_tensorflow()


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is not None:
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            pytest.skip("needs a GPU")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Tests neither read nor fill the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def float32_policy():
    """A test that sets a dtype policy does not set it for the next one."""
    yield
    import keras

    keras.config.set_dtype_policy("float32")


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def real_data():
    """The folder with real data sets, or a skip that says what is missing."""

    def folder(name: str) -> Path:
        root = os.environ.get("TFREC_DATA")
        if not root:
            pytest.skip(f"needs {name}: TFREC_DATA names no folder with real data sets")
        if not (Path(root) / name).is_dir():
            pytest.skip(f"needs {name}, which {root} does not have")
        return Path(root)

    return folder
