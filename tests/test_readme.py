"""The README's Python runs as it stands there."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_keras_workflow(tmp_path, monkeypatch):
    code = re.search(r"## In a Keras workflow\n\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code[1], str(README), "exec"), {})
    assert (tmp_path / "model.keras").is_file()
