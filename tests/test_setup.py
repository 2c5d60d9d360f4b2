"""Which GPUs the native library is compiled for."""

import importlib.util
import os
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / "setup.py"


@pytest.fixture
def build(monkeypatch, tmp_path):
    """setup.py as a module, on a machine whose nvidia-smi and nvcc print what a test says."""
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    spec = importlib.util.spec_from_file_location("tfrec_setup", SETUP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDACXX", raising=False)

    def machine(capabilities: str, status: int = 0, nvcc: str = "compute_75 compute_80 compute_90 compute_100"):
        for name, text, code in (("nvidia-smi", capabilities, status), ("nvcc", nvcc, 0)):
            script = tmp_path / name
            script.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {code}\n")
            script.chmod(0o755)
        return module

    return machine


@pytest.mark.parametrize(
    ("capabilities", "auto", "must"),
    [
        (r"9.0\n9.0\n", "90", "75-real;80-real;90"),
        (r"7.5\n", "75", "75-real;80-real;90"),
        (r"8.0\n9.0\n", "80-real;90", "75-real;80-real;90"),
        (r"10.0\n", "100", "75-real;80-real;90-real;100"),
        # Older than what nvcc knows; newer; no driver.
        (r"7.0\n", "80", "75-real;80-real;90"),
        (r"12.0\n", "80", "75-real;80-real;90"),
        (r"[N/A]\n", "80", "75-real;80-real;90"),
    ],
)
def test_architectures_of_the_gpus_at_hand(build, capabilities, auto, must):
    module = build(capabilities)
    assert module.cuda_architectures("auto") == auto
    assert module.cuda_architectures("1") == must


def test_no_driver(build, capsys):
    assert build("NVIDIA-SMI has failed", status=9).cuda_architectures("auto") == "80"
    assert "CUDA_CACHE_MAXSIZE" in capsys.readouterr().out


@pytest.mark.parametrize("indent", ["    ", "\t"])
def test_the_tensorflow_that_an_isolated_build_asks_for(build, monkeypatch, tmp_path, indent):
    """setuptools writes the setup.cfg of a source archive with tabs."""
    (tmp_path / "setup.cfg").write_text(
        f"[options]\ninstall_requires =\n{indent}keras >=3\n{indent}tensorflow ==2.7.*\n{indent}tensorboard >=2\n"
        f"[options.extras_require]\ncuda =\n{indent}tensorflow[and-cuda] ==2.7.*\n"
    )
    module = build("")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert module.build_requirements()[0] == "tensorflow ==2.7.*"
