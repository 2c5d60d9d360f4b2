"""Random calls of every native operation, in a process of their own: one that ends it is a failed test."""

import collections
import os
import subprocess
import sys

import pytest

from tests.ops import fuzz
from tfrec import ops

pytestmark = pytest.mark.skipif(
    ops.library() is None, reason="needs the native library: TFREC_BUILD_OPS=1 pip install -e ."
)


def run(seed, draws, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.fuzz", f"--seed={seed}", f"--draws={draws}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=3_000,
    )
    lines = done.stdout.splitlines()
    if done.returncode:
        number = lines[-1].split()[0] if lines else "0"
        pytest.fail(
            f"Exit status {done.returncode} in draw {lines[-1] if lines else 'none'}.\nAgain: {environment} python -m "
            f"tests.ops.fuzz --seed {seed} --first {number} --draws 1\n{done.stderr[-6_000:]}"
        )
    counts = collections.defaultdict(dict)
    for line in lines:
        if line.startswith("counted "):
            _, name, outcome, count = line.split()
            counts[name][outcome] = int(count)
    return counts


def test_every_operation_has_a_generator():
    assert set(fuzz.operations()) == set(fuzz.GENERATORS)


def check(counts, draws):
    """Draws that are all legal, or all refused, would test half of it."""
    assert sum(sum(c.values()) for c in counts.values()) == draws
    assert set(counts) == set(fuzz.GENERATORS)
    for name, outcomes in counts.items():
        assert min(outcomes.get("legal", 0), outcomes.get("refused", 0)) >= draws / len(counts) / 6, (name, outcomes)


def test_random_calls():
    check(run(0, 400), 400)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["baseline", "avx2", "avx512"])
def test_many_random_calls(kernels):
    """Each seed is drawn by one instruction set; one that the processor lacks is replaced by the next smaller."""
    draws = int(os.environ.get("TFREC_FUZZ_DRAWS", "10000"))
    check(run({"baseline": 1, "avx2": 2, "avx512": 3}[kernels], draws, TFREC_CPU_KERNELS=kernels), draws)
