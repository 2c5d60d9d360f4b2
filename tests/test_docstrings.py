"""Every example in a docstring runs and prints what it says; none is left out for where it stands."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import tfrec

# Neither the commands' entry points nor the native library, which is no Python module.
MODULES = [
    m.name for m in pkgutil.walk_packages(tfrec.__path__, "tfrec.") if not m.name.endswith(("__main__", "libtfrec_ops"))
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.failed == 0
    lines = Path(module.__file__).read_text(encoding="utf-8").splitlines()
    assert result.attempted == sum(line.strip().startswith(">>> ") for line in lines)
