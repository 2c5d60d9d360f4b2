"""launch/setup --cuda says what does not fit together before it builds anything: toolkit, driver, GPUs."""

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parent.parent / "launch"


@pytest.fixture(scope="module")
def cuda():
    spec = spec_from_file_location("launch_cuda", LAUNCH / "cuda_fits.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


H100, A100, T4, V100 = (("H100", (9, 0)), ("A100", (8, 0)), ("T4", (7, 5)), ("V100", (7, 0)))
NONE = ()


@pytest.mark.parametrize(
    ("toolkit", "driver", "reaches", "gpus", "errors", "warnings"),
    [
        # Whether a driver is new enough for a toolkit.
        ((12, 0), (525, 60, 13), (12, 0), [A100], NONE, NONE),
        ((12, 9), (525, 60, 13), (12, 0), [A100], NONE, NONE),
        ((12, 5), (520, 61, 5), (11, 8), [A100], ["driver is 520.61.5", ">= 525"], NONE),
        ((13, 0), (580, 65, 6), (13, 0), [H100], NONE, NONE),
        ((13, 1), (580, 65, 6), (13, 0), [H100], NONE, NONE),
        ((13, 0), (570, 86, 10), (12, 8), [H100], ["driver is 570.86.10", ">= 580", "a driver >= 525 will do"], NONE),
        ((13, 0), (470, 57, 2), (11, 4), [A100], ["driver is 470.57.2", ">= 580. Install a newer driver"], NONE),
        # NVIDIA's forward compatibility package: an old driver, but it goes up to CUDA 13.
        ((13, 0), (550, 54, 15), (13, 0), [A100], NONE, NONE),
        ((13, 0), (580, 65, 6), None, [A100], NONE, NONE),
        ((13, 0), (550, 54, 15), None, [A100], ["driver is 550.54.15"], NONE),
        # No driver: a machine to build on.
        ((13, 0), None, None, [], NONE, ["no NVIDIA driver here", ">= 580"]),
        ((12, 5), None, None, [], NONE, ["no NVIDIA driver here", ">= 525"]),
        # Toolkits of another major version.
        ((11, 8), (580, 65, 6), (13, 0), [A100], ["toolkit is 11.8", "of CUDA 12.5"], NONE),
        ((14, 0), None, None, [], ["toolkit is 14.0"], NONE),
        # GPUs.
        ((12, 5), (580, 65, 6), (13, 0), [T4], NONE, NONE),
        ((12, 5), (580, 65, 6), (13, 0), [V100], ["older than compute capability 7.5: V100 (7.0)"], NONE),
        ((12, 5), (580, 65, 6), (13, 0), [V100, A100], NONE, ["V100 (7.0) is older", "CUDA_VISIBLE_DEVICES"]),
        # TensorFlow's wheels have no machine code for 9.0.
        ((12, 2), (535, 54, 3), (12, 2), [H100], NONE, ["H100 (9.0)", ">= 555"]),
        ((12, 2), (535, 54, 3), (12, 2), [A100], NONE, NONE),
        ((12, 2), (535, 54, 3), (12, 5), [H100], NONE, NONE),
    ],
)
def test_what_fits(cuda, toolkit, driver, reaches, gpus, errors, warnings):
    said = cuda.problems(toolkit, driver, reaches, gpus)
    for texts, expected in zip(said, (errors, warnings), strict=True):
        assert len(texts) == bool(expected)
        assert all(part in texts[0] for part in expected)


def program(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


NVIDIA_SMI = """\
case "$*" in
  *driver_version*) echo 550.54.15 ;;
  *compute_cap*) echo '8.0, NVIDIA A100-SXM4-40GB' ;;
  *) echo '| NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4  |' ;;
esac"""


@pytest.mark.parametrize(
    ("release", "smi", "expected"),
    [
        ("13.0", NVIDIA_SMI, "the NVIDIA driver is 550.54.15, but what CUDA 13.0 builds needs a driver >= 580"),
        ("11.8", NVIDIA_SMI, "the CUDA toolkit is 11.8, TensorFlow 2.21 is of CUDA 12.5"),
        ("12.4", NVIDIA_SMI.replace("8.0,", "6.1,"), "every GPU here is older than compute capability 7.5"),
        ("", NVIDIA_SMI, "nvcc --version does not state a version"),
        (None, NVIDIA_SMI, "--cuda needs nvcc"),
    ],
)
def test_setup_stops_before_it_makes_anything(tmp_path, release, smi, expected):
    if release is not None:
        program(tmp_path / "cuda/bin/nvcc", f"echo 'Cuda compilation tools, release {release}, V{release}.1'")
    program(tmp_path / "bin/nvidia-smi", smi)
    done = subprocess.run(
        [str(LAUNCH / "setup"), "--cuda"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "CUDA_HOME": str(tmp_path / "cuda"),
            "TFREC_PYTHON": sys.executable,
            "TFREC_VENV": str(tmp_path / "venv"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
    )
    assert done.returncode == 1
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "venv").exists()


def test_what_nvidia_smi_says_is_read(cuda, tmp_path, monkeypatch):
    program(tmp_path / "nvidia-smi", NVIDIA_SMI)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert cuda.driver_versions() == ((550, 54, 15), (12, 4))
    assert cuda.gpus() == [("NVIDIA A100-SXM4-40GB", (8, 0))]
    # As newer ones write it, and one that finds no driver.
    program(tmp_path / "nvidia-smi", NVIDIA_SMI.replace("CUDA Version: 12.4", "CUDA UMD Version: 13.1"))
    assert cuda.driver_versions() == ((550, 54, 15), (13, 1))
    program(tmp_path / "nvidia-smi", "echo 'NVIDIA-SMI has failed because it could not reach the driver'; exit 9")
    assert cuda.gpus() == []
    assert cuda.driver_versions()[1] is None


def test_what_is_said_of_tensorflows_wheels_is_so(cuda):
    import tensorflow as tf

    built = tf.sysconfig.get_build_info()
    if not built.get("is_cuda_build"):
        pytest.skip("needs a TensorFlow that is built for CUDA; this one is for processors only")
    assert cuda.version(built["cuda_version"])[:2] == cuda.TENSORFLOW
    assert "compute_90" in built["cuda_compute_capabilities"]
    assert "sm_90" not in built["cuda_compute_capabilities"]
