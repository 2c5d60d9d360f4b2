"""The standalone checks of the CUDA kernels build with nvcc alone; on a GPU they run too."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CUSTOM_OPS = Path(__file__).parents[2] / "custom_ops"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("name", ["als_half_sweep", "tt_embedding"])
def test_check_gpu(name, tmp_path):
    gpu = Path("/dev/nvidiactl").exists()
    environment = {**os.environ, "TMPDIR": str(tmp_path)} | ({} if gpu else {"NVCC_FLAGS": "-arch=sm_80"})
    done = subprocess.run(
        ["sh", str(CUSTOM_OPS / name / "check_gpu.sh")], env=environment, capture_output=True, text=True
    )
    # 77: it was built, and found no GPU.
    assert done.returncode == (0 if gpu else 77), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_tensor_train_launches(tmp_path):
    """Few ids: no radix sort, no memset, nothing in local memory."""
    done = subprocess.run(
        ["sh", str(CUSTOM_OPS / "tt_embedding" / "count_launches.sh")],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "forward: 5 launches, 0 of them memsets" in done.stdout
    assert "backward and Adam's step: 11 launches, 0 of them memsets" in done.stdout
    assert "CUB" not in done.stdout
    kernels = [line.split() for line in done.stdout.splitlines() if line[:6].strip().isdigit() and " ids;" not in line]
    assert len(kernels) == 16
    assert all(stack == spills == "0" for _, _, _, _, stack, spills, *_ in kernels)


@pytest.mark.parametrize("name", ["als_half_sweep", "tt_embedding"])
def test_a_failed_compilation_ends_the_check(name, tmp_path):
    """A compiler that fails for one of the files, with an object and a program of an earlier run still there."""
    compiler = tmp_path / "nvcc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *check_gpu.cu*) exit 3;; esac\n')
    compiler.chmod(0o755)
    build = tmp_path / f"{name.split('_')[0]}_check_gpu"
    build.mkdir()
    (build / "check_gpu.o").touch()
    (build / "check_gpu").write_text("#!/bin/sh\necho PASS\n")
    (build / "check_gpu").chmod(0o755)
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", str(CUSTOM_OPS / name / "check_gpu.sh")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "PASS" not in done.stdout
