"""Every example runs, from the folder of the repository, and opens as a notebook."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
CELLS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.read_text(encoding="utf-8").startswith("# %%"))
#: Example -> what it prints when it did what it is for.
SHOWN = {
    "als_beside_implicit.py": r"shape for all users: \(300, 5\)",
    "compress_table.py": r"The model's file has \.?\d",
    "daily_retraining.py": r"NDCG@10 0\.[1-9].*\n(.*\n)*15 June.*in use: 2026-06-15",
    "own_csv.py": r"Wrote [\d,]+ lines to .*lists\.parquet",
    "two_tower.py": r"test \{'hit_rate@10': 0\.[5-9]",
}


@pytest.mark.parametrize("name", CELLS)
def test_an_example_runs(name, tmp_path, monkeypatch, capfd):
    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    printed = capfd.readouterr().out
    assert re.search(SHOWN[name], printed), printed


def test_the_example_data_is_what_its_script_writes(tmp_path, monkeypatch):
    """Bit for bit, so that whoever changes the script also changes the pages that show its data."""
    made = runpy.run_path(str(EXAMPLES / "make_plays.py"))
    before = (EXAMPLES / "plays.csv").read_bytes()
    monkeypatch.setitem(made["main"].__globals__, "__file__", str(tmp_path / "make_plays.py"))
    made["main"]()
    assert (tmp_path / "plays.csv").read_bytes() == before


@pytest.mark.parametrize("name", CELLS)
def test_an_example_opens_as_a_notebook(name):
    jupytext = pytest.importorskip("jupytext")
    notebook = jupytext.read(EXAMPLES / name)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert kinds.count("code") >= 3
