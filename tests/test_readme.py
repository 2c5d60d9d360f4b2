"""The README's Python runs as it stands there."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
SECTION = re.search(r"## In Python\n(.*?)\n## Int8", README.read_text(encoding="utf-8"), re.DOTALL)[1]
EXAMPLES = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_python(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[number], str(README), "exec"), {})


def test_each_model_has_an_example():
    assert len(EXAMPLES) == 5
