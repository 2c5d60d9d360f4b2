"""The peak that `--plan` says, against what trainings used. Minutes: pytest -s -m slow tests/studies/test_plan.py"""

import json
import subprocess
import sys

import pytest

from tfrec.families import Sizes, family_of
from tfrec.fitting import resolved
from tfrec.train import parse

pytestmark = pytest.mark.slow

CATALOG = "--data.name synthetic-catalog --data.catalog.category-size 1000 --data.catalog.num-users {} " \
    "--data.catalog.num-items {} --data.catalog.events-per-user 50"  # fmt: skip
CASES = {
    "neumf": f"neumf {CATALOG.format(100_000, 1_000_000)} --training.negatives 1 --training.global-batch-size 65536",
    "neumf-dense-update": f"neumf {CATALOG.format(100_000, 500_000)} --training.negatives 1 "
    "--training.global-batch-size 65536 --training.embedding-update dense",
    "neumf-small": f"neumf {CATALOG.format(20_000, 20_000)} --training.negatives 1",
    "vae-cf": f"vae-cf {CATALOG.format(20_000, 20_000)}",
    "vae-cf-narrow": f"vae-cf {CATALOG.format(50_000, 40_000)} --model.hidden-dims --model.latent-dim 64",
    "ease": f"ease {CATALOG.format(20_000, 8_000)}",
    "als": "als --data.synthetic.num-users 100000 --data.synthetic.num-items 5000 --model.factors 512 "
    "--model.iterations 1 --model.factor-dtype float32",
}
#: Runs a training and prints its highest memory before the references (popularity, the generator's own model) are
#: ranked, which are no part of what is planned.
CODE = """
import json, sys, time
from tfrec import commands, train
recipe, config = train.parse(sys.argv[1:])
commands.quiet_tensorflow()
from tfrec import fitting
from tfrec.benchmark.memory import resident_bytes
from tfrec.tasks.measure import Measure
Measure.references = lambda *a, **k: {}
seen = {}
from tfrec.families.gradient import GradientTrainer
epochs = GradientTrainer._epochs
def trained(*a):
    epochs(*a)
    seen["peak"] = resident_bytes("VmHWM")
GradientTrainer._epochs = trained
finish = fitting._Training._finish
def finished(self, model, outcome, started):
    users, items = self.split.train.matrix.shape
    seen.setdefault("peak", resident_bytes("VmHWM"))
    seen["sizes"] = users, items, int(self.split.train.matrix.nnz)
    seen["events"] = len(self.split.events)
    return finish(self, model, outcome, started)
fitting._Training._finish = finished
fitting.run(recipe, config, time.perf_counter())
print("@@", json.dumps({**seen, "saving": resident_bytes("VmHWM")}))
"""


@pytest.mark.parametrize("case", CASES)
def test_a_plan_says_what_is_used(case, tmp_path):
    """To a fifth, of processes from 1 to 4 GB."""
    arguments = [*CASES[case].split(), "--output-dir", str(tmp_path / "run")]
    if not case.startswith(("als", "ease")):
        arguments += ["--training.epochs", "1"]
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    used = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("@@"))[2:])
    config = resolved(parse(arguments)[1])
    users, items, _ = used["sizes"]
    planned = family_of(config).memory(config, Sizes(users, items, used["events"], config.data.split), ranks=1)
    for name, plan, peak in (
        ("training", planned.peak, used["peak"]),
        ("saving", planned.peak_of_first, used["saving"]),
    ):
        print(f"\n{case:20} {name:10} planned {plan / 2**20:7,.0f} MiB, used {peak / 2**20:7,.0f}, {plan / peak:.2f}")
        assert plan == pytest.approx(peak, rel=0.2)
