"""What the README's accuracy table says, for one seed. Minutes: pytest -m slow"""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """precision -> NDCG@100 on the test users of MovieLens-1M, trained when asked for."""
    found = {}

    def measure(root, precision):
        if precision not in found:
            folder = tmp_path_factory.mktemp(precision) / "run"
            command = [sys.executable, "-m", "tfrec.train", "vae-cf-ml1m", "--data.dir", str(root), "--seed", "1"]
            command += ["--training.precision", precision, "--output-dir", str(folder)]
            subprocess.run(command, check=True)
            found[precision] = json.loads((folder / "metrics.json").read_text())["test"]["model"]["ndcg@100"]
        return found[precision]

    return measure


def test_vae_cf_on_movielens_1m(real_data, measured):
    assert measured(real_data("ml-1m"), "float32") >= 0.405


def test_mixed_float16_is_as_good(real_data, measured):
    root = real_data("ml-1m")
    assert measured(root, "mixed_float16") == pytest.approx(measured(root, "float32"), abs=0.003)


@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_ials_on_movielens_1m(real_data, tmp_path, kind):
    command = [sys.executable, "-m", "tfrec.train", "ials-ml1m", "--data.dir", str(real_data("ml-1m")), "--seed", "1"]
    subprocess.run([*command, "--model.factor-dtype", kind, "--output-dir", str(tmp_path / "run")], check=True)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["model"]["ndcg@100"] >= 0.430


def test_neumf_on_the_ncf_papers_files(real_data, tmp_path):
    """With the fixed 99 negatives, ties against the held-out item; then trained on validation too."""
    command = [sys.executable, "-m", "tfrec.train", "neumf-ncf-ml1m", "--data.dir", str(real_data("ncf-ml-1m"))]
    subprocess.run([*command, "--seed", "1", "--output-dir", str(tmp_path / "run")], check=True)
    test = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["model"]
    assert test["hit_rate@10"] >= 0.715
    assert test["ndcg@10"] >= 0.435
