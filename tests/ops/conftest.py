"""What the tests of the operations share."""

import pytest

from tfrec import ops


@pytest.fixture(params=["native", "twin"])
def kernels(request, monkeypatch):
    """Runs a test on both implementations of the operations that the test module's ``WRAPPER``, a module, wraps."""
    if request.param == "twin":
        monkeypatch.setattr(request.module.WRAPPER, "library", lambda: None)
    elif ops.library() is None:
        pytest.skip("needs the native library: TFREC_BUILD_OPS=1 pip install -e .")
    return request.param
