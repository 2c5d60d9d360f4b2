"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import tfrec

# Neither the commands' entry points nor the native library, which is no Python module.
MODULES = [
    m.name for m in pkgutil.walk_packages(tfrec.__path__, "tfrec.") if not m.name.endswith(("__main__", "libtfrec_ops"))
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
